"""The prompter in this process, on small trained weights and on a checkpoint in the published layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from suites.prompter import QUESTION, PrompterSuite
from support.checkpoints import published_prompter
from support.pictures import lake_tile

from think2seg.config import LocalPrompter as LocalConfig
from think2seg.errors import ModelError
from think2seg.prompting import Reply, load_prompter, template_for
from think2seg.prompting.batch import Batch
from think2seg.prompting.local import LocalPrompter
from think2seg.prompting.protocol import Ask, StreamingPrompter


@pytest.fixture(scope="module")
def small(pair: Path) -> LocalPrompter:
    return LocalPrompter(pair / "prompter", digest="0123456789abcdef", batch=2, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> LocalPrompter:
    folder = published_prompter(tmp_path_factory.mktemp("published"))
    return LocalPrompter(folder, digest="fedcba9876543210", batch=2, max_new_tokens=6, dtype="float32", device="cpu")


class TestSmall(PrompterSuite):
    @pytest.fixture
    def prompter(self, small: LocalPrompter) -> LocalPrompter:
        return small


QUESTIONS = (QUESTION, "forest", "ships")
TILES = [lake_tile(seed=seed, disc=(20 + 7 * seed, 70 - 6 * seed, 6 + 2 * seed)) for seed in range(7)]


@pytest.fixture(scope="module")
def alone(small: LocalPrompter) -> dict[tuple[int, int], object]:
    """Reply to each question about each tile, asked one by one."""
    return {(t, q): small.ask([TILES[t]], QUESTIONS[q])[0] for t in range(len(TILES)) for q in range(len(QUESTIONS))}


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(len(TILES))), st.integers(1, 7), st.permutations(range(3)), st.integers(1, 3))
def test_a_reply_depends_on_its_tile_and_question_alone(
    small: LocalPrompter, alone: dict[tuple[int, int], object], order: list[int], n: int, questions: list[int], q: int
) -> None:
    assert isinstance(small, StreamingPrompter)
    tiles, asked = order[:n], questions[:q]
    asks = [Ask(tile=TILES[t], questions=tuple(range(q - t % q))) for t in tiles]
    answered = list(small.answers(iter(asks), [QUESTIONS[one] for one in asked]))
    assert len(answered) == sum(len(ask.questions) for ask in asks)
    for one in answered:
        assert one.reply == alone[tiles[one.ask], asked[one.question]]


@pytest.mark.parametrize("which", ["small", "published"])
def test_answers_are_those_of_plain_generate(which: str, request: pytest.FixtureRequest) -> None:
    ours: LocalPrompter = request.getfixturevalue(which)
    text = ours._processor.apply_chat_template(ours.template.messages(QUESTION), add_generation_prompt=True)
    for tile, reply in zip(TILES[:2], ours.ask(TILES[:2], QUESTION), strict=True):
        inputs = ours._processor(text=[text], images=[Image.fromarray(ours._frame(tile))], return_tensors="pt")
        with torch.inference_mode():
            tokens = ours._model.generate(**inputs, generation_config=ours._generation)[0]
        said = ours._processor.tokenizer.decode(tokens[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert reply.text == said


@pytest.mark.parametrize("which", ["small", "published"])
def test_images_are_encoded_as_transformers_does(which: str, request: pytest.FixtureRequest) -> None:
    ours: LocalPrompter = request.getfixturevalue(which)
    frames = [Image.fromarray(ours._frame(tile)) for tile in TILES[:2]]
    inputs = ours._processor.image_processor(images=frames, return_tensors="pt")
    with torch.inference_mode():
        theirs = ours._model.model.get_image_features(**inputs).pooler_output
        encoded = ours._vision([np.asarray(frame) for frame in frames])
    torch.testing.assert_close(encoded, torch.stack(theirs), rtol=1e-4, atol=1e-3)


def test_tiles_that_are_alike_end_at_once_and_those_behind_them_are_asked_all_the_same(small: LocalPrompter) -> None:
    replies = small.ask([np.full((64, 64, 3), 90, np.uint8)] * 40, "open water")
    assert len(replies) == 40
    assert len({reply.text for reply in replies}) == 1


def test_what_all_questions_share_is_computed_once(small: LocalPrompter, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    before = Batch._read_images

    def counted(batch: Batch, frames: list[np.ndarray]) -> None:
        read.append(len(frames))
        before(batch, frames)

    monkeypatch.setattr(Batch, "_read_images", counted)
    assert len(list(small.answers([Ask(tile=tile, questions=(0, 1, 2)) for tile in TILES[:3]], QUESTIONS))) == 9
    assert sum(read) == 3


def test_the_next_work_order_finds_the_batch_of_the_last(small: LocalPrompter, monkeypatch: pytest.MonkeyPatch) -> None:
    first = small.ask(TILES[:3], QUESTIONS[0])
    made: list[int] = []
    before = small._batch
    monkeypatch.setattr(small, "_batch", lambda scripts: made.append(len(scripts)) or before(scripts))
    assert small.ask(TILES[:3], QUESTIONS[0]) == first
    assert made == []
    other = small.ask(TILES[:3], QUESTIONS[1])
    assert made == [1]
    unfinished = small.answers([Ask(tile=tile, questions=(0,)) for tile in TILES[:3]], [QUESTIONS[1]])
    next(unfinished)
    assert small.ask(TILES[:3], QUESTIONS[1]) == other, "an order that was given up leaves nothing behind"
    assert made == [1, 1]


@pytest.mark.parametrize("fails_at", [("fill", 1), ("fill", 2), ("step", 1), ("step", 9)])
def test_out_of_memory_halves_the_batch_and_goes_on(
    pair: Path, alone: dict[tuple[int, int], object], monkeypatch: pytest.MonkeyPatch, fails_at: tuple[str, int]
) -> None:
    prompter = LocalPrompter(pair / "prompter", digest="d", batch=4, dtype="float32", device="cpu")
    name, at = fails_at
    calls, before = [0], getattr(Batch, name)

    def fails_once(batch: Batch, *args: object) -> object:
        calls[0] += 1
        if calls[0] == at:
            raise torch.OutOfMemoryError("tried to allocate 20.00 GiB")
        return before(batch, *args)

    monkeypatch.setattr(Batch, name, fails_once)
    answered = list(prompter.answers([Ask(tile=tile, questions=(0, 1)) for tile in TILES], QUESTIONS[:2]))
    assert prompter._rows == 2
    assert {(one.ask, one.question): one.reply for one in answered} == {
        (tile, question): alone[tile, question] for tile in range(len(TILES)) for question in range(2)
    }
    assert len(answered) == 14


def test_no_memory_for_a_single_answer_is_an_error_with_its_arithmetic(
    pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(batch: Batch) -> object:
        raise torch.OutOfMemoryError("tried to allocate 20.00 GiB")

    monkeypatch.setattr(Batch, "step", fails)
    with pytest.raises(ModelError, match=r"keys and values take \d+ MB"):
        LocalPrompter(pair / "prompter", digest="d", batch=2, device="cpu").ask(TILES[:1], QUESTION)


def test_presence_is_calibrated_as_the_folder_says(pair: Path, tmp_path: Path) -> None:
    def asked(name: str, scale: float, bias: float) -> Reply:
        folder = shutil.copytree(pair / "prompter", tmp_path / name)
        described = json.loads((folder / "think2seg.json").read_text())
        described["presence"] = {"scale": scale, "bias": bias}
        (folder / "think2seg.json").write_text(json.dumps(described))
        (reply,) = LocalPrompter(folder, digest="d", device="cpu").ask(TILES[:1], QUESTION)
        return reply

    raw, told = asked("raw", 1.0, 0.0), asked("told", 0.5, -1.0)
    assert raw.presence is not None
    least, most = (
        odds / (1 + odds)
        for share in np.clip([raw.presence - 5e-5, raw.presence + 5e-5], 1e-6, 1 - 1e-6)
        for odds in [(share / (1 - share)) ** 0.5 * np.exp(-1)]
    )
    assert told.presence is not None
    assert least - 1e-4 <= told.presence <= most + 1e-4, "the raw presence is told to four digits"
    assert told.presence < raw.presence
    assert told.text == raw.text


def test_an_answer_at_the_limit_says_so(small: LocalPrompter, pair: Path) -> None:
    short = LocalPrompter(pair / "prompter", digest="0123456789abcdef", batch=1, max_new_tokens=7, device="cpu")
    (cut,), (whole,) = short.ask([lake_tile()], QUESTION), small.ask([lake_tile()], QUESTION)
    assert (cut.finish, cut.tokens) == ("length", 7)
    assert whole.finish == "stop"
    assert whole.text.startswith(cut.text)
    assert "<|" not in whole.text


def test_the_monitor_overrides_what_the_folder_says(pair: Path, tmp_path: Path) -> None:
    template = tmp_path / "own.yaml"
    template.write_text("name: own\nsystem: You see from above.\nuser: 'Find {question}.'\n")
    config = LocalConfig(batch=2, max_new_tokens=5, template=str(template), device="cpu")
    prompter = load_prompter(config, pair / "prompter", digest="d")
    assert (prompter.batch, prompter.template.name) == (2, "own")
    assert template_for(config, pair / "prompter") == prompter.template
    (reply,) = prompter.ask([lake_tile()], QUESTION)
    assert reply.tokens == 5


def test_a_folder_without_a_chat_template_is_refused(pair: Path, tmp_path: Path) -> None:
    shutil.copytree(pair / "prompter", tmp_path / "prompter")
    (tmp_path / "prompter" / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="chat template"):
        LocalPrompter(tmp_path / "prompter", digest="d", device="cpu")


def test_a_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match=r"models\.prompter\.path"):
        LocalPrompter(tmp_path, digest="d", device="cpu")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"models\.prompter\.path"):
        LocalPrompter(tmp_path, digest="d", device="cpu")


@pytest.mark.parametrize("content", [b"", b"\x40" * 64, b"version https://git-lfs.github.com/spec/v1"])
def test_damaged_weights_are_refused(pair: Path, tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "prompter"
    shutil.copytree(pair / "prompter", folder)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be loaded as a prompter"):
        load_prompter(LocalConfig(path=str(folder), device="cpu"), folder, digest="d")


def test_a_broken_description_is_refused(pair: Path, tmp_path: Path) -> None:
    shutil.copytree(pair / "prompter", tmp_path / "prompter")
    (tmp_path / "prompter" / "think2seg.json").write_text('{"frame_px": "large"}')
    with pytest.raises(ModelError, match="frame_px"):
        LocalPrompter(tmp_path / "prompter", digest="d", device="cpu")
