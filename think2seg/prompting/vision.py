"""The vision tower of a Qwen2.5-VL over frames of one fixed size.

transformers' own forward loops over images and windows; with all frames alike, the windows of one size are one batched
call, and positions are computed once. The patches are embedded by one matrix product instead of a strided convolution
in three dimensions, which takes a fifth of the whole tower's time on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index


class VisionEncoder:
    """Encodes frames of side `frame_px` with the tower of a loaded ``Qwen2_5_VLForConditionalGeneration``."""

    def __init__(self, model: Any, image_processor: Any, frame_px: int) -> None:
        self._tower, config = model.model.visual, model.config.vision_config
        self._mean, self._std = (
            torch.tensor(values, device=model.device)[:, None, None] * 255
            for values in (image_processor.image_mean, image_processor.image_std)
        )
        self._heads: int = config.num_heads
        self._patch, self._merge, self._times = config.patch_size, config.spatial_merge_size, config.temporal_patch_size
        self.grid = torch.tensor([[1, frame_px // self._patch, frame_px // self._patch]])
        """(1, 3) int64: times, rows and columns of patches."""
        self._embedding: Tensor = self._tower.patch_embed.proj.weight.flatten(1)
        windows, edges = get_vision_window_index(
            self.grid, spatial_merge_size=self._merge, window_size=config.window_size, patch_size=self._patch
        )
        self._order, self._reverse = windows.to(model.device), windows.argsort().to(model.device)
        self._windows = _alike(edges.unique_consecutive().tolist(), model.device)
        positions = get_vision_position_ids(self.grid, self._merge).to(model.device)
        cos, sin = self._tower.rotary_pos_emb(self._embedding, positions)
        self._rope = [self._permuted(part[None])[0][:, None] for part in (cos, sin)]

    def __call__(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """(n, tokens, hidden of the language model) from `frames`: (side, side, 3) uint8 sRGB each."""
        pixels = torch.from_numpy(np.stack(frames)).to(self._embedding.device).permute(0, 3, 1, 2)
        patches = self._patches((pixels - self._mean) / self._std).to(self._embedding.dtype)
        hidden = self._permuted(linear(patches, self._embedding))
        for number, block in enumerate(self._tower.blocks):
            whole = number in self._tower.fullatt_block_indexes
            hidden = hidden + self._attended(block.attn, _normed(hidden, block.norm1), whole=whole)
            normed = _normed(hidden, block.norm2)
            hidden = hidden + block.mlp.down_proj(silu(block.mlp.gate_proj(normed)).mul_(block.mlp.up_proj(normed)))
        merger = self._tower.merger
        merged: Tensor = merger.mlp(_normed(hidden, merger.ln_q).view(len(hidden), len(self._order), -1))
        return merged[:, self._reverse]

    def _patches(self, pixels: Tensor) -> Tensor:
        """(n, patches, 3 · times · patch²) from (n, 3, side, side), in the order in which patches are merged."""
        rows, merge, patch = int(self.grid[0, 1]) // self._merge, self._merge, self._patch
        split = pixels.view(len(pixels), 3, rows, merge, patch, rows, merge, patch)
        ordered = split.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)
        return ordered.expand(*[-1] * 6, self._times, -1, -1).reshape(len(pixels), (rows * merge) ** 2, -1)

    def _permuted(self, hidden: Tensor) -> Tensor:
        """Patches of `hidden` (n, patches, …) window by window."""
        merged = hidden.view(len(hidden), len(self._order), self._merge**2, -1)
        return merged[:, self._order].flatten(1, 2)

    def _attended(self, attention: Any, hidden: Tensor, *, whole: bool) -> Tensor:
        query, key, value = attention.qkv(hidden).view(*hidden.shape[:2], 3, self._heads, -1).unbind(2)
        query, key = self._turned(query), self._turned(key)
        if whole or sum(len(index) for index in self._windows) == 1:
            attended = _attend(query, key, value)
        else:
            attended = torch.empty_like(query)
            for index in self._windows:
                part = _attend(*(one[:, index].flatten(0, 1) for one in (query, key, value)))
                attended[:, index] = part.view(len(hidden), *index.shape, *part.shape[2:])
        projected: Tensor = attention.proj(attended.flatten(2))
        return projected

    def _turned(self, heads: Tensor) -> Tensor:
        """Rotate (n, patches, heads, head_dim), in float32 as the tower's own code does."""
        cos, sin = self._rope
        plain = heads.float()
        first, second = plain.chunk(2, dim=-1)
        return (plain * cos + torch.cat((-second, first), dim=-1) * sin).to(heads.dtype)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention within (n, patches, heads, head_dim)."""
    return scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)).transpose(
        1, 2
    )


def _normed(hidden: Tensor, norm: Any) -> Tensor:
    return rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _alike(edges: list[int], device: torch.device) -> list[Tensor]:
    """(windows, length) int64 patches of the windows between `edges`, those of one length together."""
    spans = sorted((end - start, start) for start, end in pairwise(edges))
    return [
        torch.tensor([range(start, start + length) for _, start in group], device=device)
        for length, group in groupby(spans, key=lambda span: span[0])
    ]
