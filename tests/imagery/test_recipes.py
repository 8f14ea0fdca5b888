from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from support.rasters import acquisition_of, archive_of, scene_of, write_raster

from think2seg.config import Archive, QualityBits, QualityClasses
from think2seg.grid import Block, make_grid
from think2seg.imagery import BLOCKING, Quality, estimate_bytes, read_block, resampling_note
from think2seg.imagery.quality import quality_of
from think2seg.imagery.recipe import to_rgb
from think2seg.stac.scenes import Scene

CRS = "EPSG:32614"
LEFT, TOP, SIDE = 486000.0, 5209600.0, 128
GRID = make_grid(shapely.box(-99.184, 47.026, -99.168, 47.036), CRS, 10.0, 64, 32, 8)
REGION = shapely.box(*GRID.bbox_wgs84)
RECIPE = {"bands": ["red", "green", "blue"], "limits": [0.0, 0.3]}


def sentinel2(**fields: object) -> Archive:
    document: dict[str, object] = {
        "bands": {name: {"asset": name} for name in ("red", "green", "blue")}
        | {"scl": {"asset": "scl", "role": "category", "dtype": "uint8", "nodata": 0}},
        "dtype": "uint16",
        "resolution": 10.0,
        "scaling": {"kind": "sentinel2-baseline"},
        "recipe": RECIPE,
        "quality": {
            "kind": "classes",
            "band": "scl",
            "flags": {"nodata": [0], "saturated": [1], "shadow": [3], "cloud": [8, 9, 10], "snow": [11]},
        },
    }
    return archive_of(**(document | fields))


def granule(folder: Path, name: str, numbers: np.ndarray, scl: np.ndarray, **fields: object) -> Scene:
    """A granule with three equal bands; its SCL may be coarser."""
    folder = folder / name
    folder.mkdir()
    files = {}
    for band in ("red", "green", "blue"):
        transform = Affine(10, 0, LEFT, 0, -10, TOP)
        files[band] = write_raster(folder / f"{band}.tif", numbers[np.newaxis].astype(np.uint16), transform, CRS)
    step = 10 * numbers.shape[0] / scl.shape[0]
    files["scl"] = write_raster(
        folder / "scl.tif", scl[np.newaxis].astype(np.uint8), Affine(step, 0, LEFT, 0, -step, TOP), CRS
    )
    return scene_of(files, files["red"], name=name, **fields)


