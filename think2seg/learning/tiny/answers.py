"""Questions asked of a training image, and the text of the right answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from think2seg.learning.tiny.anchors import Anchored
from think2seg.learning.tiny.vocabulary import ANSWER, SOME, THINK, UNKNOWN, VISIBLE
from think2seg.prompting.template import Template
from think2seg.samples.labelled import LabelledImage, Split
from think2seg.samples.phrasings import PHRASINGS, QUESTION_CONCEPTS, Phrasing, by_kind, noun

MAX_INSTANCES = 8
NOUN_WEIGHT = 100
"""How often the nouns of the reasoning stand in the tokenizer's corpus, so that each becomes a token."""
FAVOURED = {"water": 1.6}
"""Concepts asked more often than others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question with the instances that answer it; concept None lies outside the vocabulary."""

    phrasing: Phrasing
    instances: tuple[Anchored, ...]
    """In raster order of their anchors, MAX_INSTANCES at most."""

    @property
    def answer(self) -> str:
        """Text of the right answer."""
        return answer_text(self.phrasing.concept, self.instances)


def answer_text(concept: str | None, instances: Sequence[Anchored]) -> str:
    """The right answer in the published format."""
    listed = ", ".join(instance_text(instance) for instance in instances)
    return f"{THINK}{reasoning(concept, len(instances))}{ANSWER.removeprefix('.')}{listed}]```</answer>"


def reasoning(concept: str | None, count: int) -> str:
    """One honest sentence about what is there."""
    if concept is None:
        return f"{UNKNOWN}."
    singular, plural = noun(concept)
    if count == 0:
        return f"No {singular}{VISIBLE}."
    return f"{SOME}{count} {singular if count == 1 else plural}."


def instance_text(instance: Anchored) -> str:
    """One instance as JSON, spaced as the published format is."""
    (ax, ay), (bx, by) = instance.points
    box = ", ".join(map(str, instance.box))
    return f'{{"bbox_2d": [{box}], "positive_points": [[{ax}, {ay}], [{bx}, {by}]]}}'


def instances_of(concept: str, anchored: Sequence[Anchored]) -> tuple[Anchored, ...]:
    """The MAX_INSTANCES largest instances of a question's concept, in raster order."""
    members = [item for item in anchored if item.concept in QUESTION_CONCEPTS[concept]]
    largest = sorted(members, key=lambda item: -item.area_px)[:MAX_INSTANCES]
    return tuple(sorted(largest, key=lambda item: item.anchor))


def askable(image: LabelledImage, anchored: Sequence[Anchored]) -> tuple[list[str], list[str]]:
    """Question concepts that are present, and those that are known to be absent.

    Concepts of which only instances too small to be described are there belong to neither.
    """
    described = {item.concept for item in anchored}
    there = {item.concept for item in image.instances}
    present, absent = [], []
    for concept, members in QUESTION_CONCEPTS.items():
        if not image.knows(members):
            continue
        if described.intersection(members):
            present.append(concept)
        elif not there.intersection(members):
            absent.append(concept)
    return present, absent


def choose_questions(
    image: LabelledImage,
    anchored: Sequence[Anchored],
    rng: np.random.Generator,
    *,
    n: int,
    absent_share: float,
    unknown_share: float,
    split: Split = "train",
) -> tuple[Question, ...]:
    """Draw `n` questions that the labels of the image can answer, of every kind of phrasing equally many."""
    present, absent = askable(image, anchored)
    chosen = []
    for _ in range(n):
        draw = rng.random()
        if draw < unknown_share or not (present or absent):
            concept = None
        elif absent and (not present or draw < unknown_share + absent_share):
            concept = _pick(absent, rng)
        else:
            concept = _pick(present, rng)
        kinds = by_kind(concept, split)
        options = kinds[int(rng.integers(len(kinds)))]
        phrasing = options[int(rng.integers(len(options)))]
        instances = () if concept is None else instances_of(concept, anchored)
        chosen.append(Question(phrasing=phrasing, instances=instances))
    return tuple(chosen)


def _pick(concepts: Sequence[str], rng: np.random.Generator) -> str:
    weights = np.array([FAVOURED.get(concept, 1.0) for concept in concepts])
    return concepts[int(rng.choice(len(concepts), p=weights / weights.sum()))]


def corpus(template: Template) -> list[str]:
    """Every text that the tokenizer learns its merges from: train phrasings, nouns, and the template."""
    texts = [template.fill(phrasing.text) for phrasing in PHRASINGS if phrasing.split == "train"]
    nouns = {form for concept in QUESTION_CONCEPTS for form in noun(concept)}
    turns = [f"system\n{template.system}", "user\n", "assistant\n"]
    named = [*texts, *[*nouns] * NOUN_WEIGHT]
    return [*named, *(f" {name}" for name in named), *turns * len(texts)]
