"""An image with its instances: what training and evaluation learn from, simulated or real."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

type Image = npt.NDArray[np.uint8]
type Mask = npt.NDArray[np.bool_]
type Split = Literal["train", "held_out"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instance:
    """One object of one base concept."""

    concept: str
    mask: Mask
    """(y, x) bool, as large as the image; never empty."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledImage:
    """A tile of imagery with the instances that are known in it."""

    image: Image
    """(y, x, 3) uint8 sRGB."""
    instances: tuple[Instance, ...]
    labelled: frozenset[str]
    """Base concepts whose instances are listed completely: only for these does absence mean *not there*."""
    gsd_m: float
    """Ground sampling distance of `image` in metres per pixel."""
    source: str
    """Where the tile is from, e.g. "simulated" or "naip-wetlands"."""
    site: str
    """The place and, where there are several, the date; tiles of one site are never independent."""
    split: Split
    licence: str
    ignore: Mask | None = None
    """(y, x) bool, pixels no loss or metric should count (no imagery, doubtful labels); None when there are none."""
    footprint: tuple[float, float, float, float] | None = None
    """(min_x, min_y, max_x, max_y) in map units of the source; None for a simulated scene."""

    def mask_of(self, concepts: Collection[str]) -> Mask:
        """Union of the instances of `concepts` as (y, x) bool."""
        union = np.zeros(self.image.shape[:2], dtype=np.bool_)
        for instance in self.instances:
            if instance.concept in concepts:
                union |= instance.mask
        return union

    def knows(self, concepts: Collection[str]) -> bool:
        """Whether the absence of all of `concepts` would be meaningful here."""
        return self.labelled.issuperset(concepts)
