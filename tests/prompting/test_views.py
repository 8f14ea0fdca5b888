"""Prompts upon a turned or mirrored square come back to where they belong, and answers are put to the vote."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from think2seg.prompting.answers import Status
from think2seg.prompting.views import VIEWS, agreed, returned, shown, voters
from think2seg.segmentation import Prompt

SIDE = 24


@given(st.sampled_from(VIEWS), st.integers(0, 20), st.integers(0, 20), st.integers(1, 4), st.integers(1, 4))
def test_a_box_drawn_upon_a_view_comes_back(view: int, top: int, left: int, height: int, width: int) -> None:
    square = np.zeros((SIDE, SIDE), np.bool_)
    square[top : top + height, left : left + width] = True
    ys, xs = np.nonzero(shown(square, view))
    box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
    corner, other = (box[0] + 0.25, box[1] + 0.25), (box[2] - 0.25, box[3] - 0.25)
    back = returned(Prompt(bbox=box, points=(corner,), negative_points=(other,)), view, SIDE)
    assert back.bbox == (left, top, left + width, top + height)
    for x, y in (*back.points, *back.negative_points):
        assert square[int(y), int(x)]
        assert {x % 1, y % 1} <= {0.25, 0.75}


def test_the_views_are_the_eight_symmetries() -> None:
    square = np.arange(9).reshape(3, 3)
    assert len({shown(square, view).tobytes() for view in VIEWS}) == 8
    assert VIEWS[0] == 0
    assert shown(square, 0).tolist() == square.tolist()


def test_a_prompt_without_a_box_has_none_in_any_view() -> None:
    back = returned(Prompt(bbox=None, points=((1.0, 2.0),)), 2, SIDE)
    assert (back.bbox, back.points) == (None, ((23.0, 22.0),))


@pytest.mark.parametrize(("held", "expected"), [([1], 1), ([1, 0], 1), ([1, 0, 0], 0), ([1, 1, 0, 0], 1)])
def test_half_of_the_masks_must_hold_a_pixel(held: list[int], expected: int) -> None:
    assert agreed([np.array([[value]], np.bool_) for value in held]).tolist() == [[bool(expected)]]


@pytest.mark.parametrize(
    ("statuses", "voting"),
    [
        (["ok"], [0]),
        (["truncated", "unparsable"], [0]),
        (["truncated", "ok", "unparsable", "ok"], [1, 3]),
        (["unknown concept", "ok", "ok"], [1, 2]),
        (["unknown concept", "ok"], [0]),
        (["truncated", "unknown concept"], [1]),
    ],
)
def test_answers_that_came_to_the_commonest_end_vote(statuses: list[Status], voting: list[int]) -> None:
    assert voters(statuses) == voting
