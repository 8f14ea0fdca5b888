from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from support.rasters import acquisition_of, archive_of, scene_of, write_raster

from think2seg.config import Archive
from think2seg.grid import Block, Grid, blocks_of, make_grid
from think2seg.imagery import BlockImagery, Quality, cut_tiles, read_block
from think2seg.stac.scenes import Acquisition

CRS = "EPSG:26914"
REGION = shapely.box(-99.170, 47.017, -99.160, 47.022)
LEFT, TOP, WIDTH, HEIGHT = 486500.0, 5208500.0, 420, 360
SLOW_IO = settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])


def grid_of(region: shapely.Geometry = REGION, crs: str = CRS, resolution: float = 5.0, block_px: int = 64) -> Grid:
    return make_grid(region, crs, resolution, block_px, block_px // 2, 8)


def landscape(seed: int = 0, count: int = 3, dtype: str = "uint8") -> npt.NDArray[np.uint8]:
    """Smooth hills with noise, 1…255: neither flat nor free of steep edges."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    hills = [100 + 80 * np.sin(x / (7 + c)) * np.cos(y / (9 + c)) for c in range(count)]
    noise = rng.integers(-20, 20, (count, HEIGHT, WIDTH))
    return np.clip(np.array(hills) + noise, 1, 255).astype(dtype)


def acquisition_in(
    folder: Path, values: npt.NDArray[np.uint8], dx: float = 0, dy: float = 0, **options: str
) -> Acquisition:
    transform = Affine(5, 0, LEFT + dx, 0, -5, TOP + dy)
    path = write_raster(folder / f"image{dx}{dy}.tif", values, transform, CRS, **options)
    return acquisition_of([scene_of({"image": path}, path)])


def read_all(acquisition: Acquisition, grid: Grid, archive: Archive) -> dict[Block, BlockImagery]:
    blocks = [Block(row, col) for row in range(grid.rows) for col in range(grid.cols)]
    return {block: read_block(acquisition, block, grid, archive, REGION) for block in blocks}


def halo_difference(read: dict[Block, BlockImagery], grid: Grid) -> int:
    """Largest difference between a block's halo and the pixels its neighbours read in their cores."""
    size, halo = grid.block_px, grid.halo_px
    whole = np.zeros((grid.rows * size, grid.cols * size, 3), dtype=np.int16)
    for block, imagery in read.items():
        core = imagery.rgb[halo : halo + size, halo : halo + size]
        whole[block.row * size : (block.row + 1) * size, block.col * size : (block.col + 1) * size] = core
    whole = np.pad(whole, ((halo, halo), (halo, halo), (0, 0)), constant_values=-1)
    worst = 0
    for block, imagery in read.items():
        y, x = block.row * size, block.col * size
        seen = whole[y : y + size + 2 * halo, x : x + size + 2 * halo]
        inside = seen >= 0
        worst = max(worst, int(np.abs(seen - imagery.rgb)[inside].max()))
    return worst


def test_native_pixels_are_copied_bit_for_bit(tmp_path: Path) -> None:
    values, grid = landscape(), grid_of()
    acquisition = acquisition_in(tmp_path, values)
    image = GeoBox(values.shape[1:], Affine(5, 0, LEFT, 0, -5, TOP), CRS)
    for block in blocks_of(grid, REGION):
        imagery = read_block(acquisition, block, grid, archive_of(), REGION)
        geobox = grid.block_geobox(block)
        rows = ((TOP - geobox.transform.f) / 5 + np.arange(geobox.shape.y)).astype(int)
        cols = ((geobox.transform.c - LEFT) / 5 + np.arange(geobox.shape.x)).astype(int)
        inside = np.ix_((rows >= 0) & (rows < image.shape.y), (cols >= 0) & (cols < image.shape.x))
        valid = (rows[:, None] >= 0) & (rows[:, None] < image.shape.y) & (cols >= 0) & (cols < image.shape.x)
        expected = values[:, rows[(rows >= 0) & (rows < image.shape.y)]][
            :, :, cols[(cols >= 0) & (cols < image.shape.x)]
        ]
        assert (imagery.rgb[inside] == np.moveaxis(expected, 0, -1)).all()
        assert ((imagery.quality & Quality.NODATA == 0) == valid).all()
        assert (imagery.rgb[~valid] == 0).all()


@given(
    dx=st.floats(-3, 3).map(lambda v: round(v, 1)),
    dy=st.floats(-3, 3).map(lambda v: round(v, 1)),
)
@SLOW_IO
def test_shifted_origins_read_alike_from_every_block(tmp_path: Path, dx: float, dy: float) -> None:
    grid = grid_of()
    read = read_all(acquisition_in(tmp_path, landscape(), dx, dy), grid, archive_of())
    assert halo_difference(read, grid) <= 1


@pytest.mark.parametrize(("crs", "resolution"), [("EPSG:32613", 5.0), ("EPSG:4326", 0.00006), ("EPSG:3857", 12.0)])
def test_other_projections_read_alike_from_every_block(tmp_path: Path, crs: str, resolution: float) -> None:
    grid = grid_of(crs=crs, resolution=resolution)
    values = landscape()
    read = read_all(acquisition_in(tmp_path, values), grid, archive_of())
    steepest = int(np.abs(np.diff(values.astype(int), axis=2)).max())
    assert halo_difference(read, grid) <= 0.05 * steepest + 1
    assert sum(int((imagery.quality & Quality.NODATA == 0).sum()) for imagery in read.values()) > 1000


@pytest.mark.parametrize("overviews", ["auto", "none"])
@pytest.mark.parametrize("resampling", ["bilinear", "cubic", "average"])
@pytest.mark.parametrize("resolution", [10.0, 21.0])
def test_coarser_grids_read_alike_from_every_block(
    tmp_path: Path, resolution: float, resampling: str, overviews: str
) -> None:
    grid = grid_of(resolution=resolution, block_px=16)
    acquisition = acquisition_in(tmp_path, landscape(), 1.0, 2.0, overviews=overviews)
    read = read_all(acquisition, grid, archive_of(resampling={"reflectance": resampling}))
    assert halo_difference(read, grid) <= 1


def test_classes_are_not_taken_from_overviews(tmp_path: Path) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    values = np.broadcast_to(np.where((y + x) % 2, 4, 8), (3, HEIGHT, WIDTH)).astype(np.uint8)
    acquisition = acquisition_in(tmp_path, values, overview_resampling="average")
    bands = {name: {"asset": "image", "index": 1, "role": "category"} for name in ("red", "green", "blue")}
    read = read_all(acquisition, grid_of(resolution=20.0), archive_of(bands=bands))
    seen = np.concatenate([imagery.rgb[imagery.quality & Quality.NODATA == 0].ravel() for imagery in read.values()])
    assert set(np.unique(seen)) <= {4, 8}


@given(dx=st.sampled_from([0.0, 0.6, 2.0]), grow=st.tuples(*[st.floats(0, 0.01)] * 4))
@SLOW_IO
def test_growing_the_region_repeats_identical_reads(
    tmp_path: Path, dx: float, grow: tuple[float, float, float, float]
) -> None:
    acquisition, archive = acquisition_in(tmp_path, landscape(), dx), archive_of()
    west, south, east, north = REGION.bounds
    larger = shapely.box(west - grow[0], south - grow[1], east + grow[2], north + grow[3])
    small, large = grid_of(), grid_of().covering(larger)
    for block in (Block(0, 0), Block(small.rows - 1, small.cols // 2)):
        same = Block(block.row + small.row0 - large.row0, block.col + small.col0 - large.col0)
        before = read_block(acquisition, block, small, archive, REGION)
        after = read_block(acquisition, same, large, archive, larger)
        assert (before.rgb == after.rgb).all()
        asked = before.quality & Quality.OUTSIDE == 0
        assert (before.quality == after.quality)[asked].all()


def test_a_pixel_is_the_same_in_every_tile(tmp_path: Path) -> None:
    grid, acquisition = grid_of(), acquisition_in(tmp_path, landscape(), 1.3, -0.7)
    block = Block(1, 1)
    imagery = read_block(acquisition, block, grid, archive_of(), REGION)
    tiles = cut_tiles(imagery, grid, block)
    assert [tile for tile, _, _ in tiles] == list(grid.tiles(block))
    for tile, rgb, quality in tiles:
        assert rgb.shape == (grid.tile_px, grid.tile_px, 3)
        assert quality.shape == (grid.tile_px, grid.tile_px)
        core = np.s_[grid.halo_px : grid.halo_px + grid.core_px, grid.halo_px : grid.halo_px + grid.core_px]
        y, x = tile.y + grid.halo_px, tile.x + grid.halo_px
        assert (rgb[core] == imagery.rgb[y : y + grid.core_px, x : x + grid.core_px]).all()


def holed(mask_only: bool) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    valid = np.ones((HEIGHT, WIDTH), dtype=bool)
    valid[200:250, 150:230] = False
    valid[::37, ::29] = False
    values = np.full((3, HEIGHT, WIDTH), 200, dtype=np.uint8)
    values[:, ~valid] = 90 if mask_only else 0
    return values, valid


@pytest.mark.parametrize("how", ["tag", "archive", "mask"])
@pytest.mark.parametrize("resampling", ["bilinear", "cubic", "average"])
def test_nodata_does_not_bleed(tmp_path: Path, how: str, resampling: str) -> None:
    values, valid = holed(mask_only=how == "mask")
    path = write_raster(
        tmp_path / "holes.tif",
        values,
        Affine(5, 0, LEFT + 2.2, 0, -5, TOP - 1.4),
        CRS,
        nodata=0 if how == "tag" else None,
        mask=valid if how == "mask" else None,
    )
    archive = archive_of(resampling={"reflectance": resampling}, nodata=None if how == "mask" else 0)
    holes = 0
    for imagery in read_all(acquisition_of([scene_of({"image": path}, path)]), grid_of(), archive).values():
        holes += int((imagery.quality == Quality.NODATA).sum())
        seen = imagery.quality & Quality.NODATA == 0
        assert set(np.unique(imagery.rgb[seen])) <= {200}
        assert (imagery.rgb[~seen] == 0).all()
    assert holes


def test_one_band_without_data_is_enough(tmp_path: Path) -> None:
    values = landscape()
    values[1, :, 100:200] = 0
    imagery = read_block(acquisition_in(tmp_path, values), Block(1, 1), grid_of(), archive_of(), REGION)
    nodata = imagery.quality & Quality.NODATA != 0
    assert nodata.any()
    assert (imagery.rgb[nodata] == 0).all()
    assert (imagery.rgb[~nodata][:, 1] > 0).all()


def test_pixels_outside_the_region_are_read_and_marked(tmp_path: Path) -> None:
    grid = grid_of()
    imagery = read_block(acquisition_in(tmp_path, landscape()), Block(0, 1), grid, archive_of(), REGION)
    outside = imagery.quality & Quality.OUTSIDE != 0
    assert (outside == ~grid.region_mask(REGION, Block(0, 1), halo=True)).all()
    assert outside.any()
    assert (imagery.rgb[outside & (imagery.quality & Quality.NODATA == 0)] > 0).all()


def test_block_without_any_scene_is_nodata(tmp_path: Path) -> None:
    far = shapely.box(-98.9, 47.01, -98.89, 47.02)
    grid = grid_of(far)
    imagery = read_block(acquisition_in(tmp_path, landscape()), Block(0, 0), grid, archive_of(), far)
    assert (imagery.quality & Quality.NODATA != 0).all()
    assert (imagery.rgb == 0).all()


def test_mosaic_order_decides_overlaps(tmp_path: Path) -> None:
    first, second = np.full((3, HEIGHT, WIDTH), 50, np.uint8), np.full((3, HEIGHT, WIDTH), 150, np.uint8)
    first[:, :, WIDTH // 2 :] = 0
    paths = [
        write_raster(tmp_path / f"{i}.tif", v, Affine(5, 0, LEFT, 0, -5, TOP), CRS)
        for i, v in enumerate((first, second))
    ]
    scenes = [scene_of({"image": path}, path, name=str(i)) for i, path in enumerate(paths)]
    grid = grid_of()
    for order, values in ((scenes, {50, 150}), (scenes[::-1], {150})):
        read = read_all(acquisition_of(order), grid, archive_of())
        seen = np.concatenate([i.rgb[i.quality & Quality.NODATA == 0].ravel() for i in read.values()])
        assert set(np.unique(seen)) == values
