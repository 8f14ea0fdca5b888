"""The language model of a Qwen2.5-VL, run over a cache of keys and values that is allocated once.

transformers' own forward grows its cache token by token and knows no rows that come and go. Here the same weights run
with the same arithmetic: prompts are extended in any number of parts (what is common to several of them once), and a
step adds one token to every row, wherever that row is in its answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

WINDOW_TOKENS = 32
"""Steps look at whole multiples of this many positions: few different shapes, and the rounding of none of them."""


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """Weights of one layer; projections that read the same input lie one after the other in one matrix."""

    input_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor
    output: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Rope:
    """Rotations for a run of positions."""

    cos: Tensor
    sin: Tensor
    """(…, head_dim / 2) each."""

    def __getitem__(self, index: Any) -> Rope:
        return Rope(self.cos[index], self.sin[index])

    def turn(self, heads: Tensor) -> Tensor:
        """Rotate `heads` (…, n_heads, head_dim), whose leading dimensions are those of the positions."""
        cos, sin = self.cos.unsqueeze(-2), self.sin.unsqueeze(-2)
        first, second = heads.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class TextDecoder:
    """Runs the language model of a loaded ``Qwen2_5_VLForConditionalGeneration``.

    Weights are not copied: the model's own modules keep them as views of the joined matrices.
    """

    def __init__(self, model: Any) -> None:
        text, config = model.model.language_model, model.config.text_config
        self._rotary = text.rotary_emb
        self._embedding: Tensor = text.embed_tokens.weight
        self._norm: Tensor = text.norm.weight
        self._head: Tensor = model.lm_head.weight
        self._eps: float = config.rms_norm_eps
        self._heads: int = config.num_attention_heads
        self._kv_heads: int = config.num_key_value_heads
        self._head_dim: int = config.hidden_size // config.num_attention_heads
        self._layers = [_joined(layer) for layer in text.layers]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._embedding.device

    @property
    def vocabulary(self) -> int:
        """Width of the logits."""
        return len(self._head)

    def cache(self, rows: int, positions: int) -> Tensor:
        """An empty cache: (layers, 2, rows, kv_heads, positions, head_dim).

        It is written to at once: zeros that nobody has touched take no memory, and a run would grow with the longest
        answer it has met.
        """
        shape = (len(self._layers), 2, rows, self._kv_heads, positions, self._head_dim)
        return torch.empty(shape, dtype=self._embedding.dtype, device=self.device).zero_()

    def cache_bytes(self, positions: int) -> int:
        """Size of one row of a cache."""
        per_position = len(self._layers) * 2 * self._kv_heads * self._head_dim * self._embedding.element_size()
        return per_position * positions

    def rope(self, positions: Tensor) -> Rope:
        """Rotations for (3, n) int64 `positions` in time, height and width."""
        cos, sin = self._rotary(self._embedding, positions[:, None].to(self.device))
        half = self._head_dim // 2
        return Rope(cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous())

    def embed(self, tokens: Tensor) -> Tensor:
        """(…, hidden) embeddings of (…) int64 tokens."""
        return self._embedding[tokens]

    def extend(self, hidden: Tensor, rope: Rope, cache: Tensor, start: int, *, logits: bool) -> Tensor | None:
        """Read `hidden` (rows, n, hidden), which follow on `start` positions that the `cache` of these rows holds.

        Returns the logits (rows, vocabulary) after the last of them when they are asked for; without, the last layer
        does no more than fill the cache.
        """
        rows, count, _ = hidden.shape
        end = start + count
        mask = torch.ones(count, end, dtype=torch.bool, device=self.device).tril_(start)
        last = len(self._layers) - 1
        for number, layer in enumerate(self._layers):
            mixed = self._mixed(hidden, layer).view(rows, count, -1, self._head_dim)
            query, key, value = self._split(mixed, rope)
            keys, values = cache[number]
            keys[:, :, start:end], values[:, :, start:end] = key.transpose(1, 2), value.transpose(1, 2)
            if number == last:
                if not logits:
                    return None
                query, hidden, mask = query[:, -1:], hidden[:, -1:], mask[-1:]
            attended = scaled_dot_product_attention(
                query.transpose(1, 2),
                keys[:, :, :end],
                values[:, :, :end],
                attn_mask=mask,
                enable_gqa=self._heads != self._kv_heads,
            )
            hidden = self._finish(hidden, attended.transpose(1, 2).flatten(2), layer)
        return self._logits(hidden[:, -1])

    def step(self, tokens: Tensor, lengths: Tensor, rope: Rope, cache: Tensor) -> Tensor:
        """Add one token to every row and return the logits (rows, vocabulary) after it.

        tokens, lengths: (rows,) int64, the token and the number of positions before it; rope: of these positions.
        """
        rows = torch.arange(len(tokens), device=self.device)
        hidden = self.embed(tokens)
        window = min(-(-(int(lengths.max()) + 1) // WINDOW_TOKENS) * WINDOW_TOKENS, cache.shape[4])
        unseen = torch.arange(window, device=self.device) > lengths[:, None]
        mask = torch.zeros(unseen.shape, dtype=hidden.dtype, device=self.device).masked_fill_(unseen, -torch.inf)
        mask = mask[:, None, None]
        for layer, (keys, values) in zip(self._layers, cache, strict=True):
            query, key, value = self._split(self._mixed(hidden, layer).view(len(rows), -1, self._head_dim), rope)
            keys[rows, :, lengths], values[rows, :, lengths] = key, value
            attended = scaled_dot_product_attention(
                query.view(len(rows), self._kv_heads, -1, self._head_dim),
                keys[:, :, :window],
                values[:, :, :window],
                attn_mask=mask,
            )
            hidden = self._finish(hidden, attended.flatten(1), layer)
        return self._logits(hidden)

    def _mixed(self, hidden: Tensor, layer: _Layer) -> Tensor:
        return linear(self._normed(hidden, layer.input_norm), layer.qkv, layer.qkv_bias)

    def _split(self, mixed: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        turned = rope.turn(mixed[..., : self._heads + self._kv_heads, :])
        return (
            turned[..., : self._heads, :],
            turned[..., self._heads :, :],
            mixed[..., self._heads + self._kv_heads :, :],
        )

    def _finish(self, hidden: Tensor, attended: Tensor, layer: _Layer) -> Tensor:
        hidden = hidden + linear(attended, layer.output)
        gate, up = linear(self._normed(hidden, layer.mlp_norm), layer.gate_up).chunk(2, dim=-1)
        return hidden + linear(silu(gate).mul_(up), layer.down)

    def _normed(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(hidden, weight.shape, weight, self._eps)

    def _logits(self, hidden: Tensor) -> Tensor:
        return linear(self._normed(hidden, self._norm), self._head)


def _joined(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    return _Layer(
        input_norm=layer.input_layernorm.weight.data,
        qkv=_join([module.weight for module in projections]),
        qkv_bias=_join([module.bias for module in projections]),
        output=attention.o_proj.weight.data,
        mlp_norm=layer.post_attention_layernorm.weight.data,
        gate_up=_join([mlp.gate_proj.weight, mlp.up_proj.weight]),
        down=mlp.down_proj.weight.data,
    )


def _join(parameters: list[torch.nn.Parameter]) -> Tensor:
    """The parameters one after the other in one tensor, of which they become views."""
    whole = torch.cat([parameter.data for parameter in parameters])
    start = 0
    for parameter in parameters:
        parameter.data = whole[start : start + len(parameter)]
        start += len(parameter)
    return whole
