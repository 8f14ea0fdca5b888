"""Figures of answers against labels: gIoU, cIoU, parse rate, no-target accuracy, counts; over boxes or over masks.

gIoU is the mean of per-image IoU, where a right *nothing here* counts 1 and an answer that cannot be read 0. cIoU is
the summed intersection over the summed union; an answer that cannot be read adds its truth to the union.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from think2seg.learning.tiny.answers import Question
from think2seg.prompting.answers import Answer, parse_answer
from think2seg.prompting.template import Template
from think2seg.samples.labelled import Image, LabelledImage, Mask
from think2seg.samples.phrasings import QUESTION_CONCEPTS
from think2seg.segmentation.protocol import Drawn, Prompt

type Ask = Callable[[Sequence[Image], Sequence[str]], list[str]]
"""Images and a question about each to the texts of the answers."""


class Draws(Protocol):
    """The part of a segmenter that evaluation needs."""

    def draw(self, tiles: Sequence[npt.NDArray[np.uint8]], prompts: Sequence[Sequence[Prompt]]) -> list[list[Drawn]]:
        """One mask per prompt of each tile."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One question about one image."""

    image: LabelledImage
    question: Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one question."""

    concept: str | None
    kind: str
    """Kind of the phrasing."""
    source: str
    parsed: bool
    understood: bool
    """False when the answer says that the concept is not known."""
    intersection_px: int
    union_px: int
    truth_px: int
    predicted: int
    """Instances in the answer."""
    true: int
    """Instances in the labels."""

    @property
    def iou(self) -> float:
        """IoU of this answer; 1 for a right *nothing here* or *I do not know*, 0 for what cannot be read."""
        if self.concept is None:
            return float(self.parsed and not self.understood)
        if not (self.parsed and self.understood):
            return 0.0
        return 1.0 if self.union_px == 0 else self.intersection_px / self.union_px


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Figures over many outcomes; NaN where there is nothing to average."""

    n: int
    g_iou: float
    c_iou: float
    present_g_iou: float
    """gIoU over questions whose target is there."""
    parse_rate: float
    no_target_accuracy: float
    """Share of questions without a target that were answered with an empty list."""
    false_empty: float
    """Share of questions with a target that were answered with an empty list."""
    count_error: float
    """Mean absolute error of the number of instances."""
    unknown_accuracy: float
    """Share of questions outside the vocabulary that were answered so."""
    false_unknown: float
    """Share of other questions that were answered as if outside the vocabulary."""


def summarise(outcomes: Iterable[Outcome]) -> Summary:
    """Average outcomes."""
    found = list(outcomes)
    known = [o for o in found if o.concept is not None]
    present, absent = [o for o in known if o.true], [o for o in known if not o.true]
    union = sum(o.union_px for o in known)
    return Summary(
        n=len(found),
        g_iou=_mean(o.iou for o in known),
        c_iou=sum(o.intersection_px for o in known) / union if union else float("nan"),
        present_g_iou=_mean(o.iou for o in present),
        parse_rate=_mean(o.parsed for o in found),
        no_target_accuracy=_mean(o.parsed and o.understood and not o.predicted for o in absent),
        false_empty=_mean(o.parsed and not o.predicted for o in present),
        count_error=_mean(abs(o.predicted - o.true) for o in known),
        unknown_accuracy=_mean(o.parsed and not o.understood for o in found if o.concept is None),
        false_unknown=_mean(not o.understood for o in known),
    )


