"""From the raw text of an answer to plain JSON values: where the list is, and how to read it when it is broken.

The published form is ``<think>…</think> <answer>```json[…]```</answer>``; models leave out any part of it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import json_repair

MAX_DEPTH = 24
"""Deepest nesting of brackets that is read; a sound answer needs four levels."""

_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_OPEN_THINK = re.compile(r"<think>(.*?)(?:(?=<answer>)|\Z)", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL)
_LIST_OR_OBJECT = re.compile(r"\[(?=\s*[\[{\]])|\{")
_OPENING = re.compile(r"[\[{]")
_SEPARATOR = re.compile(r"[\s,]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Elements:
    """What the list of an answer holds."""

    values: list[object]
    complete: bool
    """Whether the list was seen to end and nothing that looks like another one follows."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a text."""

    reasoning: str
    body: str
    """What stands in the answer tags; without tags, all but the reasoning."""
    sound: bool
    """Whether the body can be taken at its word when it says *nothing*: the reasoning before it was closed, and nothing
    that looks like another answer follows."""


def split_answer(text: str) -> Parts:
    """Reasoning and answer body of `text`; tags that the reasoning speaks of are no answer."""
    think = _THINK.search(text)
    closed = think is not None or "<think>" not in text
    think = think or _OPEN_THINK.search(text)
    reasoning = think.group(1).strip() if think else ""
    rest = text[think.end() :] if think else text
    answer = _ANSWER.search(rest)
    if answer is None:
        return Parts(reasoning, rest, sound=closed)
    after = rest[answer.end() :]
    more = "<answer>" in after or "<answer>" in answer.group(1) or _LIST_OR_OBJECT.search(after) is not None
    return Parts(reasoning, answer.group(1), sound=closed and not more)


def read_elements(body: str) -> Elements | None:
    """Elements of the list in `body` as far as strict JSON reaches, or None where no list can be made out."""
    source = _list_source(body)
    if source is None:
        return None
    try:
        value, end = _DECODER.raw_decode(source)
    except ValueError:
        return _leading_objects(source)
    return Elements(value, complete=_OPENING.search(source, end) is None)


def repair_elements(body: str) -> Elements | None:
    """Elements of a broken list as ``json_repair`` guesses them, or None where it finds none."""
    source = _list_source(body)
    # Wrapped in one more list: of several lists in a row, json_repair would keep the last alone.
    value = None if source is None else _repaired(f"[{source}]")
    return Elements(value, complete=True) if isinstance(value, list) and value else None


def _repaired(text: str) -> object:
    """What ``json_repair`` makes of a text; None where it gives up, as at too many levels of brackets of any kind."""
    try:
        return json_repair.loads(text)
    except (ValueError, RecursionError):
        return None


def _list_source(body: str) -> str | None:
    """`body` from its first list on; objects that stand without one get an opening bracket."""
    start = _LIST_OR_OBJECT.search(body)
    if start is None or _depth(body) > MAX_DEPTH:
        return None
    source = body[start.start() :]
    return source if source[0] == "[" else f"[{source}"


def _depth(body: str) -> int:
    deepest = depth = 0
    for bracket in re.findall(r"[\[{\]}]", body):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest


def _leading_objects(source: str) -> Elements:
    """Complete objects at the head of the list `source`, which does not end or breaks off."""
    values: list[object] = []
    position = 1
    while True:
        separator = _SEPARATOR.match(source, position)
        position = separator.end() if separator else position
        try:
            value, position = _DECODER.raw_decode(source, position)
        except ValueError:
            return Elements(values, complete=False)
        values.append(value)
