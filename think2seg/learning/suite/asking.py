"""Questions about labelled images, put to the production prompter and drawn by the production segmenter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import batched, islice

import numpy as np

from think2seg.learning.evaluate import Outcome, Sample, compare
from think2seg.learning.tiny.anchors import anchor_instances
from think2seg.learning.tiny.answers import Question, askable, instances_of
from think2seg.prompting import Answer, Prompter, Reply, parse_answer
from think2seg.prompting.views import VIEWS, agreed, iou, returned, shown, voters
from think2seg.samples.labelled import LabelledImage, Mask
from think2seg.samples.phrasings import QUESTION_CONCEPTS, Phrasing, phrasings
from think2seg.segmentation import Segmenter

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
    views: int = 1,
    title: str = "asking",
    on_progress: OnProgress = lambda *_: None,
) -> list[Case]:
    """Ask every question and draw the answers, in the order of `samples`; questions of one text are asked together.

    views: in how many views an image is asked about, as `tile.views` of a monitor.
    """
    by_text: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        by_text.setdefault(sample.question.phrasing.text, []).append(index)
    found: dict[int, Case] = {}
    for text, indices in by_text.items():
        for part in batched(indices, prompter.batch):
            images = [samples[index].image.image for index in part]
            replies = [prompter.ask([shown(image, view) for image in images], text) for view in VIEWS[:views]]
            cases = _draw([samples[i] for i in part], list(zip(*replies, strict=True)), prompter, segmenter)
            found |= zip(part, cases, strict=True)
            on_progress(title, len(found), len(samples))
    return [found[index] for index in range(len(samples))]


def _draw(
    samples: Sequence[Sample], replies: Sequence[Sequence[Reply]], prompter: Prompter, segmenter: Segmenter
) -> list[Case]:
    """replies: those about each sample's image in its views."""
    answers = [[_parsed(reply, prompter) for reply in views] for views in replies]
    prompts = [
        [
            returned(prompt, view, prompter.frame_px).placed(factor=len(sample.image.image) / prompter.frame_px)
            for view, answer in zip(VIEWS, views, strict=False)
            for prompt in answer.instances
        ]
        for sample, views in zip(samples, answers, strict=True)
    ]
    drawn = segmenter.draw([sample.image.image for sample in samples], prompts)
    cases = []
    for sample, said, views, instances in zip(samples, replies, answers, drawn, strict=True):
        truth, coming = truth_of(sample), iter(instances)
        masks = [[one.mask for one in islice(coming, len(answer.instances))] for answer in views]
        unions = [union(of_view, truth.shape[0]) for of_view in masks]
        voting = voters([answer.status for answer in views])
        mask = agreed([unions[number] for number in voting])
        told = max(voting, key=lambda number: iou(unions[number], mask))
        answer = views[told] if len(voting) == 1 else _agreeing(views[told], masks[told], mask)
        outcome = compare(sample, answer, truth=truth, mask=mask)
        cases.append(Case(sample=sample, reply=said[told], mask=mask, truth=truth, outcome=outcome))
    return cases


def _agreeing(answer: Answer, masks: Sequence[Mask], mask: Mask) -> Answer:
    """The answer with those instances alone that have a part in `mask`."""
    kept = [prompt for prompt, one in zip(answer.instances, masks, strict=True) if (one & mask).any()]
    return replace(answer, instances=tuple(kept))


def _parsed(reply: Reply, prompter: Prompter) -> Answer:
    return parse_answer(
        reply.text,
        frame_px=prompter.frame_px,
        finish=reply.finish,
        unknown_reasoning=prompter.unknown_reasoning or "",
    )


def truth_of(sample: Sample) -> Mask:
    """What the question asks for, (y, x) bool; empty for questions outside the vocabulary."""
    concept = sample.question.phrasing.concept
    return sample.image.mask_of(() if concept is None else QUESTION_CONCEPTS[concept])


def union(masks: Sequence[Mask], side_px: int) -> Mask:
    """Union of the masks of instances as (side, side) bool."""
    total = np.zeros((side_px, side_px), np.bool_)
    for mask in masks:
        total |= mask
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
