"""The prompter behind a server: a real HTTP server that runs small weights, on good days and on bad ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from suites.prompter import QUESTION, PrompterSuite
from support.chat_server import MODEL, Behaviour, Fault, Json, LocalBrain, RunningServer, chat_server
from support.pictures import lake_tile

import think2seg.prompting.chat
from think2seg.config import ServedPrompter as ServedConfig
from think2seg.errors import ModelError
from think2seg.prompting import Ask, Reply, StreamingPrompter, load_prompter, template_for
from think2seg.prompting.local import LocalPrompter
from think2seg.prompting.pacing import Pace
from think2seg.prompting.served import ServedPrompter
from think2seg.registry import prompter_weights

EMPTY = "<think>nothing</think> <answer>```json[]```</answer>"
KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(think2seg.prompting.chat, "FIRST_WAIT_S", 0.001)


@pytest.fixture(scope="module")
def small(pair: Path) -> LocalPrompter:
    prompter = LocalPrompter(pair / "prompter", digest="0123456789abcdef", batch=1, dtype="float32", device="cpu")
    prompter._calibration = None  # a server tells what the model says
    return prompter


@pytest.fixture(scope="module")
def tiny_server(small: LocalPrompter) -> Iterator[RunningServer]:
    with chat_server(LocalBrain(small)) as server:
        yield server


def served_like(small: LocalPrompter, folder: Path, url: str, **more: Any) -> ServedPrompter:
    template = folder / "template.yaml"
    template.write_text(f"name: t\nsystem: {small.template.system}\nuser: '{small.template.user}'\n")
    config = config_of(url, frame_px=small.frame_px, template=str(template), max_new_tokens=320, **more)
    prompter = load_prompter(config, None, digest=prompter_weights(config).digest)
    assert isinstance(prompter, ServedPrompter)
    return prompter


def config_of(url: str, **more: Any) -> ServedConfig:
    given = {"concurrency": 2, "retries": 3, "timeout_s": 60.0, "template": "tiny", "frame_px": 28, **more}
    return ServedConfig(kind="served", url=url, model=MODEL, revision="1", **given)


class TestServed(PrompterSuite):
    @pytest.fixture
    def prompter(self, small: LocalPrompter, tiny_server: RunningServer, tmp_path: Path) -> ServedPrompter:
        return served_like(small, tmp_path, tiny_server.url)


def test_it_answers_as_the_same_weights_here(small: LocalPrompter, tiny_server: RunningServer, tmp_path: Path) -> None:
    tiles = [lake_tile(), lake_tile(disc=(-99, -99, 1))]
    here, there = small.ask(tiles, QUESTION), served_like(small, tmp_path, tiny_server.url).ask(tiles, QUESTION)
    for ours, theirs in zip(here, there, strict=True):
        assert (theirs.text, theirs.finish) == (ours.text, ours.finish)
        assert theirs.tokens - ours.tokens in (0, 1), "here, an answer ends with its closing tag"
        assert theirs.presence == pytest.approx(ours.presence, abs=2e-3)


def test_without_probabilities_there_is_no_presence(
    small: LocalPrompter, tiny_server: RunningServer, tmp_path: Path
) -> None:
    (reply,) = served_like(small, tmp_path, tiny_server.url, presence=False).ask([lake_tile()], QUESTION)
    assert reply.presence is None
    assert "logprobs" not in tiny_server.behaviour.requests[-1]


@dataclass
class Echo:
    """Answers at once, with the mean of the image as reasoning."""

    content: Any = None
    finish: Any = "stop"
    delay_s: float = 0.0
    seen: list[int] = field(default_factory=list)

    def answer(self, image: np.ndarray[Any, np.dtype[np.uint8]], words: str, body: Json) -> tuple[Json, int]:
        time.sleep(self.delay_s)
        self.seen.append(int(image.mean()))
        text = f"<think>{int(image.mean())}</think> <answer>```json[]```</answer>"
        content = text if self.content is None else self.content
        return {"message": {"role": "assistant", "content": content}, "finish_reason": self.finish}, 7


@pytest.fixture
def echo() -> Iterator[tuple[Echo, RunningServer]]:
    brain = Echo()
    with chat_server(brain) as server:
        yield brain, server


def grey(value: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((28, 28, 3), value, np.uint8)


def ask(server: RunningServer, tiles: list[int], **more: Any) -> list[Reply]:
    return ServedPrompter(config_of(server.url, **more), digest="d").ask([grey(tile) for tile in tiles], QUESTION)


def reasons(replies: list[Reply]) -> list[int]:
    return [int(reply.text[len("<think>") : reply.text.index("</think>")]) for reply in replies]


BUSY = [
    Fault(status=429, headers=(("Retry-After", "0"),)),
    Fault(status=503),
    Fault(status=500),
    Fault(status=502, body="<html>bad gateway</html>"),
    Fault(cut=True),
    Fault(status=200, body="{not JSON"),
    Fault(status=200, body="[]"),
]


def test_bad_days_end_in_the_same_answers(echo: tuple[Echo, RunningServer]) -> None:
    _, server = echo
    server.behaviour.faults.extend(BUSY * 2)
    values = list(range(10, 250, 10))
    assert reasons(ask(server, values, retries=14)) == values
    assert server.behaviour.met["429"] == server.behaviour.met["cut"] == 2
    assert not server.behaviour.faults


def test_a_slow_answer_is_asked_for_again(echo: tuple[Echo, RunningServer]) -> None:
    _, server = echo
    server.behaviour.faults.append(Fault(slow_s=5.0))
    assert reasons(ask(server, [20], timeout_s=0.5)) == [20]
    assert len(server.behaviour.requests) == 2


@pytest.mark.parametrize("fault", BUSY, ids=lambda fault: "cut" if fault.cut else f"{fault.status} {fault.body[:4]}")
def test_trouble_that_stays_is_told(echo: tuple[Echo, RunningServer], fault: Fault) -> None:
    _, server = echo
    server.behaviour.faults.extend([fault] * 3)
    with pytest.raises(ModelError, match="3 tries") as error:
        ask(server, [1], retries=2)
    assert server.url in str(error.value)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=200, body="[" * 100_000),
        Fault(status=200, body="{}", headers=(("Content-Encoding", "gzip"),)),
        Fault(status=429, headers=(("Retry-After", "Mon, 01 Jan 9999 00:00:00 -1000"),)),
    ],
    ids=["too deep to read", "not what it says it is", "never to be asked again"],
)
def test_answers_that_are_not_even_wrong_are_asked_for_again(echo: tuple[Echo, RunningServer], fault: Fault) -> None:
    _, server = echo
    server.behaviour.faults.append(fault)
    assert reasons(ask(server, [1])) == [1]


def test_a_server_that_is_not_there_is_told() -> None:
    config = config_of("http://127.0.0.1:9/v1", retries=1)
    with pytest.raises(ModelError, match="cannot be reached"):
        prompter_weights(config)


def test_what_the_server_cannot_do_is_not_asked_twice(echo: tuple[Echo, RunningServer]) -> None:
    _, server = echo
    server.behaviour.faults.append(Fault(status=400, body='{"error": {"message": "maximum context length is 512"}}'))
    with pytest.raises(ModelError, match="maximum context length is 512"):
        ask(server, [1])
    assert len(server.behaviour.requests) == 1


@pytest.mark.parametrize(
    "told", ["2", format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)], ids=["seconds", "a date"]
)
def test_a_server_that_asks_to_wait_is_waited_for(
    echo: tuple[Echo, RunningServer], monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    _, server = echo
    waited: list[float] = []
    monkeypatch.setattr(Pace, "push_back", lambda self, wait_s: waited.append(wait_s))
    server.behaviour.faults.append(Fault(status=429, headers=(("Retry-After", told),)))
    ask(server, [1])
    assert waited == [pytest.approx(2 if told == "2" else think2seg.prompting.chat.LONGEST_WAIT_S)]


def test_no_more_requests_than_allowed_are_under_way(echo: tuple[Echo, RunningServer]) -> None:
    brain, server = echo
    brain.delay_s = 0.02
    assert reasons(ask(server, list(range(12)), concurrency=3)) == list(range(12))
    assert server.behaviour.most_under_way == 3


def test_several_questions_are_answered_as_they_come(echo: tuple[Echo, RunningServer]) -> None:
    _, server = echo
    prompter = ServedPrompter(config_of(server.url, concurrency=2), digest="d")
    assert isinstance(prompter, StreamingPrompter)
    taken = []

    def asks() -> Iterator[Ask]:
        for number in range(9):
            taken.append(number)
            yield Ask(tile=grey(number), questions=(0, 1) if number % 2 else (1,))

    answers = prompter.answers(asks(), ["lakes", "roads"])
    first = next(answers)
    assert len(taken) <= 4, "tiles are taken as there is room for them"
    got = {(one.ask, one.question): reasons([one.reply])[0] for one in [first, *answers]}
    assert got == {(n, q): n for n in range(9) for q in ((0, 1) if n % 2 else (1,))}


def test_a_push_back_halves_the_requests_and_holds_them() -> None:
    pace = Pace(8)
    pace.push_back(0.05)
    assert pace.bound == 4
    started = time.monotonic()
    with pace.turn():
        assert time.monotonic() - started >= 0.04
    pace.push_back(0.0)
    pace.push_back(0.0)
    pace.push_back(0.0)
    assert pace.bound == 1
    entered = threading.Event()
    with pace.turn():
        thread = threading.Thread(target=lambda: pace.turn().__enter__() or entered.set(), daemon=True)
        thread.start()
        assert not entered.wait(0.05)
    assert entered.wait(5)
    for _ in range(60):
        pace.success()
    assert pace.bound == 8
    for _ in range(8):
        pace.push_back(60.0)
    assert pace.bound == 4, "eight requests met one push-back"


def test_seeds_are_of_tile_question_and_monitor(echo: tuple[Echo, RunningServer]) -> None:
    _, server = echo
    ask(server, [1, 2, 1], concurrency=1)
    ask(server, [1], seed=1)
    first, second, third, fourth = (body["seed"] for body in server.behaviour.requests)
    assert first == third
    assert len({first, second, fourth}) == 3
    assert all(body["temperature"] == 0 for body in server.behaviour.requests)


@pytest.mark.parametrize(
    ("finish", "status"), [("stop", "stop"), ("length", "length"), ("content_filter", "length"), (None, "length")]
)
def test_what_did_not_end_by_itself_was_cut_off(
    echo: tuple[Echo, RunningServer], finish: str | None, status: str
) -> None:
    brain, server = echo
    brain.finish = finish
    (reply,) = ask(server, [1])
    assert (reply.finish, reply.tokens, reply.presence) == (status, 7, None)


def test_an_answer_without_words_is_an_empty_one(echo: tuple[Echo, RunningServer]) -> None:
    brain, server = echo
    brain.content = ""
    assert ask(server, [1])[0].text == ""


SAID = '"choices": [{"message": {"content": "[]"}'


@pytest.mark.parametrize(
    "body",
    [
        *("{}", '{"choices": []}', '{"choices": [{"message": {"content": 3}}]}'),
        *(f'{{{SAID}}}], "usage": [1]}}', f'{{{SAID}, "logprobs": [1]}}]}}'),
    ],
)
def test_what_is_no_chat_answer_is_told(echo: tuple[Echo, RunningServer], body: str) -> None:
    _, server = echo
    server.behaviour.faults.append(Fault(status=200, body=body))
    with pytest.raises(ModelError, match=r"choices\[0\]"):
        ask(server, [1])


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with chat_server(Echo(), Behaviour(key=KEY)) as server:
        config = config_of(server.url, api_key_variable="OUR_KEY")
        with pytest.raises(ModelError, match="OUR_KEY"):
            prompter_weights(config)
        monkeypatch.setenv("OUR_KEY", f"{KEY}-wrong")
        with pytest.raises(ModelError, match="OUR_KEY") as refused:
            prompter_weights(config)
        monkeypatch.setenv("OUR_KEY", f" {KEY}\n")
        prompter = ServedPrompter(config, digest=prompter_weights(config).digest)
        assert prompter.ask([grey(1)], QUESTION)
        server.behaviour.faults.append(Fault(status=400, body=f"no such parameter for {KEY}"))
        with pytest.raises(ModelError, match="no such parameter") as told:
            prompter.ask([grey(1)], QUESTION)
        with pytest.raises(ModelError, match=r"models\.prompter\.api_key_variable"):
            prompter_weights(config_of(server.url))
    assert KEY not in f"{refused.value}{told.value}{refused.value.__cause__}{config!r}"


def test_the_digest_is_of_what_is_pinned_and_served() -> None:
    with chat_server(Echo()) as server:
        config = config_of(server.url)
        digest = prompter_weights(config).digest
        assert prompter_weights(config.model_copy(update={"concurrency": 9})).digest == digest
        assert prompter_weights(config.model_copy(update={"revision": "2"})).digest != digest
        server.behaviour.root = "/srv/models/other"
        other = prompter_weights(config).digest
        assert other != digest
        server.behaviour.root = "/elsewhere/other"
        assert prompter_weights(config).digest == other
        with pytest.raises(ModelError, match="It offers: tiny"):
            prompter_weights(config.model_copy(update={"model": "large"}))


def test_the_template_is_the_monitors() -> None:
    assert template_for(config_of("http://h/v1", template="think2seg-rs"), None).name == "think2seg-rs"
