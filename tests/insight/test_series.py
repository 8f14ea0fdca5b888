from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image
from pyproj import Geod
from support.cubes import GRID, PROMPTER, Step, build_cube, clear, disc, spec_of, three_dates

from think2seg.crs import to_wgs84
from think2seg.cube import open_or_create
from think2seg.errors import CubeError
from think2seg.grid import Block, Grid
from think2seg.imagery import Quality
from think2seg.insight import series

PIXEL_M2 = 25.0


def test_areas_are_those_of_the_pixels(lake: Path) -> None:
    first, second, third = series(lake).points
    inside = clear(GRID, 8) == 0
    assert first.area_m2 == PIXEL_M2 * np.count_nonzero(disc(GRID, 64, 80, 20))
    assert first.region_m2 == PIXEL_M2 * np.count_nonzero(inside)
    assert first.observed_fraction == 1
    seen = inside & ~disc(GRID, 40, 150, 30)
    assert second.area_m2 == PIXEL_M2 * np.count_nonzero(disc(GRID, 64, 80, 30) & seen)
    assert second.observed_m2 == PIXEL_M2 * np.count_nonzero(seen)
    assert (third.revision, third.tiles) == (1, 20)


def test_band_spans_all_absent_to_all_present(lake: Path) -> None:
    for point in series(lake).points:
        assert point.area_low_m2 == point.area_m2
        assert point.area_high_m2 - point.area_low_m2 == pytest.approx(point.region_m2 - point.observed_m2)


def test_points_come_in_time_order_with_the_weights_that_answered(lake: Path) -> None:
    frame = series(lake).to_frame()
    assert frame["time"].is_monotonic_increasing
    assert frame["acquisition"].tolist() == ["20090818-aircraft", "20140720-aircraft", "20200831-aircraft"]
    assert set(frame["prompter"]) == {PROMPTER}


def test_region_narrows_what_is_measured(lake: Path) -> None:
    west, south, east, north = GRID.bbox_wgs84
    half = series(lake, shapely.box(west, south, (west + east) / 2, north)).points[0]
    whole = series(lake).points[0]
    assert half.region_m2 == pytest.approx(whole.region_m2 / 2, rel=0.05)
    assert 0 < half.area_m2 < whole.area_m2


def test_the_region_is_the_whole_one_where_each_date_covers_a_part_of_it(tmp_path: Path) -> None:
    """Two swaths, of one and of two columns of blocks."""
    region = to_wgs84(shapely.box(*GRID.geobox.extent.boundingbox).buffer(-8 * GRID.resolution), GRID.crs)
    inside = np.block([[GRID.region_mask(region, Block(row, col)) for col in range(3)] for row in range(2)])
    quality = np.where(inside, 0, int(Quality.OUTSIDE)).astype(np.uint16)
    everywhere = Step(time=datetime(2014, 7, 20, tzinfo=UTC), present=inside, quality=quality)
    west = replace(everywhere, blocks=[Block(0, 0), Block(1, 0)])
    east = replace(
        everywhere, time=datetime(2020, 8, 31, tzinfo=UTC), blocks=[Block(r, c) for r in (0, 1) for c in (1, 2)]
    )
    build_cube(tmp_path / "c.zarr", [west, east], region=region.wkt)
    first, second = series(tmp_path / "c.zarr").points
    assert first.region_m2 == second.region_m2 == PIXEL_M2 * np.count_nonzero(inside)
    assert first.observed_m2 == first.area_m2 == PIXEL_M2 * np.count_nonzero(inside[:, :64])
    assert first.observed_fraction + second.observed_fraction == pytest.approx(1)
    assert first.area_high_m2 == first.region_m2
    left, bottom, right, top = region.bounds
    first, _ = series(tmp_path / "c.zarr", shapely.box(left, bottom, right, (bottom + top) / 2)).points
    assert first.region_m2 == pytest.approx(second.region_m2 / 2, rel=0.05)
    assert first.observed_fraction == pytest.approx(1 / 3, rel=0.1)


def test_csv_and_json_hold_the_same_figures(lake: Path, tmp_path: Path) -> None:
    values = series(lake)
    values.to_csv(tmp_path / "area.csv")
    table = pd.read_csv(tmp_path / "area.csv")
    plain = json.loads(values.to_json(tmp_path / "area.json"))
    assert plain == json.loads((tmp_path / "area.json").read_text())
    assert table["area_m2"].tolist() == pytest.approx([row["area_m2"] for row in plain["series"]], rel=1e-5)
    assert table["time"][0] == "2009-08-18T17:00:00Z"
    assert plain["region_m2"] == values.points[0].region_m2


def test_plot_is_a_picture(lake: Path, tmp_path: Path) -> None:
    series(lake).plot(tmp_path / "area.png")
    assert Image.open(tmp_path / "area.png").size[0] > 800


def test_question_with_dollar_signs_can_be_plotted(tmp_path: Path) -> None:
    build_cube(tmp_path / "c.zarr", three_dates()[:1], spec_of(question=r"$\frac{ & 5 $"))
    series(tmp_path / "c.zarr").plot(tmp_path / "area.png")


def test_table_for_people_names_every_date(lake: Path) -> None:
    text = series(lake).render()
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["2009-08-18", "2014-07-20", "2020-08-31"]


def test_pixels_of_a_geographic_grid_shrink_towards_the_pole(tmp_path: Path) -> None:
    step_deg = 0.001
    grid = Grid(
        crs="EPSG:4326", resolution=step_deg, block_px=32, core_px=16, halo_px=4, row0=-1876, col0=300, rows=1, cols=1
    )
    everything = Step(time=datetime(2020, 1, 1, tzinfo=UTC), present=np.ones(grid.shape, bool), quality=clear(grid))
    build_cube(tmp_path / "c.zarr", [everything], spec_of(grid))
    west, south, east, north = grid.bbox_wgs84
    true_m2, _ = Geod(ellps="WGS84").geometry_area_perimeter(
        shapely.segmentize(shapely.box(west, south, east, north), 1e-3)
    )
    assert series(tmp_path / "c.zarr").points[0].area_m2 == pytest.approx(abs(true_m2), rel=1e-5)


def test_cube_without_steps_has_an_empty_series(tmp_path: Path) -> None:
    open_or_create(tmp_path / "c.zarr", spec_of(), prompter="a", segmenter="b")
    values = series(tmp_path / "c.zarr")
    assert values.points == ()
    assert values.to_frame().empty
    values.plot(tmp_path / "area.png")


def test_no_cube_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CubeError, match="no cube"):
        series(tmp_path / "nothing.zarr")
