"""The prompter in this process: transformers' own Qwen2.5-VL, from a folder of weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from PIL import Image
from torch import Tensor
from transformers import (
    AutoProcessor,
    GenerationConfig,
    LogitsProcessorList,
    Qwen2_5_VLForConditionalGeneration,
)

from think2seg.errors import ModelError
from think2seg.prompting.folder import folder_template, read_description
from think2seg.prompting.presence import PresenceRecorder, TokenClasses
from think2seg.prompting.protocol import Reply
from think2seg.prompting.template import Template
from think2seg.segmentation.devices import choose_device, choose_dtype


class LocalPrompter:
    """Qwen2.5-VL answering greedily, in batches of one fixed shape.

    A batch is filled up by repeating its last tile: matrix kernels round differently for different shapes, and on a
    CPU in float32 with one thread an answer must not depend on what is asked beside it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        digest: str,
        batch: int = 16,
        dtype: str = "auto",
        device: str = "auto",
        max_new_tokens: int | None = None,
        template: str | None = None,
    ) -> None:
        """Load processor and model from `folder`; `max_new_tokens` and `template` default to what the folder says.

        Raises ModelError when the folder does not hold a Qwen2.5-VL checkpoint with its processor and chat template.
        """
        description = read_description(folder)
        self.digest = digest
        self.batch = batch
        self.frame_px = description.frame_px
        self.footprint_m = description.footprint_m
        self.unknown_reasoning = description.unknown_reasoning
        self.template: Template = folder_template(folder, description, template)
        self._device = choose_device(device)
        self._processor, self._model = _load(folder, choose_dtype(dtype, self._device))
        self._model.to(self._device)
        tokenizer = self._processor.tokenizer
        self._generation = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens or description.max_new_tokens,
            eos_token_id=_end_tokens(self._model, tokenizer),
            pad_token_id=tokenizer.pad_token_id,
        )
        self._classes = TokenClasses(tokenizer, self._model.config.text_config.vocab_size)

    def ask(self, tiles: Sequence[npt.NDArray[np.uint8]], question: str) -> list[Reply]:
        """One reply per tile, in order; see `Prompter.ask`."""
        text = self._processor.apply_chat_template(self.template.messages(question), add_generation_prompt=True)
        replies: list[Reply] = []
        for part in batched(tiles, self.batch):
            frames = [self._frame(tile) for tile in part]
            frames += frames[-1:] * (self.batch - len(frames))
            replies += self._answer(frames, text)[: len(part)]
        return replies

    def _frame(self, tile: npt.NDArray[np.uint8]) -> Image.Image:
        side = self.frame_px
        return Image.fromarray(tile).resize((side, side), Image.Resampling.LANCZOS)

    def _answer(self, frames: list[Image.Image], text: str) -> list[Reply]:
        inputs = self._processor(
            text=[text] * len(frames), images=frames, padding=True, padding_side="left", return_tensors="pt"
        ).to(self._device)
        prompt_tokens = inputs["input_ids"].shape[1]
        recorder = PresenceRecorder(self._classes, prompt_tokens)
        with torch.inference_mode():
            sequences = self._model.generate(
                **inputs, generation_config=self._generation, logits_processor=LogitsProcessorList([recorder])
            )
        return [
            self._reply(tokens, presence)
            for tokens, presence in zip(sequences[:, prompt_tokens:].cpu(), recorder.presence, strict=True)
        ]

    def _reply(self, tokens: Tensor, presence: float | None) -> Reply:
        ends = torch.isin(tokens, torch.tensor(self._generation.eos_token_id)).nonzero()
        count = int(ends[0]) + 1 if len(ends) else len(tokens)
        return Reply(
            text=self._processor.tokenizer.decode(tokens[:count], skip_special_tokens=True),
            finish="stop" if len(ends) else "length",
            tokens=count,
            presence=presence,
        )


def _load(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    transformers.logging.disable_progress_bar()
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        model, loaded = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, attn_implementation="sdpa", local_files_only=True, output_loading_info=True
        )
        if missing := sorted(loaded["missing_keys"]):
            raise ValueError(f"{len(missing)} weights are missing, such as {missing[0]}")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"{folder} cannot be loaded as a prompter: {error}",
            "Allowed is a transformers folder of a Qwen2.5-VL model with its processor.",
            "Choose another models.prompter.path.",
        ) from error
    if processor.chat_template is None:
        raise ModelError(
            f"The prompter in {folder} has no chat template.",
            "A prompter folder holds chat_template.jinja (or names a template in its processor's configuration).",
            "Add the file that the weights were trained with.",
        )
    return processor, model.eval()


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: those of the weights' generation configuration and the tokenizer's own."""
    configured = model.generation_config.eos_token_id
    tokens = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in (*tokens, tokenizer.eos_token_id) if token is not None})
