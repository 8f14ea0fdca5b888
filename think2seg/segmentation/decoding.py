"""Decode many prompts upon many images at once, with segment-anything's own weights.

`MaskDecoder.forward` draws many prompts upon *one* image; here its inner steps run over a batch of prompts, each upon
its own image. The image side of the first layer does not depend on the prompt (there is no mask prompt), so
it is computed once per image, however many instances are drawn upon it. Results equal the library's to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor
from torch.nn import ConvTranspose2d
from torch.nn.functional import layer_norm, linear, scaled_dot_product_attention


class EncodedImages(NamedTuple):
    """n images as a layer of the decoder begins with them; the grid is h × w, channels are c, of attention a."""

    source: Tensor
    """(n, h · w, c): the embedding, with the decoder's token for *no mask given*."""
    key: Tensor
    """(n, h · w, a): what the prompt's tokens look for in the first layer."""
    value: Tensor
    """(n, h · w, a): what they find there."""
    query: Tensor
    """(n, h · w, a): what the image then looks for in the prompt's tokens."""

    @classmethod
    def of(cls, sam: Sam, embeddings: Tensor) -> Self:
        """From the image encoder's embeddings (n, c, h, w)."""
        empty = sam.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
        source = (embeddings + empty).flatten(2).transpose(1, 2).contiguous()
        return cls.before(sam.mask_decoder.transformer.layers[0], source, _position(sam))

    @classmethod
    def before(cls, layer: TwoWayAttentionBlock, source: Tensor, position: Tensor) -> Self:
        """As a layer of the decoder begins with states (n, h · w, c) and their places (1, h · w, c)."""
        placed = source + position
        return cls(
            source=source,
            key=layer.cross_attn_token_to_image.k_proj(placed),
            value=layer.cross_attn_token_to_image.v_proj(source),
            query=layer.cross_attn_image_to_token.q_proj(placed),
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """All images of some."""
        return cls(*map(torch.cat, zip(*parts, strict=True)))

    def at(self, slots: Sequence[int] | slice | Tensor) -> Self:
        """The images at some positions; an image may be there more than once."""
        return type(self)(*(part[slots] for part in self))


def decode_prompts(
    sam: Sam, images: EncodedImages, *, boxes: Tensor | None, points: Tensor | None, labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Draw one mask per prompt set, every set upon its own image.

    images: n of them, one per prompt set; boxes: (n, 4) xyxy, points: (n, k, 2) xy, both in pixels of the encoder's
    frame, and either may be None; labels: (n, k), 1 inside and 0 outside, all 1 by default.
    Returns mask logits (n, 4h, 4w) and the predicted IoU (n,).
    """
    labelled = None
    if points is not None:
        labelled = (points, torch.ones(points.shape[:2], device=points.device) if labels is None else labels)
    sparse, _ = sam.prompt_encoder(points=labelled, boxes=boxes, masks=None)
    decoder = sam.mask_decoder
    outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([outputs.expand(len(images.source), -1, -1), sparse], dim=1)
    states, source = _looked(sam, images, tokens)
    return _upscaled(sam, source, states[:, 1]), decoder.iou_prediction_head(states[:, 0])[:, 0]


def _upscaled(sam: Sam, source: Tensor, state: Tensor) -> Tensor:
    """Mask logits (n, 4h, 4w) of image states (n, h · w, c) and the state (n, c) of the mask's token.

    A transposed convolution whose kernel is as wide as its stride is a product for each token: channels stay last
    until the only thing that is left of them is the mask.
    """
    first, norm, activation, second, last = sam.mask_decoder.output_upscaling
    n, (height, width) = len(source), sam.prompt_encoder.image_embedding_size
    fine = layer_norm(_quartered(first, source), norm.weight.shape, norm.weight, norm.bias, norm.eps)
    fine = last(_quartered(second, activation(fine))).flatten(1, 3)
    kernel = sam.mask_decoder.output_hypernetworks_mlps[0](state)
    logits: Tensor = (fine @ kernel[..., None]).view(n, height, width, 2, 2, 2, 2)
    return logits.permute(0, 1, 3, 5, 2, 4, 6).reshape(n, 4 * height, 4 * width)


def _quartered(convolution: ConvTranspose2d, source: Tensor) -> Tensor:
    """What a transposed convolution of kernel and stride 2 makes of tokens (…, c): (…, 4, c'), row by row."""
    weight, bias = convolution.weight.permute(0, 2, 3, 1).flatten(1), convolution.bias
    assert bias is not None
    quartered: Tensor = linear(source, weight.T, bias.repeat(4))
    return quartered.view(*source.shape[:-1], 4, -1)


class FusedAttention(Attention):  # type: ignore[misc]  # the library is untyped
    """The decoder's attention as one fused kernel: an instance is drawn in 6.6 instead of 7.9 ms."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from `q`, (n, s, c), to `k` and `v`, (n, t, c); return (n, s, c)."""
        return _attended(self, self.q_proj(q), self.k_proj(k), self.v_proj(v))


def fuse_attention(sam: Sam) -> None:
    """Let the decoder use `FusedAttention`."""
    for module in sam.mask_decoder.transformer.modules():
        if isinstance(module, Attention):
            module.__class__ = FusedAttention


def _looked(sam: Sam, images: EncodedImages, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The transformer's forward pass: the states of `tokens` (n, t, c) and of the images (n, h · w, c)."""
    transformer, position = sam.mask_decoder.transformer, _position(sam)
    first, *others = transformer.layers
    states, source = _layer(first, images, tokens, tokens)
    for layer in others:
        states, source = _layer(layer, EncodedImages.before(layer, source, position), states, tokens)
    found = transformer.final_attn_token_to_image(q=states + tokens, k=source + position, v=source)
    return transformer.norm_final_attn(states + found), source


def _layer(layer: TwoWayAttentionBlock, images: EncodedImages, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """One layer: tokens look at each other, then at the image, then the image at them."""
    to_image, to_tokens = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
    if layer.skip_first_layer_pe:
        states = layer.norm1(layer.self_attn(q=states, k=states, v=states))
    else:
        placed = states + tokens
        states = layer.norm1(states + layer.self_attn(q=placed, k=placed, v=states))
    states = layer.norm2(states + _attended(to_image, to_image.q_proj(states + tokens), images.key, images.value))
    states = layer.norm3(states + layer.mlp(states))
    found = _attended(to_tokens, images.query, to_tokens.k_proj(states + tokens), to_tokens.v_proj(states))
    return states, layer.norm4(images.source + found)


def _attended(attention: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What `attention` gives for projected queries, keys and values."""
    heads = [attention._separate_heads(part, attention.num_heads) for part in (query, key, value)]
    projected: Tensor = attention.out_proj(attention._recombine_heads(scaled_dot_product_attention(*heads)))
    return projected


def _position(sam: Sam) -> Tensor:
    """(1, h · w, c): where each token of an image is."""
    position: Tensor = sam.prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2)
    return position