def test_scenes_of_two_baselines_mosaic_seamlessly(tmp_path: Path) -> None:
    numbers = np.random.default_rng(1).integers(200, 3000, (SIDE, SIDE))
    clear = np.full((SIDE, SIDE), 4)
    west, east = numbers.copy(), numbers + 1000
    west[:, SIDE // 2 :] = 0
    old = granule(tmp_path, "old", west, clear, baseline="03.01", when=datetime(2022, 3, 1, tzinfo=UTC))
    new = granule(tmp_path, "new", east, clear, baseline="04.00", when=datetime(2022, 3, 1, tzinfo=UTC))
    imagery = read_block(acquisition_of([old, new]), Block(0, 0), GRID, sentinel2(), REGION)
    reference = granule(tmp_path, "reference", numbers, clear, baseline="02.14")
    expected = read_block(acquisition_of([reference]), Block(0, 0), GRID, sentinel2(), REGION)
    assert (imagery.rgb == expected.rgb).all()
    assert (imagery.quality == expected.quality).all()
    assert (imagery.quality & Quality.NODATA == 0).any()


@pytest.mark.parametrize(
    ("baseline", "day", "properties", "offset"),
    [
        ("03.01", datetime(2022, 1, 24, tzinfo=UTC), {}, False),
        ("04.00", datetime(2022, 1, 25, tzinfo=UTC), {}, True),
        ("05.00", datetime(2018, 7, 1, tzinfo=UTC), {}, True),
        ("02.14", datetime(2023, 7, 1, tzinfo=UTC), {}, False),
        ("05.09", datetime(2023, 7, 1, tzinfo=UTC), {"earthsearch:boa_offset_applied": True}, False),
        ("05.09", datetime(2023, 7, 1, tzinfo=UTC), {"earthsearch:boa_offset_applied": False}, True),
    ],
)
def test_the_offset_of_baseline_4_is_removed_once(
    tmp_path: Path, baseline: str, day: datetime, properties: dict[str, bool], offset: bool
) -> None:
    archive = sentinel2(scaling={"kind": "sentinel2-baseline", "applied_property": "earthsearch:boa_offset_applied"})
    numbers = np.full((SIDE, SIDE), 1500 + 1000 * offset)
    scene = granule(
        tmp_path, "one", numbers, np.full((SIDE, SIDE), 4), baseline=baseline, when=day, properties=properties
    )
    imagery = read_block(acquisition_of([scene]), Block(0, 0), GRID, archive, REGION)
    seen = imagery.quality & Quality.NODATA == 0
    assert set(np.unique(imagery.rgb[seen])) == {round(0.15 / 0.3 * 255)}


def test_scale_and_offset_of_the_item_count(tmp_path: Path) -> None:
    scene = granule(
        tmp_path,
        "one",
        np.full((SIDE, SIDE), 20000),
        np.full((SIDE, SIDE), 4),
        assets={name: {"raster:bands": [{"scale": 0.0000275, "offset": -0.2}]} for name in ("red", "green", "blue")},
    )
    archive = sentinel2(scaling={"kind": "metadata", "scale": 1.0, "offset": 0.0}, recipe=RECIPE | {"limits": [0, 0.6]})
    imagery = read_block(acquisition_of([scene]), Block(0, 0), GRID, archive, REGION)
    seen = imagery.quality & Quality.NODATA == 0
    assert set(np.unique(imagery.rgb[seen])) == {round((20000 * 0.0000275 - 0.2) / 0.6 * 255)}


def test_coarser_classes_fall_on_the_pixels_they_cover(tmp_path: Path) -> None:
    scl = np.random.default_rng(2).choice([0, 1, 3, 4, 8, 9, 10, 11], (SIDE // 2, SIDE // 2))
    scene = granule(tmp_path, "one", np.full((SIDE, SIDE), 1500), scl)
    imagery = read_block(acquisition_of([scene]), Block(0, 0), GRID, sentinel2(), REGION)
    geobox = GRID.block_geobox(Block(0, 0))
    rows = ((TOP - geobox.transform.f) / 10 + np.arange(geobox.shape.y)).astype(int)
    cols = ((geobox.transform.c - LEFT) / 10 + np.arange(geobox.shape.x)).astype(int)
    inside = (rows[:, None] >= 0) & (rows[:, None] < SIDE) & (cols >= 0) & (cols < SIDE)
    classes = np.repeat(np.repeat(scl, 2, axis=0), 2, axis=1)[
        np.clip(rows, 0, SIDE - 1)[:, None], np.clip(cols, 0, SIDE - 1)
    ]
    for codes, flag in (([8, 9, 10], "CLOUD"), ([3], "SHADOW"), ([11], "SNOW"), ([1], "SATURATED")):
        raised = imagery.quality & Quality[flag] != 0
        assert (raised == (np.isin(classes, codes) & inside)).all()
    assert ((imagery.quality & Quality.NODATA != 0) == ((classes == 0) | ~inside)).all()


def test_bit_flags() -> None:
    rule = QualityBits(band="qa", flags={"nodata": (0,), "cloud": (1, 3), "shadow": (4,), "snow": (5,)})
    values = np.array([[0b1, 0b10, 0b1000, 0b10000, 0b100000, 0b1010100, np.nan]], dtype=np.float32)
    q = Quality
    expected = [q.NODATA, q.CLOUD, q.CLOUD, q.SHADOW, q.SNOW, q.SHADOW, q.NODATA]
    assert quality_of(values, rule).tolist() == [expected]
    assert quality_of(values, rule).dtype == np.uint16


def test_classes_without_data_block() -> None:
    rule = QualityClasses(band="scl", flags={"cloud": (0, 9)})
    assert quality_of(np.array([[np.nan, 0, 9, 4]], np.float32), rule).tolist() == [
        [Quality.NODATA, Quality.CLOUD, Quality.CLOUD, 0]
    ]


def test_blocking_bits() -> None:
    assert not BLOCKING & (Quality.SNOW | Quality.SATURATED)
    assert BLOCKING | Quality.SNOW | Quality.SATURATED == (1 << 12) - 1


def test_stretch_is_fixed_and_keeps_8_bit_numbers() -> None:
    numbers = np.arange(256, dtype=np.float32)[np.newaxis]
    rgb = to_rgb([numbers] * 3, (0, 255))
    assert (rgb[0, :, 0] == np.arange(256)).all()
    assert to_rgb([np.array([[-1, 0.15, 0.3, 2, np.nan]], np.float32)] * 3, (0, 0.3))[0, :, 0].tolist() == [
        0,
        128,
        255,
        255,
        0,
    ]


def test_bytes_of_a_block(tmp_path: Path) -> None:
    scene = granule(tmp_path, "one", np.full((SIDE, SIDE), 1500), np.full((SIDE, SIDE), 4))
    assert estimate_bytes(acquisition_of([scene]), 3, GRID, sentinel2()) == 3 * 80 * 80 * (3 * 2 + 1)


def test_note_says_what_is_moved_and_how(tmp_path: Path) -> None:
    scene = granule(tmp_path, "one", np.full((SIDE, SIDE), 1500), np.full((SIDE, SIDE), 4))
    acquisition = acquisition_of([scene])
    assert resampling_note(acquisition, GRID, sentinel2()) == ""
    utm13 = make_grid(REGION, "EPSG:32613", 10.0, 64, 32, 8)
    note = resampling_note(acquisition, utm13, sentinel2())
    assert note == "resampled (from EPSG:32614): reflectance bilinear, categories nearest"
    coarse = make_grid(REGION, CRS, 20.0, 64, 32, 8)
    assert "from 10 per pixel" in resampling_note(acquisition, coarse, sentinel2())
    moved = scene_of(
        {}, tmp_path / "one" / "red.tif", properties={"proj:transform": [10, 0, LEFT + 2, 0, -10, TOP - 3]}
    )
    note = resampling_note(acquisition_of([scene, moved]), GRID, sentinel2(quality=None))
    assert note == "1 of 2 scenes resampled (moved by -0.20, -0.30 px): reflectance bilinear"


@pytest.mark.parametrize(
    "transform", [[5.0, 0, 1], [5.0, 0, None, 0, -5, 1], [5.0, 0, "x", 0, -5, 1], [1e999] * 6, 5, {}]
)
def test_a_grid_that_makes_no_sense_is_as_if_not_told(tmp_path: Path, transform: object) -> None:
    granule(tmp_path, "one", np.full((SIDE, SIDE), 1500), np.full((SIDE, SIDE), 4))
    scene = scene_of({}, tmp_path / "one" / "red.tif", properties={"proj:transform": transform})
    note = resampling_note(acquisition_of([scene]), GRID, sentinel2(quality=None))
    assert note == "resampled (grid not in its metadata): reflectance bilinear"
