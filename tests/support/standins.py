"""A pair of models by rule, for tests of everything around the models: dark ground is what is asked for.

An answer depends on the pixels of its tile alone. The pair stands behind the production loaders of the workers, in the
place of real weights: a folder is resolved, digested and described as those are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

import think2seg.engine.spec
from think2seg.prompting import Reply, Template, load_template
from think2seg.segmentation import Drawn, Prompt

DARK = 90
"""Mean of red, green and blue below which ground is dark."""
_FRAME_PX = 96
_NAMED = 5
TEMPLATE = "name: by-rule\nsystem: You look for dark ground.\nuser: Where is {question}?\n"

type Tiles = Sequence[npt.NDArray[np.uint8]]


def dark(tile: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """(y, x) bool."""
    return np.asarray(tile.mean(axis=-1) < DARK)


@dataclass(kw_only=True)
class DarkPrompter:
    """Names the largest pieces of dark ground."""

    digest: str
    template: Template
    batch: int = 2
    frame_px: int = _FRAME_PX
    footprint_m: tuple[float, float] | None = None
    unknown_reasoning: str | None = None

    def ask(self, tiles: Tiles, question: str) -> list[Reply]:
        return [self._reply(tile) for tile in tiles]

    def _reply(self, tile: npt.NDArray[np.uint8]) -> Reply:
        labels, count = ndimage.label(dark(tile))
        sizes = np.bincount(labels.ravel())[1:]
        chosen = np.argsort(-sizes, kind="stable")[:_NAMED]
        boxes = ndimage.find_objects(labels)
        items = ", ".join(json.dumps(self._item(boxes[i], len(tile))) for i in chosen if sizes[i] >= 16)
        text = f"<think>{count} dark pieces.</think> <answer>```json[{items}]```</answer>"
        return Reply(text=text, finish="stop", tokens=len(text), presence=float(count > 0))

    def _item(self, box: tuple[slice, slice], side: int) -> dict[str, Any]:
        (top, bottom), (left, right) = ((s.start * self.frame_px / side, s.stop * self.frame_px / side) for s in box)
        middle = [(left + right) / 2, (top + bottom) / 2]
        return {"bbox_2d": [left, top, right, bottom], "positive_points": [middle, middle]}


@dataclass(kw_only=True)
class DarkSegmenter:
    """Draws the dark ground inside a box."""

    digest: str
    image_px: int = _FRAME_PX

    def draw(self, tiles: Tiles, prompts: Sequence[Sequence[Prompt]]) -> list[list[Drawn]]:
        return [[self._one(dark(tile), prompt) for prompt in named] for tile, named in zip(tiles, prompts, strict=True)]

    def _one(self, ground: npt.NDArray[np.bool_], prompt: Prompt) -> Drawn:
        assert prompt.bbox is not None
        left, top, right, bottom = (round(value) for value in prompt.bbox)
        inside = np.zeros_like(ground)
        inside[top:bottom, left:right] = True
        return Drawn(mask=ground & inside, score=0.75)


@dataclass
class Standins:
    """The folder that takes the place of weights, and how often each model was loaded."""

    folder: Path
    loads: list[str] = field(default_factory=list)

    def retrain(self) -> None:
        """Put other weights in the prompter's place."""
        (self.folder / "prompter" / "weights.bin").write_bytes(b"other weights")


@contextmanager
def standins(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Standins]:
    """Let workers in this process load the pair by rule instead of real weights."""
    make_folders(folder)
    yield install(folder, patch)


def make_folders(folder: Path) -> None:
    """Write what takes the place of weights."""
    for kind, description in (("prompter", {"frame_px": _FRAME_PX, "template": "template.yaml"}), ("segmenter", {})):
        (folder / kind).mkdir(parents=True)
        (folder / kind / "think2seg.json").write_text(json.dumps(description))
        (folder / kind / "weights.bin").write_text(f"loaded for {folder} alone")
    (folder / "prompter" / "template.yaml").write_text(TEMPLATE)


def install(folder: Path, patch: pytest.MonkeyPatch) -> Standins:
    """Put the pair in the place of real weights in this process."""
    pair = Standins(folder)

    def load_prompter(config: object, path: Path, *, digest: str) -> DarkPrompter:
        pair.loads.append("prompter")
        return DarkPrompter(digest=digest, template=load_template(str(path / "template.yaml")))

    def load_segmenter(config: object, path: Path, *, digest: str) -> DarkSegmenter:
        pair.loads.append("segmenter")
        return DarkSegmenter(digest=digest)

    patch.setenv("THINK2SEG_WEIGHTS", str(folder))
    patch.setattr(think2seg.engine.spec, "load_prompter", load_prompter)
    patch.setattr(think2seg.engine.spec, "load_segmenter", load_segmenter)
    return pair
