"""Every text ends in a status; none is taken for an empty answer that does not say so."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from think2seg.prompting import parse_answer
from think2seg.prompting.answers import MAX_CHARS, MAX_INSTANCES, MAX_POINTS, deduplicated
from think2seg.segmentation import Prompt

FRAME = 840
ONE = '{"bbox_2d": [10, 20, 110, 220], "positive_points": [[30, 40], [50, 60]]}'
TWO = '{"bbox_2d": [300, 300, 400, 400], "positive_points": [[310, 310], [320, 320]]}'
FIRST = Prompt(bbox=(10, 20, 110, 220), points=((30, 40), (50, 60)))
SECOND = Prompt(bbox=(300, 300, 400, 400), points=((310, 310), (320, 320)))


def published(items: str, reasoning: str = "Two lakes.") -> str:
    return f"<think>{reasoning}</think> <answer>```json[{items}]```</answer>"


def parse(text: str, finish: str = "stop", frame_px: int = FRAME, unknown: str | None = None):
    return parse_answer(text, frame_px=frame_px, finish=finish, unknown_reasoning=unknown)


READABLE = {
    "published form": published(f"{ONE}, {TWO}"),
    "fence on lines of its own": f"<think>t</think>\n<answer>\n```json\n[\n{ONE},\n{TWO}\n]\n```\n</answer>",
    "fence without a language": f"<think>t</think><answer>```\n[{ONE},{TWO}]\n```</answer>",
    "no fence": f"<think>t</think><answer>[{ONE}, {TWO}]</answer>",
    "closing fence missing": f"<answer>```json[{ONE}, {TWO}]</answer>",
    "opening fence missing": f"<answer>[{ONE}, {TWO}]```</answer>",
    "no tags": f"[{ONE}, {TWO}]",
    "no tags, after prose": f"Here are the lakes [see below]: [{ONE}, {TWO}] as asked.",
    "answer not closed": f"<think>t</think> <answer>```json[{ONE}, {TWO}]",
    "answer tag not opened": f"<think>t</think> ```json[{ONE}, {TWO}]```</answer>",
    "reasoning not closed": f"<think>two lakes <answer>```json[{ONE}, {TWO}]```</answer>",
    "reasoning speaks of tags": f"<think>I will use <answer> tags</think> <answer>[{ONE}, {TWO}]</answer>",
    "reasoning holds brackets": f"<think>lake [0, 1] at {{3}}</think> <answer>[{ONE}, {TWO}]</answer>",
    "thinks twice": f"<think>a</think><think>b</think><answer>[{ONE}, {TWO}]</answer>",
    "text after the list": published(f"{ONE}, {TWO}") + " I hope this helps.",
    "list not closed": f"<answer>```json[{ONE}, {TWO}```</answer>",
    "last brace missing": f"<answer>[{ONE}, {TWO[:-1]}]</answer>",
    "commas missing": f"<answer>[{ONE} {TWO}]</answer>",
    "trailing comma": published(f"{ONE}, {TWO},"),
    "single quotes": published(f"{ONE}, {TWO}").replace('"', "'"),
    "unquoted keys": published(f"{ONE}, {TWO}").replace('"', ""),
    "comments": f"<answer>[{ONE}, // the lake\n{TWO}]</answer>",
    "objects without a list": f"<answer>{ONE}, {TWO}</answer>",
    "one object per line": f"<answer>{ONE}\n{TWO}</answer>",
    "two lists": f"<answer>[{ONE}] [{TWO}]</answer>",
    "list in a list": published(f"[{ONE}, {TWO}]"),
    "lists in a list": published(f"[{ONE}], [{TWO}]"),
    "list in an object": f'<answer>{{"instances": [{ONE}, {TWO}]}}</answer>',
    "strings for numbers": published(f"{ONE}, {TWO}").replace("[10,", '["10",').replace("220", '" 220 "'),
    "floats": published(f"{ONE}, {TWO}").replace("10,", "10.0,"),
    "further keys": published(f"{ONE}, {TWO}").replace('{"bbox', '{"label": "lake", "score": 0.5, "bbox'),
    "strings among the objects": published(f'"lake", {ONE}, null, 7, {TWO}'),
    "nested box": published(f"{ONE}, {TWO}").replace("[10, 20, 110, 220]", "[[10, 20], [110, 220]]"),
    "flat points": published(f"{ONE}, {TWO}").replace("[[30, 40], [50, 60]]", "[30, 40, 50, 60]"),
    "reversed box": published(f"{ONE}, {TWO}").replace("[10, 20, 110, 220]", "[110, 220, 10, 20]"),
    "duplicate inside": published(f"{ONE}, {ONE.replace('220', '180')}, {TWO}"),
    "exact duplicates": published(f"{ONE}, {ONE}, {TWO}, {TWO}"),
    "outside besides": published(f'{ONE}, {TWO}, {{"bbox_2d": [900, 900, 990, 990]}}'),
}


@pytest.mark.parametrize("text", READABLE.values(), ids=READABLE.keys())
def test_readable(text: str) -> None:
    answer = parse(text)
    assert (answer.status, answer.instances) == ("ok", (FIRST, SECOND))


@pytest.mark.parametrize("text", READABLE.values(), ids=READABLE.keys())
def test_cutting_an_answer_anywhere_never_makes_it_empty(text: str) -> None:
    for end in range(0, len(text), 3):
        for finish in ("length", "stop"):
            answer = parse(text[:end], finish)
            assert answer.instances or answer.status in ("truncated", "unparsable")


EMPTY = ["[]", "<answer>[]</answer>", published(""), "<think>no</think><answer>```json\n[ ]\n```</answer>"]


@pytest.mark.parametrize("text", EMPTY)
def test_empty(text: str) -> None:
    answer = parse(text)
    assert (answer.status, answer.instances) == ("ok", ())


UNPARSABLE = {
    "nothing": "",
    "blank": " \n\t",
    "prose": "I see no lake in this image.",
    "empty answer": "<think>t</think> <answer></answer>",
    "reasoning alone": "<think>There is a lake.</think>",
    "endless reasoning": "<think>There is a lake.",
    "null": "<answer>null</answer>",
    "a number": "<answer>7</answer>",
    "a bracket": "<answer>[</answer>",
    "objects that are none": published('{"label": "lake"}'),
    "empty object": published("{}"),
    "an empty list in a list": "[[]]",
    "bare boxes": published("[10, 20, 110, 220]"),
    "three numbers": published('{"bbox_2d": [10, 20, 110]}'),
    "five numbers": published('{"bbox_2d": [10, 20, 110, 220, 0.9]}'),
    "words for numbers": published('{"bbox_2d": ["left", 20, 110, 220]}'),
    "nulls": published('{"bbox_2d": [null, 20, 110, 220]}'),
    "booleans": published('{"bbox_2d": [true, false, true, true]}'),
    "not a number": published('{"bbox_2d": [NaN, 20, 110, 220]}'),
    "infinite": published('{"bbox_2d": [0, 0, Infinity, -Infinity]}'),
    "a number beyond floats": published('{"bbox_2d": [0, 0, 1e999, 220]}'),
    "a number of 5000 digits": published('{"bbox_2d": [0, 0, %s, 220]}' % ("9" * 5000)),
    "box as a string": published('{"bbox_2d": "somewhere"}'),
    "box as an object": published('{"bbox_2d": {"x": 1}}'),
    "outside": published('{"bbox_2d": [900, 900, 990, 990], "positive_points": [[950, 950], [960, 960]]}'),
    "left of the frame": published('{"bbox_2d": [-90, 10, -5, 50]}'),
    "deep nesting": "<answer>" + "[" * 50_000 + "]" * 50_000,
    "deep nesting, unclosed": "<answer>" + "[{" * 50_000,
    "closing brackets": "<answer>" + "]}" * 1000,
    "lone surrogates": "<answer>[\ud800{</answer>",
    "control characters": "<answer>[\x00\x01]</answer>",
}


@pytest.mark.parametrize("text", UNPARSABLE.values(), ids=UNPARSABLE.keys())
def test_unparsable(text: str) -> None:
    answer = parse(text)
    assert (answer.status, answer.instances) == ("unparsable", ())


def test_reasoning_is_kept() -> None:
    assert parse(published(ONE, "A lake\nin the north.")).reasoning == "A lake\nin the north."
    assert parse("<think>cut off he", "length").reasoning == "cut off he"


def test_truncated_answers_keep_complete_instances() -> None:
    text = published(f"{ONE}, {TWO}")
    cut = parse(text[: text.index("320")], "length")
    assert (cut.status, cut.instances) == ("truncated", (FIRST,))
    within_first = parse(text[: text.index("50, 60")], "length")
    assert (within_first.status, within_first.instances) == ("truncated", ())


def test_a_list_that_ended_is_whole_though_the_text_goes_on() -> None:
    rambling = f"<answer>[{ONE}, {TWO}]</answer> The lakes are blue and the"
    assert parse(rambling, "length").status == "ok"
    assert parse("<answer>[]</answer> as I sa", "length").status == "ok"


def test_a_list_followed_by_another_is_not_whole() -> None:
    assert parse(f"[] wait, there is one: [{ONE}", "length").status == "truncated"
    contradicted = parse(f"[] wait, there is one: [{ONE}]")
    assert contradicted.instances or contradicted.status == "unparsable"


def test_an_unreadable_place_among_readable_ones_leaves_the_rest_unobserved() -> None:
    answer = parse(published(f'{ONE}, {{"bbox_2d": ["a", 1, 2, 3]}}'))
    assert (answer.status, answer.instances) == ("truncated", (FIRST,))


def test_boxes_and_points_are_clipped_to_the_frame() -> None:
    answer = parse(published('{"bbox_2d": [-20, 800, 100, 900], "positive_points": [[-5, 870], [50, 839]]}'))
    assert answer.instances == (Prompt(bbox=(0, 800, 100, 840), points=((0, 839), (50, 839))),)


@pytest.mark.parametrize("box", [[50, 50, 50, 90], [50, 50, 50, 50], [840, 840, 840, 840], [839.9, 0, 840, 2]])
def test_degenerate_boxes_become_a_pixel_wide_inside_the_frame(box: list[float]) -> None:
    (instance,) = parse(published(json.dumps({"bbox_2d": box}))).instances
    assert instance.bbox is not None
    left, top, right, bottom = instance.bbox
    assert 0 <= left <= right - 1 < FRAME
    assert 0 <= top <= bottom - 1 < FRAME


def test_points_without_a_usable_box_stand_alone() -> None:
    for box in ('"bbox_2d": [900, 900, 990, 990], ', '"bbox_2d": [1, 2], ', ""):
        answer = parse(published(f'{{{box}"positive_points": [[30, 40], [950, 40]]}}'))
        assert (answer.status, answer.instances) == ("ok", (Prompt(bbox=None, points=((30, 40),)),))


def test_point_only_duplicates_are_dropped() -> None:
    points = '{"positive_points": [[30, 40], [50, 60]]}'
    swapped = '{"positive_points": [[50, 60], [30, 40]]}'
    assert len(parse(published(f"{points}, {points}, {swapped}, {ONE}")).instances) == 2


def test_points_that_are_none_are_left_out() -> None:
    answer = parse(published('{"bbox_2d": [10, 20, 110, 220], "positive_points": [[30, 40], ["a", 1], [1], 7]}'))
    assert answer.instances == (Prompt(bbox=(10, 20, 110, 220), points=((30, 40),)),)


def test_negative_points_are_kept_inside_the_frame() -> None:
    (instance,) = parse(published(ONE[:-1] + ', "negative_points": [[5, 6], [999, 1]]}')).instances
    assert instance.negative_points == ((5, 6),)


def test_the_larger_of_two_overlapping_boxes_stays_in_its_place() -> None:
    small, large, other = ((0, 0, 10, 8), (0, 0, 10, 10), (0, 0, 10, 4))
    prompts = [Prompt(bbox=small), Prompt(bbox=large), Prompt(bbox=other)]
    assert deduplicated(prompts) == (Prompt(bbox=large), Prompt(bbox=other))
    assert deduplicated([]) == ()


def test_an_iou_of_exactly_a_half_is_no_duplicate() -> None:
    assert len(deduplicated([Prompt(bbox=(0, 0, 10, 10)), Prompt(bbox=(0, 0, 10, 5))])) == 2


def test_ten_thousand_boxes_are_bounded_and_truncated() -> None:
    boxes = [
        {"bbox_2d": [i % 29 * 28, i // 29 % 29 * 28, i % 29 * 28 + 20, i // 29 % 29 * 28 + 20]} for i in range(10_000)
    ]
    answer = parse(published(json.dumps(boxes)[1:-1]))
    assert answer.status == "truncated"
    assert 0 < len(answer.instances) <= MAX_INSTANCES


def test_many_points_are_bounded() -> None:
    points = [[i % FRAME, i % FRAME] for i in range(1000)]
    (instance,) = parse(published(json.dumps({"bbox_2d": [0, 0, 9, 9], "positive_points": points}))).instances
    assert len(instance.points) == MAX_POINTS


def test_texts_beyond_the_limit_count_as_cut_off() -> None:
    assert parse("<answer>[" + " " * MAX_CHARS + "]</answer>").status == "truncated"


UNKNOWN = "I do not know this concept."


def test_an_unknown_concept_is_neither_absent_nor_unparsable() -> None:
    assert parse(published("", UNKNOWN), unknown=UNKNOWN).status == "unknown concept"
    assert parse(f"<think>{UNKNOWN.upper()}</think>", unknown=UNKNOWN).status == "unknown concept"
    assert parse(published("", UNKNOWN)).status == "ok"
    assert parse(published("", "No lake is visible."), unknown=UNKNOWN).status == "ok"
    assert parse(published(ONE, UNKNOWN), unknown=UNKNOWN).status == "ok"


def test_scaled_maps_every_coordinate() -> None:
    answer = parse(published(ONE[:-1] + ', "negative_points": [[8, 16]]}')).scaled(0.5)
    assert answer.instances == (Prompt(bbox=(5, 10, 55, 110), points=((15, 20), (25, 30)), negative_points=((4, 8),)),)


SYNTAX = ["<think>", "</think>", "<answer>", "</answer>", "```json", '"bbox_2d"', '"positive_points"', "//", "/*"]
VALUES = ["1", "-5", "900", "NaN", "null", "true", "1e9", '"7"', ONE, TWO, "lake", "\ud800", "é"]
FRAGMENTS = st.sampled_from([*"[]{},:\"'`\\ \n", *SYNTAX, *VALUES])


@settings(max_examples=400, deadline=None)
@given(st.lists(FRAGMENTS, max_size=40).map("".join), st.sampled_from(["stop", "length"]))
def test_whatever_is_said_has_a_status_and_stays_in_the_frame(text: str, finish: str) -> None:
    answer = parse(text, finish)
    assert answer.status in ("ok", "truncated", "unparsable")
    assert answer.instances == () or answer.status in ("ok", "truncated")
    for instance in answer.instances:
        assert instance.bbox or instance.points
        values = [value for point in (*instance.points, *instance.negative_points) for value in point]
        assert all(0 <= value <= FRAME for value in (*values, *(instance.bbox or ())))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_arbitrary_text_never_raises(text: str) -> None:
    assert parse(text).instances == ()
