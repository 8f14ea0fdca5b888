"""The gate: whether a candidate is measurably better than the champion on a frozen set. Pure; nothing is loaded.

Both answered the same questions about the same images. Images are drawn with replacement and both models' figures are
taken over the draw, so that what makes an image hard for both cancels out (Efron and Tibshirani 1993, chapter 14: the
paired percentile bootstrap; images, not questions, are the unit, for questions about one image are not independent).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from think2seg.errors import ConfigError
from think2seg.learning.verdict import Check, Figure, Limits, Verdict

type Floats = npt.NDArray[np.float64]

TOUCH_DEG = 1e-6
"""Footprints nearer than this (degrees, about 0.1 m) touch."""
_CELLS = 4_000_000
"""Images times resamples that are held at once."""
_NAN = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What came of one question of the frozen set."""

    key: str
    """Names the question, the same for both models."""
    image: str
    """Names the image (or site) that the question is about."""
    category: str
    iou: float
    """1 for a right *nothing here*, 0 for what cannot be read."""
    parsed: bool
    false_alarm: bool | None
    """Whether something was drawn where nothing is; None where something is there."""


type Pair = tuple[Answered, Answered]
"""What the candidate and the champion made of one question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a model takes."""

    latency_s: float
    """Median seconds per image, both models measured in turns on one machine."""
    memory_bytes: int
    """For weights and one batch of answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One side of a comparison."""

    digest: str
    answered: Sequence[Answered]
    cost: Cost
    on_training: Sequence[Answered] = ()
    """The same on images that the candidate was trained on, where those were asked about; never a reason to pass."""


def judge(
    candidate: Contender, champion: Contender, *, frozen_set: str, segmenter: str, limits: Limits | None = None
) -> Verdict:
    """Compare two models that answered the same questions.

    Parameters
    ----------
    frozen_set, segmenter
        Digests of what was asked about and of who drew.
    limits
        Default: those of `Limits`.

    Raises ConfigError when they did not, or when there are none.
    """
    limits = limits or Limits()
    pairs = _paired(candidate.answered, champion.answered)
    if not pairs:
        raise ConfigError("The frozen set holds no question.", "", "Name a set that has images, masks and questions.")
    g_iou = _figure("gIoU", pairs, limits, _iou)
    parsed = _figure("parse rate", pairs, limits, lambda one: float(one.parsed))
    probes = [pair for pair in pairs if pair[0].false_alarm is not None]
    alarms = _figure("false alarms", probes, limits, lambda one: float(bool(one.false_alarm)))
    trained = _paired(candidate.on_training, champion.on_training)
    training = _figure("gIoU on training images", trained, limits, _iou) if trained else None
    groups = _by_category(pairs, limits)
    costs = _costs(candidate.cost, champion.cost)
    return Verdict(
        candidate=candidate.digest,
        champion=champion.digest,
        frozen_set=frozen_set,
        segmenter=segmenter,
        n_images=g_iou.n,
        n_questions=len(pairs),
        figures=(g_iou, parsed, alarms, *([training] if training else []), *groups, *costs),
        checks=(
            _large_enough(g_iou, len(probes), limits),
            _better(g_iou, training, limits, same=candidate.digest == champion.digest),
            _readable(parsed, limits),
            _no_category_worse(groups, limits),
            _quiet(alarms, limits),
            _cheap(costs[0], limits.latency_ratio, "s per image"),
            _cheap(costs[1], limits.memory_ratio, "GiB"),
        ),
        limits=limits,
    )


def require_apart(train: Mapping[str, BaseGeometry], gate: Mapping[str, BaseGeometry]) -> None:
    """Refuse footprints (WGS 84, by the name of their sample) of training and gate that touch.

    Raises ConfigError naming the first pairs: a model is not judged on ground that it was trained on.
    """
    names, seen = list(train), list(gate)
    tree = shapely.STRtree([train[name] for name in names])
    found = tree.query([gate[name] for name in seen], predicate="dwithin", distance=TOUCH_DEG).T
    if len(found):
        told = "; ".join(f"{seen[g]} (gate) and {names[t]} (train)" for g, t in found[:5])
        raise ConfigError(
            f"{len(found)} pairs of footprints of the training and the gate touch: {told}.",
            "Splits are geometric, with a buffer of one tile between them.",
            "Take those samples out of the training, train again, and compare again.",
        )


