"""Decode many prompts upon many images at once, with segment-anything's own weights.

`MaskDecoder.forward` draws many prompts upon *one* image; here its inner steps run over a batch of prompts, each upon
its own image. Results equal the library's to rounding.

A prompt is some nine tokens, an image hundreds. Where one looks at the other, the projections are therefore applied to
the tokens on either side of the product with the image, never to the image: the sums are the same, in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor
from torch.nn import ConvTranspose2d, Linear
from torch.nn.functional import layer_norm, linear


class EncodedImages(NamedTuple):
    """n images as the decoder begins with them; the grid is h × w, channels are c."""

    source: Tensor
    """(n, h · w, c): the embedding, with the decoder's token for *no mask given*."""
    placed: Tensor
    """(n, h · w, c): the same with its places added."""

    @classmethod
    def of(cls, sam: Sam, embeddings: Tensor) -> Self:
        """From the image encoder's embeddings (n, c, h, w)."""
        empty = sam.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
        source = (embeddings + empty).flatten(2).transpose(1, 2).contiguous()
        return cls(source=source, placed=source + _position(sam))

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


def _looked(sam: Sam, images: EncodedImages, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The transformer's forward pass: the states of `tokens` (n, t, c) and of the images (n, h · w, c)."""
    transformer, position, states = sam.mask_decoder.transformer, _position(sam), tokens
    for layer in transformer.layers:
        states, source = _layer(layer, images, states, tokens)
        images = EncodedImages(source=source, placed=source + position)
    found = _at_images(transformer.final_attn_token_to_image, states + tokens, images)
    return transformer.norm_final_attn(states + found), images.source


def _layer(layer: TwoWayAttentionBlock, images: EncodedImages, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """One layer: tokens look at each other, then at the image, then the image at them."""
    if layer.skip_first_layer_pe:
        states = layer.norm1(layer.self_attn(q=states, k=states, v=states))
    else:
        placed = states + tokens
        states = layer.norm1(states + layer.self_attn(q=placed, k=placed, v=states))
    states = layer.norm2(states + _at_images(layer.cross_attn_token_to_image, states + tokens, images))
    states = layer.norm3(states + layer.mlp(states))
    return states, layer.norm4(_at_tokens(layer.cross_attn_image_to_token, images, states + tokens, states))


def _at_images(attention: Attention, placed: Tensor, images: EncodedImages) -> Tensor:
    """What tokens (n, t, c) find in their images: (n, t, c).

    The keys' bias is the same for all that a token looks at, which its softmax does not see.
    """
    heads = attention.num_heads
    query = _of_heads(attention.q_proj(placed), heads) * _scale(attention)
    sought = (query @ _per_head(attention.k_proj, heads)).flatten(1, 2)
    shares = torch.bmm(sought, images.placed.transpose(1, 2)).softmax(dim=-1)
    seen = torch.bmm(shares, images.source).view(*query.shape[:3], -1) @ _per_head(attention.v_proj, heads).mT
    found: Tensor = attention.out_proj(seen.transpose(1, 2).flatten(2) + attention.v_proj.bias)
    return found


def _at_tokens(attention: Attention, images: EncodedImages, placed: Tensor, states: Tensor) -> Tensor:
    """The images, (n, h · w, c), and what they find in their tokens, (n, t, c), added up."""
    heads = attention.num_heads
    key = _of_heads(attention.k_proj(placed), heads) * _scale(attention)
    value = _of_heads(attention.v_proj(states), heads)
    sought = (key @ _per_head(attention.q_proj, heads)).flatten(1, 2)
    level = (key @ attention.q_proj.bias.view(heads, -1, 1)).flatten(1, 2)
    scores = torch.baddbmm(level, sought, images.placed.transpose(1, 2))
    shares = scores.view(*key.shape[:3], -1).softmax(dim=2).flatten(1, 2)
    out = attention.out_proj
    given = value @ out.weight.T.view(heads, -1, out.out_features) + out.bias / heads
    return torch.baddbmm(images.source, shares.transpose(1, 2), given.flatten(1, 2))


def _of_heads(projected: Tensor, heads: int) -> Tensor:
    """(n, t, a) as (n, heads, t, a / heads)."""
    return projected.view(*projected.shape[:2], heads, -1).transpose(1, 2)


def _per_head(projection: Linear, heads: int) -> Tensor:
    """The weight (a, c) of a projection as (heads, a / heads, c)."""
    return projection.weight.view(heads, -1, projection.in_features)


def _scale(attention: Attention) -> float:
    """What the scores are multiplied by."""
    return float((attention.internal_dim // attention.num_heads) ** -0.5)


def _position(sam: Sam) -> Tensor:
    """(1, h · w, c): where each token of an image is."""
    position: Tensor = sam.prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2)
    return position
