"""What reading will take, told before anything is read."""

from __future__ import annotations

import json
import math

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from think2seg.config import Archive
from think2seg.grid import Grid
from think2seg.imagery.reader import SAME_GRID_PX, pixel_shift
from think2seg.stac.scenes import Acquisition, Scene


def estimate_bytes(acquisition: Acquisition, n_blocks: int, grid: Grid, archive: Archive) -> int:
    """Bytes of pixels that reading `n_blocks` takes, before compression, at the grid's resolution.

    Overlaps of scenes are counted once; an acquisition without scenes costs nothing.
    """
    if not acquisition.scenes:
        return 0
    side = grid.block_px + 2 * grid.halo_px
    bands = (archive.bands[name] for name in archive.needed_bands)
    return n_blocks * side**2 * sum(np.dtype(band.dtype or archive.dtype).itemsize for band in bands)


def resampling_note(acquisition: Acquisition, grid: Grid, archive: Archive) -> str:
    """Which scenes do not sit on the grid, why, and by which rule they are moved; empty where all do."""
    causes: dict[str, list[str]] = {}
    for scene in acquisition.scenes:
        cause = _off_grid(scene, grid, archive)
        if cause:
            causes.setdefault(cause, []).append(scene.id)
    if not causes:
        return ""
    moved = sum(map(len, causes.values()))
    rules = f"reflectance {archive.resampling.reflectance}"
    if archive.quality is not None:
        rules += f", categories {archive.resampling.categories}"
    which = "" if len(acquisition.scenes) == 1 else f"{moved} of {len(acquisition.scenes)} scenes "
    return f"{which}resampled ({'; '.join(causes)}): {rules}"


def _off_grid(scene: Scene, grid: Grid, archive: Archive) -> str:
    """Why the pixels of `scene` do not coincide with the grid's; empty where they do."""
    transform = _transform(scene, archive)
    if transform is None or scene.crs is None:
        return "grid not in its metadata"
    frame = GeoBox((1, 1), transform, scene.crs)
    if frame.crs != grid.geobox.crs:
        return f"from {scene.crs if scene.crs.startswith('EPSG:') else 'another projection'}"
    shift = pixel_shift(frame, grid.geobox)
    if shift is None:
        return f"from {abs(transform.a):g} per pixel"
    off_y, off_x = (part - round(part) for part in shift)
    return "" if max(abs(off_y), abs(off_x)) < SAME_GRID_PX else f"moved by {off_x:+.2f}, {off_y:+.2f} px"


def _transform(scene: Scene, archive: Archive) -> Affine | None:
    """What the item says of its first band's grid; None where it says nothing that makes sense."""
    item = json.loads(scene.item)
    asset = item["assets"].get(archive.bands[archive.recipe.bands[0]].asset, {})
    said = asset.get("proj:transform", item.get("properties", {}).get("proj:transform"))
    try:
        numbers = [float(number) for number in said[:6]]
    except (LookupError, TypeError, ValueError, OverflowError):
        return None
    return Affine(*numbers) if len(numbers) == 6 and all(map(math.isfinite, numbers)) else None
