"""Segment Anything (segment-anything): the published ViT-B, -L and -H checkpoints, and this project's small one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam
from torch import Tensor

from think2seg.errors import ModelError
from think2seg.segmentation.architecture import load_sam_folder
from think2seg.segmentation.attention import quicken
from think2seg.segmentation.batches import BatchedSegmenter, Prompts
from think2seg.segmentation.decoding import EncodedImages, decode_prompts
from think2seg.segmentation.devices import choose_device, choose_dtype

CHECKPOINT_SUFFIX = ".pth"


class SamSegmenter(BatchedSegmenter[EncodedImages]):
    """A `Sam` that encodes each tile once and decodes the instances of many tiles together."""

    def __init__(self, path: Path, *, digest: str, dtype: str = "auto", device: str = "auto") -> None:
        """Load a segmenter folder or a segment-anything checkpoint; `dtype` is that of the image encoder.

        Raises ModelError when `path` holds neither.
        """
        where = choose_device(device)
        super().__init__(digest=digest, device=where, dtype=choose_dtype(dtype, where))
        sam = load_sam_folder(path) if path.is_dir() else load_checkpoint(path)
        self._sam = sam.to(where).eval().requires_grad_(False)
        self._sam.image_encoder.to(self._dtype)
        if where.type == "cpu":
            quicken(self._sam.image_encoder)
        self.mask_threshold = float(sam.mask_threshold)

    @property
    def image_px(self) -> int:
        """Side of the square image the encoder sees."""
        return int(self._sam.image_encoder.img_size)

    def _encode(self, tiles: Sequence[npt.NDArray[np.uint8]]) -> EncodedImages:
        size = (self.image_px, self.image_px)
        images = [np.asarray(Image.fromarray(tile).resize(size, Image.Resampling.BILINEAR)) for tile in tiles]
        pixels = self._sam.preprocess(torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2))
        return EncodedImages.of(self._sam, self._sam.image_encoder(pixels.to(self._dtype)).float())

    def _gathered(self, calls: Sequence[EncodedImages], places: Sequence[tuple[int, int]]) -> EncodedImages:
        return EncodedImages.joined([calls[call].at(slice(image, image + 1)) for call, image in places])

    def _decode(self, embeddings: EncodedImages, prompts: Prompts) -> tuple[Tensor, Tensor]:
        return decode_prompts(self._sam, embeddings, boxes=prompts.boxes, points=prompts.points, labels=prompts.labels)


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
