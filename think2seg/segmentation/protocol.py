"""What every segmenter offers: prompts in, masks out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

type Point = tuple[float, float]
type Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The geometry that makes a segmenter draw one instance; pixels, x to the right and y down.

    At least one of `bbox` and `points` is given.
    """

    bbox: Box | None
    """(min_x, min_y, max_x, max_y), pixel edges."""
    points: tuple[Point, ...] = ()
    """Points inside the instance."""
    negative_points: tuple[Point, ...] = ()
    """Points outside the instance."""

    def placed(self, *, factor: float = 1.0, dx: float = 0.0, dy: float = 0.0) -> Prompt:
        """The same prompt on another frame: scaled by `factor`, then moved `dx` pixels right and `dy` down."""

        def place(points: Sequence[Point]) -> tuple[Point, ...]:
            return tuple((x * factor + dx, y * factor + dy) for x, y in points)

        corners = place((self.bbox[:2], self.bbox[2:])) if self.bbox else ()
        return Prompt(
            bbox=(*corners[0], *corners[1]) if corners else None,
            points=place(self.points),
            negative_points=place(self.negative_points),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """One instance as drawn."""

    mask: npt.NDArray[np.bool_]
    """(t, t) bool, as large as the tile."""
    score: float
    """The segmenter's own estimate of the mask's IoU, in [0, 1]."""


class Segmenter(Protocol):
    """A promptable segmentation model.

    Masks do not depend on which tiles are drawn together, nor on their order.
    """

    @property
    def digest(self) -> str:
        """Content hash of the weights."""

    @property
    def image_px(self) -> int:
        """Side of the square image the encoder sees."""

    def draw(self, tiles: Sequence[npt.NDArray[np.uint8]], prompts: Sequence[Sequence[Prompt]]) -> list[list[Drawn]]:
        """One mask per prompt of each tile; a tile without prompts costs nothing.

        tiles: (t, t, 3) uint8 sRGB each. prompts: as many sequences as tiles, in pixels of the tile.
        """
