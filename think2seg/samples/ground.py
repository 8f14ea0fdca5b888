"""The ground of the embedded imagery that no training may see, because models are judged on it."""

from __future__ import annotations

from functools import cache

import rasterio
import shapely
from shapely.geometry.base import BaseGeometry

from think2seg.crs import to_wgs84
from think2seg.samples._sheets import NAIP_SPLIT_X_M
from think2seg.samples.archive import CLEARINGS, WETLANDS, catalog_path

_MARGIN_M = 2_000.0
"""So far beyond the imagery a cube's tiles may reach."""


@cache
def held_out_ground() -> dict[str, BaseGeometry]:
    """Name of the embedded catalog → its held-out ground, WGS 84.

    The wetlands are parted by a meridian. The clearings are parted by date, and all dates show the same ground, so that
    all of it is held out of whatever is not parted by date.
    """
    found = {}
    for name, asset, west in ((WETLANDS, "image", NAIP_SPLIT_X_M), (CLEARINGS, "red", None)):
        path = next(iter(sorted(catalog_path(name).parent.glob(f"*/*/{asset}.tif"))))
        with rasterio.open(path) as image:
            crs, (left, bottom, right, top) = image.crs.to_string(), image.bounds
        box = shapely.box(left, bottom, right, top).buffer(_MARGIN_M, join_style="mitre")
        if west is not None:
            box = box.intersection(shapely.box(west, *box.bounds[1:]))
        found[name] = to_wgs84(box, crs)
    return found
