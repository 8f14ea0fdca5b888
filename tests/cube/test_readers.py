"""Who reads while a run writes sees the cube before or after a publication, never between."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from support.archive_run import BLOCKS, acquisition, moment, run, scene

from think2seg.cube import open_cube, read_traces

DAYS = [acquisition(f"2014-07-{day:02d}") for day in (3, 9, 21)]


def changed(day: Any) -> Any:
    patch = scene(f"patch-{day.id}", moment(f"{day.time:%Y-%m-%d}"), BLOCKS[:1])
    return replace(day, scenes=(*day.scenes, patch))


def test_readers_never_see_half_a_publication(tmp_path: Path) -> None:
    uri = tmp_path / "cube.zarr"
    run(uri, DAYS[:1])
    seen: list[tuple[xr.Dataset, xr.Dataset]] = []
    late = acquisition("2009-08-18")
    with ThreadPoolExecutor(1) as writer:
        work = writer.submit(
            lambda: [run(uri, days) for days in (DAYS, [*DAYS, late], [changed(DAYS[0]), *DAYS[1:], late])]
        )
        while not work.done() or len(seen) < 3:
            seen.append((xr.open_zarr(uri).load(), open_cube(uri).load()))
        work.result()
    final, latest = xr.open_zarr(uri).load(), open_cube(uri).load()
    assert final.sizes["time"] == 5
    assert latest.sizes["time"] == 4
    for plain, cube in seen:
        xr.testing.assert_equal(plain, final.isel(time=slice(0, plain.sizes["time"])))
        assert not np.isnat(plain["time"].values).any()
        assert len(set(cube["acquisition"].values)) == cube.sizes["time"]
        for name, revision in zip(cube["acquisition"].values, cube["revision"].values, strict=True):
            mask = cube["mask"].isel(time=list(cube["acquisition"].values).index(name))
            step = int(np.flatnonzero((final["revision"] == revision) & (_names(final) == name))[0])
            assert np.array_equal(mask, final["mask"][step])
    assert len(read_traces(uri)) == 4 * len(BLOCKS)


def _names(dataset: xr.Dataset) -> Any:
    return np.asarray(dataset["acquisition"].attrs["names"])[dataset["acquisition"].values]
