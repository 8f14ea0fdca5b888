"""What an answer says of an instance, worked out from its mask: box, two points, and the cell it is anchored in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from think2seg.samples.labelled import Instance, Mask

FRAME_PX = 224
CELL_PX = 28
CELLS = FRAME_PX // CELL_PX
MIN_AREA_PX = 24
MIN_SIDE_PX = 3
COVERED = 0.12
"""Share of a cell that an instance must cover to be present in it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Anchored:
    """One instance as an answer describes it; pixels of the frame."""

    concept: str
    area_px: int
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1 as pixel corners, 0 to FRAME_PX."""
    points: tuple[tuple[int, int], tuple[int, int]]
    """Two (x, y) inside the mask, one in each half of the longer side."""
    anchor: int
    """Index, in raster order, of the cell that stands for the instance."""
    coverage: npt.NDArray[np.float32]
    """(cells²,) share of each cell that the mask covers."""


def anchor_instances(instances: Iterable[Instance]) -> tuple[Anchored, ...]:
    """Describe the instances that are large enough, in raster order of their anchors.

    Larger instances choose their cell first; two share one only when no other cell is left. Masks: (224, 224) bool.
    """
    measured = [(int(np.count_nonzero(i.mask)), i) for i in instances]
    taken: set[int] = set()
    found = []
    for area, instance in sorted(measured, key=lambda pair: -pair[0]):
        if area < MIN_AREA_PX:
            continue
        ys, xs = np.nonzero(instance.mask)
        box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
        if min(box[2] - box[0], box[3] - box[1]) < MIN_SIDE_PX:
            continue
        coverage = cell_coverage(instance.mask)
        anchor = _choose_cell(coverage, centre=(float(xs.mean()), float(ys.mean())), taken=taken)
        taken.add(anchor)
        points = inner_points(xs, ys, box)
        found.append(
            Anchored(
                concept=instance.concept, area_px=area, box=box, points=points, anchor=anchor, coverage=coverage.ravel()
            )
        )
    return tuple(sorted(found, key=lambda item: item.anchor))


def cell_coverage(mask: Mask) -> npt.NDArray[np.float32]:
    """Share of every cell that the mask covers, (cells, cells) float32."""
    return mask.reshape(CELLS, CELL_PX, CELLS, CELL_PX).mean(axis=(1, 3), dtype=np.float32)


def inner_points(
    xs: npt.NDArray[np.intp], ys: npt.NDArray[np.intp], box: Sequence[int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The pixels nearest to the centroids of both halves of a mask given by its pixels, left or upper half first."""
    along = xs if box[2] - box[0] >= box[3] - box[1] else ys
    middle = (along.min() + along.max() + 1) / 2
    first = along < middle
    return _nearest_to_centroid(xs, ys, first), _nearest_to_centroid(xs, ys, ~first)


def _nearest_to_centroid(
    xs: npt.NDArray[np.intp], ys: npt.NDArray[np.intp], chosen: npt.NDArray[np.bool_]
) -> tuple[int, int]:
    if chosen.any():
        xs, ys = xs[chosen], ys[chosen]
    nearest = int(np.argmin((xs - xs.mean()) ** 2 + (ys - ys.mean()) ** 2))
    return int(xs[nearest]), int(ys[nearest])


def _choose_cell(coverage: npt.NDArray[np.float32], *, centre: tuple[float, float], taken: set[int]) -> int:
    rows, columns = np.indices(coverage.shape)
    distance = (columns * CELL_PX + CELL_PX / 2 - centre[0]) ** 2 + (rows * CELL_PX + CELL_PX / 2 - centre[1]) ** 2
    order = np.argsort(distance, axis=None, kind="stable")
    flat = coverage.ravel()
    for least in (flat.max() / 2, np.float32(1 / CELL_PX**2)):
        for cell in order:
            if flat[cell] >= least and int(cell) not in taken:
                return int(cell)
    return int(order[0])
