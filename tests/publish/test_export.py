"""A cube exported: files and STAC say what the cube says, and a second export writes only what is new."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr
from pystac.extensions.classification import ClassificationExtension
from support.cubes import GRID, Step, build_cube, clear, disc, spec_of, three_dates

import think2seg.publish.export as exporting
from think2seg import open_cube
from think2seg.errors import CubeError
from think2seg.imagery import Quality
from think2seg.publish import export_cube

NAMES = ("20090818-aircraft", "20140720-aircraft", "20200831-aircraft")
NEWER = Step(time=datetime(2021, 7, 1, 17, tzinfo=UTC), present=disc(GRID, 64, 80, 10), quality=clear(GRID, 8))


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    build_cube(tmp_path / "lakes.zarr", three_dates(), spec_of(attribution="Imagery: someone."))
    return tmp_path / "lakes.zarr"


def test_files_hold_what_the_cube_shows(cube: Path, tmp_path: Path) -> None:
    done = export_cube(cube, tmp_path / "out")
    assert (done.written, done.kept) == (NAMES, ())
    shown = open_cube(cube)
    for step, name in enumerate(NAMES):
        for array in exporting.ASSETS:
            with rasterio.open(tmp_path / "out" / name / f"{array}.tif") as file:
                assert (file.read(1) == shown[array][step].values).all()
                assert (file.crs.to_string(), file.transform) == (GRID.crs, GRID.transform)
                assert file.nodata == (None if array == "quality" else 255)
                assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    with rasterio.open(tmp_path / "out" / NAMES[0] / "mask.tif") as file:
        assert file.colormap(1)[1] == (31, 119, 180, 255)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*NAMES, "collection.json"}


def test_items_say_what_they_are_in_the_words_of_stac(cube: Path, tmp_path: Path) -> None:
    collection = pystac.Collection.from_file(str(export_cube(cube, tmp_path / "out").collection))
    items = list(collection.get_items())
    assert (collection.id, collection.title) == ("water-bodies", "water bodies")
    assert [item.id for item in items] == list(NAMES)
    assert collection.extent.temporal.intervals == [[items[0].datetime, items[-1].datetime]]
    mended = items[-1]
    assert mended.properties["version"] == "1"
    assert mended.properties["think2seg:question"] == "water bodies"
    assert mended.get_parent() is collection
    classes = ClassificationExtension.ext(mended.assets["mask"]).classes
    assert classes is not None
    assert {one.value: one.name for one in classes} == {0: "absent", 1: "present", 255: "not_observed"}
    fields = ClassificationExtension.ext(mended.assets["quality"]).bitfields
    assert fields is not None
    assert {1 << one.offset: one.name for one in fields} == {int(flag): str(flag.name).lower() for flag in Quality}
    assert items[1].properties["think2seg:observed_fraction"] == pytest.approx(
        float(open_cube(cube).observed_fraction[1]), abs=1e-5
    )
    for path in [tmp_path / "out" / "collection.json", *(tmp_path / "out").glob("*/*.json")]:
        document = json.loads(path.read_text())
        assert pystac.validation.validate_dict(document, extensions=[])
        assert all(link["href"].startswith("./") or link["href"].startswith("../") for link in document["links"])
        assert str(tmp_path) not in path.read_text()


def test_a_second_export_writes_what_is_new_and_what_was_revised(cube: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = export_cube(cube, out, until=date(2014, 12, 31))
    assert first.written == NAMES[:2]
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*.tif")}
    answered_again = replace(three_dates()[1], revision=1, present=disc(GRID, 64, 80, 5))
    build_cube(cube, [answered_again, NEWER], spec_of(attribution="Imagery: someone."), first=4)
    second = export_cube(cube, out)
    assert second.written == (*NAMES[1:], "20210701-aircraft")
    assert second.kept == NAMES[:1]
    assert all(path.stat().st_mtime_ns == before[path] for path in before if NAMES[0] in str(path))
    with rasterio.open(out / NAMES[1] / "mask.tif") as file:
        assert (file.read(1) == open_cube(cube).mask[1].values).all()
    linked = pystac.Collection.from_file(str(out / "collection.json")).get_items()
    assert [item.id for item in linked] == [*NAMES, "20210701-aircraft"]
    assert export_cube(cube, out).written == ()


def test_whoever_dies_leaves_whole_acquisitions(cube: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, real = tmp_path / "out", exporting._write_cog

    def dying(path: Path, *rest: object) -> None:
        real(path, *rest)  # type: ignore[arg-type]
        if (out / NAMES[0]).exists() and path.name == "score.tif":
            raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "_write_cog", dying)
    with pytest.raises(KeyboardInterrupt):
        export_cube(cube, out)
    assert {path.name for path in out.iterdir()} == {NAMES[0], ".draft"}
    monkeypatch.undo()
    done = export_cube(cube, out)
    assert (done.written, done.kept) == (NAMES[1:], NAMES[:1])
    assert not (out / ".draft").exists()


def test_another_cube_and_empty_intervals_are_refused(cube: Path, tmp_path: Path) -> None:
    export_cube(cube, tmp_path / "out")
    other = tmp_path / "other.zarr"
    build_cube(other, three_dates(), spec_of(question="forest"))
    with pytest.raises(CubeError, match="was not exported from this cube"):
        export_cube(other, tmp_path / "out")
    with pytest.raises(CubeError, match="no acquisition from 2030-01-01 to its last"):
        export_cube(cube, tmp_path / "out", since=date(2030, 1, 1))


def test_rioxarray_reads_it_as_a_map(cube: Path, tmp_path: Path) -> None:
    pytest.importorskip("rioxarray")
    export_cube(cube, tmp_path / "out")
    mask = xr.open_dataset(tmp_path / "out" / NAMES[0] / "mask.tif", engine="rasterio", mask_and_scale=False)
    assert np.count_nonzero(mask.band_data.values == 1) == np.count_nonzero(open_cube(cube).mask[0].values == 1)
