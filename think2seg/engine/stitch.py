"""From the looks at a block to its arrays: cores side by side, instances OR-ed, views put to the vote. Pure, and blind
to order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from think2seg.engine.looks import Claim, Seen, claims
from think2seg.grid import Grid
from think2seg.imagery import BLOCKING, Quality
from think2seg.prompting import Status

NOT_OBSERVED = 255
SCORE_SCALE = 254
_BITS: dict[Status, Quality] = {
    "truncated": Quality.TRUNCATED,
    "unparsable": Quality.UNPARSABLE,
    "unknown concept": Quality.UNKNOWN_CONCEPT,
}

type Bits = npt.NDArray[np.uint16]
type Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stitched:
    """The arrays of one block, (block_px, block_px) each."""

    mask: Bytes
    """0 absent, 1 present, 255 not observed."""
    score: Bytes
    """Highest score of the drawn instances that cover a present pixel, times 254; 255 elsewhere."""
    quality: Bits


def stitch(quality: Bits, seen: Iterable[Seen]) -> Stitched:
    """Draw what the looks named into a block whose imagery has the bits `quality` (block_px, block_px)."""
    bits = quality.copy()
    present = np.zeros(quality.shape, dtype=np.bool_)
    score = np.zeros(quality.shape, dtype=np.uint8)
    for claim in claims(seen):
        window = claim.window.slices
        _draw(claim, present[window], score[window])
        status = claim.last.answer.status
        if status != "ok":
            missed = True if status == "unknown concept" else ~present[window]
            bits[window] |= np.where(missed, _BITS[status], 0).astype(np.uint16)
    observed = (bits & BLOCKING) == 0
    return Stitched(
        mask=np.where(observed, present, NOT_OBSERVED).astype(np.uint8),
        score=np.where(observed & present, score, NOT_OBSERVED).astype(np.uint8),
        quality=bits,
    )


def unread(quality: Bits) -> Stitched:
    """The arrays of a block whose imagery could not be read; `quality` tells which pixels lie outside the region."""
    blank = np.full(quality.shape, NOT_OBSERVED, dtype=np.uint8)
    inside = (quality & Quality.OUTSIDE) == 0
    return Stitched(
        mask=blank, score=blank, quality=np.where(inside, quality | Quality.FAILED, quality).astype(np.uint16)
    )


def _draw(claim: Claim, present: npt.NDArray[np.bool_], score: Bytes) -> None:
    present |= claim.present
    for one in claim.seen:
        for drawn in one.drawn:
            inside = one.look.cut(drawn.mask, claim.window)
            np.maximum(score, np.where(inside, round(drawn.score * SCORE_SCALE), 0).astype(np.uint8), out=score)


def seam_sums(grid: Grid, mask: Bytes, quality: Bits, seen: Iterable[Seen]) -> dict[str, float]:
    """Sums behind the seam figures of one block.

    ``edge_…``: pairs of neighbouring pixels of `mask` on both sides of a core edge; ``inside_…``: all other pairs of
    neighbours; ``halo_…``: pixels of which two neighbouring tiles hold a view each. ``…_compared`` counts those that
    are observed, ``…_differs`` those among them whose two values are not the same.

    quality: (y, x) of the block with its halo.
    """
    sums = dict.fromkeys((f"{where}_{what}" for where in ("edge", "inside", "halo") for what in _WHAT), 0)
    edge = np.zeros(len(mask) - 1, dtype=np.bool_)
    edge[grid.core_px - 1 :: grid.core_px] = True
    for array in (mask, mask.T):
        _add(sums, "edge", *_neighbours(array, edge))
        _add(sums, "inside", *_neighbours(array, ~edge))
    observed = (quality & BLOCKING) == 0
    views = {(one.look.tile.y, one.look.tile.x): one for one in seen if one.answer.status == "ok" and not one.look.part}
    for (y, x), one in views.items():
        for beside in ((y + grid.core_px, x), (y, x + grid.core_px)):
            if beside in views and grid.halo_px:
                _add(sums, "halo", *_overlap(grid, one, views[beside], observed))
    return {name: float(value) for name, value in sums.items()}


_WHAT = ("compared", "differs")
type _Values = npt.NDArray[Any]


def _add(sums: dict[str, int], where: str, first: _Values, second: _Values, counted: npt.NDArray[np.bool_]) -> None:
    sums[f"{where}_compared"] += int(np.count_nonzero(counted))
    sums[f"{where}_differs"] += int(np.count_nonzero(counted & (first != second)))


def _neighbours(mask: Bytes, rows: npt.NDArray[np.bool_]) -> tuple[_Values, _Values, npt.NDArray[np.bool_]]:
    """Pixels of the chosen `rows`, those below them, and which pairs are observed."""
    above, below = mask[:-1][rows], mask[1:][rows]
    return above, below, (above != NOT_OBSERVED) & (below != NOT_OBSERVED)


def _overlap(
    grid: Grid, first: Seen, second: Seen, observed: npt.NDArray[np.bool_]
) -> tuple[_Values, _Values, npt.NDArray[np.bool_]]:
    """Both views of the pixels that two looks at neighbouring tiles share; `observed` has the block's halo around."""
    top, left = max(first.look.y, second.look.y), max(first.look.x, second.look.x)
    bottom = min(first.look.y, second.look.y) + grid.tile_px
    right = min(first.look.x, second.look.x) + grid.tile_px
    halo = grid.halo_px
    views = [
        one.union[top - one.look.y : bottom - one.look.y, left - one.look.x : right - one.look.x]
        for one in (first, second)
    ]
    return views[0], views[1], observed[top + halo : bottom + halo, left + halo : right + halo]
