"""Reports of runs: pictures come from the archive, as the models saw them."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.cubes import GRID, build_cube, disc, three_dates
from support.rasters import acquisition_of, archive_of, scene_of, write_raster

from think2seg.publish import archive_quicklook, quicklook_png, write_run_report
from think2seg.publish.runs import outlined
from think2seg.stac.scenes import Acquisition


@pytest.fixture
def acquisition(tmp_path: Path) -> Acquisition:
    """Left half red from one scene, right half blue from another; a strip below stays empty."""
    height, width = GRID.shape
    scenes = []
    for name, band, columns in (("west", 0, slice(0, width // 2)), ("east", 2, slice(width // 2, width))):
        values = np.zeros((3, height, width), np.uint8)
        values[:, : height - 10, columns] = 1
        values[band, : height - 10, columns] = 200
        path = write_raster(tmp_path / f"{name}.tif", values, GRID.transform, GRID.crs)
        scenes.append(scene_of({"image": path}, path, name=name))
    return acquisition_of(scenes)


def test_quicklook_is_the_mosaic_on_the_grid(acquisition: Acquisition) -> None:
    picture = archive_quicklook({"one": acquisition}, GRID, archive_of())("one")
    assert picture is not None
    assert picture.shape == (*GRID.shape, 3)
    assert picture[50, 20].tolist() == [200, 1, 1]
    assert picture[50, -20].tolist() == [1, 1, 200]
    assert picture[-5].max() == 0


def test_unknown_or_unreadable_acquisition_has_no_picture(acquisition: Acquisition, tmp_path: Path) -> None:
    assert archive_quicklook({}, GRID, archive_of())("one") is None
    for path in tmp_path.glob("*.tif"):
        path.write_bytes(b"not a picture")
    assert archive_quicklook({"one": acquisition}, GRID, archive_of())("one") is None


def test_outline_runs_around_the_mask() -> None:
    mask = disc(GRID, 60, 60, 20)
    drawn = outlined(np.zeros((*GRID.shape, 3), np.uint8), mask)
    assert not drawn[mask].any()
    assert drawn[60, 81].any()


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Any, Any, Any]:
    """What the flow holds after a run: the planned cube, the run, its summary."""
    lines = [replace(line, acquisition=None) for line in build_cube(tmp_path / "c.zarr", three_dates())]
    cube = SimpleNamespace(
        uri=str(tmp_path / "c.zarr"), zone=SimpleNamespace(grid=GRID), plan=SimpleNamespace(lines=tuple(lines[:2]))
    )
    found = SimpleNamespace(archive=archive_of())
    run = SimpleNamespace(plan=SimpleNamespace(found=found), monitor=SimpleNamespace(monitor="lake"))
    figures = {"seconds": {"total": 3.0, "read": 1.0}, "tiles": {"done": 24}, "square_km": 0.5, "monitor": "lake"}
    return cube, run, SimpleNamespace(to_dict=lambda: figures)


def test_report_of_a_run_bills_the_run(finished: tuple[Any, Any, Any], tmp_path: Path) -> None:
    cube, run, summary = finished
    text = write_run_report(cube, run, summary, tmp_path / "r.html").read_text()
    assert "What the run cost" in text
    assert "8 tiles/s" in text
    assert "think2seg run conf/monitors/lake.yaml" in text


def test_small_picture_shows_the_newest_mask(finished: tuple[Any, Any, Any]) -> None:
    cube, run, _ = finished
    kind, _, data = quicklook_png(cube, run).partition(",")
    assert kind == "data:image/webp;base64"
    image = np.asarray(Image.open(BytesIO(b64decode(data))))
    assert image.shape[:2] == (GRID.shape[0] - 16, GRID.shape[1] - 16)
    assert (image[..., 2].astype(int) - image[..., 0] > 30).sum() > 100
