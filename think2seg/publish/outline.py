"""Masks as SVG path data: outlines that stay sharp at any zoom and weigh little."""

from __future__ import annotations

import numpy as np
import shapely
from contourpy import LineType, contour_generator
from numpy.typing import NDArray
from shapely.geometry import LinearRing

UNITS_PER_PIXEL = 2
"""Path coordinates count half pixels, which makes every vertex of a contour a whole number."""

_BLEED_PX = 4
"""Objects at the edge run on this far beyond it, so that no outline is drawn along the edge itself."""


def outline(mask: NDArray[np.bool_], *, tolerance_px: float = 0.5) -> str:
    """Trace the edge of a mask as closed rings.

    Parameters
    ----------
    mask
        (y, x) bool.
    tolerance_px
        How far a simplified edge may lie from the traced one, in pixels of `mask`.

    Returns
    -------
    str
        SVG path data in half pixels, origin at the upper-left corner of the mask; holes are rings too, so fill it with
        ``fill-rule="evenodd"``. Rings of objects at the edge close a few pixels outside. Empty for an empty mask.
    """
    if not mask.any():
        return ""
    padded = np.pad(np.pad(mask, _BLEED_PX, mode="edge"), 1).astype(np.float32)
    lines = contour_generator(z=padded, line_type=LineType.Separate).lines(0.5)
    rings = [LinearRing(np.asarray(line)) for line in lines if len(line) >= 4]
    simplified = shapely.simplify(rings, tolerance_px, preserve_topology=True)
    corner = _BLEED_PX + 0.5  # contours run between cell centres, and the first cell is a padded one
    return "".join(
        _ring(np.rint((shapely.get_coordinates(ring) - corner) * UNITS_PER_PIXEL).astype(int)) for ring in simplified
    )


def _ring(vertices: NDArray[np.int_]) -> str:
    """Path data of one closed ring: (n, 2) whole numbers, first vertex repeated at the end."""
    start = vertices[0]
    steps = np.diff(vertices[:-1], axis=0)
    moves = "l".join(f"{x},{y}" if y >= 0 else f"{x}{y}" for x, y in steps.tolist())
    return f"M{start[0]},{start[1]}l{moves}z" if len(steps) else ""


def shrink(counts: NDArray[np.bool_], factor: int) -> NDArray[np.int64]:
    """Count the pixels of cells of `factor` × `factor`.

    Parameters
    ----------
    counts
        (y, x) bool; the last row and column of cells may be incomplete.
    factor
        Whole number of pixels per cell side.

    Returns
    -------
    numpy.ndarray
        (ceil(y / factor), ceil(x / factor)) int64.
    """
    height, width = counts.shape
    rows = np.add.reduceat(counts, np.arange(0, height, factor), axis=0, dtype=np.int64)
    return np.add.reduceat(rows, np.arange(0, width, factor), axis=1)
