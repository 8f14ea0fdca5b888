"""One scene on one pixel grid: RGB and quality."""

from __future__ import annotations

import json
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import odc.stac
import pystac
import shapely
import shapely.geometry
import xarray as xr
from odc.geo.geobox import GeoBox

from think2seg.config import Archive, Band
from think2seg.crs import transformer
from think2seg.errors import ImageryError
from think2seg.imagery.quality import Bits, Quality, quality_of
from think2seg.imagery.reader import WindowDriver
from think2seg.imagery.recipe import RGB, grey
from think2seg.stac.loading import scale_offset, stac_cfg
from think2seg.stac.scenes import Scene
from think2seg.stac.signing import patch_url

_MARGIN_DEG = 0.01
"""Scenes whose bounding box misses a block by more than this are not opened for it."""


def bbox_wgs84(geobox: GeoBox) -> tuple[float, float, float, float]:
    """(min_x, min_y, max_x, max_y) degrees around `geobox`; the whole circle where it crosses the antimeridian."""
    west, south, east, north = geobox.extent.boundingbox
    bbox = transformer(str(geobox.crs), "EPSG:4326").transform_bounds(west, south, east, north)
    return bbox if bbox[0] <= bbox[2] else (-180.0, bbox[1], 180.0, bbox[3])


def may_cover(scene: Scene, bbox: tuple[float, float, float, float]) -> bool:
    """Whether the scene's bounding box, with a margin, meets `bbox` (WGS 84)."""
    west, south, east, north = scene.bbox_wgs84
    left, bottom, right, top = bbox
    spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    return (
        south - _MARGIN_DEG <= top
        and bottom <= north + _MARGIN_DEG
        and any(low - _MARGIN_DEG <= right and left <= high + _MARGIN_DEG for low, high in spans)
    )


def read_scene(scene: Scene, geobox: GeoBox, archive: Archive) -> tuple[RGB, Bits]:
    """(y, x, 3) uint8 RGB and (y, x) uint16 quality of one scene on `geobox`.

    Scale and offset are the scene's own: the scenes of one acquisition may come from different processing baselines.

    Raises
    ------
    ImageryError
        When a band is missing or cannot be read.
    """
    values = _load(scene, geobox, archive)
    if archive.quality is None:
        quality = np.zeros(geobox.shape.yx, dtype=np.uint16)
    else:
        quality = quality_of(values[archive.quality.band], archive.quality)
    rgb = np.empty((*geobox.shape.yx, 3), dtype=np.uint8)
    for channel, name in enumerate(archive.recipe.bands):
        scale, offset = scale_offset(scene, name, archive)
        missing = grey(values[name], scale, offset, archive.recipe.limits, out=rgb[..., channel])
        if missing.any():
            quality[missing] |= np.uint16(Quality.NODATA)
    return rgb, quality


def _load(scene: Scene, geobox: GeoBox, archive: Archive) -> dict[str, npt.NDArray[np.float32]]:
    """Digital numbers of each needed band, (y, x) float32, NaN where there are none.

    In one piece a band: without `chunks` odc-stac cuts at 2048 px, and would read the files' tiles on the cut twice.
    """
    bands = {name: archive.bands[name] for name in archive.needed_bands}
    moved = archive.resampling
    item = _minimal_item(scene, tuple(bands.values()), geobox)
    loaded = odc.stac.load(
        [item],
        bands=list(bands),
        geobox=geobox,
        groupby="id",
        dtype="float32",
        nodata=float("nan"),
        resampling={n: moved.categories if b.role == "category" else moved.reflectance for n, b in bands.items()},
        stac_cfg=stac_cfg(archive),
        driver=WindowDriver(sign=patch_url(archive)),
        chunks=dict(zip(geobox.dimensions, geobox.shape.yx, strict=True)),
        fail_on_error=True,
    )
    remote = any("://" in asset.href for asset in item.assets.values())
    how = {"scheduler": "threads", "num_workers": len(bands)} if remote else {"scheduler": "synchronous"}
    arrays: xr.Dataset = loaded.compute(**how)
    return {name: arrays[name].values[0] for name in bands}


def _minimal_item(scene: Scene, bands: Collection[Band], geobox: GeoBox) -> pystac.Item:
    """The scene reduced to what is read: items misstate band counts, pixel types and footprints.

    The geometry is the block's, so that whatever the file has there is read.
    """
    described = json.loads(scene.item)["assets"]
    bbox = bbox_wgs84(geobox)
    geometry = shapely.geometry.mapping(shapely.box(*bbox))
    item = pystac.Item(scene.id, geometry, list(bbox), scene.datetime, {}, collection=scene.collection)
    for key in {band.asset: None for band in bands}:
        if key not in described:
            raise ImageryError(
                f"no asset {key!r}",
                f"assets it has: {', '.join(sorted(described))}",
                "correct the bands of the archive, or leave the item out",
            )
        count = max(band.index for band in bands if band.asset == key)
        asset = pystac.Asset(
            described[key]["href"], media_type="image/tiff", extra_fields={"raster:bands": [{}] * count}
        )
        item.add_asset(key, asset)
    return item
