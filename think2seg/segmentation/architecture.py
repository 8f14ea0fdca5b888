"""Build segment-anything's own `Sam` from plain numbers, at any size.

The segmenter folder of a small Sam holds `model.safetensors` (its state dict) and `think2seg.json`:

    {"kind": "sam", "image_px": 224, "architecture": {…the fields of SamArchitecture…}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import nn

from think2seg.errors import ModelError

FOLDER_FILE = "think2seg.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamArchitecture:
    """The numbers that fix a `Sam`; defaults are those of the bundled small segmenter."""

    image_px: int = 224
    """Side of the square image the encoder sees, pixels."""
    patch_px: int = 8
    """Side of one encoder token, pixels; masks come out at four times the token grid."""
    width: int = 160
    depth: int = 8
    heads: int = 5
    mlp_ratio: float = 3.0
    window: int = 7
    """Side of the attention window, tokens."""
    global_blocks: tuple[int, ...] = (3, 7)
    """Indices of the encoder blocks that attend over the whole image."""
    prompt_width: int = 128
    """Channels of the image embedding and of the prompt tokens."""
    decoder_depth: int = 2
    decoder_heads: int = 4
    decoder_mlp: int = 512
    mask_tokens: int = 1
    """Further masks beside the first, single one (segment-anything's multimask outputs)."""
    pixel_mean: tuple[float, float, float] = (110.0, 110.0, 100.0)
    pixel_std: tuple[float, float, float] = (50.0, 48.0, 45.0)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> SamArchitecture:
        """Read the JSON form; ModelError names fields that are not known."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ModelError(
                f"The architecture of a Sam names unknown fields {unknown}.",
                f"Known fields are {sorted(known)}.",
                "Remove or rename them.",
            )
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**plain)

    def to_mapping(self) -> dict[str, Any]:
        """JSON form, the inverse of `from_mapping`."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def build_sam(architecture: Mapping[str, Any]) -> Sam:
    """Build a randomly initialised segment-anything `Sam` from the fields of `SamArchitecture`."""
    a = SamArchitecture.from_mapping(architecture)
    grid = a.image_px // a.patch_px
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=a.image_px,
            patch_size=a.patch_px,
            embed_dim=a.width,
            depth=a.depth,
            num_heads=a.heads,
            mlp_ratio=a.mlp_ratio,
            out_chans=a.prompt_width,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=a.window,
            global_attn_indexes=a.global_blocks,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=a.prompt_width,
            image_embedding_size=(grid, grid),
            input_image_size=(a.image_px, a.image_px),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=a.mask_tokens,
            transformer_dim=a.prompt_width,
            transformer=TwoWayTransformer(
                depth=a.decoder_depth, embedding_dim=a.prompt_width, mlp_dim=a.decoder_mlp, num_heads=a.decoder_heads
            ),
            iou_head_depth=3,
            iou_head_hidden_dim=a.prompt_width,
        ),
        pixel_mean=list(a.pixel_mean),
        pixel_std=list(a.pixel_std),
    )


def described(folder: Path) -> dict[str, Any]:
    """What a segmenter folder says of itself; raises ModelError when it is none."""
    path = folder / FOLDER_FILE
    if missing := [name for name in (FOLDER_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]:
        raise ModelError(
            f"The segmenter folder {folder} holds no {missing[0]}.",
            f"A segmenter folder holds {FOLDER_FILE} and {WEIGHTS_FILE}.",
            "Give a folder that `think2seg train` has exported.",
        )
    try:
        description: dict[str, Any] = json.loads(path.read_bytes())
        kind = description.get("kind")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: {error}", "A JSON object.", "Export the folder again.") from error
    if kind != "sam":
        raise ModelError(f"{path} is of kind {kind!r}.", "The kind must be 'sam'.", "Choose another folder.")
    return description


def load_sam_folder(folder: Path) -> Sam:
    """Load a segmenter folder (see the module's text) in float32, ready for inference.

    Raises ModelError when the folder is not one or its weights do not fit its architecture.
    """
    description = described(folder)
    try:
        sam = build_sam(description["architecture"])
        sam.load_state_dict({name: value.float() for name, value in load_file(folder / WEIGHTS_FILE).items()})
    except (OSError, LookupError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{folder} cannot be loaded as a segmenter: {error}",
            f"{WEIGHTS_FILE}, whole, and the architecture in {FOLDER_FILE} must come from one training run.",
            "Export the folder again.",
        ) from error
    return sam.eval()
