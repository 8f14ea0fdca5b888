"""The segmenter alone, with true boxes and points; and the prompter's sampled answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path

import numpy as np
import torch

from think2seg.learning.evaluate import Sample, ask_folder
from think2seg.learning.suite.asking import OnProgress, truth_of, union
from think2seg.learning.tiny.anchors import MIN_AREA_PX, inner_points
from think2seg.prompting import parse_answer
from think2seg.samples.labelled import LabelledImage, Mask
from think2seg.segmentation import Prompt, Segmenter


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnAlone:
    """One true instance as the segmenter draws it."""

    concept: str
    source: str
    iou: float
    score: float
    """What the segmenter said of its IoU."""


def true_prompt(mask: Mask) -> Prompt:
    """The tight box and the two inner points of a mask, (y, x) bool."""
    ys, xs = np.nonzero(mask)
    box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
    first, second = inner_points(xs, ys, box)
    return Prompt(bbox=(*map(float, box),), points=((*map(float, first),), (*map(float, second),)))  # type: ignore[arg-type]


def draw_alone(
    images: Sequence[LabelledImage], segmenter: Segmenter, *, on_progress: OnProgress, batch: int = 16
) -> list[DrawnAlone]:
    """Draw every instance of the images from its true prompts."""
    drawn = []
    for number, part in enumerate(batched(images, batch)):
        instances = [[i for i in image.instances if np.count_nonzero(i.mask) >= MIN_AREA_PX] for image in part]
        prompts = [[true_prompt(instance.mask) for instance in row] for row in instances]
        for image, row, masks in zip(
            part, instances, segmenter.draw([image.image for image in part], prompts), strict=True
        ):
            valid = True if image.ignore is None else ~image.ignore
            for instance, found in zip(row, masks, strict=True):
                both = int(np.count_nonzero(found.mask & instance.mask & valid))
                either = int(np.count_nonzero((found.mask | instance.mask) & valid))
                drawn.append(
                    DrawnAlone(
                        concept=instance.concept, source=image.source, iou=both / max(either, 1), score=found.score
                    )
                )
        on_progress("segmenter alone", min((number + 1) * batch, len(images)), len(images))
    return drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """IoU of sampled answers, one row for each question: what reinforcement could learn from."""

    iou: tuple[tuple[float, ...], ...]
    parse_rate: float

    @property
    def varied(self) -> float:
        """Share of questions whose answers differ in IoU (standard deviation above 0.01)."""
        return float(np.mean([np.std(row) > 0.01 for row in self.iou]))

    @property
    def mean(self) -> float:
        """Mean IoU."""
        return float(np.mean(self.iou))

    @property
    def best(self) -> float:
        """Mean of the best answer to each question."""
        return float(np.mean(np.max(self.iou, axis=1)))


def sample_answers(
    samples: Sequence[Sample],
    prompter: Path,
    segmenter: Segmenter,
    *,
    rollouts: int,
    seed: int,
    on_progress: OnProgress,
) -> Sampled:
    """Answer each question `rollouts` times at temperature 1 and draw the answers; `prompter` is its folder."""
    ask = ask_folder(prompter, temperature=1.0)
    torch.manual_seed(seed)
    rows, parsed = [], []
    for number, sample in enumerate(samples):
        image = sample.image.image
        texts = ask([image] * rollouts, [sample.question.phrasing.text] * rollouts)
        truth, row = truth_of(sample), []
        for text in texts:
            answer = parse_answer(text, frame_px=len(image), finish="stop")
            parsed.append(answer.status == "ok")
            (drawn,) = segmenter.draw([image], [answer.instances])
            mask = union([one.mask for one in drawn], len(truth))
            either = np.count_nonzero(mask | truth)
            row.append(np.count_nonzero(mask & truth) / either if either else float(answer.status == "ok"))
        rows.append(tuple(row))
        on_progress("sampled answers", number + 1, len(samples))
    return Sampled(iou=tuple(rows), parse_rate=float(np.mean(parsed)))
