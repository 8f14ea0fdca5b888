"""Pictures of whole acquisitions, read at the size they are shown."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from think2seg.config import Archive
from think2seg.errors import ImageryError
from think2seg.grid import Grid
from think2seg.imagery import Quality
from think2seg.imagery.scene import may_cover, read_scene
from think2seg.publish.pictures import LONGEST_PX, Quicklook
from think2seg.stac.scenes import Acquisition


def archive_quicklook(acquisitions: Mapping[str, Acquisition], grid: Grid, archive: Archive) -> Quicklook:
    """Quicklooks of acquisitions by id, over the whole grid, with the archive's own recipe.

    An acquisition that is unknown or cannot be read has none: what could not be read is the report's to tell.
    """
    factor = max(1, max(grid.shape) // (2 * LONGEST_PX))
    geobox = grid.geobox if factor == 1 else grid.geobox.zoom_out(factor)
    bbox_wgs84 = grid.bbox_wgs84

    def quicklook(acquisition: str) -> npt.NDArray[np.uint8] | None:
        rgb = np.zeros((*geobox.shape.yx, 3), np.uint8)
        missing = np.ones(geobox.shape.yx, np.bool_)
        scenes = acquisitions[acquisition].scenes if acquisition in acquisitions else ()
        for scene in scenes:
            if not may_cover(scene, bbox_wgs84):
                continue
            try:
                found, quality = read_scene(scene, geobox, archive)
            except ImageryError:
                continue
            use = missing & ((quality & Quality.NODATA) == 0)
            rgb[use] = found[use]
            missing &= ~use
        return None if missing.all() else rgb

    return quicklook
