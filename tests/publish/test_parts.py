"""Cartography, pictures, maps and words of the page."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
import xarray as xr
from pyproj import CRS, Transformer
from support.cubes import GRID, clear, disc

from think2seg.imagery import Quality
from think2seg.insight.units import area_unit, day, duration, metres, percent
from think2seg.publish.cartography import furniture, round_length
from think2seg.publish.maps import step_map, view_of
from think2seg.publish.pictures import Window, crop, encode_all
from think2seg.publish.sentences import command_of


def test_scale_bar_measures_the_ground() -> None:
    map_ = furniture("EPSG:32614", (480_000, 5_200_000, 490_000, 5_208_000))
    assert map_.bar_text == "2\u202fkm"
    assert map_.bar_percent == pytest.approx(20, rel=2e-3)
    assert abs(map_.north_deg) < 1


def test_scale_bar_of_a_geographic_map_shrinks_with_latitude() -> None:
    equator, north = furniture("EPSG:4326", (10, 0, 10.1, 0.1)), furniture("EPSG:4326", (10, 60, 10.1, 60.1))
    assert equator.bar_text == "2\u202fkm"
    assert north.bar_text == "1\u202fkm"


@pytest.mark.parametrize(
    ("crs", "lon", "lat"), [("EPSG:3035", 25.0, 45.6), ("EPSG:3035", -5.0, 40.0), ("EPSG:3413", 0.0, 75.0)]
)
def test_north_arrow_points_along_the_meridian(crs: str, lon: float, lat: float) -> None:
    forward = Transformer.from_crs("EPSG:4326", CRS(crs), always_xy=True)
    (x, north_x), (y, north_y) = forward.transform([lon, lon], [lat, lat + 0.01])
    map_ = furniture(crs, (x - 500, y - 500, x + 500, y + 500))
    expected = np.degrees(np.arctan2(north_x - x, north_y - y))
    assert map_.north_deg == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize(("length", "expected"), [(934, 500), (1999, 1000), (2000, 2000), (0.7, 0.5), (10, 10)])
def test_bar_lengths_are_round(length: float, expected: float) -> None:
    assert round_length(length) == pytest.approx(expected)


def test_pictures_keep_to_their_budget() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (600, 800, 3), np.uint8)
    uris = list(encode_all(["a", "b", "c", "d"], lambda name: noise, Window(), longest_px=500, budget_bytes=200_000))
    assert sum(len(uri) for uri in uris if uri) <= 200_000


def test_a_missing_picture_is_none() -> None:
    uris = list(encode_all(["a", "b"], lambda name: None, Window(), longest_px=500, budget_bytes=10_000))
    assert uris == [None, None]


def test_window_cuts_the_same_share_of_any_size() -> None:
    window = Window(top=0.25, left=0.5, bottom=1.0, right=0.75)
    assert crop(np.zeros((80, 120, 3), np.uint8), window).shape == (60, 30, 3)
    assert crop(np.zeros((1, 1, 3), np.uint8), window).shape == (1, 1, 3)


def test_map_shows_the_region_and_what_hides_it() -> None:
    quality = clear(GRID, 8)
    quality[disc(GRID, 40, 150, 20)] = int(Quality.CLOUD)
    quality[100:110, 20:40] = int(Quality.FAILED | Quality.CLOUD)
    mask = np.where(quality, 255, disc(GRID, 64, 80, 20)).astype(np.uint8)
    step = xr.Dataset({"mask": (("y", "x"), mask), "quality": (("y", "x"), quality)})
    view = view_of(step["quality"], 1100)
    assert (view.factor, view.outside.any()) == (1, False)
    assert view.outside.shape == (GRID.shape[0] - 16, GRID.shape[1] - 16)
    cells = step_map(step, view)
    assert cells.present.sum() == disc(GRID, 64, 80, 20).sum()
    assert cells.cloud.sum() == disc(GRID, 40, 150, 20).sum()
    assert cells.hidden.sum() == 200


@pytest.mark.parametrize("band_px", [1, 7, 50, 1000])
def test_map_does_not_depend_on_the_bands_it_was_read_in(band_px: int, monkeypatch: pytest.MonkeyPatch) -> None:
    quality = clear(GRID, 5)
    quality[disc(GRID, 40, 150, 20)] = int(Quality.CLOUD)
    mask = np.where(quality, 255, disc(GRID, 64, 80, 20)).astype(np.uint8)
    step = xr.Dataset({"mask": (("y", "x"), mask), "quality": (("y", "x"), quality)})
    for longest_px in (30, 1100):
        expected = step_map(step, view_of(step["quality"], longest_px))
        with monkeypatch.context() as patched:
            patched.setattr("think2seg.publish.maps._BAND_PX", band_px)
            found = step_map(step, view_of(step["quality"], longest_px))
        for name in ("present", "cloud", "hidden"):
            assert np.array_equal(getattr(found, name), getattr(expected, name))


def test_small_map_keeps_the_shares() -> None:
    quality = clear(GRID)
    step = xr.Dataset({
        "mask": (("y", "x"), disc(GRID, 64, 80, 40).astype(np.uint8)), "quality": (("y", "x"), quality)
    })  # fmt: skip
    view = view_of(step["quality"], 50)
    assert view.factor == 4
    assert step_map(step, view).present.mean() == pytest.approx(disc(GRID, 64, 80, 40).mean(), rel=0.03)


@pytest.mark.parametrize(
    ("area_m2", "text"),
    [
        (3.42e6, "3.42\u202fkm²"),
        (45_000, "4.50\u202fha"),
        (0, "0\u202fm²"),
        (12, "12.0\u202fm²"),
        (1.2045e9, "1,204\u202fkm²"),
    ],
)
def test_areas_read_well(area_m2: float, text: str) -> None:
    assert area_unit(area_m2).text(area_m2) == text


@pytest.mark.parametrize(
    ("fraction", "text"), [(0, "0"), (1, "100"), (0.99999, ">99.9"), (1e-5, "<0.1"), (0.984, "98.4"), (0.5, "50")]
)
def test_shares_never_round_to_all_or_nothing(fraction: float, text: str) -> None:
    assert percent(fraction) == f"{text}\u202f%"


def test_other_figures_read_well() -> None:
    assert [duration(s) for s in (0.42, 47.2, 185, 8040)] == [
        "0.4\u202fs", "47\u202fs", "3\u202fmin 05\u202fs", "2\u202fh 14\u202fmin"
    ]  # fmt: skip
    assert metres(2000) == "2\u202fkm"
    assert day(datetime(2014, 7, 2, tzinfo=UTC)) == "2 July 2014"


def test_command_is_safe_to_paste() -> None:
    assert command_of("a b.yaml", ["cube.uri=x; rm y"]) == "think2seg run 'a b.yaml' --set 'cube.uri=x; rm y'"
