"""Answers: the spatial prompts that a prompter names, checked against the frame it saw.

Everything that a text can hold ends in a status, never in an exception, and an unreadable answer is never taken for
an empty one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import batched
from typing import Literal

import numpy as np
import numpy.typing as npt

from think2seg.prompting.grammar import read_elements, repair_elements, split_answer
from think2seg.segmentation.protocol import Box, Point, Prompt

type Finish = Literal["stop", "length"]
type Status = Literal["ok", "truncated", "unparsable", "unknown concept"]

MAX_INSTANCES = 200
"""Most instances that are read from one answer; a longer list counts as truncated."""
MAX_POINTS = 8
"""Most points of either kind that are kept per instance."""
MAX_CHARS = 200_000
"""Longest text that is read; what follows counts as cut off."""
DUPLICATE_IOU = 0.5


SETTLED: tuple[Status, ...] = ("ok", "unknown concept")
"""Statuses after which nothing is left to be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a prompter said about one tile."""

    status: Status
    """``ok``: `instances` is all there is, and nothing is there when it is empty. ``truncated``: what was named before
    the answer was cut off. ``unparsable``: nothing can be made of the text. ``unknown concept``: the prompter says that
    it does not know what is asked for."""
    reasoning: str
    instances: tuple[Prompt, ...] = ()

    def scaled(self, factor: float) -> Answer:
        """The same answer in pixels of a frame that is `factor` times as large."""
        return replace(self, instances=tuple(instance.placed(factor=factor) for instance in self.instances))


def parse_answer(text: str, *, frame_px: int, finish: Finish, unknown_reasoning: str | None = None) -> Answer:
    """Read the answer that `text` holds, in pixels of the square frame of side `frame_px` that was asked about.

    Strict JSON first, ``json_repair`` second. Reversed boxes are put right, boxes and points clipped to the frame, and
    what lies wholly outside is dropped. Of two boxes that overlap with IoU > 0.5 the larger stays. A list from which
    no element can be used is unparsable, and so is an empty one whose reasoning was never closed or that another answer
    follows.

    Parameters
    ----------
    finish
        ``length`` when generation hit its limit: an answer whose list had not ended is then truncated.
    unknown_reasoning
        What this prompter's reasoning says when it does not know the concept asked for.
    """
    parts = split_answer(text[:MAX_CHARS])
    elements = read_elements(parts.body)
    cut_off = (finish == "length" or len(text) > MAX_CHARS) and not (elements and elements.complete)
    if not cut_off and not (elements and elements.complete):
        elements = repair_elements(parts.body)
    instances, whole = _instances(elements.values, frame_px) if elements else ([], True)
    status: Status = "ok"
    if not instances and unknown_reasoning and unknown_reasoning.casefold() in parts.reasoning.casefold():
        status = "unknown concept"
    elif cut_off or (instances and not whole):
        status = "truncated"
    elif elements is None or (elements.values and not instances):
        status = "unparsable"
    elif not instances and not parts.sound:
        status = "truncated" if finish == "length" else "unparsable"
    return Answer(status=status, reasoning=parts.reasoning, instances=deduplicated(instances))


def deduplicated(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """`prompts` without those that repeat a larger box (IoU > 0.5) or the very points of an earlier one."""
    boxes = {index: prompt.bbox for index, prompt in enumerate(prompts) if prompt.bbox}
    indices = list(boxes)
    kept = {indices[position] for position in _largest(np.array(list(boxes.values())))} if boxes else set()
    seen: set[frozenset[Point]] = set()
    for index, prompt in enumerate(prompts):
        points = frozenset(prompt.points)
        if prompt.bbox is None and points not in seen:
            kept.add(index)
            seen.add(points)
    return tuple(prompts[index] for index in sorted(kept))


def _largest(boxes: npt.NDArray[np.float64]) -> list[int]:
    """Indices of the (n, 4) `boxes` that stay, visiting the largest first."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    for index in np.argsort(-area, kind="stable"):
        others = boxes[kept]
        overlap = np.minimum(others[:, 2:], boxes[index, 2:]) - np.maximum(others[:, :2], boxes[index, :2])
        intersection = overlap.clip(min=0).prod(axis=1)
        if not (intersection > DUPLICATE_IOU * (area[kept] + area[index] - intersection)).any():
            kept.append(int(index))
    return kept


def _instances(values: Iterable[object], frame_px: int) -> tuple[list[Prompt], bool]:
    """Prompts that can be used among `values`, and whether they are all that was meant.

    They are not when a place is unreadable or there are more than the bound; what lies outside the frame is no loss.
    """
    instances: list[Prompt] = []
    whole = True
    for element in _flattened(values):
        box, points = _numbers(element.get("bbox_2d")), _points(element.get("positive_points"))
        whole = whole and (len(box) == 4 or bool(points))
        prompt = _prompt(box, points, _points(element.get("negative_points")), frame_px)
        if prompt is None:
            continue
        if len(instances) == MAX_INSTANCES:
            return instances, False
        instances.append(prompt)
    return instances, whole


def _flattened(values: Iterable[object]) -> Iterator[dict[str, object]]:
    """Objects of nested lists, and of lists that an object wraps."""
    for value in values:
        if isinstance(value, list):
            yield from _flattened(value)
        elif isinstance(value, dict):
            if value.keys() & {"bbox_2d", "positive_points"}:
                yield value
            else:
                yield from _flattened(inner for inner in value.values() if isinstance(inner, list))


def _prompt(box: list[float], points: list[Point], negative_points: list[Point], frame_px: int) -> Prompt | None:
    """The part of an instance that can be drawn, or None where it lies outside the frame or nowhere."""
    bbox = _clipped_box(box, frame_px)
    if bbox is None:
        points = _inside(points, frame_px)
    if bbox is None and not points:
        return None
    return Prompt(
        bbox=bbox,
        points=tuple((_clip(x, frame_px - 1), _clip(y, frame_px - 1)) for x, y in points[:MAX_POINTS]),
        negative_points=tuple(_inside(negative_points, frame_px)[:MAX_POINTS]),
    )


def _clipped_box(numbers: list[float], frame_px: int) -> Box | None:
    """The box in order and within the frame, at least a pixel wide and high; None where it misses the frame."""
    if len(numbers) != 4:
        return None
    (left, right), (top, bottom) = sorted(numbers[0::2]), sorted(numbers[1::2])
    if right < 0 or bottom < 0 or left > frame_px or top > frame_px:
        return None
    left, top = _clip(left, frame_px - 1), _clip(top, frame_px - 1)
    return left, top, max(left + 1, _clip(right, frame_px)), max(top + 1, _clip(bottom, frame_px))


def _points(value: object) -> list[Point]:
    """Pairs of numbers, each in a list of its own or one after the other; pairs that are none are left out."""
    if not isinstance(value, list):
        return []
    pairs = [_numbers(pair) for pair in value if isinstance(pair, list)]
    pairs = pairs or [list(pair) for pair in batched(_numbers(value), 2)]
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def _inside(points: list[Point], frame_px: int) -> list[Point]:
    return [(x, y) for x, y in points if 0 <= x < frame_px and 0 <= y < frame_px]


def _clip(value: float, upper: float) -> float:
    return min(max(value, 0.0), float(upper))


def _numbers(value: object) -> list[float]:
    """All numbers in nested lists, strings of numbers included; empty when anything else is among them."""
    if isinstance(value, list):
        parts = [_numbers(inner) for inner in value]
        return [number for part in parts for number in part] if all(parts) else []
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return []
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return []
    return [number] if math.isfinite(number) else []
