"""segment-anything's attention, quicker on a CPU: one way for training, one for inference. Weights stay as they are."""

from __future__ import annotations

from typing import Any

from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from torch import Tensor, cat, einsum, eye
from torch.nn.functional import scaled_dot_product_attention

SCORES_AT_ONCE = 1 << 24
"""Entries of an attention map, over several heads, whose bias is made at once: one head of 64 × 64 patches."""


class FoldedAttention(Attention):  # type: ignore[misc]  # the library is untyped
    """The library's attention with its relative positions folded into queries and keys, for training.

    The library adds two position terms to every entry of the attention map. Appended to the queries, with one-hot rows
    and columns appended to the keys, the same sum comes out of the one product there is anyway: a block that looks at
    everything trains in 383 instead of 528 ms (12 images of 784 tokens, 5 heads).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Attend within (b, h, w, c) and return the same shape."""
        batch, height, width, _ = x.shape
        query, key, value = self.qkv(x).view(batch, height * width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        on_grid = query.unflatten(2, (height, width))
        rows = einsum("bnhwc,hkc->bnhwk", on_grid, get_rel_pos(height, height, self.rel_pos_h)).flatten(2, 3)
        columns = einsum("bnhwc,wkc->bnhwk", on_grid, get_rel_pos(width, width, self.rel_pos_w)).flatten(2, 3)
        row_of = eye(height, dtype=key.dtype, device=key.device).repeat_interleave(width, 0)
        column_of = eye(width, dtype=key.dtype, device=key.device).repeat(height, 1)
        place = cat([row_of, column_of], dim=-1).expand(*key.shape[:2], -1, -1)
        scores = cat([query * self.scale, rows, columns], dim=-1) @ cat([key, place], dim=-1).transpose(-2, -1)
        attended = scores.softmax(dim=-1).to(value.dtype) @ value
        projected: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, height, width, -1))
        return projected


class BiasedAttention(Attention):  # type: ignore[misc]  # the library is untyped
    """The library's attention with its relative positions as the bias of a fused kernel, for inference.

    On two CPU cores a block that looks at everything takes 8 ms of attention in place of 15 with positions folded into
    queries and keys, and of 24 in the library's way (784 tokens, 5 heads). Large maps are held head by head.
    """

    rows: Tensor
    columns: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Attend within (b, h, w, c) and return the same shape."""
        batch, height, width, _ = x.shape
        query, key, value = self.qkv(x).view(batch, height * width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        on_grid = query.reshape(batch, self.num_heads, height, width, -1)
        rows = einsum("bnhwc,hkc->bnhwk", on_grid, self.rows).contiguous()
        columns = einsum("bnhwc,wkc->bnhwk", on_grid, self.columns).contiguous()
        at_once = max(1, SCORES_AT_ONCE // (height * width) ** 2)
        parts = (part.split(at_once, dim=1) for part in (query, key, value, rows, columns))
        attended = cat([self._attended(*heads) for heads in zip(*parts, strict=True)], dim=1)
        projected: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, height, width, -1))
        return projected

    def _attended(self, query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        bias = (rows.unsqueeze(-1) + columns.unsqueeze(-2)).flatten(4, 5).flatten(2, 3)
        return scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=self.scale)


def quicken_training(encoder: ImageEncoderViT) -> None:
    """Let the encoder's blocks use `FoldedAttention`."""
    for block in encoder.blocks:
        block.attn.__class__ = FoldedAttention


def quicken(encoder: ImageEncoderViT) -> None:
    """Let the encoder's blocks use `BiasedAttention`."""
    grid = encoder.img_size // encoder.patch_embed.proj.stride[0]
    for block in encoder.blocks:
        attention: Any = block.attn
        side = block.window_size or grid
        if attention.use_rel_pos:
            attention.rows = get_rel_pos(side, side, attention.rel_pos_h).detach()
            attention.columns = get_rel_pos(side, side, attention.rel_pos_w).detach()
            attention.__class__ = BiasedAttention
