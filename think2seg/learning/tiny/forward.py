"""Training forward of the prompter, with the image prefix shared by all questions of an image.

The language model runs transformers' own layers. The questions of an image lie one after another behind it; a mask
keeps them from seeing each other and every question counts its positions as if it were alone, so each gets the states
it would get in a sequence of its own. The vision tower's blocks are spelled out over a batch of equal images, where
transformers attends to one image at a time. Both equal transformers' forward (tested).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.vision_utils import get_vision_position_ids

from think2seg.learning.tiny.anchors import CELLS
from think2seg.learning.tiny.encode import PackedText, Prefix, patches

FLOAT32_ATTENTION = "think2seg_float32"


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention over (b, heads, length, width) in float32, which most CPUs do twice as fast as in bfloat16."""
    with torch.autocast("cpu", enabled=False):
        attended = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=mask)
    return attended.to(value.dtype)


def _float32_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    return attend(query, key, value, attention_mask).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(FLOAT32_ATTENTION, _float32_attention)


class PackedForward:
    """Runs a model over images and packed questions."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, prefix: Prefix) -> None:
        self._language = model.model.language_model
        self._vision = VisionForward(model)
        self._prefix = prefix

    def image_features(self, images: Tensor) -> Tensor:
        """What the vision tower hands to the language model: (b, cells², width) of images (b, y, x, 3) uint8."""
        return self._vision(images)

    def states(
        self, features: Tensor, text: PackedText | None, *, tap: int, layers: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """States of the image tokens after layer `tap` (b, cells², width), and the last ones of the text tokens.

        Without text only the prefix is run, and the second result is empty; `layers` stops early.
        """
        embed = self._language.embed_tokens
        prefix, batch = self._prefix, len(features)
        before, after = (embed(ids).expand(batch, -1, -1) for ids in (prefix.before, prefix.after))
        parts = [before, features.to(before.dtype), after]
        positions = prefix.positions[:, None].expand(-1, batch, -1)
        if text is not None:
            parts.append(embed(text.ids))
            positions = torch.cat([positions, (prefix.next_position + text.positions).expand(3, -1, -1)], dim=2)
        state = torch.cat(parts, dim=1)
        mask = packed_mask(batch, len(prefix), text)
        rotary = self._language.rotary_emb(state, positions)
        tapped = state
        with self._attention():
            for number, layer in enumerate(self._language.layers[:layers], start=1):
                state = layer(state, attention_mask=mask, position_embeddings=rotary)
                if number == tap:
                    tapped = state
        return tapped[:, prefix.image_slice], self._language.norm(state[:, len(prefix) :])

    @contextmanager
    def _attention(self) -> Iterator[None]:
        config = self._language.config
        usual = config._attn_implementation
        config._attn_implementation = FLOAT32_ATTENTION
        try:
            yield
        finally:
            config._attn_implementation = usual


class VisionForward:
    """The vision tower over a batch of images of one size, every block attending to its whole image."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration) -> None:
        self._tower = model.model.visual
        side = CELLS * self._tower.spatial_merge_size
        positions = get_vision_position_ids(torch.tensor([[1, side, side]]), self._tower.spatial_merge_size)
        self._cos, self._sin = self._tower.rotary_pos_emb(torch.zeros(1), positions)

    def __call__(self, images: Tensor) -> Tensor:
        """(b, cells², width) features of images (b, y, x, 3) uint8."""
        pixels = patches(images).view(len(images), -1, self._tower.patch_embed.proj.weight[0].numel())
        frames = pixels.view(*pixels.shape[:2], 3, 2, -1)[..., 0, :].flatten(2)
        kernel = self._tower.patch_embed.proj.weight.sum(2).flatten(1)
        state = F.linear(frames, kernel)
        for block in self._tower.blocks:
            state = state + self._attend(block.attn, block.norm1(state))
            state = state + block.mlp(block.norm2(state))
        features: Tensor = self._tower.merger(state)
        return features.view(len(images), CELLS**2, -1)

    def _attend(self, attention: Any, state: Tensor) -> Tensor:
        shape = (*state.shape[:2], 3, attention.num_heads, -1)
        query, key, value = attention.qkv(state).view(shape).permute(2, 0, 3, 1, 4).unbind(0)
        query, key = (self._rotate(part.float()) for part in (query, key))
        attended: Tensor = attention.proj(attend(query, key, value).transpose(1, 2).flatten(2))
        return attended

    def _rotate(self, part: Tensor) -> Tensor:
        first, second = part.chunk(2, dim=-1)
        rotated: Tensor = part * self._cos + torch.cat([-second, first], dim=-1) * self._sin
        return rotated


def packed_mask(batch: int, prefix: int, text: PackedText | None) -> Tensor:
    """(b, 1, length, length) bool, True where a token may look: back, at the prefix or its own branch."""
    branch = torch.zeros(batch, prefix, dtype=torch.int64)
    if text is not None:
        branch = torch.cat([branch, text.branch], dim=1)
    length = branch.shape[1]
    same = branch[:, :, None] == branch[:, None, :]
    same[:, :, :prefix] = True
    return (same & torch.ones(length, length, dtype=torch.bool).tril())[:, None]
