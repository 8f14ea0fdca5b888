"""Where training images come from: simulated scenes made on the fly, mixed with real train tiles."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from think2seg.prompting.views import shown
from think2seg.samples.labelled import Image, Instance, LabelledImage, Split
from think2seg.samples.real import load_tiles
from think2seg.samples.simulate import simulate

HELD_OUT_SEED = 2**31
"""Scenes with this seed or a larger one are never trained on."""


CUT_OFF = 0.15
"""Share of images beyond whose edge lies *no data*."""
LEAST_LEFT_PX = 150
"""Smallest rest of an instance that is still asked for."""


class Source(Protocol):
    """Gives labelled images, one for each state of a random generator."""

    def draw(self, rng: np.random.Generator) -> LabelledImage:
        """One training image, augmented."""

    def digest(self) -> str:
        """Hash of what the images are made of."""


@dataclass(frozen=True, kw_only=True)
class MixedSource:
    """Simulated scenes and real tiles; real tiles are cut once, at the first use of a process."""

    real_share: float
    folder: Path | None
    """Folder of real imagery; None for simulated scenes only."""
    wheels: Path | None
    tiles: int
    sources: tuple[str, ...] | None
    seed: int

    @cached_property
    def real(self) -> Sequence[LabelledImage]:
        """The real train tiles, in memory."""
        return self.cut(split="train", seed=self.seed, n=self.tiles)

    def cut(self, *, split: Split, seed: int, n: int) -> tuple[LabelledImage, ...]:
        """`n` real tiles of a split, none when there is no folder or no share for them."""
        if self.real_share == 0 or self.folder is None:
            return ()
        return tuple(load_tiles(self.folder, split=split, seed=seed, n=n, sources=self.sources, wheels=self.wheels))

    def draw(self, rng: np.random.Generator) -> LabelledImage:
        """A real tile with probability `real_share`, else a new scene; some of either end in *no data*."""
        if rng.random() < self.real_share and self.real:
            tile = self.real[int(rng.integers(len(self.real)))]
            image = replace(tile, image=jitter_colour(tile.image, rng))
        else:
            image = simulate(int(rng.integers(HELD_OUT_SEED)))
        if rng.random() < CUT_OFF:
            image = cut_off(image, rng)
        return turn(image, rng)

    def digest(self) -> str:
        """Hash of 16 scenes and of the pixels and masks of every real tile."""
        total = hashlib.sha256()
        for image in (*(simulate(seed) for seed in range(16)), *self.real):
            total.update(image.image.tobytes())
            for instance in image.instances:
                total.update(instance.concept.encode() + np.packbits(instance.mask).tobytes())
        return total.hexdigest()


class PlainSource:
    """Simulated scenes of a few objects that stand apart: what a training is begun with."""

    def draw(self, rng: np.random.Generator) -> LabelledImage:
        """A new scene."""
        return turn(simulate(int(rng.integers(HELD_OUT_SEED)), plain=True), rng)

    def digest(self) -> str:
        """Hash of 16 scenes."""
        scenes = (simulate(seed, plain=True) for seed in range(16))
        return hashlib.sha256(b"".join(scene.image.tobytes() for scene in scenes)).hexdigest()


def cut_off(image: LabelledImage, rng: np.random.Generator) -> LabelledImage:
    """Black out one side of an image, as a reader does beyond the edge of a scene, along a straight line.

    A concept of which too little is left is no longer `labelled`.
    """
    height, width = image.image.shape[:2]
    slope = 0.0 if rng.random() < 0.7 else float(rng.normal(0, 0.3))
    columns = np.arange(width)[None] - rng.uniform(0.15, 0.9) * width
    seen = columns + slope * (np.arange(height)[:, None] - height / 2) < 0
    kept, lost = [], set()
    for instance in image.instances:
        mask = instance.mask & seen
        if np.count_nonzero(mask) >= LEAST_LEFT_PX:
            kept.append(Instance(concept=instance.concept, mask=mask))
        elif mask.any():
            lost.add(instance.concept)
    gone = lost - {instance.concept for instance in kept}
    return replace(image, image=image.image * seen[..., None], instances=tuple(kept), labelled=image.labelled - gone)


def turn(image: LabelledImage, rng: np.random.Generator) -> LabelledImage:
    """One of the eight symmetries of the square."""
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    view = turns + 4 * mirrored
    instances = tuple(Instance(concept=i.concept, mask=shown(i.mask, view)) for i in image.instances)
    ignore = None if image.ignore is None else shown(image.ignore, view)
    return replace(image, image=shown(image.image, view), instances=instances, ignore=ignore)


def jitter_colour(image: Image, rng: np.random.Generator) -> Image:
    """Scale the whole image and its channels, and shift its brightness, all mildly."""
    gain = rng.uniform(0.9, 1.1) * rng.normal(1, 0.04, 3)
    table = np.arange(256)[:, None] * gain + rng.normal(0, 6)
    lookup = np.clip(table, 0, 255).astype(np.uint8)
    return np.stack([lookup[image[..., channel], channel] for channel in range(3)], axis=-1)


def batch_generator(seed: int, stage: str, step: int) -> np.random.Generator:
    """The random generator of one batch: a function of seed, stage and step only, so that a resumed run repeats it."""
    name = int.from_bytes(hashlib.sha256(stage.encode()).digest()[:4], "little")
    return np.random.default_rng([seed, name, step])
