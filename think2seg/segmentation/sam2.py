"""SAM 2 and 2.1 (transformers' `Sam2Model`), from checkpoint folders as the hub has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, Sam2Config, Sam2ImageProcessor, Sam2Model

from think2seg.errors import ModelError
from think2seg.segmentation.batches import BatchedSegmenter, Prompts
from think2seg.segmentation.devices import choose_device, choose_dtype, load_whole

_KINDS = ("sam2", "sam2_video")
"""Model types that hold a `Sam2Model`; the published checkpoints call themselves video models."""


class Sam2Segmenter(BatchedSegmenter[list[Tensor]]):
    """A `Sam2Model` that encodes each tile once and decodes the instances of many tiles together."""

    def __init__(self, path: Path, *, digest: str, dtype: str = "auto", device: str = "auto") -> None:
        """Load a checkpoint folder; `dtype` is that of the vision encoder.

        Raises ModelError when `path` holds no SAM 2.
        """
        where = choose_device(device)
        super().__init__(digest=digest, device=where, dtype=choose_dtype(dtype, where))
        self._processor, self._model = _load(path)
        self._model.to(where).requires_grad_(False)
        self._model.vision_encoder.to(self._dtype)

    @property
    def image_px(self) -> int:
        """Side of the square image the encoder sees."""
        return int(self._model.config.prompt_encoder_config.image_size)

    def _encode(self, tiles: Sequence[npt.NDArray[np.uint8]]) -> list[Tensor]:
        """Feature maps (n, c, h, w) float32, finest first; the last one goes through the decoder's attention."""
        copies = [tile.copy() for tile in tiles]  # torch warns of arrays that cannot be written
        pixels = self._processor(images=copies, return_tensors="pt")["pixel_values"]
        features = self._model.vision_encoder(pixels.to(self._device, self._dtype), return_dict=True)
        fine, middle, coarse = (level.float() for level in features.fpn_hidden_states)
        decoder = self._model.mask_decoder
        no_memory = self._model.no_memory_embedding.reshape(1, -1, 1, 1)
        return [decoder.conv_s0(fine), decoder.conv_s1(middle), coarse + no_memory]

    def _gathered(self, calls: Sequence[list[Tensor]], places: Sequence[tuple[int, int]]) -> list[Tensor]:
        images = ([level[image] for level in calls[call]] for call, image in places)
        return [torch.stack(level) for level in zip(*images, strict=True)]

    def _decode(self, embeddings: list[Tensor], prompts: Prompts) -> tuple[Tensor, Tensor]:
        """One prompt for each of n images, as the model sees it."""
        boxes, points, labels = (None if part is None else part.unsqueeze(1) for part in prompts)
        outputs = self._model(
            image_embeddings=embeddings,
            input_boxes=boxes,
            input_points=points,
            input_labels=None if labels is None else labels.int(),
            multimask_output=False,
        )
        return outputs.pred_masks[:, 0, 0], outputs.iou_scores[:, 0, 0]


def read_config(path: Path) -> Sam2Config:
    """The configuration of the SAM 2 in a checkpoint folder; raises ModelError when it holds none."""
    with _explained(path):
        held = AutoConfig.from_pretrained(path, local_files_only=True).to_dict()
        if held["model_type"] not in _KINDS:
            raise ValueError(f"it is of type {held['model_type']}")
        parts = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
        return Sam2Config(**{name: held[name] for name in parts})


def _load(path: Path) -> tuple[Any, Any]:
    transformers.logging.disable_progress_bar()
    config = read_config(path)
    with _explained(path):
        processor = Sam2ImageProcessor.from_pretrained(path, local_files_only=True)
        return processor, load_whole(Sam2Model, path, config=config, dtype=torch.float32)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Errors of loading as a ModelError."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{path} cannot be loaded as a SAM 2 segmenter: {error}",
            "Allowed is a transformers folder such as facebook/sam2.1-hiera-small.",
            "Choose another models.segmenter.path, or kind: sam for a segment-anything checkpoint.",
        ) from error
