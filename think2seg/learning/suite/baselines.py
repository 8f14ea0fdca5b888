"""What a user would otherwise do: a threshold on a colour index, Otsu's threshold of NDWI, or *everything*."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from think2seg.learning.evaluate import Outcome, Sample, compare
from think2seg.learning.suite.asking import truth_of
from think2seg.prompting import Answer
from think2seg.samples.labelled import Image, LabelledImage, Mask
from think2seg.samples.phrasings import QUESTION_CONCEPTS
from think2seg.segmentation import Prompt

type Field = npt.NDArray[np.float32]

BINS = 128


def _ratio(a: Field, b: Field) -> Field:
    return np.asarray((a - b) / np.maximum(a + b, 1), np.float32)


INDICES: Mapping[str, Callable[[Field, Field, Field], Field]] = {
    "red": lambda r, g, b: r / 127.5 - 1,
    "green": lambda r, g, b: g / 127.5 - 1,
    "blue": lambda r, g, b: b / 127.5 - 1,
    "brightness": lambda r, g, b: (r + g + b) / 382.5 - 1,
    "(green - red) / (green + red)": lambda r, g, b: _ratio(g, r),
    "(blue - red) / (blue + red)": lambda r, g, b: _ratio(b, r),
    "(green - blue) / (green + blue)": lambda r, g, b: _ratio(g, b),
    "(2 green - red - blue) / (2 green + red + blue)": lambda r, g, b: _ratio(2 * g, r + b),
}
"""Colour indices of red, green and blue, each (y, x) float32 in 0 to 255, to values in -1 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """The best fixed threshold of any index on some training images."""

    index: str
    value: float
    above: bool
    iou: float
    """Mean IoU on the images it was chosen on."""

    def __call__(self, image: Image) -> Mask:
        """Where an image, (y, x, 3) uint8, passes: (y, x) bool."""
        values = index_values(self.index, image)
        return values >= self.value if self.above else values < self.value

    def __str__(self) -> str:
        return f"{self.index} {'≥' if self.above else '<'} {self.value:.2f}"


def index_values(index: str, image: Image) -> Field:
    """Values of a colour index, (y, x) float32."""
    red, green, blue = np.moveaxis(image.astype(np.float32), -1, 0)
    return np.asarray(INDICES[index](red, green, blue), np.float32)


def fit_threshold(examples: Iterable[tuple[Image, Mask, Mask]]) -> Threshold:
    """The index and threshold of the highest mean IoU over images, truths and countable pixels, each (y, x)."""
    found = list(examples)
    best = Threshold(index="brightness", value=-1.0, above=True, iou=0.0)
    edges = np.linspace(-1, 1, BINS + 1)
    for index in INDICES:
        ious = np.mean([_ious(index_values(index, image), truth & valid, valid) for image, truth, valid in found], 0)
        for above, row in ((True, ious[0]), (False, ious[1])):
            at = int(np.argmax(row))
            if row[at] > best.iou:
                best = Threshold(index=index, value=float(edges[at]), above=above, iou=float(row[at]))
    return best


def _ious(values: Field, truth: Mask, valid: Mask) -> npt.NDArray[np.float64]:
    """(2, bins + 1) IoU of "value at or above an edge" and "value below an edge"."""
    bins = np.clip(((values + 1) * (BINS / 2)).astype(np.intp), 0, BINS - 1)
    inside, all_ = (np.bincount(bins[mask], minlength=BINS) for mask in (truth, valid))
    rows = []
    for hit, marked in ((inside[::-1], all_[::-1]), (inside, all_)):
        hits, marks = (np.concatenate([[0], np.cumsum(counts)]) for counts in (hit, marked))
        rows.append(hits / np.maximum(inside.sum() + marks - hits, 1))
    return np.stack([rows[0][::-1], rows[1]])


def fit_thresholds(images: Iterable[LabelledImage]) -> dict[str, Threshold]:
    """The best threshold for every question concept, on the training images that show it."""
    examples: dict[str, list[tuple[Image, Mask, Mask]]] = {}
    for image in images:
        valid = np.ones(image.image.shape[:2], np.bool_) if image.ignore is None else ~image.ignore
        for concept, members in QUESTION_CONCEPTS.items():
            truth = image.mask_of(members)
            if truth.any():
                examples.setdefault(concept, []).append((image.image, truth, valid))
    return {concept: fit_threshold(found) for concept, found in examples.items()}


def otsu(values: npt.NDArray[np.floating[npt.NBitBase]], *, bins: int = 256) -> float:
    """The threshold that parts values into two classes of the greatest variance between them.

    Source: N. Otsu, A threshold selection method from gray-level histograms (1979).
    """
    counts, edges = np.histogram(values, bins)
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    mean_below = np.cumsum(counts * centres) / np.maximum(below, 1)
    mean_above = (np.cumsum((counts * centres)[::-1])[::-1]) / np.maximum(above, 1)
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(edges[1 + int(np.argmax(between))])


def baseline_outcomes(samples: Sequence[Sample], thresholds: Mapping[str, Threshold]) -> dict[str, list[Outcome]]:
    """Outcomes of *best colour threshold* and *everything* on the questions of the vocabulary."""
    outcomes: dict[str, list[Outcome]] = {"best colour threshold": [], "everything": []}
    for sample in samples:
        concept = sample.question.phrasing.concept
        if concept is None:
            continue
        image = sample.image.image
        threshold = thresholds.get(concept)
        marked = np.zeros(image.shape[:2], np.bool_) if threshold is None else threshold(image)
        for name, mask in (("best colour threshold", marked), ("everything", np.ones_like(marked))):
            outcomes[name].append(compare(sample, _said(mask), truth=truth_of(sample), mask=mask))
    return outcomes


def _said(mask: Mask) -> Answer:
    """The answer that such a mask amounts to: one instance, or none."""
    instances = (Prompt(bbox=(0, 0, *mask.shape[::-1])),) if mask.any() else ()
    return Answer(status="ok", reasoning="", instances=instances)
