"""Answers sampled in training by the batching that production answers with.

transformers' `generate` reads the prompt of every answer, and steps with all answers until the longest of them ends.
Here an image is read once for all answers about it, and rows whose answers end make room for the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from think2seg.prompting.batch import Batch, Coming, Limits, Script
from think2seg.prompting.decoder import TextDecoder
from think2seg.prompting.presence import TokenClasses
from think2seg.prompting.vision import VisionEncoder

_ROWS_ON_CPU = 32


class Rollouts:
    """Samples from a ``Qwen2_5_VLForConditionalGeneration`` whose weights go on changing in place."""

    def __init__(self, model: Any, processor: Any, limits: Limits, *, temperature: float, frame_px: int) -> None:
        self._model, self._limits, self._temperature = model, limits, temperature
        self._decoder = TextDecoder(model)
        self._vision = VisionEncoder(model, processor.image_processor, frame_px)
        self._classes = TokenClasses(processor.tokenizer, self._decoder.vocabulary)

    def sample(self, prompts: Sequence[Sequence[int]], images: Sequence[Image.Image]) -> list[list[int]]:
        """Tokens of one answer to every prompt about its image, the ending one included.

        Prompts begin alike and images have the prompter's frame size. Answers to one question stand next to each other.
        """
        asked = [(tuple(prompt), image.tobytes()) for prompt, image in zip(prompts, images, strict=True)]
        groups = [list(group) for _, group in groupby(range(len(asked)), key=lambda number: asked[number])]
        scripts: list[Script] = []
        for group in groups:
            script = Script.of(torch.tensor(prompts[group[0]]), self._model, self._vision.grid)
            scripts += [script] * len(group)
        coming: Coming = iter([(group[0], np.asarray(images[group[0]]), tuple(group)) for group in groups])
        rows = _ROWS_ON_CPU if self._decoder.device.type == "cpu" else len(prompts)
        batch = Batch(self._decoder, self._vision, self._classes, scripts, self._limits, rows=rows, choose=self._drawn)
        answers = dict(_ended(batch, coming))
        return [answers[number] for number in range(len(prompts))]

    def _drawn(self, logits: Tensor) -> Tensor:
        return torch.multinomial((logits.float() / self._temperature).softmax(dim=-1), 1)[:, 0]


def _ended(batch: Batch, coming: Coming) -> Iterator[tuple[int, list[int]]]:
    """Number and tokens of every answer, as they end."""
    under_way = True
    while under_way:
        under_way = batch.advance(coming)
        for row in batch.take_ended():
            yield row.question, row.tokens
