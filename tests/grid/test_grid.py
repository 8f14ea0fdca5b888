from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod
from shapely.geometry.base import BaseGeometry

from think2seg.errors import ConfigError
from think2seg.grid import Block, Grid, blocks_of, make_grid, tile_pixels, zones

WETLANDS = shapely.box(-99.18, 47.005, -99.13, 47.035)
GRIDS = st.sampled_from([("EPSG:26914", 5.0), ("EPSG:32614", 10.0), ("EPSG:3857", 7.5), ("EPSG:4326", 0.0001)])


def wetland_grid(region: BaseGeometry = WETLANDS, crs: str = "EPSG:26914", resolution: float = 5.0) -> Grid:
    return make_grid(region, crs, resolution, 256, 128, 32)


@st.composite
def regions(draw: st.DrawFn) -> BaseGeometry:
    west = draw(st.floats(-101, -98))
    south = draw(st.floats(46, 48))
    return shapely.box(west, south, west + draw(st.floats(0.001, 0.08)), south + draw(st.floats(0.001, 0.08)))


@given(side=st.integers(1, 40), core_px=st.integers(1, 12), halo_px=st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_every_pixel_of_a_block_is_in_exactly_one_core(side: int, core_px: int, halo_px: int) -> None:
    grid = make_grid(WETLANDS, "EPSG:26914", 50.0, side * core_px, core_px, halo_px)
    count = np.zeros((grid.block_px, grid.block_px), dtype=int)
    for tile in grid.tiles(Block(0, 0)):
        count[tile.y : tile.y + core_px, tile.x : tile.x + core_px] += 1
    assert (count == 1).all()


@given(region=regions(), growth=regions(), lattice=GRIDS)
@settings(deadline=None, max_examples=60)
def test_growing_the_region_moves_nothing(
    region: BaseGeometry, growth: BaseGeometry, lattice: tuple[str, float]
) -> None:
    small = wetland_grid(region, *lattice)
    large = small.covering(shapely.union_all([region, growth]))
    for block in (Block(0, 0), Block(small.rows - 1, small.cols - 1)):
        same = Block(block.row + small.row0 - large.row0, block.col + small.col0 - large.col0)
        assert small.block_geobox(block) == large.block_geobox(same)
        assert small.block_geobox(block).transform == large.block_geobox(same).transform
        for mine, theirs in zip(small.tiles(block), large.tiles(same), strict=True):
            assert mine.id == theirs.id
            assert small.tile_geobox(mine).transform == large.tile_geobox(theirs).transform


@given(region=regions(), lattice=GRIDS)
@settings(deadline=None, max_examples=60)
def test_blocks_hold_every_pixel_of_the_region_once(region: BaseGeometry, lattice: tuple[str, float]) -> None:
    grid = wetland_grid(region, *lattice)
    touched = set(blocks_of(grid, region))
    everything = [Block(row, col) for row in range(grid.rows) for col in range(grid.cols)]
    whole = np.block([[grid.region_mask(region, Block(r, c)) for c in range(grid.cols)] for r in range(grid.rows)])
    assert whole.shape == grid.shape
    assert all(block in touched for block in everything if grid.region_mask(region, block).any())
    area, perimeter = Geod(ellps="GRS80").geometry_area_perimeter(region)
    found = float((whole * grid.pixel_area_m2).sum())
    assert found == pytest.approx(abs(area), rel=0.01, abs=perimeter * max(grid.gsd_m))


@given(region=regions(), lattice=GRIDS)
@settings(deadline=None, max_examples=40)
def test_json_round_trip(region: BaseGeometry, lattice: tuple[str, float]) -> None:
    grid = wetland_grid(region, *lattice)
    assert Grid.from_json(grid.to_json()) == grid


def test_geobox_transform_and_lattice_agree() -> None:
    grid = wetland_grid()
    assert grid.geobox.crs is not None
    assert grid.geobox.crs.epsg == 26914
    assert grid.transform.f == -grid.row0 * 256 * 5.0
    assert grid.transform.c == grid.col0 * 256 * 5.0
    assert grid.zone == "epsg26914"
    assert grid.gsd_m == (5.0, 5.0)
    assert (grid.pixel_area_m2 == 25.0).all()
    assert grid.pixel_area_m2.shape == (grid.shape[0], 1)
    tile = grid.tiles(Block(1, 0))[-1]
    row, col = grid.row0 + 1, grid.col0
    assert tile.id == f"r{row * 2 + 1}c{col * 2 + 1}"
    assert grid.tile_geobox(tile).shape == (grid.tile_px, grid.tile_px) == (192, 192)
    core = grid.tile_geobox(tile, halo=False).transform
    assert (core.c, core.f) == (grid.transform.c + 128 * 5, grid.transform.f - (256 + 128) * 5)


def test_halo_of_the_mask_is_the_neighbours_core() -> None:
    grid = wetland_grid()
    whole = np.block([[grid.region_mask(WETLANDS, Block(r, c)) for c in range(grid.cols)] for r in range(grid.rows)])
    with_halo = grid.region_mask(WETLANDS, Block(1, 1), halo=True)
    assert (with_halo == whole[256 - 32 : 512 + 32, 256 - 32 : 512 + 32]).all()


@pytest.mark.parametrize("latitude", [0.0, 47.0, -60.0])
def test_geographic_pixels_have_metres(latitude: float) -> None:
    region = shapely.box(20, latitude, 20.02, latitude + 0.02)
    grid = make_grid(region, "EPSG:4326", 0.0001, 256, 128, 32)
    lat = float(np.mean(grid.bbox_wgs84[1::2]))
    gsd_y, gsd_x = grid.gsd_m
    assert gsd_y == pytest.approx(11.1132 - 0.0559 * np.cos(2 * np.radians(lat)), abs=2e-3)
    assert gsd_x == pytest.approx(11.132 * np.cos(np.radians(lat)), rel=3e-3)
    area = grid.pixel_area_m2
    assert np.all(np.diff(area[:, 0]) * np.sign(latitude or 1) >= 0)
    assert np.median(area) == pytest.approx(gsd_y * gsd_x, rel=1e-6)


def test_geographic_area_equals_equal_area_projection() -> None:
    region = shapely.box(20, 47, 20.1, 47.1)
    degrees = make_grid(region, "EPSG:4326", 0.0001, 256, 128, 32)
    metres = make_grid(region, "EPSG:3035", 10.0, 256, 128, 32)
    areas = []
    for grid in (degrees, metres):
        mask = np.block([[grid.region_mask(region, Block(r, c)) for c in range(grid.cols)] for r in range(grid.rows)])
        areas.append(float((mask * grid.pixel_area_m2).sum()))
    assert areas[0] == pytest.approx(areas[1], rel=1e-3)


def test_mercator_pixels_are_smaller_than_they_say() -> None:
    grid = wetland_grid(crs="EPSG:3857", resolution=10.0)
    assert grid.gsd_m[0] == pytest.approx(10 * np.cos(np.radians(47.02)), rel=5e-3)
    assert grid.pixel_area_m2.mean() == pytest.approx(np.prod(grid.gsd_m), rel=1e-3)


def test_region_on_block_edges_takes_no_neighbour() -> None:
    inner = wetland_grid().block_geobox(Block(1, 1), halo=False).extent.to_crs("EPSG:4326").geom
    grid = wetland_grid(inner.buffer(-1e-9))
    assert (grid.rows, grid.cols) == (1, 1)


def test_position_to_pixel() -> None:
    grid = wetland_grid()
    lon, lat = grid.geobox[100:101, 200:201].extent.to_crs("EPSG:4326").centroid.coords[0]
    assert grid.pixel_of(lon, lat) == (100, 200)
    with pytest.raises(ConfigError, match="inside the grid"):
        grid.pixel_of(0.0, 0.0)


def test_wkt_of_a_known_crs_becomes_its_code() -> None:
    grid = make_grid(shapely.box(25, 45, 25.02, 45.02), CRS("EPSG:3035").to_wkt(), 10.0, 256, 128, 32)
    assert (grid.crs, grid.zone) == ("EPSG:3035", "epsg3035")


def test_crs_without_a_code_keeps_its_wkt() -> None:
    local = "+proj=laea +lat_0=45 +lon_0=25 +datum=WGS84 +units=m"
    grid = make_grid(shapely.box(25, 45, 25.02, 45.02), local, 10.0, 256, 128, 32)
    assert grid.crs.startswith("PROJCRS")
    assert grid.zone.startswith("crs-")
    assert Grid.from_json(grid.to_json()).geobox == grid.geobox


ZONE_OPTIONS = {"resolution": 10.0, "block_px": 256, "footprint_m": 1920, "halo_m": 320}


def test_region_over_two_utm_zones_gets_two_grids() -> None:
    region = shapely.box(-96.05, 46.95, -95.95, 47.0)
    left, right = zones(region, crs="auto", **ZONE_OPTIONS)
    assert (left.grid.zone, right.grid.zone) == ("utm14n", "utm15n")
    assert left.region.area + right.region.area == pytest.approx(region.area)
    assert (left.grid.core_px, left.grid.halo_px) == (128, 32)


def test_region_over_the_equator_and_antimeridian() -> None:
    region = shapely.MultiPolygon([shapely.box(179.95, -0.05, 180, 0.05), shapely.box(-180, -0.05, -179.95, 0.05)])
    found = zones(region, crs="auto", **ZONE_OPTIONS)
    assert {zone.grid.zone for zone in found} == {"utm60n", "utm60s", "utm1n", "utm1s"}
    (polar,) = zones(region, crs="EPSG:3832", **ZONE_OPTIONS)
    assert polar.grid.cols * 2560 < 20_000


def test_scenes_that_share_a_crs_decide() -> None:
    region = shapely.box(-96.05, 46.95, -95.95, 47.0)
    (only,) = zones(region, crs="auto", native=["EPSG:26915", "EPSG:26915"], **ZONE_OPTIONS)
    assert only.grid.crs == "EPSG:26915"
    assert len(zones(region, crs="auto", native=["EPSG:32614", "EPSG:32615"], **ZONE_OPTIONS)) == 2


def test_geographic_tiles_snap_to_a_divisor() -> None:
    options = ZONE_OPTIONS | {"resolution": 0.0001}
    (zone,) = zones(WETLANDS, crs="EPSG:4326", **options)
    assert 256 % zone.grid.core_px == 0
    assert zone.grid.core_px == 128


def test_core_must_divide_the_block() -> None:
    with pytest.raises(ConfigError, match=r"960 m \(core 128 px\) or 1600 m \(core 256 px\)"):
        tile_pixels(1000, 160, gsd_m=5, block_px=256)
    with pytest.raises(ConfigError, match="two halos"):
        tile_pixels(300, 160, gsd_m=5, block_px=256)
    with pytest.raises(ConfigError, match="core 128 px"):
        make_grid(WETLANDS, "EPSG:26914", 5.0, 256, 100, 32)
    assert tile_pixels(960, 160, gsd_m=5, block_px=256) == (128, 32)


@pytest.mark.parametrize(
    ("region", "crs", "resolution", "message"),
    [
        (shapely.Polygon(), "EPSG:26914", 5.0, "empty"),
        (shapely.Point(-99, 47), "EPSG:26914", 5.0, "empty"),
        (shapely.box(20, 45, 20.1, 45.1), "EPSG:26914", 5.0, "outside the validity"),
        (shapely.box(-100, 80, -99, 88), "EPSG:32614", 10.0, "outside the validity"),
        (shapely.box(-200, 45, -199, 46), "EPSG:4326", 0.1, "WGS 84 degrees"),
        (shapely.box(-100, 46, -96, 49), "EPSG:32614", 0.1, r"= \d+ blocks of 256 px"),
        (WETLANDS, "EPSG:4326", 10.0, "degrees per pixel: 10 m are about"),
        (WETLANDS, "EPSG:1", 10.0, "a code such as"),
        (WETLANDS, "EPSG:5773", 10.0, "projected or geographic"),
        (WETLANDS, "EPSG:26914", 0.0, "resolution 0"),
        (WETLANDS, "EPSG:26914", float("nan"), "resolution nan"),
        (
            shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)]),
            "EPSG:4326",
            0.001,
            "crosses the antimeridian",
        ),
    ],
)
def test_regions_that_make_no_sense(region: BaseGeometry, crs: str, resolution: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_grid(region, crs, resolution, 256, 128, 32)


def test_other_json_is_no_grid() -> None:
    with pytest.raises(ConfigError, match="not JSON"):
        Grid.from_json("{")
    with pytest.raises(ConfigError, match="other keys"):
        Grid.from_json("{}")


def test_what_scenes_say_does_not_matter_where_the_monitor_names_a_crs() -> None:
    (zone,) = zones(WETLANDS, crs="EPSG:32614", native={"EPSG:32767"}, **ZONE_OPTIONS)
    assert zone.grid.crs == "EPSG:32614"
    with pytest.raises(ConfigError, match="EPSG:32767"):
        zones(WETLANDS, crs="auto", native={"EPSG:32767"}, **ZONE_OPTIONS)
