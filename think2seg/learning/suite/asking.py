"""Questions about labelled images, put to the production prompter and drawn by the production segmenter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import batched

import numpy as np

from think2seg.learning.evaluate import Outcome, Sample, compare
from think2seg.learning.tiny.anchors import anchor_instances
from think2seg.learning.tiny.answers import Question, askable, instances_of
from think2seg.prompting import Prompter, Reply, parse_answer
from think2seg.samples.labelled import LabelledImage, Mask
from think2seg.samples.phrasings import QUESTION_CONCEPTS, Phrasing, phrasings
from think2seg.segmentation import Drawn, Segmenter

type OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One question, the answer to it, and what was drawn."""

    sample: Sample
    reply: Reply
    mask: Mask
    """(y, x) bool, the union of the drawn instances."""
    truth: Mask
    """(y, x) bool."""
    outcome: Outcome


def ask_and_draw(
    samples: Sequence[Sample],
    prompter: Prompter,
    segmenter: Segmenter,
    *,
    title: str = "asking",
    on_progress: OnProgress = lambda *_: None,
) -> list[Case]:
    """Ask every question and draw the answers, in the order of `samples`; questions of one text are asked together."""
    by_text: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        by_text.setdefault(sample.question.phrasing.text, []).append(index)
    found: dict[int, Case] = {}
    for text, indices in by_text.items():
        for part in batched(indices, prompter.batch):
            images = [samples[index].image.image for index in part]
            replies = prompter.ask(images, text)
            found |= zip(part, _draw([samples[i] for i in part], replies, prompter, segmenter), strict=True)
            on_progress(title, len(found), len(samples))
    return [found[index] for index in range(len(samples))]


def _draw(samples: Sequence[Sample], replies: Sequence[Reply], prompter: Prompter, segmenter: Segmenter) -> list[Case]:
    answers = [
        parse_answer(
            reply.text,
            frame_px=prompter.frame_px,
            finish=reply.finish,
            unknown_reasoning=prompter.unknown_reasoning or "",
        )
        for reply in replies
    ]
    prompts = [
        [prompt.placed(factor=len(sample.image.image) / prompter.frame_px) for prompt in answer.instances]
        for sample, answer in zip(samples, answers, strict=True)
    ]
    drawn = segmenter.draw([sample.image.image for sample in samples], prompts)
    cases = []
    for sample, reply, answer, instances in zip(samples, replies, answers, drawn, strict=True):
        truth, mask = truth_of(sample), union(instances, sample.image.image.shape[0])
        outcome = compare(sample, answer, truth=truth, mask=mask)
        cases.append(Case(sample=sample, reply=reply, mask=mask, truth=truth, outcome=outcome))
    return cases


def truth_of(sample: Sample) -> Mask:
    """What the question asks for, (y, x) bool; empty for questions outside the vocabulary."""
    concept = sample.question.phrasing.concept
    return sample.image.mask_of(() if concept is None else QUESTION_CONCEPTS[concept])


def union(drawn: Sequence[Drawn], side_px: int) -> Mask:
    """Union of drawn instances as (side, side) bool."""
    total = np.zeros((side_px, side_px), np.bool_)
    for instance in drawn:
        total |= instance.mask
    return total


def balanced_questions(images: Sequence[LabelledImage], *, seed: int, absent: float, unknown: float) -> list[Sample]:
    """One held-out phrasing for each image; every concept is asked about equally often where images allow it.

    absent, unknown: shares of questions for what is not there, and outside the vocabulary.
    """
    rng = np.random.default_rng(seed)
    asked: dict[tuple[str, bool], int] = {}
    samples = []
    for image in images:
        anchored = anchor_instances(image.instances)
        present, missing = askable(image, anchored)
        draw = rng.random()
        concept: str | None = None
        if draw >= unknown and (present or missing):
            there = bool(present) and not (missing and draw < unknown + absent)
            concept = min(present if there else missing, key=lambda name: (asked.get((name, there), 0), rng.random()))
            asked[concept, there] = asked.get((concept, there), 0) + 1
        samples.append(_sample(image, concept, rng.choice(len(phrasings(concept, "held_out")))))
    return samples


def questions_for(images: Sequence[LabelledImage], phrasing: Phrasing) -> list[Sample]:
    """The same question about every image whose labels can answer it."""
    assert phrasing.concept is not None
    members = QUESTION_CONCEPTS[phrasing.concept]
    chosen = [image for image in images if image.knows(members) or any(i.concept in members for i in image.instances)]
    return [
        Sample(
            image=image,
            question=Question(
                phrasing=phrasing, instances=instances_of(phrasing.concept, anchor_instances(image.instances))
            ),
        )
        for image in chosen
    ]


def _sample(image: LabelledImage, concept: str | None, which: int) -> Sample:
    anchored = anchor_instances(image.instances)
    return Sample(
        image=image,
        question=Question(
            phrasing=phrasings(concept, "held_out")[which],
            instances=() if concept is None else instances_of(concept, anchored),
        ),
    )
