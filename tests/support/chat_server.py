"""A real chat-completions server (starlette on uvicorn) in a thread, over a prompter in this process, with faults."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from transformers import GenerationConfig

from think2seg.prompting.local import LocalPrompter
from think2seg.prompting.template import Template

type Json = dict[str, Any]
MODEL = "tiny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One answer that goes wrong; each is given once, in order."""

    status: int = 500
    headers: tuple[tuple[str, str], ...] = ()
    body: str = "out of order"
    cut: bool = False
    """Break the connection in the middle of a good answer."""
    slow_s: float = 0.0
    """Answer well, but only after so long."""


@dataclass(slots=True, kw_only=True)
class Behaviour:
    """How the server behaves; may be changed while it runs."""

    faults: deque[Fault] = field(default_factory=deque)
    key: str | None = None
    """The only key that is let in."""
    root: str | None = None
    """Where the server says that it loaded the model from."""
    logprobs: bool = True
    requests: list[Json] = field(default_factory=list)
    """Body of every chat request."""
    under_way: int = 0
    most_under_way: int = 0
    met: Counter[str] = field(default_factory=Counter)
    """What happened → how often."""


class Brain(Protocol):
    """What answers: an image and the words of the user turn in, an OpenAI choice with the number of tokens out."""

    def answer(self, image: np.ndarray[Any, np.dtype[np.uint8]], words: str, body: Json) -> tuple[Json, int]: ...


class LocalBrain:
    """A `LocalPrompter` that answers one image at a time and tells the likeliest tokens of every step."""

    def __init__(self, prompter: LocalPrompter) -> None:
        self._prompter = prompter
        self._lock = threading.Lock()

    def answer(self, image: np.ndarray[Any, np.dtype[np.uint8]], words: str, body: Json) -> tuple[Json, int]:
        with self._lock:
            return self._answer(image, words, body)

    def _answer(self, image: np.ndarray[Any, np.dtype[np.uint8]], words: str, body: Json) -> tuple[Json, int]:
        ours = self._prompter
        template = Template(name="as sent", system=body["messages"][0]["content"], user="{question}")
        text = ours._processor.apply_chat_template(template.messages(words), add_generation_prompt=True)
        inputs = ours._processor(text=[text], images=[Image.fromarray(image)], return_tensors="pt")
        config = GenerationConfig(
            **{**ours._generation.to_diff_dict(), "max_new_tokens": body["max_tokens"]},
            output_logits=True,
            return_dict_in_generate=True,
        )
        with torch.inference_mode():
            told = ours._model.generate(**inputs, generation_config=config)
        tokens = told.sequences[0, inputs["input_ids"].shape[1] :]
        ended = int(tokens[-1]) in ours._generation.eos_token_id
        decode = ours._processor.tokenizer.decode
        choice: Json = {
            "index": 0,
            "message": {"role": "assistant", "content": decode(tokens, skip_special_tokens=True)},
            "finish_reason": "stop" if ended else "length",
        }
        if body.get("logprobs"):
            steps = []
            for token, logits in zip(tokens.tolist(), told.logits, strict=True):
                likely = logits[0].float().log_softmax(-1).topk(body["top_logprobs"])
                top = [
                    {"token": decode([other]), "logprob": value}
                    for value, other in zip(likely.values.tolist(), likely.indices.tolist(), strict=True)
                ]
                steps.append({"token": decode([token]), "logprob": top[0]["logprob"], "top_logprobs": top})
            choice["logprobs"] = {"content": steps}
        return choice, len(tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    url: str
    behaviour: Behaviour


@contextmanager
def chat_server(brain: Brain, behaviour: Behaviour | None = None) -> Iterator[RunningServer]:
    """Serve `brain` as the model ``tiny``."""
    behaviour = behaviour or Behaviour()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(_app(brain, behaviour), log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield RunningServer(url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1", behaviour=behaviour)
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


def _app(brain: Brain, behaviour: Behaviour) -> Starlette:
    async def models(request: Request) -> Response:
        if (refused := _refused(request, behaviour)) is not None:
            return refused
        root = {} if behaviour.root is None else {"root": behaviour.root}
        return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model", **root}]})

    async def chat(request: Request) -> Response:
        if (refused := _refused(request, behaviour)) is not None:
            return refused
        body = await request.json()
        behaviour.requests.append(body)
        fault = behaviour.faults.popleft() if behaviour.faults else None
        if fault is not None and not fault.cut and not fault.slow_s:
            behaviour.met[str(fault.status)] += 1
            return Response(fault.body, status_code=fault.status, headers=dict(fault.headers))
        behaviour.under_way += 1
        behaviour.most_under_way = max(behaviour.most_under_way, behaviour.under_way)
        try:
            if fault is not None and fault.slow_s:
                behaviour.met["slow"] += 1
                await asyncio.sleep(fault.slow_s)
            document = await asyncio.to_thread(_completion, brain, behaviour, body)
        finally:
            behaviour.under_way -= 1
        if fault is not None and fault.cut:
            behaviour.met["cut"] += 1
            return _cut(document)
        behaviour.met["answered"] += 1
        return JSONResponse(document)

    return Starlette(
        routes=[
            Route("/v1/models", models, methods=["GET"]),
            Route("/v1/chat/completions", chat, methods=["POST"]),
        ]
    )


def _refused(request: Request, behaviour: Behaviour) -> Response | None:
    given = request.headers.get("authorization", "")
    if behaviour.key is None or given == f"Bearer {behaviour.key}":
        return None
    return PlainTextResponse(f"Incorrect API key provided: {given}", status_code=401)


def _completion(brain: Brain, behaviour: Behaviour, body: Json) -> Json:
    system, user = body["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    picture, words = user["content"]
    head, _, data = picture["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
    choice, tokens = brain.answer(image, words["text"], body)
    if not behaviour.logprobs:
        choice.pop("logprobs", None)
    return {"object": "chat.completion", "model": MODEL, "choices": [choice], "usage": {"completion_tokens": tokens}}


def _cut(document: Json) -> Response:
    data = json.dumps(document).encode()

    async def half() -> AsyncIterator[bytes]:
        yield data[: len(data) // 2]
        raise ConnectionAbortedError("as asked")

    return StreamingResponse(half(), headers={"content-length": str(len(data)), "content-type": "application/json"})
