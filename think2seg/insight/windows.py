"""Which part of a cube is looked at: regions in WGS 84 against the grid's rows and columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.features import geometry_mask
from shapely.geometry.base import BaseGeometry

from think2seg.crs import project
from think2seg.cube import Entry
from think2seg.errors import CubeError
from think2seg.grid import Grid


def region_of(entries: Sequence[Entry]) -> BaseGeometry | None:
    """The region (WGS 84) that the last published of some steps was asked for; None where it is not known."""
    wkt = max(entries, key=lambda entry: entry.step).region if entries else ""
    return shapely.from_wkt(wkt) if wkt else None


def strips(
    grid: Grid, part: BaseGeometry | None, whole: BaseGeometry | None = None
) -> Iterator[tuple[slice, slice, npt.NDArray[np.bool_]]]:
    """Walk a grid one row of blocks at a time: rows, columns, (y, x) bool, pixels whose centre lies in both regions.

    part, whole: WGS 84, None for all; only blocks that `part` touches are walked. Raises CubeError where it lies
    outside the grid.
    """
    shapes = [project(region, grid.crs) for region in (whole, part) if region is not None]
    window_rows, cols = _all(grid) if part is None else _around(part, grid)
    for top in range(window_rows.start, window_rows.stop, grid.block_px):
        rows = slice(top, top + grid.block_px)
        yield rows, cols, _inside(shapes, grid, rows, cols)


def _inside(shapes: Sequence[BaseGeometry], grid: Grid, rows: slice, cols: slice) -> npt.NDArray[np.bool_]:
    """(y, x) bool: pixels of a part of a grid whose centre lies in all shapes, which have the grid's CRS."""
    inside = np.ones((rows.stop - rows.start, cols.stop - cols.start), np.bool_)
    transform = grid.transform * grid.transform.translation(cols.start, rows.start)
    for shape in shapes:
        inside &= geometry_mask([shape], out_shape=inside.shape, transform=transform, invert=True)
    return inside


def _all(grid: Grid) -> tuple[slice, slice]:
    height, width = grid.shape
    return slice(0, height), slice(0, width)


def _around(region: BaseGeometry, grid: Grid) -> tuple[slice, slice]:
    """Rows and columns of the blocks that a WGS 84 region touches."""
    projected = project(region, grid.crs)
    left, top = ~grid.transform * (projected.bounds[0], projected.bounds[3])
    right, bottom = ~grid.transform * (projected.bounds[2], projected.bounds[1])
    rows, cols = (
        slice(max(0, math.floor(low / grid.block_px) * grid.block_px),
              min(size, math.ceil(high / grid.block_px) * grid.block_px))
        for low, high, size in ((top, bottom, grid.shape[0]), (left, right, grid.shape[1]))
    )  # fmt: skip
    if rows.start >= rows.stop or cols.start >= cols.stop:
        raise CubeError(
            f"The region {_degrees(region.bounds)} lies outside the cube",
            f"The cube covers {_degrees(grid.bbox_wgs84)}: west, south, east, north in degrees.",
        )
    return rows, cols


def _degrees(bounds: Sequence[float]) -> str:
    return ", ".join(f"{bound:.4f}" for bound in bounds)
