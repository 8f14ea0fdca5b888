"""The small prompter: transformers' own Qwen2.5-VL classes with small numbers, random weights, and its processor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from think2seg.errors import ModelError
from think2seg.learning.tiny.anchors import FRAME_PX
from think2seg.learning.tiny.vocabulary import END, IMAGE, PAD, START, VIDEO, VISION_END, VISION_START, Vocabulary

RESIDUAL_GAIN = 0.4
EMBEDDING_STD = 0.3
PERIODS_PX = (448.0, 300.0, 200.0, 130.0, 80.0, 50.0, 32.0, 20.0, 12.0, 8.0)
"""Periods of the waves that number tokens start as."""
WAVE_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 0.9, 0.8, 0.6, 0.5, 0.4)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrompterArchitecture:
    """The numbers that fix a small prompter."""

    patch_px: int = 14
    vision_depth: int = 6
    vision_width: int = 192
    vision_heads: int = 6
    vision_mlp: int = 512
    vision_theta: float = 100.0
    depth: int = 6
    width: int = 256
    heads: int = 8
    mlp: int = 704
    theta: float = 500.0

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> PrompterArchitecture:
        """Read the settings' form; ModelError names fields that are not known."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ModelError(
                f"The architecture of a prompter names unknown fields {unknown}.",
                f"Known fields are {sorted(known)}.",
                "Remove or rename them.",
            )
        return cls(**values)


def prompter_config(architecture: PrompterArchitecture, vocabulary: Vocabulary) -> Qwen2_5_VLConfig:
    """Configuration of the model: every vision block attends to the whole image; rotary axes are interleaved."""
    a = architecture
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(vocabulary),
            "hidden_size": a.width,
            "intermediate_size": a.mlp,
            "num_hidden_layers": a.depth,
            "num_attention_heads": a.heads,
            "num_key_value_heads": a.heads,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": a.theta,
                "mrope_section": [1] * (a.width // a.heads // 2),
            },
            "bos_token_id": vocabulary.id(PAD),
            "eos_token_id": vocabulary.id(END),
            "pad_token_id": vocabulary.id(PAD),
        },
        vision_config={
            "depth": a.vision_depth,
            "hidden_size": a.vision_width,
            "intermediate_size": a.vision_mlp,
            "num_heads": a.vision_heads,
            "patch_size": a.patch_px,
            "window_size": 2 * FRAME_PX,
            "out_hidden_size": a.width,
            "fullatt_block_indexes": list(range(a.vision_depth)),
            "rope_parameters": {"rope_type": "axial", "rope_theta": a.vision_theta},
        },
        image_token_id=vocabulary.id(IMAGE),
        video_token_id=vocabulary.id(VIDEO),
        vision_start_token_id=vocabulary.id(VISION_START),
        vision_end_token_id=vocabulary.id(VISION_END),
        tie_word_embeddings=False,
    )
    config._attn_implementation = "sdpa"
    return config


def build_prompter(
    architecture: PrompterArchitecture, vocabulary: Vocabulary, *, seed: int
) -> Qwen2_5_VLForConditionalGeneration:
    """A prompter with random weights, initialised wider than transformers does, as small widths need."""
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(prompter_config(architecture, vocabulary))
    embedding, head = model.model.language_model.embed_tokens.weight, model.lm_head.weight
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2 or parameter is embedding or parameter is head:
                continue
            nn.init.normal_(parameter, std=1 / math.sqrt(parameter[0].numel()))
            if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight")):
                parameter.mul_(RESIDUAL_GAIN)
        embedding.normal_(0, EMBEDDING_STD)
        head.normal_(0, EMBEDDING_STD / 10)
        _start_numbers_as_waves(embedding, head, vocabulary)
    return model


def _start_numbers_as_waves(embedding: Tensor, head: Tensor, vocabulary: Vocabulary) -> None:
    """Let neighbouring numbers start alike: random projections of sine and cosine of their values."""
    width = embedding.shape[1]
    values = torch.arange(FRAME_PX + 1, dtype=torch.float32)[:, None]
    phases = values * (2 * math.pi / torch.tensor(PERIODS_PX))
    waves = torch.cat([phases.sin(), phases.cos()], dim=1) * torch.tensor(WAVE_WEIGHTS * 2)
    into, out_of = (torch.randn(waves.shape[1], width) / math.sqrt(waves.shape[1]) for _ in range(2))
    kinds = torch.randn(2, width) * 0.2
    for kind, ids in zip(kinds, torch.from_numpy(vocabulary.number_ids.astype(np.int64)), strict=True):
        embedding[ids] = waves @ into * 0.4 + kind
        head[ids] = waves @ out_of * 0.05 + kind * 0.1


def build_processor(vocabulary: Vocabulary, *, patch_px: int = 14) -> Qwen2_5_VLProcessor:
    """Processor with a chat template; every square image becomes FRAME_PX × FRAME_PX pixels, 64 image tokens."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=vocabulary.tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START, VISION_START, VISION_END, IMAGE, VIDEO],
        padding_side="left",
    )
    size = {"shortest_edge": (FRAME_PX - 2) ** 2, "longest_edge": (FRAME_PX + 2) ** 2}  # rounding must not lose a cell
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, patch_size=patch_px),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size, patch_size=patch_px),
        chat_template=CHAT_TEMPLATE,
    )


def system_prefix(system: str) -> str:
    """Text of the prompt up to the image, as the chat template writes it."""
    return f"{START}system\n{system}{END}\n{START}user\n{VISION_START}"


def question_suffix(text: str) -> str:
    """Text of the prompt from the question on, as the chat template writes it after the image."""
    return f"{text}{END}\n{START}assistant\n"
