"""The prompter in this process: transformers' own Qwen2.5-VL, from a folder of weights."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoProcessor, GenerationConfig, Qwen2_5_VLForConditionalGeneration

from think2seg.errors import ModelError
from think2seg.prompting.batch import Batch, Coming, Limits, Row, Script
from think2seg.prompting.decoder import TextDecoder
from think2seg.prompting.folder import folder_template, read_description
from think2seg.prompting.presence import TokenClasses
from think2seg.prompting.protocol import Answered, Ask, Reply
from think2seg.prompting.template import Template
from think2seg.prompting.vision import VisionEncoder
from think2seg.segmentation.devices import choose_device, choose_dtype, load_whole

_log = logging.getLogger(__name__)


class LocalPrompter:
    """Qwen2.5-VL answering greedily, by continuous batching; see `think2seg.prompting.batch`.

    An answer ends at its closing answer tag. On a CPU in float32 with one thread it does not depend on what is asked
    beside it.
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
        self._calibration = description.presence
        self._device = choose_device(device)
        self._processor, self._model = _load(folder, choose_dtype(dtype, self._device), self._device)
        tokenizer = self._processor.tokenizer
        self._generation = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens or description.max_new_tokens,
            eos_token_id=_end_tokens(self._model, tokenizer),
            pad_token_id=tokenizer.pad_token_id,
        )
        self._ends = frozenset(self._generation.eos_token_id)
        self._classes = TokenClasses(tokenizer, self._model.config.text_config.vocab_size)
        self._decoder = TextDecoder(self._model)
        self._vision = VisionEncoder(self._model, self._processor.image_processor, self.frame_px)
        self._rows = batch
        self._scripts: dict[str, Script] = {}
        self._idle: tuple[tuple[str, ...], Batch] | None = None
        """The last batch, and its questions: a work order after another need not allocate the same memory again."""

    def ask(self, tiles: Sequence[npt.NDArray[np.uint8]], question: str) -> list[Reply]:
        """One reply per tile, in order; see `Prompter.ask`."""
        asks = (Ask(tile=tile, questions=(0,)) for tile in tiles)
        replies = {answered.ask: answered.reply for answered in self.answers(asks, [question])}
        return [replies[number] for number in range(len(tiles))]

    def answers(self, asks: Iterable[Ask], questions: Sequence[str]) -> Iterator[Answered]:
        """Replies as they come, tiles taken as there is room for them; see `StreamingPrompter.answers`.

        Where the device's memory does not do, the batch is halved, and what was under way is asked again.
        """
        scripts = [self._script(question) for question in questions]
        coming: Coming = ((number, self._frame(ask.tile), ask.questions) for number, ask in enumerate(asks))
        asked = tuple(questions)
        batch = self._idle[1] if self._idle and self._idle[0] == asked else None
        self._idle = None
        while True:
            ended: list[Row] = []
            under_way = True
            try:
                batch = batch or self._batch(scripts)
                under_way = batch.advance(coming)
                ended = batch.take_ended()
            except torch.OutOfMemoryError as error:
                if batch:
                    ended = batch.take_ended()
                    coming = chain(_again(batch.unfinished()), coming)
                self._make_smaller(scripts, error)
                batch = None
            for row in ended:
                yield Answered(ask=row.ask, question=row.question, reply=self._reply(row))
            if batch and not under_way:
                self._idle = asked, batch
                return

    def _batch(self, scripts: Sequence[Script]) -> Batch:
        limits = Limits(ends=self._ends, max_new_tokens=self._generation.max_new_tokens)
        return Batch(self._decoder, self._vision, self._classes, scripts, limits, rows=self._rows)

    def _script(self, question: str) -> Script:
        """The tokens of a question with the image of any frame."""
        if question not in self._scripts:
            self._scripts = {**self._scripts, question: self._tokenized(question)}
        return self._scripts[question]

    def _tokenized(self, question: str) -> Script:
        text = self._processor.apply_chat_template(self.template.messages(question), add_generation_prompt=True)
        blank = Image.new("RGB", (self.frame_px, self.frame_px))
        inputs = self._processor(text=[text], images=[blank], return_tensors="pt")
        if not torch.equal(inputs["image_grid_thw"], self._vision.grid):
            raise ModelError(
                f"This prompter's processor makes {inputs['image_grid_thw'].tolist()[0]} patches (times, rows, columns)"
                f" of a frame of {self.frame_px} px, which its patch size does not give.",
                "The frame's side must be a multiple of a merged patch, and within the processor's limits.",
                "Correct frame_px in the folder's think2seg.json, or the sizes in its preprocessor configuration.",
            )
        return Script.of(inputs["input_ids"][0], self._model, self._vision.grid)

    def _make_smaller(self, scripts: Sequence[Script], error: torch.OutOfMemoryError) -> None:
        """Halve the batch; ModelError where it cannot be."""
        longest = max(script.positions.shape[1] for script in scripts) + self._generation.max_new_tokens
        if self._rows <= 1:
            raise ModelError(
                f"{self._device} has no memory for a single answer of {longest} tokens: {error}",
                f"Its keys and values take {self._decoder.cache_bytes(longest) / 1e6:.0f} MB beside the weights.",
                "Lower models.prompter.max_new_tokens, choose a smaller model or a device with more memory.",
            ) from error
        self._rows //= 2
        _log.warning("%s is out of memory: going on with %d tiles at a time", self._device, self._rows)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _frame(self, tile: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        side = self.frame_px
        return np.asarray(Image.fromarray(tile).resize((side, side), Image.Resampling.LANCZOS))

    def _reply(self, row: Row) -> Reply:
        presence = row.decision.presence
        if presence is not None and self._calibration is not None:
            presence = self._calibration.calibrated(presence)
        return Reply(
            text=self._processor.tokenizer.decode(row.tokens, skip_special_tokens=True),
            finish=row.finish or "length",
            tokens=len(row.tokens),
            presence=presence,
        )


def _load(folder: Path, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    transformers.logging.disable_progress_bar()
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        model = load_whole(Qwen2_5_VLForConditionalGeneration, folder, dtype=dtype, attn_implementation="sdpa")
        model.to(device)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{folder} cannot be loaded as a prompter: {error}",
            "Allowed is a transformers folder of a Qwen2.5-VL model with its processor.",
            "Choose another models.prompter.path, or a device that has room for it.",
        ) from error
    if processor.chat_template is None:
        raise ModelError(
            f"The prompter in {folder} has no chat template.",
            "A prompter folder holds chat_template.jinja (or names a template in its processor's configuration).",
            "Add the file that the weights were trained with.",
        )
    return processor, model


def _again(rows: Iterable[Row]) -> Iterator[tuple[int, npt.NDArray[np.uint8], tuple[int, ...]]]:
    """What was asked in `rows`, to be asked anew, the questions of one frame together."""
    for ask, group in groupby(sorted(rows, key=lambda row: (row.ask, row.question)), key=lambda row: row.ask):
        alike = list(group)
        yield ask, alike[0].frame, tuple(row.question for row in alike)


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: those of the weights' generation configuration and the tokenizer's own."""
    configured = model.generation_config.eos_token_id
    tokens = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in (*tokens, tokenizer.eos_token_id) if token is not None})
