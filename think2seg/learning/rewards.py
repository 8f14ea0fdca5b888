"""Rewards of reinforcement: nothing but masks, and whether an answer can be read.

A reward is 2 · IoU of the drawn masks with the truth, + 1 for a valid answer, + 1 for the form *think, then answer*.
Source: Zhang et al., arXiv 2512.19302 (the terms and their weights). What is scored never fails quietly: an error while
drawing is raised with the item and the answer it happened on, and is never a reward of 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import json_repair
import numpy as np

from think2seg.errors import ModelError
from think2seg.prompting import Answer, parse_answer
from think2seg.samples.labelled import Image, Mask
from think2seg.segmentation import Drawn, Prompt, Segmenter

MASK_WEIGHT = 2.0

_FORM = re.compile(r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_FENCE = re.compile(r"```json\s*(.*?)```", re.DOTALL)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """The three terms of one answer's reward, each in [0, 1]."""

    iou: float
    valid: float
    form: float

    @property
    def total(self) -> float:
        """What the answer earns, 0 to 4."""
        return MASK_WEIGHT * self.iou + self.valid + self.form


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Target:
    """An image and what a question about it asks for."""

    item: str
    """Names the sample in errors."""
    image: Image
    """(t, t, 3) uint8 sRGB."""
    truth: Mask
    """(t, t) bool, empty where nothing is there."""
    ignore: Mask | None = None
    """(t, t) bool, pixels that do not count."""


def form_reward(text: str) -> float:
    """1 when the whole text is one reasoning followed by one answer, each in its tags once, else 0."""
    return float(_FORM.fullmatch(text) is not None and all(text.count(tag) == 1 for tag in _TAGS))


def valid_reward(text: str) -> float:
    """1 when the answer is a fenced JSON list of instances, each with a box and/or exactly two points, else 0.

    The list is what stands between its first ``[`` and its last ``]``; broken JSON may be repaired.
    """
    answer = _ANSWER.search(text)
    fence = _FENCE.search(answer.group(1) if answer else text)
    if fence is None:
        return 0.0
    body = fence.group(1)
    start, end = body.find("["), body.rfind("]")
    if start < 0 or end < start:
        return 0.0
    listed = _load(body[start : end + 1])
    return float(isinstance(listed, list) and all(map(_is_instance, listed)))


def iou_reward(mask: Mask, target: Target, answer: Answer) -> float:
    """IoU of a drawn mask, (t, t) bool, with the truth.

    Where nothing is there, only an answer that says so is right, and where something is, an empty one is wrong.
    """
    if answer.status in ("unparsable", "unknown concept"):
        return 0.0
    if not target.truth.any():
        return float(answer.status == "ok" and not answer.instances)
    counted = True if target.ignore is None else ~target.ignore
    both = int(np.count_nonzero(mask & target.truth & counted))
    return both / max(1, int(np.count_nonzero((mask | target.truth) & counted)))


class Scorer:
    """Rewards groups of answers: each image is encoded once, all instances of all its answers are drawn together."""

    def __init__(self, segmenter: Segmenter, *, frame_px: int, unknown_reasoning: str | None = None) -> None:
        """`frame_px`: side of the frame that answers refer to; `unknown_reasoning`: see `parse_answer`."""
        self._segmenter = segmenter
        self._frame_px = frame_px
        self._unknown_reasoning = unknown_reasoning

    def score(self, targets: Sequence[Target], texts: Sequence[Sequence[str]]) -> list[list[Reward]]:
        """Rewards of the answers `texts[i]` to the question that `targets[i]` stands for.

        Raises ModelError, with the item and the answers, when drawing fails.
        """
        answers = [[self.parse(text) for text in group] for group in texts]
        prompts = [
            [self._placed(prompt, target) for answer in group for prompt in answer.instances]
            for target, group in zip(targets, answers, strict=True)
        ]
        drawn = self._draw(targets, prompts, texts)
        return [
            self._rewards(target, group, said, masks)
            for target, group, said, masks in zip(targets, texts, answers, drawn, strict=True)
        ]

    def parse(self, text: str) -> Answer:
        """The answer that a text gives, as it is scored."""
        return parse_answer(text, frame_px=self._frame_px, finish="stop", unknown_reasoning=self._unknown_reasoning)

    def _placed(self, prompt: Prompt, target: Target) -> Prompt:
        return prompt.placed(factor=len(target.image) / self._frame_px)

    def _draw(
        self, targets: Sequence[Target], prompts: Sequence[Sequence[Prompt]], texts: Sequence[Sequence[str]]
    ) -> list[list[Drawn]]:
        try:
            return self._segmenter.draw([target.image for target in targets], prompts)
        except (RuntimeError, ValueError, IndexError) as error:
            named = "; ".join(
                f"{target.item}: {group[0][:200]!r}" for target, group in zip(targets, texts, strict=True)
            )
            raise ModelError(
                f"The segmenter failed on the answers to {len(targets)} questions ({named}): {error}",
                "Every answer that can be read can be drawn.",
                "Look at that sample; a reward is never made up.",
            ) from error

    def _rewards(
        self, target: Target, texts: Sequence[str], answers: Sequence[Answer], drawn: Sequence[Drawn]
    ) -> list[Reward]:
        rewards, masks = [], iter(drawn)
        for text, answer in zip(texts, answers, strict=True):
            union = np.zeros(target.truth.shape, np.bool_)
            for _ in answer.instances:
                union |= next(masks).mask
            rewards.append(
                Reward(iou=iou_reward(union, target, answer), valid=valid_reward(text), form=form_reward(text))
            )
        return rewards


def _load(source: str) -> object:
    """What JSON says, repaired where it is broken; None where nothing can be made of it."""
    loads: tuple[Callable[[str], object], ...] = (json.loads, json_repair.loads)
    for load in loads:
        with suppress(ValueError, RecursionError):
            return load(source)
    return None


def _is_instance(element: object) -> bool:
    """Whether a list's element has a box of four numbers, two points of two numbers each, or both."""
    if not isinstance(element, dict) or "negative_points" in element:
        return False
    box, points = element.get("bbox_2d"), element.get("positive_points")
    if box is None and points is None:
        return False
    return (box is None or _are_numbers(box, 4)) and (
        points is None
        or (isinstance(points, list) and len(points) == 2 and all(_are_numbers(pair, 2) for pair in points))
    )


def _are_numbers(value: object, n: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == n
        and all(isinstance(number, int | float) and not isinstance(number, bool) for number in value)
    )
