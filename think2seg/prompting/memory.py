"""What a Qwen2.5-VL prompter needs of a device's memory, from its configuration and the headers of its weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from think2seg.config import LocalPrompter
from think2seg.prompting.batch import rows_of
from think2seg.prompting.folder import read_description
from think2seg.segmentation import memory
from think2seg.segmentation.devices import choose_device, choose_dtype
from think2seg.segmentation.memory import BYTES, Need, runtime_bytes

TEXT_TOKENS = 350
"""Tokens of the published template with a question of usual length."""
_MERGED_PX = 28
"""Side of the square of pixels that becomes one token of the language model."""
_LIVE_ACTIVATIONS = 4
"""Tensors as wide as a layer's widest that live at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrompterShape:
    """The sizes of a Qwen2.5-VL that decide its memory."""

    parameters: int
    layers: int
    kv_heads: int
    head_px: int
    """Width of one attention head."""
    widest: int
    """Width of the language model's feed-forward layers."""
    vision_widest: int

    def cache_bytes_per_token(self, dtype: str) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_px * BYTES[dtype]

    def need(
        self, *, dtype: str, batch: int, frame_px: int, max_new_tokens: int, device: torch.device | None = None
    ) -> Need:
        """Memory for `batch` tiles at a time; with what the process holds on `device`, if one is given."""
        image_tokens = math.ceil(frame_px / _MERGED_PX) ** 2
        prompt_tokens = image_tokens + TEXT_TOKENS
        rows = batch if device is None else rows_of(batch, device)
        widest = max(prompt_tokens * self.widest, 4 * image_tokens * self.vision_widest)
        return Need(
            weights=self.parameters * BYTES[dtype],
            cache=rows * (prompt_tokens + max_new_tokens) * self.cache_bytes_per_token(dtype),
            working=_LIVE_ACTIVATIONS * batch * widest * BYTES[dtype],
            runtime=runtime_bytes(device) if device is not None else 0,
        )


PUBLISHED = {
    "Think2Seg-RS-3B": PrompterShape(
        parameters=3_754_622_976, layers=36, kv_heads=2, head_px=128, widest=11_008, vision_widest=3_420
    ),
    "Think2Seg-RS-7B": PrompterShape(
        parameters=8_292_166_656, layers=28, kv_heads=4, head_px=128, widest=18_944, vision_widest=3_420
    ),
}
"""The published prompters by name."""


def shape_of(folder: Path) -> PrompterShape | None:
    """Sizes of the prompter in `folder`; None where the folder does not tell, and loading it will say why."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        text = config.get("text_config") or config
        heads = int(text["num_attention_heads"])
        return PrompterShape(
            parameters=sum(_parameters(path) for path in folder.glob("*.safetensors")),
            layers=int(text["num_hidden_layers"]),
            kv_heads=int(text.get("num_key_value_heads") or heads),
            head_px=int(text["hidden_size"]) // heads,
            widest=int(text["intermediate_size"]),
            vision_widest=int(config["vision_config"]["intermediate_size"]),
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None


def need_of(config: LocalPrompter, folder: Path, device: torch.device) -> Need | None:
    """What the prompter of a monitor, with weights in `folder`, needs on `device`; None where the folder is not told.

    Raises ModelError when the folder's description makes no sense.
    """
    shape, description = shape_of(folder), read_description(folder)
    if shape is None:
        return None
    dtype = str(choose_dtype(config.dtype, device)).removeprefix("torch.")
    max_new_tokens = config.max_new_tokens or description.max_new_tokens
    return shape.need(
        dtype=dtype,
        batch=config.batch,
        frame_px=description.frame_px,
        max_new_tokens=max_new_tokens,
        device=device,
    )


def refuse_early(config: LocalPrompter, folder: Path) -> None:
    """Raise ModelError, with the arithmetic, when the weights in `folder` cannot fit where `config` wants them."""
    device = choose_device(config.device)
    if need := need_of(config, folder, device):
        memory.refuse_early(f"The prompter {folder.name} ({config.dtype})", need, device, TODO)


TODO = (
    "Set models.prompter.dtype to bfloat16, choose a larger device or the smaller model (3B instead of 7B), use fewer "
    "workers per machine, or let a server hold the weights (kind: served). A smaller models.prompter.batch shrinks "
    "cache and activations, not the weights."
)


def _parameters(path: Path) -> int:
    """Numbers in a safetensors file, from its header alone: eight bytes of length, then JSON."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError(f"{path} is no whole safetensors file")
        header: Mapping[str, Any] = json.loads(stream.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
