"""A threshold on presence after the fact."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from support.cubes import build_cube, three_dates
from support.worlds import GRID

from think2seg.cube import open_cube, read_traces
from think2seg.cube.threshold import above_presence
from think2seg.errors import CubeError

CORE = GRID.core_px
ROW = {"acquisition": "a", "revision": 0, "tile_y": 0, "tile_x": 0, "presence": 0.9}


def cube() -> xr.Dataset:
    """Two steps, everything present but the last column of pixels, which is not observed."""
    mask = np.ones((2, *GRID.shape), np.uint8)
    mask[..., -1] = 255
    chunks = (1, GRID.block_px, GRID.block_px)
    return xr.Dataset(
        {
            "mask": (("time", "y", "x"), da.from_array(mask, chunks=chunks), {"units": "1"}),
            "score": (("time", "y", "x"), da.from_array(np.where(mask == 1, 200, 255).astype(np.uint8), chunks=chunks)),
        },
        {"acquisition": ("time", ["a", "b"]), "revision": ("time", [0, 1])},
    )


def shown(min_presence: float, *rows: dict[str, object]) -> xr.Dataset:
    return above_presence(cube(), pd.DataFrame([ROW | row for row in rows]), GRID, min_presence)


def test_what_hardly_holds_anything_becomes_absent_and_nothing_else_changes() -> None:
    found = shown(0.5, {"presence": 0.4, "tile_x": CORE}, {"presence": 0.5, "tile_y": CORE}, {"presence": None})
    gone = np.zeros((2, *GRID.shape), np.bool_)
    gone[0, :CORE, CORE : 2 * CORE] = True
    before = cube()
    np.testing.assert_array_equal(found["mask"], np.where(gone, 0, before["mask"]))
    np.testing.assert_array_equal(found["score"], np.where(gone, 255, before["score"]))
    assert found["mask"].dtype == found["score"].dtype == np.uint8
    assert found["mask"].attrs == {"units": "1"}
    assert found["mask"].chunks == before["mask"].chunks


def test_not_observed_stays_not_observed() -> None:
    last = GRID.shape[1] - CORE
    found = shown(0.5, {"presence": 0.1, "tile_x": last, "acquisition": "b", "revision": 1})
    assert (found["mask"][1, :CORE, -1] == 255).all()
    assert (found["mask"][1, :CORE, last:-1] == 0).all()


def test_a_tile_that_was_asked_again_has_its_highest_presence() -> None:
    parts = [{"presence": p, "tile_y": y, "tile_x": x} for p, y, x in ((0.1, 0, 0), (0.7, 0, CORE // 2))]
    assert (shown(0.5, *parts)["mask"][0, :CORE, :CORE] == 1).all()
    assert (shown(0.8, *parts)["mask"][0, :CORE, :CORE] == 0).all()


def test_an_opened_cube_obeys_the_threshold(tmp_path: Path) -> None:
    uri = tmp_path / "cube.zarr"
    build_cube(uri, three_dates())
    whole, none = open_cube(uri), open_cube(uri, min_presence=1.0)
    told = read_traces(uri)["presence"]
    assert (whole["mask"] == 1).any()
    assert ((told < 1).any()) == bool((whole["mask"] != none["mask"]).any())
    assert ((whole["mask"] == 255) == (none["mask"] == 255)).all()
    with pytest.raises(CubeError, match="min_presence"):
        open_cube(uri, min_presence=1.5)
