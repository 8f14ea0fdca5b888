"""The prompter behind a server: any OpenAI-compatible one that takes images (vLLM, SGLang, ``transformers serve``)."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from hashlib import sha256
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from think2seg.config import ServedPrompter as ServedPrompterConfig
from think2seg.config.digests import content_digest
from think2seg.errors import ModelError
from think2seg.prompting.chat import ChatClient, Json
from think2seg.prompting.decision import Decision
from think2seg.prompting.protocol import Answered, Ask, Reply
from think2seg.prompting.template import Template, load_template

_TOP_TOKENS = 20
"""Tokens per step whose probability is asked for: the most that vLLM tells unless it is started otherwise."""


def served_digest(config: ServedPrompterConfig) -> str:
    """Digest that stands for the weights behind a server: the name and revision that the monitor pins, and the last
    part of the path that the server says it loaded (a hub name, a folder or a commit), where it says so.

    Raises ModelError when the server cannot be reached or does not offer the model.
    """
    offered = {str(one.get("id")): one for one in ChatClient(config).models()}
    if config.model not in offered:
        raise ModelError(
            f"The server at {config.url} does not offer the model {config.model!r}.",
            f"It offers: {', '.join(sorted(offered)) or 'nothing'}.",
            "Correct models.prompter.model, or start the server with --served-model-name.",
        )
    root = PurePosixPath(str(offered[config.model].get("root") or config.model)).name
    return content_digest({"served": config.model, "revision": config.revision, "root": root})


class ServedPrompter:
    """Sends each tile as a request of its own, as many at a time as the server is glad of; the server makes batches.

    Presence comes from the likeliest tokens of each step only: what else might have opened an instance or closed the
    list is not counted.
    """

    def __init__(self, config: ServedPrompterConfig, *, digest: str) -> None:
        """`digest` is `served_digest` of `config`.

        Raises ModelError when the template cannot be read, or the key is not in the environment.
        """
        self.digest = digest
        self.template: Template = load_template(config.template)
        self.frame_px = config.frame_px
        self.footprint_m = config.footprint_m
        self.unknown_reasoning = config.unknown_reasoning
        self.batch = 2 * config.concurrency  # one tile waits for each under way
        self._config = config
        self._client = ChatClient(config)
        self._pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="ask")

    def ask(self, tiles: Sequence[npt.NDArray[np.uint8]], question: str) -> list[Reply]:
        """One reply per tile, in order; see `Prompter.ask`."""
        asks = (Ask(tile=tile, questions=(0,)) for tile in tiles)
        replies = {answered.ask: answered.reply for answered in self.answers(asks, [question])}
        return [replies[number] for number in range(len(tiles))]

    def answers(self, asks: Iterable[Ask], questions: Sequence[str]) -> Iterator[Answered]:
        """Replies as they come, tiles taken as there is room for them; see `StreamingPrompter.answers`.

        Questions about one tile follow on each other, so that a server which caches prefixes encodes its image once.
        """
        waiting = ((number, index, ask.tile) for number, ask in enumerate(asks) for index in ask.questions)
        under_way: dict[Future[Reply], tuple[int, int]] = {}
        try:
            while True:
                for number, index, tile in islice(waiting, self.batch - len(under_way)):
                    under_way[self._pool.submit(self._reply, tile, questions[index])] = (number, index)
                if not under_way:
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    number, index = under_way.pop(future)
                    yield Answered(ask=number, question=index, reply=future.result())
        finally:
            for future in under_way:
                future.cancel()

    def _reply(self, tile: npt.NDArray[np.uint8], question: str) -> Reply:
        image = _png(tile, self.frame_px)
        answer = self._client.complete(self._body(image, question))
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"] or ""
            if not isinstance(text, str):
                raise TypeError("content is no text")
            steps = _steps(choice)
            presence = _presence(steps)
            told = (answer.get("usage") or {}).get("completion_tokens")
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"The prompter's server at {self._config.url} does not answer as a chat model: {error!r}",
                "choices[0].message.content, and logprobs and usage if any, as OpenAI's chat completions have them.",
                "Check models.prompter.url and the server's version; presence: false does without logprobs.",
            ) from error
        return Reply(
            text=text,
            finish="stop" if choice.get("finish_reason") == "stop" else "length",
            tokens=told if isinstance(told, int) else len(steps),
            presence=presence,
        )

    def _body(self, image: bytes, question: str) -> dict[str, Any]:
        config = self._config
        seed = sha256(f"{config.seed}\0{question}\0".encode() + image).digest()
        presence = {"logprobs": True, "top_logprobs": _TOP_TOKENS} if config.presence else {}
        return {
            "model": config.model,
            "messages": _messages(self.template, question, image),
            "max_tokens": config.max_new_tokens,
            "temperature": 0.0,
            "seed": int.from_bytes(seed[:4]) >> 1,
            **presence,
        }


def _png(tile: npt.NDArray[np.uint8], frame_px: int) -> bytes:
    frame = Image.fromarray(tile).resize((frame_px, frame_px), Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    frame.save(sink, "PNG", compress_level=1)
    return sink.getvalue()


def _messages(template: Template, question: str, image: bytes) -> list[dict[str, Any]]:
    """The template's chat messages, with the image where it belongs."""
    url = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    system, user = template.messages(question)
    content = [
        {"type": "image_url", "image_url": {"url": url}} if part["type"] == "image" else part
        for part in user["content"]
    ]
    return [system, {"role": user["role"], "content": content}]


def _steps(choice: Json) -> list[Json]:
    """What the server tells about each token; empty where it tells nothing."""
    steps = (choice.get("logprobs") or {}).get("content")
    return [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []


def _presence(steps: Sequence[Json]) -> float | None:
    """`Decision.presence` of an answer whose tokens came with the likeliest alternatives."""
    decision = Decision()
    for step in steps:
        if decision.deciding:
            likely = step.get("top_logprobs") or [step]
            decision.weigh_pieces((str(one["token"]), math.exp(min(0.0, float(one["logprob"])))) for one in likely)
        decision.read(str(step.get("token", "")))
    return decision.presence
