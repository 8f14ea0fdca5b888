"""One block of one acquisition: read, mosaicked, stretched, judged, and cut into tiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from shapely.geometry.base import BaseGeometry

from think2seg.config import Archive
from think2seg.errors import ImageryError
from think2seg.grid import Block, Grid, Tile
from think2seg.imagery.quality import Bits, Quality
from think2seg.imagery.recipe import RGB
from think2seg.imagery.scene import bbox_wgs84, may_cover, read_scene
from think2seg.stac.scenes import Acquisition


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockImagery:
    """What a block looks like, with the halo its tiles need."""

    rgb: RGB
    """(y, x, 3) uint8, fixed-limit stretch; 0 where there is no data."""
    quality: Bits
    """(y, x) uint16, bits of `Quality`."""


def read_block(
    acquisition: Acquisition, block: Block, grid: Grid, archive: Archive, region: BaseGeometry
) -> BlockImagery:
    """Pixels of `block` with its halo, from the acquisition's scenes in mosaic order: the first valid pixel wins.

    What is read depends on the lattice and the block alone. On the scenes' own grid pixels are copied bit for bit;
    elsewhere they are resampled by the archive's rule, and a pixel read with two blocks differs by 1 of 255 at most
    (where projections differ: by what `WARP_TOLERANCE_PX` of the source makes).

    Parameters
    ----------
    region
        WGS 84; pixels outside it are read, but marked `Quality.OUTSIDE`.

    Raises
    ------
    ImageryError
        When an item has not the bands, or its pixels cannot be read; names item, href (without query) and block.
    """
    geobox = grid.block_geobox(block)
    shape = geobox.shape.yx
    bbox = bbox_wgs84(geobox)
    rgb = np.zeros((*shape, 3), dtype=np.uint8)
    quality = np.full(shape, Quality.NODATA, dtype=np.uint16)
    missing = np.ones(shape, dtype=np.bool_)
    for scene in acquisition.scenes:
        if not missing.any():
            break
        if not may_cover(scene, bbox):
            continue
        try:
            found_rgb, found_quality = read_scene(scene, geobox, archive)
        except ImageryError as error:
            raise ImageryError(
                f"item {scene.id}, block {block.row},{block.col}: {error.given}", error.allowed, error.todo
            ) from error.__cause__
        use = missing & (found_quality & np.uint16(Quality.NODATA) == 0)
        if use.all():
            rgb, quality = found_rgb, found_quality
        else:
            np.copyto(rgb, found_rgb, where=use[..., np.newaxis])
            np.copyto(quality, found_quality, where=use)
        missing &= ~use
    outside = ~grid.region_mask(region, block, halo=True)
    np.bitwise_or(quality, np.uint16(Quality.OUTSIDE), out=quality, where=outside)
    return BlockImagery(rgb=rgb, quality=quality)


def cut_tiles(imagery: BlockImagery, grid: Grid, block: Block) -> list[tuple[Tile, RGB, Bits]]:
    """Tiles of the block, row by row, each with (tile_px, tile_px, 3) RGB and (tile_px, tile_px) quality (views)."""
    side = grid.tile_px
    return [
        (
            tile,
            imagery.rgb[tile.y : tile.y + side, tile.x : tile.x + side],
            imagery.quality[tile.y : tile.y + side, tile.x : tile.x + side],
        )
        for tile in grid.tiles(block)
    ]
