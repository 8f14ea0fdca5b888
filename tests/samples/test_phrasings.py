"""Questions: enough of them, of every kind, and the held-out ones truly held out."""

import re
from collections import Counter
from itertools import product

import pytest

from think2seg.errors import ConfigError
from think2seg.samples.phrasings import PHRASINGS, QUESTION_CONCEPTS, Phrasing, noun, phrasings, spelled_out
from think2seg.samples.simulate import CONCEPTS

KINDS = ("direct", "synonym", "implicit", "standing")


def words(texts: list[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"[a-z]+", text.casefold())}


def of_split(split: str) -> list[Phrasing]:
    return [phrasing for phrasing in PHRASINGS if phrasing.split == split]


def test_there_are_enough_and_each_text_is_asked_once() -> None:
    texts = [phrasing.text.casefold() for phrasing in PHRASINGS]
    assert len(texts) == len(set(texts))
    assert sum(phrasing.concept is not None for phrasing in of_split("train")) >= 300
    assert sum(phrasing.concept is None for phrasing in of_split("train")) >= 40
    assert len(of_split("held_out")) >= 60


@pytest.mark.parametrize(("concept", "kind"), list(product(QUESTION_CONCEPTS, KINDS)))
def test_every_concept_is_asked_in_every_kind_on_both_sides(concept: str, kind: str) -> None:
    assert {p.split for p in PHRASINGS if p.concept == concept and p.kind == kind} == {"train", "held_out"}


def test_questions_the_vocabulary_does_not_cover_are_on_both_sides() -> None:
    assert phrasings(None, "train")
    assert len(phrasings(None, "held_out")) >= 10


def test_held_out_questions_are_fixed() -> None:
    held_out = {phrasing.text for phrasing in of_split("held_out")}
    assert {"open water surfaces", "where has standing water collected?"} <= held_out
    assert not {"water bodies", "where is open water?", "forest clearings"} & held_out


def test_most_words_of_held_out_questions_can_be_read() -> None:
    known = words([phrasing.text for phrasing in of_split("train")])
    asked = words([phrasing.text for phrasing in of_split("held_out") if phrasing.concept is not None])
    assert len(asked & known) >= 0.9 * len(asked), sorted(asked - known)


def test_questions_outside_the_vocabulary_name_no_concept() -> None:
    names = [re.compile(rf"\b{word}\b") for concept in QUESTION_CONCEPTS for word in noun(concept)]
    for phrasing in phrasings(None, "train") + phrasings(None, "held_out"):
        assert not any(name.search(phrasing.text) for name in names if name.pattern != r"\bfields\b"), phrasing.text


def test_members_are_base_concepts() -> None:
    assert {member for members in QUESTION_CONCEPTS.values() for member in members} == set(CONCEPTS)


def test_concepts_are_balanced() -> None:
    counts = Counter(phrasing.concept for phrasing in of_split("train") if phrasing.concept)
    assert max(counts.values()) <= 1.5 * min(counts.values())
    implicit = Counter(p.concept for p in of_split("train") if p.concept and p.kind == "implicit")
    assert min(implicit.values()) >= 18


def test_a_pattern_stands_for_every_choice() -> None:
    assert list(spelled_out("where do (ducks|geese) (swim|dive)?")) == [
        "where do ducks swim?", "where do ducks dive?", "where do geese swim?", "where do geese dive?"
    ]  # fmt: skip
    assert list(spelled_out("what floats?")) == ["what floats?"]


def test_an_unknown_concept_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="burnt area"):
        noun("volcano")
    with pytest.raises(ConfigError, match="volcano"):
        phrasings("volcano", "train")
