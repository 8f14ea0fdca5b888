"""Which blocks of a grid the footprints of scenes cover."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import shapely

from think2seg.crs import transformer, widened
from think2seg.grid import Block, Grid
from think2seg.stac.scenes import Acquisition, Scene

_SEGMENT_DEG = 0.05
"""Footprint edges are densified to this before they are projected."""
_NEAR_DEG = 4.0
"""Footprints are cut this far around the grid: further away a projection may be anything."""


class Coverage:
    """Which blocks of the region each scene's footprint covers; all footprints are tested in one go."""

    def __init__(self, acquisitions: Sequence[Acquisition], grid: Grid, blocks: Sequence[Block]) -> None:
        footprints = list(dict.fromkeys(scene.footprint for a in acquisitions for scene in a.scenes))
        self._blocks = sorted(blocks)
        self._hits: dict[str, list[int]] = {footprint: [] for footprint in footprints}
        self._known: dict[frozenset[str], tuple[Block, ...]] = {}
        for footprint, block in _pairs(footprints, grid, self._blocks):
            self._hits[footprints[footprint]].append(block)

    def of(self, acquisition: Acquisition, scenes: Collection[Scene] | None = None) -> tuple[Block, ...]:
        """Blocks that the scenes (by default all of the acquisition) cover, in order."""
        chosen = acquisition.scenes if scenes is None else scenes
        footprints = frozenset(scene.footprint for scene in chosen)
        if footprints not in self._known:
            numbers = sorted({number for footprint in footprints for number in self._hits[footprint]})
            self._known[footprints] = tuple(self._blocks[number] for number in numbers)
        return self._known[footprints]


def _pairs(footprints: Sequence[str], grid: Grid, blocks: Sequence[Block]) -> Iterator[tuple[int, int]]:
    """(footprint, block) positions that intersect. Touching edges do not count: blocks are shrunk by half a pixel."""
    if not footprints or not blocks:
        return
    shapes = shapely.from_geojson(footprints)
    invalid = ~shapely.is_valid(shapes)
    shapes[invalid] = shapely.make_valid(shapes[invalid])
    near = widened(grid.bbox_wgs84, _NEAR_DEG)
    far = ~shapely.covers(near, shapes)
    shapes[far] = shapely.intersection(shapes[far], near)
    forward = transformer("EPSG:4326", grid.crs)
    shapes = shapely.transform(
        shapely.segmentize(shapes, _SEGMENT_DEG), lambda lonlat: np.column_stack(forward.transform(*lonlat.T))
    )
    rows, cols = np.asarray(blocks).T
    side, transform, half = grid.block_px * grid.resolution, grid.transform, grid.resolution / 2
    left, top = transform.c + cols * side, transform.f - rows * side
    boxes = shapely.box(left + half, top - side + half, left + side - half, top - half)
    found = shapely.STRtree(boxes).query(shapes, predicate="intersects")
    yield from zip(*found.tolist(), strict=True)
