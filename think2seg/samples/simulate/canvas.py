"""The canvas of a scene: what is painted, and whose each visible pixel is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from think2seg.samples.labelled import Instance, Mask
from think2seg.samples.simulate import texture
from think2seg.samples.simulate.texture import Field

CONCEPTS = (
    "lake",
    "river",
    "building",
    "forest",
    "clearing",
    "road",
    "sports field",
    "runway",
    "ship",
    "farmland",
    "solar farm",
    "burnt area",
)
"""Base concepts in a fixed order."""
AREAS = frozenset({"lake", "river", "forest", "clearing", "farmland", "burnt area"})
"""Concepts whose instances are the connected pieces of what is visible; the others stay one when cut."""
MAX_PER_CONCEPT = 8
MAX_PER_SCENE = 16
MIN_INSTANCE_PX = 64
MIN_PIECE_PX = 200
"""Smaller pieces of an area are slivers: they are seen, and neither listed nor missed."""
REFERENCE_PX = 224
"""Lengths of the grammar are given for scenes of this size."""


@dataclass(slots=True, kw_only=True)
class Canvas:
    """A scene in the making; later paint covers earlier paint, and its labels with it."""

    rng: np.random.Generator
    size: int
    gsd_m: float
    sun_angle: float
    """Direction shadows fall to, radians from the column axis towards the row axis."""
    shadow_px: float
    """Length of the shadow of a one-storey house."""
    calm: bool = False
    """Whether water, air and sensor are at their best."""
    bands: Field = field(init=False)
    """(3, y, x) float32, red, green and blue, nominally 0 to 255; whole bands are several times quicker to paint."""
    owner: npt.NDArray[np.int16] = field(init=False)
    """(y, x) number of the object a pixel shows; 0 is ground that belongs to no instance."""
    taken: Mask = field(init=False)
    """(y, x) where nothing that needs free ground may be put."""
    concepts: list[str] = field(default_factory=list)
    """Concept of object 1, 2, …"""
    roads: dict[int, Mask] = field(default_factory=dict)
    """Whole course of each road, so that one that passes under another is not cut."""
    unlisted: set[str] = field(default_factory=set)
    """Concepts of which something is shown that no instance stands for."""

    def __post_init__(self) -> None:
        self.bands = np.zeros((3, self.size, self.size), np.float32)
        self.owner = np.zeros((self.size, self.size), np.int16)
        self.taken = np.zeros((self.size, self.size), np.bool_)

    def px(self, length: float) -> float:
        """A length of the grammar in pixels of this canvas."""
        return length * self.size / REFERENCE_PX

    def between(self, low: float, high: float) -> float:
        """A random length of the grammar in pixels of this canvas."""
        return self.px(float(self.rng.uniform(low, high)))

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return bool(self.rng.random() < probability)

    def noise(self, scale: int) -> Field:
        """Noise as large as the canvas, see `texture.noise`."""
        return texture.noise(self.rng, self.size, scale)

    def frame(self, angle: float, row: float, column: float) -> tuple[Field, Field]:
        """Distances along and across a direction, see `texture.frame`."""
        return texture.frame(self.size, angle, row, column)

    def inner_point(self, radius_px: float) -> tuple[float, float]:
        """A random (row, column); two out of three times far enough inside for an object of that radius."""
        return self.point(min(radius_px, self.size * 0.4) if self.chance(0.67) else self.px(6))

    def point(self, margin_px: float = 0.0) -> tuple[float, float]:
        """A random (row, column) at least `margin_px` inside."""
        row, column = self.rng.uniform(margin_px, self.size - margin_px, 2)
        return float(row), float(column)

    def paint(self, mask: Mask, colour: Field, amplitude: float = 0.0, scale: int = 1) -> None:
        """Cover the masked pixels with a colour that varies by `amplitude` grey levels."""
        light = np.float32(amplitude) * self.noise(scale)[mask] if amplitude else np.float32(0)
        for band, level in zip(self.bands, colour, strict=True):
            band[mask] = level + light

    def lighten(self, light: Field) -> None:
        """Add grey levels, (y, x), to all bands."""
        self.bands += light

    def lift(self, mask: Mask, levels: float) -> None:
        """Add grey levels to the masked pixels."""
        for band in self.bands:
            band[mask] += np.float32(levels)

    def scale(self, mask: Mask, factor: float | Field) -> None:
        """Multiply the masked pixels by a number, or by one number for each, (n,) float32."""
        for band in self.bands:
            band[mask] *= np.asarray(factor, np.float32)

    def blend(self, weight: npt.NDArray[np.floating[Any]], colour: Field) -> None:
        """Mix `colour`, (3,) float32, into the image by a weight of (y, x) in 0 to 1."""
        rows, columns = np.flatnonzero(weight.any(axis=1)), np.flatnonzero(weight.any(axis=0))
        if not len(rows):
            return
        touched = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        share = weight[touched]
        for band, level in zip(self.bands, colour, strict=True):
            band[touched] += share * (level - band[touched])

    def shade(self, mask: Mask, reach: float, depth: float = 0.55) -> None:
        """Darken what lies up to `reach` storeys down-sun of `mask`, outside of it."""
        shadow = np.zeros_like(mask)
        steps = max(1, round(reach * self.shadow_px / 2))
        for step in range(1, steps + 1):
            length = reach * self.shadow_px * step / steps
            shadow |= texture.shift(
                mask, round(math.sin(self.sun_angle) * length), round(math.cos(self.sun_angle) * length)
            )
        self.scale(shadow & ~mask, depth)

    def claim(self, concept: str, mask: Mask, *, gap_px: float = 0.0) -> None:
        """Make the masked pixels a new object of `concept` and keep `gap_px` around it free."""
        self.concepts.append(concept)
        self.owner[mask] = len(self.concepts)
        if concept == "road":
            self.roads[len(self.concepts)] = mask
        gap = round(self.px(gap_px))
        self.taken |= texture.grow(mask, gap) if gap else mask

    def pass_over(self, concept: str, mask: Mask) -> None:
        """The masked pixels show something of `concept` that is not to be listed, so that none of it can be."""
        self.unlisted.add(concept)
        self.disown(mask)
        self.taken |= mask

    def disown(self, mask: Mask) -> None:
        """Give the masked pixels to no instance (something else covers them)."""
        self.owner[mask] = 0

    def is_free(self, mask: Mask, tolerance: float = 0.0) -> bool:
        """Whether `mask` shows enough pixels and at most a share `tolerance` of them is taken."""
        area = int(np.count_nonzero(mask))
        return area >= MIN_INSTANCE_PX and int(np.count_nonzero(mask & self.taken)) <= tolerance * area

    def shows(self, concepts: frozenset[str]) -> Mask:
        """Where objects of `concepts` are visible, (y, x) bool."""
        wanted = np.array([False, *(concept in concepts for concept in self.concepts)])
        return np.asarray(np.take(wanted, self.owner))

    def instances(self) -> tuple[tuple[Instance, ...], frozenset[str], Mask]:
        """Visible instances, the concepts listed completely, and the (y, x) slivers too small to count.

        A concept with more than 8 instances is not listed at all, and neither is the most numerous one of a
        scene with more than 16, nor one of which only slivers are seen.
        """
        found: dict[str, list[Mask]] = {}
        slivers = np.zeros_like(self.taken)
        seen = set()
        for concept in CONCEPTS:
            least = MIN_PIECE_PX if concept in AREAS else MIN_INSTANCE_PX
            for mask in self._pieces(concept):
                seen.add(concept)
                if np.count_nonzero(mask) >= least * (self.size / REFERENCE_PX) ** 2:
                    found.setdefault(concept, []).append(mask)
                else:
                    slivers |= mask
        listed = set(CONCEPTS) - self.unlisted - (seen - set(found))
        for concept in self.unlisted & set(found):
            del found[concept]
        crowded = {concept for concept, masks in found.items() if len(masks) > MAX_PER_CONCEPT}
        while crowded or sum(map(len, found.values())) > MAX_PER_SCENE:
            concept = crowded.pop() if crowded else max(found, key=lambda name: len(found[name]))
            listed.discard(concept)
            del found[concept]
        return (
            tuple(Instance(concept=concept, mask=mask) for concept, masks in found.items() for mask in masks),
            frozenset(listed),
            slivers,
        )

    def _pieces(self, concept: str) -> list[Mask]:
        numbers = [number for number, name in enumerate(self.concepts, 1) if name == concept]
        if not numbers:
            return []
        if concept not in AREAS:
            road = self.shows(frozenset({"road"}))
            masks = [self.roads[n] & road if n in self.roads else self.owner == n for n in numbers]
            return [mask for mask in masks if mask.any()]
        labels, count = ndimage.label(self.shows(frozenset({concept})))
        return [labels == number for number in range(1, count + 1)]
