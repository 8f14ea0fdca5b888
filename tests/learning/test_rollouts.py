"""Answers sampled by the batching of production are those that transformers' `generate` would sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.reinforcement import training_file

pytest.importorskip("trl")

from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration
from trl.trainer.grpo_trainer import GRPOTrainer

from think2seg.config import LocalPrompter
from think2seg.errors import ConfigError
from think2seg.learning.grpo.model import MaskTrainer
from think2seg.learning.grpo.rollouts import Rollouts
from think2seg.learning.settings import load_settings
from think2seg.learning.train import train
from think2seg.prompting import template_for
from think2seg.prompting.batch import Limits
from think2seg.prompting.decoder import TextDecoder
from think2seg.prompting.folder import read_description

LOCAL = {"per_question": 3, "max_new_tokens": 40, "engine": "local"}
NEARLY_GREEDY = 1e-4


def test_the_likeliest_answers_are_those_of_generate_as_the_weights_move(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = MaskTrainer._generate_single_turn, GRPOTrainer._generate_single_turn
    compared: list[tuple[Any, Any, float]] = []

    def both(self: MaskTrainer, *asked: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(self._rollouts, "_temperature", NEARLY_GREEDY)
            patch.setattr(self.generation_config, "temperature", NEARLY_GREEDY)
            weights = float(sum(weight.detach().sum() for weight in self.model.parameters()))
            compared.append((ours(self, *asked)[0], theirs(self, *asked)[0], weights))  # type: ignore[no-untyped-call]
        return ours(self, *asked)

    monkeypatch.setattr(MaskTrainer, "_generate_single_turn", both)
    train(training_file(tmp_path, pair, rollouts=LOCAL))
    (first, expected, before), (second, expected_then, after) = compared
    assert [first, second] == [expected, expected_then]
    assert [len(first), before != after] == [6, True]


@pytest.fixture(scope="module")
def asked(pair: Path) -> tuple[Any, Any, Any, Image.Image]:
    """Model, processor, the inputs of one question, and its image."""
    folder = pair / "prompter"
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    image = Image.new("RGB", (read_description(folder).frame_px,) * 2, "navy")
    messages = template_for(LocalPrompter(path=str(folder)), folder).messages("open water")
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    return model, processor, processor(text=[text], images=[image], return_tensors="pt"), image


def test_tokens_are_drawn_as_often_as_they_are_likely(asked: tuple[Any, Any, Any, Image.Image]) -> None:
    model, processor, inputs, image = asked
    size = 400
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1]
    limits = Limits(ends=frozenset(), max_new_tokens=1)
    rollouts = Rollouts(model, processor, limits, temperature=8.0, frame_px=image.width)
    torch.manual_seed(0)
    drawn = rollouts.sample([inputs["input_ids"][0].tolist()] * size, [image] * size)
    counts = torch.bincount(torch.tensor(drawn)[:, 0], minlength=len(logits))
    likely = (logits / 8).softmax(-1)
    token = int(likely.argmax())
    spread = float((size * likely[token] * (1 - likely[token])).sqrt())
    assert abs(int(counts[token]) - size * float(likely[token])) < 4 * spread
    assert int((counts > 0).sum()) > 20


def test_answers_that_all_end_at_once_make_room_for_the_rest(asked: tuple[Any, Any, Any, Image.Image]) -> None:
    model, processor, inputs, image = asked
    limits = Limits(ends=frozenset(), max_new_tokens=3)
    rollouts = Rollouts(model, processor, limits, temperature=1.0, frame_px=image.width)
    other = Image.new("RGB", image.size, "white")
    drawn = rollouts.sample([inputs["input_ids"][0].tolist()] * 80, [image] * 32 + [other] * 48)
    assert [len(tokens) for tokens in drawn] == [3] * 80


def test_an_image_and_a_question_are_read_once_for_all_answers(
    asked: tuple[Any, Any, Any, Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor, inputs, image = asked
    rollouts = Rollouts(
        model, processor, Limits(ends=frozenset(), max_new_tokens=2), temperature=1.0, frame_px=image.width
    )
    read: list[bool] = []
    extend = TextDecoder.extend

    def counted(self: TextDecoder, *rows: Any, logits: bool) -> Any:
        read.append(logits)
        return extend(self, *rows, logits=logits)

    monkeypatch.setattr(TextDecoder, "extend", counted)
    prompt, other = inputs["input_ids"][0].tolist(), Image.new("RGB", image.size, "white")
    drawn = rollouts.sample([prompt] * 50, [image] * 40 + [other] * 10)
    assert [len(tokens) for tokens in drawn] == [2] * 50
    assert read == [False, False, True, False, True]


def test_adapters_are_refused(pair: Path, tmp_path: Path) -> None:
    path = training_file(tmp_path, pair, rollouts=LOCAL, lora={"rank": 4})
    with pytest.raises(ConfigError, match="samples from the weights themselves"):
        load_settings(path)
