"""Talking to an OpenAI-compatible server: requests are bounded, repeated where that helps, and slowed on demand."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from think2seg.config import ServedPrompter
from think2seg.errors import ModelError
from think2seg.prompting.pacing import Pace

type Json = Mapping[str, Any]

FIRST_WAIT_S = 0.5
"""Before the first repetition; doubled for each further one."""
LONGEST_WAIT_S = 120.0
"""Longest wait before a repetition, whatever the server asks for."""
_CONNECT_S = 10.0
_BUSY = {429, 503}
_WORTH_REPEATING = {408, 425, 500, 502, 504} | _BUSY
_TOLD_CHARS = 300
_CHECK_LOG = "Check the server and its log, then run again: finished blocks are kept."
_CHECK_MONITOR = "Check models.prompter against what the server was started with."


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why a request brought no answer."""

    what: str
    todo: str
    again: bool = True
    """Whether asking again may help."""
    busy: bool = False
    wait_s: float = 0.0
    """What the server asked to wait."""


class ChatClient:
    """A connection to the server of a monitor's prompter, for any number of threads."""

    def __init__(self, config: ServedPrompter) -> None:
        """Raises ModelError when the environment variable that should hold the key is not set."""
        self._config = config
        self._key = _key(config.api_key_variable)
        self._pace = Pace(config.concurrency)
        self._http = httpx.Client(
            base_url=config.url,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(config.timeout_s, connect=min(_CONNECT_S, config.timeout_s), pool=None),
            limits=httpx.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency),
        )

    @property
    def pace(self) -> Pace:
        """The bound on requests under way."""
        return self._pace

    def models(self) -> list[Json]:
        """What the server offers; errors as in `complete`."""
        offered = self._request("GET", "models").get("data")
        return [one for one in offered if isinstance(one, dict)] if isinstance(offered, list) else []

    def complete(self, body: Json) -> Json:
        """The server's answer to one chat request.

        Raises ModelError when the server refuses the request, or none of the repetitions was answered.
        """
        return self._request("POST", "chat/completions", body)

    def _request(self, method: str, path: str, body: Json | None = None) -> Json:
        attempt = 0
        while isinstance(answer := self._in_turn(method, path, body), _Trouble):
            if not answer.again or attempt == self._config.retries:
                raise self._error(answer, attempt + 1)
            wait_s = min(LONGEST_WAIT_S, max(answer.wait_s, FIRST_WAIT_S * 2**attempt * random.uniform(0.5, 1)))
            if answer.busy:
                self._pace.push_back(wait_s)
            else:
                time.sleep(wait_s)
            attempt += 1
        self._pace.success()
        return answer

    def _in_turn(self, method: str, path: str, body: Json | None) -> Json | _Trouble:
        with self._pace.turn():
            try:
                response = self._http.request(method, path, json=body)
            except httpx.TimeoutException:
                return _Trouble(f"gave no answer within {self._config.timeout_s:g} s", _CHECK_LOG)
            except httpx.RequestError as error:
                return _Trouble(f"cannot be reached, or broke off: {error}", _CHECK_LOG)
        return self._read(response)

    def _read(self, response: httpx.Response) -> Json | _Trouble:
        status = response.status_code
        if status in (401, 403):
            return _Trouble(f"refuses access ({status})", self._key_todo(), again=False)
        if status >= 400:
            what = f"answered {status}: {self._told(response.text)}"
            if status not in _WORTH_REPEATING:
                return _Trouble(what, _CHECK_MONITOR, again=False)
            return _Trouble(what, _CHECK_LOG, busy=status in _BUSY, wait_s=_retry_after_s(response))
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict):
            return answer
        return _Trouble(f"did not answer with a JSON object: {self._told(response.text)}", _CHECK_LOG)

    def _key_todo(self) -> str:
        if variable := self._config.api_key_variable:
            return f"Put a valid key into the environment variable {variable}, where workers start."
        return "Name the environment variable that holds the key in models.prompter.api_key_variable."

    def _told(self, text: str) -> str:
        """The beginning of what the server said, without the key."""
        text = " ".join((text.replace(self._key, "…") if self._key else text).split())
        return text if len(text) <= _TOLD_CHARS else f"{text[:_TOLD_CHARS]}…"

    def _error(self, trouble: _Trouble, tries: int) -> ModelError:
        return ModelError(
            f"The prompter's server at {self._config.url} {trouble.what}" + (f" ({tries} tries)" if tries > 1 else ""),
            "An OpenAI-compatible server such as vLLM, at an address that ends in /v1.",
            trouble.todo,
        )


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if key := os.environ.get(variable, "").strip():
        return key
    raise ModelError(
        f"The environment variable {variable}, which should hold the key of the prompter's server, is not set.",
        "A key comes from the environment only.",
        "Set it where workers start, or remove models.prompter.api_key_variable.",
    )


def _retry_after_s(response: httpx.Response) -> float:
    """Seconds that the server asks to wait (RFC 9110: a number, or a date); 0 where it does not say."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return 0.0
