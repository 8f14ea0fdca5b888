"""What segmenters share: each tile encoded once, the instances of many tiles decoded together in calls of one shape."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import batched, groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from think2seg.errors import ModelError
from think2seg.segmentation.memory import calls_at_once
from think2seg.segmentation.protocol import Drawn, Prompt

_log = logging.getLogger(__name__)
_TILES_AT_ONCE = 16
"""Embeddings held at a time."""


class BatchedSegmenter[Embeddings](ABC):
    """A segmenter that encodes each tile once and decodes the instances of many tiles together, in calls of one shape.

    A call is filled up by repeating its last member: matrix kernels round differently for different shapes, and on a
    CPU in float32 with one thread a mask must not depend on what is drawn beside it. There, tiles are encoded one by
    one, which is faster too: the attention maps of several do not fit the processor's cache.
    """

    mask_threshold = 0.0
    """Logits above it belong to the instance."""

    def __init__(self, *, digest: str, device: torch.device, dtype: torch.dtype) -> None:
        self.digest = digest
        self._device, self._dtype = device, dtype
        self._encoded_at_once, self._decoded_at_once = calls_at_once(device)

    @property
    @abstractmethod
    def image_px(self) -> int:
        """Side of the square image the encoder sees."""

    @abstractmethod
    def _encode(self, tiles: Sequence[npt.NDArray[np.uint8]]) -> Embeddings:
        """Embeddings of `tiles`, which are as many as fit in one call."""

    @abstractmethod
    def _gathered(self, calls: Sequence[Embeddings], places: Sequence[tuple[int, int]]) -> Embeddings:
        """Embeddings of n images; a place is the number of a call and that of an image in it."""

    @abstractmethod
    def _decode(self, embeddings: Embeddings, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Mask logits (n, h, w) and scores (n,) of n prompts, each upon its own image."""

    def draw(self, tiles: Sequence[npt.NDArray[np.uint8]], prompts: Sequence[Sequence[Prompt]]) -> list[list[Drawn]]:
        """One mask per prompt of each tile; see `Segmenter.draw`. A tile that is given twice is encoded once."""
        drawn: list[list[Drawn | None]] = [[None] * len(row) for row in prompts]
        asked = [index for index, row in enumerate(prompts) if row]
        for part in batched(asked, _TILES_AT_ONCE):
            distinct = {id(tiles[index]): tiles[index] for index in part}
            slots = {number: slot for slot, number in enumerate(distinct)}
            jobs = [
                _Job(slots[id(tile)], index, position, prompt.placed(factor=self.image_px / len(tile)), len(tile))
                for index, tile in ((index, tiles[index]) for index in part)
                for position, prompt in enumerate(prompts[index])
            ]
            for job, instance in self._drawn(list(distinct.values()), jobs):
                drawn[job.tile][job.position] = instance
        return [[instance for instance in row if instance is not None] for row in drawn]

    def _drawn(self, tiles: Sequence[npt.NDArray[np.uint8]], jobs: list[_Job]) -> list[tuple[_Job, Drawn]]:
        """The instances of some tiles; where the device's memory does not do, calls are halved until it does."""
        while True:
            try:
                with torch.inference_mode():
                    return list(self._decoded(self._encoded(tiles), jobs))
            except torch.OutOfMemoryError as error:
                if self._encoded_at_once == self._decoded_at_once == 1:
                    raise ModelError(
                        f"{self._device} has no memory to draw a single instance: {error}",
                        "Weights, one encoded image and one instance must fit.",
                        "Choose a smaller segmenter, another models.segmenter.device, or dtype: bfloat16.",
                    ) from error
                self._encoded_at_once = max(1, self._encoded_at_once // 2)
                self._decoded_at_once = max(1, self._decoded_at_once // 2)
                _log.warning("%s is out of memory: drawing %d at a time", self._device, self._decoded_at_once)

    def _encoded(self, tiles: Sequence[npt.NDArray[np.uint8]]) -> list[Embeddings]:
        """What each call makes of its tiles."""
        full = [*tiles] + [tiles[-1]] * (-len(tiles) % self._encoded_at_once)
        return [self._encode(part) for part in batched(full, self._encoded_at_once)]

    def _decoded(self, calls: Sequence[Embeddings], jobs: list[_Job]) -> Iterator[tuple[_Job, Drawn]]:
        for _, alike in groupby(sorted(jobs, key=_shape), key=_shape):
            for part in batched(alike, self._decoded_at_once):
                full = part + part[-1:] * (self._decoded_at_once - len(part))
                prompts = Prompts.of([job.prompt for job in full], self._device)
                embeddings = self._gathered(calls, [divmod(job.slot, self._encoded_at_once) for job in full])
                logits, scores = self._decode(embeddings, prompts)
                for job, low, score in zip(part, logits, scores.tolist(), strict=False):
                    yield job, Drawn(mask=self._mask(low, job.tile_px), score=min(max(score, 0.0), 1.0))

    def _mask(self, logits: Tensor, tile_px: int) -> npt.NDArray[np.bool_]:
        """(tile_px, tile_px) bool from the low-resolution `logits` (h, w) of one instance."""
        large = interpolate(logits[None, None], (tile_px, tile_px), mode="bilinear")
        mask: npt.NDArray[np.bool_] = (large[0, 0] > self.mask_threshold).cpu().numpy()
        return mask


class Prompts(NamedTuple):
    """n prompts that have equally many points, and all or none a box; pixels of the encoder's image."""

    boxes: Tensor | None
    """(n, 4) float32, xyxy."""
    points: Tensor | None
    """(n, p, 2) float32."""
    labels: Tensor | None
    """(n, p) float32: 1 inside, 0 outside."""

    @classmethod
    def of(cls, prompts: Sequence[Prompt], device: torch.device) -> Prompts:
        """The tensors of some prompts."""

        def tensor(values: object) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        labels = [1] * len(prompts[0].points) + [0] * len(prompts[0].negative_points)
        boxes = [prompt.bbox for prompt in prompts if prompt.bbox]
        return cls(
            boxes=tensor(boxes) if boxes else None,
            points=tensor([[*prompt.points, *prompt.negative_points] for prompt in prompts]) if labels else None,
            labels=tensor([labels] * len(prompts)) if labels else None,
        )


class _Job(NamedTuple):
    """One instance to be drawn."""

    slot: int
    """Position of its tile among the encoded ones."""
    tile: int
    position: int
    prompt: Prompt
    """In pixels of the encoder's image."""
    tile_px: int


def _shape(job: _Job) -> tuple[bool, int, int]:
    return job.prompt.bbox is not None, len(job.prompt.points), len(job.prompt.negative_points)
