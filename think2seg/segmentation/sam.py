"""Segment Anything (segment-anything): encode each tile once, decode all instances of a batch of tiles together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import batched, groupby
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn.functional import interpolate

from think2seg.errors import ModelError
from think2seg.segmentation.architecture import decode_prompts, load_sam_folder
from think2seg.segmentation.devices import choose_device, choose_dtype
from think2seg.segmentation.protocol import Drawn, Prompt

CHECKPOINT_SUFFIX = ".pth"


_TILES_AT_ONCE = 16
"""Embeddings held at a time."""


class SamSegmenter:
    """A `Sam` that encodes each tile once and decodes the instances of many tiles together, in calls of one shape.

    A call is filled up by repeating its last member: matrix kernels round differently for different shapes, and on a
    CPU in float32 with one thread a mask must not depend on what is drawn beside it. There, tiles are encoded one by
    one, which is faster too: the attention maps of several do not fit the processor's cache.
    """

    def __init__(self, path: Path, *, digest: str, dtype: str = "auto", device: str = "auto") -> None:
        """Load a segmenter folder or a segment-anything checkpoint; `dtype` is that of the image encoder.

        Raises ModelError when `path` holds neither.
        """
        self.digest = digest
        self._device = choose_device(device)
        self._dtype = choose_dtype(dtype, self._device)
        sam = load_sam_folder(path) if path.is_dir() else load_checkpoint(path)
        self._sam = sam.to(self._device).eval().requires_grad_(False)
        self._sam.image_encoder.to(self._dtype)
        self._encoded_at_once, self._decoded_at_once = (1, 8) if self._device.type == "cpu" else (8, 64)

    @property
    def image_px(self) -> int:
        """Side of the square image the encoder sees."""
        return int(self._sam.image_encoder.img_size)

    def draw(self, tiles: Sequence[npt.NDArray[np.uint8]], prompts: Sequence[Sequence[Prompt]]) -> list[list[Drawn]]:
        """One mask per prompt of each tile; see `Segmenter.draw`."""
        drawn: list[list[Drawn | None]] = [[None] * len(row) for row in prompts]
        asked = [index for index, row in enumerate(prompts) if row]
        for part in batched(asked, _TILES_AT_ONCE):
            embeddings = self._encode([tiles[index] for index in part])
            jobs = [
                _Job(slot, index, position, prompt.placed(factor=self.image_px / len(tiles[index])), len(tiles[index]))
                for slot, index in enumerate(part)
                for position, prompt in enumerate(prompts[index])
            ]
            for job, instance in self._decode(embeddings, jobs):
                drawn[job.tile][job.position] = instance
        return [[instance for instance in row if instance is not None] for row in drawn]

    @torch.inference_mode()
    def _encode(self, tiles: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """(n, c, h, w) embeddings of `tiles`."""
        size = (self.image_px, self.image_px)
        images = [np.asarray(Image.fromarray(tile).resize(size, Image.Resampling.BILINEAR)) for tile in tiles]
        embeddings = []
        for part in batched(images, self._encoded_at_once):
            full = np.stack(part + part[-1:] * (self._encoded_at_once - len(part)))
            pixels = self._sam.preprocess(torch.from_numpy(full).to(self._device).permute(0, 3, 1, 2))
            embeddings.append(self._sam.image_encoder(pixels.to(self._dtype))[: len(part)].float())
        return torch.cat(embeddings)

    @torch.inference_mode()
    def _decode(self, embeddings: Tensor, jobs: list[_Job]) -> Iterator[tuple[_Job, Drawn]]:
        for _, alike in groupby(sorted(jobs, key=_shape), key=_shape):
            for part in batched(alike, self._decoded_at_once):
                full = part + part[-1:] * (self._decoded_at_once - len(part))
                slots, prompts = [job.slot for job in full], [job.prompt for job in full]
                logits, scores = self._decode_alike(embeddings[slots], prompts)
                for job, low, score in zip(part, logits, scores.tolist(), strict=False):
                    yield job, Drawn(mask=self._mask(low, job.tile_px), score=min(max(score, 0.0), 1.0))

    def _mask(self, logits: Tensor, tile_px: int) -> npt.NDArray[np.bool_]:
        """(tile_px, tile_px) bool from the low-resolution `logits` (h, w) of one instance."""
        large = interpolate(logits[None, None], (tile_px, tile_px), mode="bilinear")
        mask: npt.NDArray[np.bool_] = (large[0, 0] > self._sam.mask_threshold).cpu().numpy()
        return mask

    def _decode_alike(self, embeddings: Tensor, prompts: list[Prompt]) -> tuple[Tensor, Tensor]:
        """Mask logits (n, h, w) and scores (n,) of prompts that have equally many points, and all or none a box."""
        points = [[*prompt.points, *prompt.negative_points] for prompt in prompts]
        labels = [1] * len(prompts[0].points) + [0] * len(prompts[0].negative_points)
        boxes = [prompt.bbox for prompt in prompts if prompt.bbox]
        return decode_prompts(
            self._sam,
            embeddings,
            boxes=self._tensor(boxes) if boxes else None,
            points=self._tensor(points) if labels else None,
            labels=self._tensor([labels] * len(prompts)) if labels else None,
        )

    def _tensor(self, values: object) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)


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


def load_checkpoint(path: Path) -> Sam:
    """Load a segment-anything checkpoint; its size (ViT-B, -L or -H) is told by the encoder's width.

    Raises ModelError when `path` is not such a checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        width = state["image_encoder.pos_embed"].shape[-1]
        sam = sam_model_registry[{768: "vit_b", 1024: "vit_l", 1280: "vit_h"}[width]]()
        sam.load_state_dict(state)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, UnpicklingError) as error:
        raise ModelError(
            f"{path} cannot be loaded as a segmenter: {error}",
            "Allowed is a segmenter folder of this project or a segment-anything checkpoint (vit_b, vit_l or vit_h).",
            "Choose another models.segmenter.path.",
        ) from error
    return sam
