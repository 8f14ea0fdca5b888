from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod
from support.cubes import GRID, PROMPTER, Step, build_cube, clear, disc

from think2seg.errors import CubeError
from think2seg.imagery import Quality
from think2seg.insight import Events, events, explain
from think2seg.insight.events import changes

PIXEL_M2 = 25.0
YEARS = [datetime(year, 7, 20, 17, tzinfo=UTC) for year in range(2009, 2015)]
CLOUDED = disc(GRID, 40, 150, 20)
"""Where the fourth date is cloudy."""
LASTING, FLICKER, HIDDEN = disc(GRID, 64, 64, 12), disc(GRID, 100, 30, 6), disc(GRID, 40, 150, 8)
DRIED = disc(GRID, 100, 150, 10)


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six dates: from the third on a lake over four blocks, and one behind a cloud; one for a year; one that dries."""
    present = [DRIED, DRIED, DRIED | LASTING | FLICKER | HIDDEN, LASTING, LASTING | HIDDEN, LASTING | HIDDEN]
    clouded = clear(GRID, 8)
    clouded[CLOUDED] = int(Quality.CLOUD)
    steps = [Step(time=time, present=its, quality=clear(GRID, 8)) for time, its in zip(YEARS, present, strict=True)]
    steps[3] = replace(steps[3], quality=clouded)
    uri = tmp_path_factory.mktemp("events") / "lakes.zarr"
    build_cube(uri, steps)
    return uri


def found(them: Events) -> dict[tuple[str, int, int, int], float]:
    """Kind and years of each event: its area in pixels."""
    return {
        (row.kind, row.after.year, row.first_seen.year, row.confirmed.year): row.area_m2 / PIXEL_M2
        for row in them.frame.itertuples()
    }


def pixels(shape: npt.NDArray[np.bool_]) -> float:
    return float(np.count_nonzero(shape))


def test_what_lasts_is_an_event_and_what_flickers_is_none(cube: Path) -> None:
    assert found(events(cube)) == {
        ("appeared", 2010, 2011, 2012): pixels(LASTING),
        ("appeared", 2010, 2011, 2013): pixels(HIDDEN),
        ("vanished", 2011, 2012, 2013): pixels(DRIED),
    }


def test_one_observation_is_enough_where_that_is_asked_for(cube: Path) -> None:
    sums = events(cube, confirm=1).frame.groupby("kind")["area_m2"].sum() / PIXEL_M2
    assert sums["appeared"] == pixels(LASTING) + pixels(HIDDEN) + pixels(FLICKER)
    assert sums["vanished"] == pixels(DRIED) + pixels(FLICKER)
    assert found(events(cube, confirm=4)) == {}
    assert events(cube, confirm=4).render() == "No change that 4 observations in a row agree on."


def test_outlines_cover_the_pixels_and_hold_the_point_to_explain(cube: Path) -> None:
    frame = events(cube).frame
    assert frame.crs == "EPSG:4326"
    for row in frame.itertuples():
        area_m2, _ = Geod(ellps="WGS84").geometry_area_perimeter(row.geometry)
        assert abs(area_m2) == pytest.approx(row.area_m2, rel=0.01)
        assert shapely.contains_xy(row.geometry, row.lon, row.lat)
    lake = frame.iloc[frame["area_m2"].argmax()]
    told = explain(cube, time=lake["first_seen"].isoformat(), lon=lake["lon"], lat=lake["lat"])
    assert told.value == "present"


def test_small_patches_and_other_places_are_left_out(cube: Path) -> None:
    assert len(events(cube, min_area_m2=PIXEL_M2 * pixels(HIDDEN) + 1).frame) == 2
    west, south, east, north = GRID.bbox_wgs84
    left = events(cube, region=shapely.box(west, south, (west + east) / 2, north))
    assert found(left) == {("appeared", 2010, 2011, 2012): pixels(LASTING)}
    with pytest.raises(CubeError, match="outside the cube"):
        events(cube, region=shapely.box(west - 1, south, west - 0.5, north))


def test_a_change_that_came_with_other_weights_says_so(tmp_path: Path) -> None:
    steps = [Step(time=time, present=its, quality=clear(GRID)) for time, its in zip(
        YEARS, [DRIED, DRIED, DRIED | LASTING, LASTING, LASTING, LASTING], strict=True)]  # fmt: skip
    build_cube(tmp_path / "c.zarr", steps, prompters=[PROMPTER] * 3 + [PROMPTER[::-1]] * 3)
    them = events(tmp_path / "c.zarr")
    assert dict(zip(them.frame["kind"], them.frame["model_changed"], strict=True)) == {
        "appeared": False,
        "vanished": True,
    }
    assert "may be the model" in them.render()


@pytest.mark.parametrize("ending", ["parquet", "gpkg", "geojson", "fgb"])
def test_files_hold_what_was_found(cube: Path, tmp_path: Path, ending: str) -> None:
    them, path = events(cube), tmp_path / f"events.{ending}"
    them.to_file(path)
    read = (gpd.read_parquet if ending == "parquet" else gpd.read_file)(path)
    assert sorted(read["area_m2"]) == sorted(them.frame["area_m2"])
    assert shapely.union_all(read.geometry).equals_exact(shapely.union_all(them.frame.geometry), 1e-6)


def test_what_makes_no_sense_is_refused(cube: Path, tmp_path: Path) -> None:
    with pytest.raises(CubeError, match="confirm=0"):
        events(cube, confirm=0)
    with pytest.raises(CubeError, match=r"\.parquet, \.gpkg"):
        events(cube).to_file(tmp_path / "events.shp")


def test_an_empty_list_can_be_written(cube: Path, tmp_path: Path) -> None:
    none = events(cube, min_area_m2=1e9)
    assert none.to_dict()["events"] == []
    none.to_file(tmp_path / "none.parquet")
    none.to_file(tmp_path / "none.gpkg")
    assert len(gpd.read_parquet(tmp_path / "none.parquet")) == len(gpd.read_file(tmp_path / "none.gpkg")) == 0


def by_hand(values: list[int], confirm: int) -> list[tuple[bool, int, int, int]]:
    """(present, after, first seen, confirmed) of one pixel, from its list of observations."""
    seen = [(step, value) for step, value in enumerate(values) if value != 255]
    state, told = None, []
    for place in range(confirm - 1, len(seen)):
        run = seen[place - confirm + 1 : place + 1]
        value = run[-1][1]
        if {its for _, its in run} == {value} and value != state:
            if state is not None:
                told.append((value == 1, seen[place - confirm][0], run[0][0], run[-1][0]))
            state = value
    return told


@given(st.lists(st.lists(st.sampled_from([0, 1, 255]), min_size=6, max_size=6), max_size=12), st.integers(1, 3))
def test_every_pixel_changes_as_its_observations_say(dates: list[list[int]], confirm: int) -> None:
    masks = (np.asarray(date, dtype=np.uint8).reshape(2, 3) for date in dates)
    told: dict[int, list[tuple[bool, int, int, int]]] = {pixel: [] for pixel in range(6)}
    for one in changes(masks, confirm):
        for row, col, *change in zip(
            one.row.tolist(), one.col.tolist(), one.present.tolist(),
            one.after.tolist(), one.first_seen.tolist(), one.confirmed.tolist(), strict=True,
        ):  # fmt: skip
            told[row * 3 + col].append(tuple(change))
    assert told == {pixel: by_hand([date[pixel] for date in dates], confirm) for pixel in range(6)}
