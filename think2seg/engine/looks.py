"""Looks: the squares of imagery that the prompter is shown, and what came of each.

All positions are pixels (y, x) of a block without its halo; a look begins left of and above its core.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from think2seg.grid import Grid, Tile
from think2seg.prompting import Answer, Reply
from think2seg.prompting.answers import SETTLED
from think2seg.prompting.views import VIEWS, needed, returned, shown, voters
from think2seg.segmentation import Drawn

type RGB = npt.NDArray[np.uint8]

MIN_LOOK_PX = 8
"""Smallest side of a look that is worth a question."""


class Window(NamedTuple):
    """A rectangle of pixels."""

    y: int
    x: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the window in the array it lies in."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    def moved(self, dy: int, dx: int) -> Window:
        """The same rectangle, `dy` pixels down and `dx` to the right."""
        return Window(self.y + dy, self.x + dx, self.height, self.width)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """One square of imagery: a tile in one of its views, or a quarter of one that is asked again."""

    tile: Tile
    part: str
    """Empty for the whole tile, ``v1`` to ``v7`` for its other views, ``0`` to ``3`` (row by row) for its quarters."""
    rgb: RGB
    """(side, side, 3) uint8, halo included."""
    y: int
    x: int
    """Upper-left pixel of `rgb`."""
    core: Window
    """The pixels that this look answers for."""
    view: int = 0
    """In which of its `VIEWS` the prompter is shown the square."""

    @property
    def side(self) -> int:
        """Side of the square in pixels."""
        return len(self.rgb)

    def cut(self, array: npt.NDArray[np.bool_], window: Window) -> npt.NDArray[np.bool_]:
        """The part of `array` (side, side) that lies in `window`, which must be inside the look."""
        return array[window.moved(-self.y, -self.x).slices]

    @property
    def shown(self) -> RGB:
        """What the prompter is shown, (side, side, 3) uint8."""
        return shown(self.rgb, self.view) if self.view else self.rgb

    def answered(self, answer: Answer, frame_px: int) -> Answer:
        """An answer about what was shown, given in a frame of `frame_px`, in pixels of the look."""
        scaled = answer.scaled(self.side / frame_px)
        instances = tuple(returned(prompt, self.view, self.side) for prompt in scaled.instances)
        return replace(scaled, instances=instances) if self.view else scaled

    def seen_as(self, view: int) -> Look:
        """The look at a whole tile in another view."""
        return replace(self, part=f"v{view}" if view else "", view=view)

    def views(self, n: int) -> tuple[Look, ...]:
        """This look at a whole tile and its other views, `n` in all."""
        return tuple(self.seen_as(view) for view in VIEWS[:n])

    def again(self, part: str) -> Look:
        """The look at the same whole tile that is called `part`."""
        if part.startswith("v"):
            return self.seen_as(int(part[1:]))
        return self.quarters()[int(part)] if part else self

    def quarters(self) -> tuple[Look, ...]:
        """Four looks that share out the core, each with half the halo; empty where they would be too small."""
        halo = (self.core.y - self.y) // 2
        half = -(-self.core.height // 2)
        side = half + 2 * halo
        if side < MIN_LOOK_PX:
            return ()
        return tuple(self._quarter(row, col, half, halo, side) for row in (0, 1) for col in (0, 1))

    def _quarter(self, row: int, col: int, half: int, halo: int, side: int) -> Look:
        core = Window(
            self.core.y + row * half,
            self.core.x + col * half,
            min(half, self.core.height - row * half),
            min(half, self.core.width - col * half),
        )
        top = min(core.y - halo - self.y, self.side - side)
        left = min(core.x - halo - self.x, self.side - side)
        return Look(
            tile=self.tile,
            part=str(2 * row + col),
            rgb=self.rgb[top : top + side, left : left + side],
            y=self.y + top,
            x=self.x + left,
            core=core,
        )


def look_at(tile: Tile, rgb: RGB, grid: Grid) -> Look:
    """The look at a whole tile; `rgb` is (tile_px, tile_px, 3) uint8 with the halo."""
    return Look(
        tile=tile,
        part="",
        rgb=rgb,
        y=tile.y - grid.halo_px,
        x=tile.x - grid.halo_px,
        core=Window(tile.y, tile.x, grid.core_px, grid.core_px),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """What one look brought."""

    look: Look
    reply: Reply
    answer: Answer
    """In pixels of the look."""
    drawn: Sequence[Drawn]
    """One per instance of the answer."""
    seconds_prompt: float
    seconds_segment: float
    """The look's share of its batch."""

    @property
    def settled(self) -> bool:
        """Whether every pixel of the core has its answer."""
        return self.answer.status in SETTLED

    @property
    def union(self) -> npt.NDArray[np.bool_]:
        """(side, side) bool: what all instances cover."""
        union = np.zeros((self.look.side, self.look.side), dtype=np.bool_)
        for drawn in self.drawn:
            union |= drawn.mask
        return union


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Claim:
    """A window of a block and the looks whose instances are drawn in it."""

    window: Window
    last: Seen
    """The look that decides what became of the window."""
    seen: tuple[Seen, ...]
    needed: int = 1
    """How many of these must have drawn a pixel."""

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """(height, width) of the window, bool: the pixels that enough of them have drawn."""
        votes = sum(one.look.cut(one.union, self.window).astype(np.uint8) for one in self.seen)
        return np.asarray(votes >= self.needed)


def in_order(seen: Iterable[Seen]) -> list[Seen]:
    """`seen` by tile, row by row, and by part: the order of rows, whatever order the answers came in."""
    return sorted(seen, key=lambda one: (one.look.tile.y, one.look.tile.x, one.look.part))


def claims(seen: Iterable[Seen]) -> Iterator[Claim]:
    """Share out the pixels of a block's tiles among the looks at them.

    A tile's only look claims its core, and its views together: half of those that came to the commonest end must agree
    on a pixel. Where none did and the tile was asked again in quarters, a settled quarter claims its core alone; in a
    quarter that stayed unsettled, what the whole look had named is drawn besides.
    """
    for _, group in groupby(in_order(seen), key=lambda one: one.look.tile):
        whole, *others = group
        views = [whole, *(one for one in others if one.look.view)]
        quarters = [one for one in others if not one.look.view]
        if not quarters or any(one.settled for one in views):
            yield _agreeing(views)
            continue
        for last in quarters:
            yield Claim(window=last.look.core, last=last, seen=(last,) if last.settled else (whole, last))


def _agreeing(views: Sequence[Seen]) -> Claim:
    """The claim of a tile's views."""
    voting = tuple(views[number] for number in voters([one.answer.status for one in views]))
    return Claim(window=voting[0].look.core, last=voting[0], seen=voting, needed=needed(len(voting)))
