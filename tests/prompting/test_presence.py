"""Presence is the same whatever pieces a tokenizer makes of an answer."""

from __future__ import annotations

import pytest
import torch
from support.checkpoints import byte_level_tokenizer

from think2seg.prompting.decision import Decision
from think2seg.prompting.presence import TokenClasses


class Pieces:
    """A tokenizer that is nothing but its vocabulary."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces

    def __len__(self) -> int:
        return len(self.pieces)

    def batch_decode(self, rows: list[list[int]]) -> list[str]:
        return ["".join(self.pieces[token] for token in row) for row in rows]


def presence_of(pieces: Pieces, steps: list[tuple[str, dict[str, float]]]) -> float | None:
    """Presence after tokens were generated in turn, each from the given probabilities (the rest goes to ``other``)."""
    vocabulary = len(pieces) + 2
    classes, decision = TokenClasses(pieces, vocabulary), Decision()
    for token, probabilities in steps:
        p = torch.full((vocabulary,), 1e-12)
        for piece, value in probabilities.items():
            p[pieces.pieces.index(piece)] = value
        p[pieces.pieces.index("other")] += max(0.0, 1 - float(p.sum()))
        if decision.deciding:
            classes.weigh(decision, p.log())
        decision.read(token)
    return decision.presence


SINGLE = Pieces("other", "<answer>", "```", "json", "[", "]", "{", "\n", "x")
MERGED = Pieces("other", "<answer>", "```json", "[{", "[]", "[", "{", "]", " {", "]```</answer>")
FIXED = Pieces("other", "<think>", "</think> <answer>```json[", '{"bbox_2d": [', "]```</answer>")


def test_bracket_and_brace_apart() -> None:
    steps = [("<answer>", {}), ("```", {"```": 1}), ("json", {"json": 1}), ("[", {"[": 1}), ("{", {"{": 0.6, "]": 0.2})]
    assert presence_of(SINGLE, steps) == pytest.approx(0.75, abs=1e-4)


def test_white_space_defers_the_decision() -> None:
    steps = [("<answer>", {}), ("[", {"[": 1}), ("\n", {"\n": 0.5, "{": 0.3, "]": 0.2}), ("]", {"{": 0.2, "]": 0.8})]
    assert presence_of(SINGLE, steps) == pytest.approx(0.3 + 0.5 * 0.2, abs=1e-4)


def test_merged_tokens_share_the_decision_with_the_bracket_alone() -> None:
    first = {"[{": 0.5, "[]": 0.1, "[": 0.4}
    assert presence_of(MERGED, [("<answer>", {}), ("[{", first)]) == pytest.approx(0.5 / 0.6, abs=1e-4)
    after = [("<answer>", {}), ("[", first), ("]", {" {": 0.2, "{": 0.2, "]": 0.5, "]```</answer>": 0.1})]
    assert presence_of(MERGED, after) == pytest.approx(0.5 + 0.4 * 0.4, abs=1e-4)


def test_pieces_of_a_fixed_format() -> None:
    steps = [
        ("<think>", {}),
        ("</think> <answer>```json[", {}),
        ("]```</answer>", {'{"bbox_2d": [': 0.1, "]```</answer>": 0.9}),
    ]
    assert presence_of(FIXED, steps) == pytest.approx(0.1, abs=1e-4)


def test_an_answer_that_never_comes_to_its_list_has_none() -> None:
    assert presence_of(SINGLE, [("x", {}), ("x", {})]) is None
    assert presence_of(SINGLE, [("<answer>", {}), ("x", {"x": 1}), ("[", {"[": 1}), ("{", {"{": 1})]) is None
    assert presence_of(SINGLE, [("<answer>", {}), ("[", {"[": 1})]) is None


def test_brackets_of_the_reasoning_do_not_count() -> None:
    steps = [("[", {"[": 1}), ("{", {"{": 1}), ("<answer>", {}), ("[", {"[": 1}), ("]", {"{": 0.25, "]": 0.75})]
    assert presence_of(SINGLE, steps) == pytest.approx(0.25, abs=1e-4)


def test_classes_of_a_real_byte_level_vocabulary() -> None:
    tokenizer = byte_level_tokenizer()
    classes = TokenClasses(tokenizer, len(tokenizer) + 7)
    for text, which, masks in (("[{", 0, classes.before), ("[]", 1, classes.before), ("{", 0, classes.after)):
        ids = tokenizer(text)["input_ids"]
        assert len(ids) == 1
        assert masks[:, ids[0]].tolist() == [float(which == 0), float(which == 1)]
    assert classes.before[:, tokenizer.convert_tokens_to_ids("[")].sum() == 0
    assert classes.after[:, len(tokenizer) :].sum() == 0