def paired_interval(
    difference: Floats, weight: Floats, *, confidence: float = 0.95, resamples: int = 5000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean difference and its percentile bootstrap interval, images drawn with replacement.

    Parameters
    ----------
    difference, weight
        (n,) float: per image the sum over its questions of candidate - champion, and the number of questions.
    """
    n, rng = len(difference), np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _CELLS // n)
    for start in range(0, resamples, step):
        drawn = rng.multinomial(n, np.full(n, 1 / n), min(step, resamples - start))
        means[start : start + step] = (drawn @ difference) / (drawn @ weight)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(difference.sum() / weight.sum()), float(low), float(high)


def _paired(candidate: Sequence[Answered], champion: Sequence[Answered]) -> list[Pair]:
    """Answers to the same question side by side, in the order of keys."""
    ours, theirs = ({one.key: one for one in side} for side in (candidate, champion))
    if alone := sorted(ours.keys() ^ theirs.keys()):
        raise ConfigError(
            f"{len(alone)} questions were answered by one model only, such as {alone[0]}.",
            "A comparison is paired: both answer every question of the frozen set.",
            "Run the comparison again; it goes on where it was.",
        )
    return [(ours[key], theirs[key]) for key in sorted(ours)]


def _figure(name: str, pairs: Sequence[Pair], limits: Limits, value: Callable[[Answered], float]) -> Figure:
    if not pairs:
        return Figure(name=name, champion=_NAN, candidate=_NAN, difference=_NAN, low=_NAN, high=_NAN, n=0)
    numbers = {image: number for number, image in enumerate(sorted({ours.image for ours, _ in pairs}))}
    of = [numbers[ours.image] for ours, _ in pairs]
    ours, theirs = (np.array([value(pair[side]) for pair in pairs]) for side in (0, 1))
    difference, low, high = paired_interval(
        np.bincount(of, weights=ours - theirs),
        np.bincount(of).astype(np.float64),
        confidence=limits.confidence,
        resamples=limits.resamples,
        seed=limits.seed,
    )
    means = float(theirs.mean()), float(ours.mean())
    return Figure(
        name=name, champion=means[0], candidate=means[1], difference=difference, low=low, high=high, n=len(numbers)
    )


def _by_category(pairs: Sequence[Pair], limits: Limits) -> list[Figure]:
    """gIoU of every category with enough images; none where all questions are of one."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair[0].category, []).append(pair)
    if len(groups) < 2:
        return []
    found = [_figure(f"gIoU, {name or 'no category'}", groups[name], limits, _iou) for name in sorted(groups)]
    return [figure for figure in found if figure.n >= limits.min_images]


def _costs(candidate: Cost, champion: Cost) -> tuple[Figure, Figure]:
    def one(name: str, ours: float, theirs: float) -> Figure:
        return Figure(name=name, champion=theirs, candidate=ours, difference=ours - theirs, low=_NAN, high=_NAN, n=0)

    return (
        one("latency, s", candidate.latency_s, champion.latency_s),
        one("memory, GiB", candidate.memory_bytes / 2**30, champion.memory_bytes / 2**30),
    )


def _large_enough(g_iou: Figure, n_probes: int, limits: Limits) -> Check:
    found = f"{g_iou.n} images, {n_probes} questions about something that is not there"
    asked = f"at least {limits.min_images} and {limits.min_probes} are needed"
    if g_iou.n >= limits.min_images and n_probes >= limits.min_probes:
        return Check(name="size", passed=True, sentence=f"The set is large enough: {found}; {asked}.")
    return Check(name="size", passed=False, sentence=f"The set is too small to tell: {found}; {asked}.")


def _better(g_iou: Figure, training: Figure | None, limits: Limits, *, same: bool) -> Check:
    told = f"gIoU {g_iou.champion:.3f} to {g_iou.candidate:.3f}, {_interval(g_iou, limits)}"
    if g_iou.low > 0 and not same:
        return Check(name="gain", passed=True, sentence=f"Measurably better: {told}.")
    if same:
        return Check(
            name="gain", passed=False, sentence=f"Not measurably better: these are the champion's weights; {told}."
        )
    if g_iou.high < 0:
        return Check(name="gain", passed=False, sentence=f"Measurably worse: {told}.")
    more = ""
    if training and training.low > 0:
        more = f" On training images it gains {training.difference:+.3f}: what it learned does not carry over."
    elif g_iou.difference > 0:
        needed = math.ceil(g_iou.n * ((g_iou.difference - g_iou.low) / g_iou.difference) ** 2)
        more = f" About {needed:,} images would show a difference of that size."
    return Check(name="gain", passed=False, sentence=f"Not measurably better: {told}.{more}")


def _readable(parsed: Figure, limits: Limits) -> Check:
    told = f"parse rate {parsed.champion:.3f} to {parsed.candidate:.3f}, {_interval(parsed, limits)}"
    passed = parsed.low >= -limits.margin
    words = "Readable" if passed else "Answers may have become harder to read"
    return Check(name="parse rate", passed=passed, sentence=f"{words}: {told}; the margin is {limits.margin:g}.")


def _no_category_worse(groups: Sequence[Figure], limits: Limits) -> Check:
    worse = [group for group in groups if group.high < -limits.margin]
    if not worse:
        told = f"Categories with {limits.min_images} images or more: {len(groups)}; none is measurably worse."
        return Check(name="categories", passed=True, sentence=told)
    told = "; ".join(f"{one.name} {one.champion:.3f} to {one.candidate:.3f}, {_interval(one, limits)}" for one in worse)
    return Check(name="categories", passed=False, sentence=f"Worse in part: {told}; the margin is {limits.margin:g}.")


def _quiet(alarms: Figure, limits: Limits) -> Check:
    if not alarms.n:
        return Check(name="false alarms", passed=False, sentence="No question asks about something that is not there.")
    ceiling = max(limits.false_alarm_rate, alarms.champion)
    passed = alarms.candidate <= ceiling
    told = f"false alarms on {alarms.candidate:.1%} of negative probes (champion {alarms.champion:.1%})"
    words = "Quiet enough" if passed else "Sees what is not there"
    return Check(name="false alarms", passed=passed, sentence=f"{words}: {told}; the ceiling is {ceiling:.1%}.")


def _cheap(cost: Figure, ratio: float, unit: str) -> Check:
    name = cost.name.partition(",")[0]
    passed = cost.candidate <= ratio * cost.champion
    told = f"{name} {cost.candidate:.3g} {unit} against the champion's {cost.champion:.3g}"
    return Check(
        name=name,
        passed=passed,
        sentence=f"{'Cheap enough' if passed else 'Too dear'}: {told}; up to {ratio:g} times is allowed.",
    )


def _iou(one: Answered) -> float:
    return one.iou


def _interval(figure: Figure, limits: Limits) -> str:
    interval = f"{limits.confidence:.0%} interval {figure.low:+.3f} to {figure.high:+.3f}"
    return f"difference {figure.difference:+.3f} ({interval})"
