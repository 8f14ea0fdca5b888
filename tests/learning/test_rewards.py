"""What an answer earns, and that a failure is never a reward of 0."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from support.standins import DarkSegmenter

from think2seg.errors import ModelError
from think2seg.learning.rewards import Reward, Scorer, Target, form_reward, valid_reward
from think2seg.segmentation import Drawn, Prompt

SIDE = 64
BOX = [16, 16, 48, 48]
ITEM = {"bbox_2d": BOX, "positive_points": [[20, 20], [40, 40]]}


def answer(*items: object, think: str = "Two lakes.") -> str:
    return f"<think>{think}</think> <answer>```json{json.dumps(list(items))}```</answer>"


def target(*, empty: bool = False) -> Target:
    image = np.full((SIDE, SIDE, 3), 180, np.uint8)
    truth = np.zeros((SIDE, SIDE), np.bool_)
    if not empty:
        truth[16:48, 16:48] = True
        image[truth] = 20
    return Target(item="made/1", image=image, truth=truth)


@pytest.fixture
def scorer() -> Scorer:
    return Scorer(DarkSegmenter(digest=""), frame_px=SIDE, unknown_reasoning="I do not know")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (answer(ITEM), 1.0),
        (answer(), 1.0),
        ("  " + answer(ITEM) + "\n", 1.0),
        ("Sure! " + answer(ITEM), 0.0),
        (answer(ITEM) + " Done.", 0.0),
        (answer(ITEM) + answer(ITEM), 0.0),
        ("<answer>[]</answer><think>late</think>", 0.0),
        ("", 0.0),
    ],
)
def test_form(text: str, form: float) -> None:
    assert form_reward(text) == form


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (answer(ITEM), 1.0),
        (answer(), 1.0),
        (answer({"bbox_2d": BOX}), 1.0),
        (answer({"positive_points": [[1, 2], [3, 4]]}), 1.0),
        ('<answer>```json[{"bbox_2d": [1, 2, 3, 4],}]```</answer>', 1.0),
        (answer(ITEM).replace("```json", "").replace("```", ""), 0.0),
        (answer({"bbox_2d": BOX[:3]}), 0.0),
        (answer({"bbox_2d": ["1", 2, 3, 4]}), 0.0),
        (answer({"bbox_2d": BOX, "positive_points": [[1, 2]]}), 0.0),
        (answer({**ITEM, "negative_points": [[1, 2]]}), 0.0),
        (answer({}), 0.0),
        (answer(5), 0.0),
        ("```json" + "[" * 330 + "1]```", 0.0),
        ("```json" + "[" * 100_000 + "1]```", 0.0),
        ("<answer>```json nothing ```</answer>", 0.0),
    ],
)
def test_valid(text: str, valid: float) -> None:
    assert valid_reward(text) == valid


def test_masks_earn_their_iou(scorer: Scorer) -> None:
    half = {"bbox_2d": [16, 16, 48, 32]}
    ((right, less, nothing, rambling),) = scorer.score(
        [target()], [[answer(ITEM), answer(half), answer(), "no idea what you mean"]]
    )
    assert right == Reward(iou=1.0, valid=1.0, form=1.0)
    assert right.total == 4.0
    assert less.iou == pytest.approx(0.5)
    assert nothing == Reward(iou=0.0, valid=1.0, form=1.0)
    assert rambling == Reward(iou=0.0, valid=0.0, form=0.0)


def test_where_nothing_is_only_an_empty_answer_is_right(scorer: Scorer) -> None:
    unknown = answer(think="I do not know this.")
    ((empty, wrong, strange),) = scorer.score([target(empty=True)], [[answer(), answer(ITEM), unknown]])
    assert (empty.iou, wrong.iou, strange.iou) == (1.0, 0.0, 0.0)


def test_ignored_pixels_do_not_count() -> None:
    scorer = Scorer(DarkSegmenter(digest=""), frame_px=SIDE)
    made = target()
    ignore = np.zeros_like(made.truth)
    ignore[32:] = True
    half = Target(item=made.item, image=made.image, truth=made.truth, ignore=ignore)
    (((reward),),) = scorer.score([half], [[answer({"bbox_2d": [16, 16, 48, 32]})]])
    assert reward.iou == 1.0


def test_an_image_is_handed_over_once_for_all_its_answers() -> None:
    calls: list[list[int]] = []

    class Counting(DarkSegmenter):
        def draw(self, tiles: Sequence[np.ndarray], prompts: Sequence[Sequence[Prompt]]) -> list[list[Drawn]]:
            calls.append([len(row) for row in prompts])
            return super().draw(tiles, prompts)

    Scorer(Counting(digest=""), frame_px=SIDE).score([target(), target()], [[answer(ITEM)] * 16, [answer(ITEM)] * 4])
    assert calls == [[16, 4]]


def test_a_failure_is_raised_with_the_item_and_the_answer() -> None:
    class Broken(DarkSegmenter):
        def draw(self, tiles: Sequence[np.ndarray], prompts: Sequence[Sequence[Prompt]]) -> list[list[Drawn]]:
            raise RuntimeError("out of order")

    with pytest.raises(ModelError, match=r"made/1.*Two lakes.*out of order"):
        Scorer(Broken(digest=""), frame_px=SIDE).score([target()], [[answer(ITEM)]])
