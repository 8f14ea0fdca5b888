"""The masks of a cube at the size of a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from think2seg.grid import Grid
from think2seg.imagery import Quality
from think2seg.publish.outline import shrink
from think2seg.publish.pictures import Window

type Cells = npt.NDArray[np.bool_]
"""(y, x) bool, one value per cell of the page's map."""

_BAND_PX = 1024
_HIDDEN_BY_SKY = int(Quality.CLOUD | Quality.SHADOW)
_HIDDEN_BY_FAULT = int(Quality.FAILED | Quality.TRUNCATED | Quality.UNPARSABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The part of a grid that the page shows, and how many pixels make one cell of its maps."""

    rows: slice
    cols: slice
    factor: int
    outside: Cells
    """Cells outside the region."""

    def window(self, grid: Grid) -> Window:
        """The same part as fractions of the grid's height and width."""
        height, width = grid.shape
        return Window(
            top=self.rows.start / height,
            left=self.cols.start / width,
            bottom=self.rows.stop / height,
            right=self.cols.stop / width,
        )

    def bounds(self, grid: Grid) -> tuple[float, float, float, float]:
        """(min_x, min_y, max_x, max_y) in CRS units."""
        left, top = grid.transform * (self.cols.start, self.rows.start)
        right, bottom = grid.transform * (self.cols.stop, self.rows.stop)
        return left, bottom, right, top


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMap:
    """What one step shows, cell by cell."""

    present: Cells
    cloud: Cells
    """Not observed because of clouds or their shadows."""
    hidden: Cells
    """Not observed for any other reason."""


def view_of(quality: xr.DataArray, longest_px: int) -> View:
    """Find the region in the `quality` (y, x) of a step that covers it, and fit it into `longest_px` cells."""
    height, width = quality.shape
    used_rows, used_cols = np.zeros(height, np.bool_), np.zeros(width, np.bool_)
    for band in _bands(slice(0, height), 1):
        inside = _inside(quality[band])
        used_rows[band] = inside.any(axis=1)
        used_cols |= inside.any(axis=0)
    rows, cols = _extent(used_rows), _extent(used_cols)
    factor = -(-max(rows.stop - rows.start, cols.stop - cols.start) // longest_px)
    outside = []
    for band in _bands(rows, factor):
        inside = _inside(quality[band, cols])
        outside.append(2 * shrink(inside, factor) < shrink(np.ones_like(inside), factor))
    return View(rows=rows, cols=cols, factor=factor, outside=np.concatenate(outside))


def step_map(step: xr.Dataset, view: View) -> StepMap:
    """Reduce a step to the cells of a view; the majority of a cell's pixels decides."""
    counts = [_counts(step, band, view) for band in _bands(view.rows, view.factor)]
    found, seen, blocked, cloudy = (np.concatenate(parts) for parts in zip(*counts, strict=True))
    hidden = blocked > seen
    return StepMap(
        present=(2 * found >= seen) & (seen > 0) & ~hidden,
        cloud=hidden & (2 * cloudy >= blocked),
        hidden=hidden & (2 * cloudy < blocked),
    )


def _counts(step: xr.Dataset, band: slice, view: View) -> tuple[npt.NDArray[np.int64], ...]:
    """Pixels per cell of some rows: present, observed, not observed, not observed for clouds."""
    mask, bits = (step[name][band, view.cols].to_numpy() for name in ("mask", "quality"))
    unseen = (mask > 1) & ((bits & Quality.OUTSIDE) == 0)
    sky = unseen & ((bits & _HIDDEN_BY_SKY) != 0) & ((bits & _HIDDEN_BY_FAULT) == 0)
    return tuple(shrink(pixels, view.factor) for pixels in (mask == 1, mask <= 1, unseen, sky))


def _inside(quality: xr.DataArray) -> npt.NDArray[np.bool_]:
    return np.asarray((quality.to_numpy() & Quality.OUTSIDE) == 0)


def _bands(rows: slice, factor: int) -> Iterator[slice]:
    """Rows in bands of whole cells, so that memory does not grow with the cube's height."""
    height = factor * max(1, _BAND_PX // factor)
    for top in range(rows.start, rows.stop, height):
        yield slice(top, min(top + height, rows.stop))


def _extent(used: npt.NDArray[np.bool_]) -> slice:
    """From the first to the last True; everything where there is none."""
    found = np.flatnonzero(used)
    return slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, used.size)