def summarise_by(outcomes: Iterable[Outcome], key: Callable[[Outcome], str | None]) -> dict[str, Summary]:
    """A summary for every value of `key`, e.g. the concept or the kind of phrasing; None is *unknown*."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(key(outcome) or "unknown", []).append(outcome)
    return {name: summarise(groups[name]) for name in sorted(groups)}


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else float("nan")


def evaluate_pair(
    samples: Sequence[Sample], ask: Ask, draws: Draws | None, *, unknown_reasoning: str, batch_size: int = 16
) -> list[Outcome]:
    """Ask every question, draw the answers, and compare them with the labels.

    draws: the segmenter; without one, answer and truth are compared as filled boxes.
    """
    outcomes = []
    for part in batched(samples, batch_size):
        texts = ask([s.image.image for s in part], [s.question.phrasing.text for s in part])
        frame_px = part[0].image.image.shape[0]
        answers = [
            parse_answer(text, frame_px=frame_px, finish="stop", unknown_reasoning=unknown_reasoning) for text in texts
        ]
        prompts = [answer.instances for answer in answers]
        drawn = None if draws is None else draws.draw([s.image.image for s in part], prompts)
        for index, (sample, answer) in enumerate(zip(part, answers, strict=True)):
            if drawn is None:
                boxes = [prompt.bbox for prompt in answer.instances if prompt.bbox]
                truth, mask = _box_truth(sample), fill_boxes(boxes, frame_px)
            else:
                truth, mask = _mask_truth(sample), _union(drawn[index], frame_px)
            outcomes.append(compare(sample, answer, truth=truth, mask=mask))
    return outcomes


def compare(sample: Sample, answer: Answer, *, truth: Mask, mask: Mask) -> Outcome:
    """Outcome of one answer; pixels that the image says to ignore do not count."""
    counted = np.ones_like(truth) if sample.image.ignore is None else ~sample.image.ignore
    parsed = answer.status != "unparsable"
    drawn = mask & parsed
    return Outcome(
        concept=sample.question.phrasing.concept,
        kind=sample.question.phrasing.kind,
        source=sample.image.source,
        parsed=parsed,
        understood=answer.status != "unknown concept",
        intersection_px=int(np.count_nonzero(drawn & truth & counted)),
        union_px=int(np.count_nonzero((drawn | truth) & counted)),
        truth_px=int(np.count_nonzero(truth & counted)),
        predicted=len(answer.instances),
        true=len(sample.question.instances),
    )


def fill_boxes(boxes: Iterable[Sequence[float]], frame_px: int) -> Mask:
    """Union of boxes (xyxy pixel corners) as (frame, frame) bool."""
    filled = np.zeros((frame_px, frame_px), np.bool_)
    for x0, y0, x1, y1 in boxes:
        filled[round(y0) : round(y1), round(x0) : round(x1)] = True
    return filled


def _box_truth(sample: Sample) -> Mask:
    return fill_boxes((item.box for item in sample.question.instances), sample.image.image.shape[0])


def _mask_truth(sample: Sample) -> Mask:
    concept = sample.question.phrasing.concept
    members = () if concept is None else QUESTION_CONCEPTS[concept]
    return sample.image.mask_of(members)


def _union(drawn: Sequence[Drawn], frame_px: int) -> Mask:
    union = np.zeros((frame_px, frame_px), np.bool_)
    for instance in drawn:
        union |= instance.mask
    return union


def ask_with(
    model: Any, processor: Any, template: Template, *, max_new_tokens: int, temperature: float | None = None
) -> Ask:
    """Answers of a Qwen2.5-VL in this process, a different question for every image of a batch.

    temperature: None for greedy answers, else that of the sampling.
    """
    how: dict[str, Any] = {"do_sample": False} if temperature is None else {"do_sample": True, "top_k": 0}
    if temperature is not None:
        how["temperature"] = temperature

    def ask(images: Sequence[Image], questions: Sequence[str]) -> list[str]:
        texts = [processor.apply_chat_template(template.messages(q), add_generation_prompt=True) for q in questions]
        inputs = processor(
            text=texts,
            images=[np.array(image) for image in images],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(model.device)
        with torch.inference_mode():
            tokens = model.generate(**inputs, **how, max_new_tokens=max_new_tokens)
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        return list(processor.tokenizer.batch_decode(answers, skip_special_tokens=True))

    return ask


def ask_folder(prompter: Path, *, temperature: float | None = None) -> Ask:
    """Answers of an exported prompter folder."""
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    from think2seg.prompting.folder import folder_template, read_description

    description = read_description(prompter)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(prompter, dtype=torch.float32, local_files_only=True)
    return ask_with(
        model.eval(),
        AutoProcessor.from_pretrained(prompter, local_files_only=True),
        folder_template(prompter, description, None),
        max_new_tokens=description.max_new_tokens,
        temperature=temperature,
    )
