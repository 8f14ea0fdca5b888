"""A stratified random sample of the answers in a cube: which ones people look at, and with what probability. Pure.

The population is every tile core of every acquisition that shows at least one observed pixel. Strata follow the class,
then whether the answer changed, the score, and the mapped area, as deep as the size of the sample allows. Every unit of
a stratum is as likely as any other, so estimates need no model of where the errors are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from think2seg.errors import ConfigError

MIN_PER_STRATUM = 2
"""Fewer show no variance."""
UNITS_PER_STRATUM = 5
"""No more strata than one for so many units of the sample."""

type Label = tuple[str, ...]
"""Class, change, score band, area band; a shorter one stands for all that begin with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One tile core at one acquisition: what a person judges at a time."""

    acquisition: str
    revision: int
    tile: str
    """`Tile.id`."""
    row: int
    col: int
    """Upper-left pixel of the core in the cube."""
    observed_m2: float
    """Ground area that was observed; above 0."""
    mapped_m2: float
    """Of that, where the cube says *present*."""
    changed_m2: float | None
    """Where it says otherwise than the last time the pixel was observed; None where it never was."""
    score: float | None
    """Mean predicted IoU of what was drawn; where nothing was, the probability that nothing is there, if known."""

    @property
    def id(self) -> str:
        """Unique in a cube, and safe as a file name."""
        return f"{self.acquisition}.{self.revision}.{self.tile}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """Units that are drawn with one probability."""

    name: str
    size: int
    """Units in the population."""
    drawn: int
    observed_m2: float
    mapped_m2: float
    """Sums over the population."""

    @property
    def probability(self) -> float:
        """Probability that a unit is in the sample."""
        return self.drawn / self.size

    @property
    def weight(self) -> float:
        """Units that a drawn one stands for."""
        return self.size / self.drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A unit of the sample."""

    unit: Unit
    stratum: int
    """Index into `SamplePlan.strata`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePlan:
    """What to look at."""

    strata: tuple[Stratum, ...]
    units: tuple[Drawn, ...]
    """In random order, so that whoever stops half-way has seen a bit of everything."""
    seed: int


def plan_sample(population: Sequence[Unit], n: int, seed: int) -> SamplePlan:
    """Draw `n` units, all where there are fewer; the same population and seed give the same sample.

    Raises
    ------
    ConfigError
        When there is nothing to draw from, or `n` is below `MIN_PER_STRATUM`.
    """
    if n < MIN_PER_STRATUM:
        raise ConfigError(f"--n {n}", f"at least {MIN_PER_STRATUM}: one unit says nothing about the spread", "--n 40")
    if not population:
        raise ConfigError("The cube shows no observed pixel.", "A cube that a run has written to.", "Run the monitor.")
    units = sorted(population, key=lambda unit: unit.id)
    groups = group(labels_of(units), max(1, n // UNITS_PER_STRATUM))
    sizes = [len(members) for members in groups.values()]
    counts = allocate(sizes, n)
    rng = np.random.default_rng(seed)
    strata: list[Stratum] = []
    drawn: list[Drawn] = []
    for index, ((label, members), count) in enumerate(zip(groups.items(), counts, strict=True)):
        chosen = sorted(rng.choice(len(members), size=count, replace=False).tolist())
        drawn += [Drawn(unit=units[members[one]], stratum=index) for one in chosen]
        strata.append(
            Stratum(
                name=", ".join(label) or "all", size=len(members), drawn=count,
                observed_m2=sum(units[one].observed_m2 for one in members),
                mapped_m2=sum(units[one].mapped_m2 for one in members),
            )
        )  # fmt: skip
    order = rng.permutation(len(drawn))
    return SamplePlan(strata=tuple(strata), units=tuple(drawn[int(one)] for one in order), seed=seed)


def labels_of(units: Sequence[Unit]) -> list[Label]:
    """The full label of every unit; scores and areas are parted at the median of their class."""
    present = [unit.mapped_m2 > 0 for unit in units]
    cuts = {
        kind: (
            _median([u.score for u, p in zip(units, present, strict=True) if p == kind and u.score is not None]),
            _median([u.mapped_m2 / u.observed_m2 for u, p in zip(units, present, strict=True) if p == kind]),
        )
        for kind in (False, True)
    }
    return [_label(unit, *cuts[kind]) for unit, kind in zip(units, present, strict=True)]


def _label(unit: Unit, score_cut: float, share_cut: float) -> Label:
    changed = "first look" if unit.changed_m2 is None else "changed" if unit.changed_m2 > 0 else "unchanged"
    score = "no score" if unit.score is None else "low score" if unit.score < score_cut else "high score"
    if unit.mapped_m2 <= 0:
        return ("absent", changed, score)
    return ("present", changed, score, "small" if unit.mapped_m2 / unit.observed_m2 < share_cut else "large")


def group(labels: Sequence[Label], at_most: int) -> dict[Label, list[int]]:
    """Positions by label, in at most `at_most` groups; where there are more, the smallest branches are joined."""
    groups: dict[Label, list[int]] = defaultdict(list)
    for position, label in enumerate(labels):
        groups[label].append(position)
    while len(groups) > at_most:
        _prune(groups)
    return {label: sorted(groups[label]) for label in sorted(groups)}


def _prune(groups: dict[Label, list[int]]) -> None:
    """Join the smallest of the outermost branches: all groups whose labels begin like its own."""
    parents = {label[:-1] for label in groups}
    outer = [one for one in parents if not any(other != one and other[: len(one)] == one for other in parents)]
    members = {one: [label for label in groups if label[: len(one)] == one] for one in outer}
    chosen = min(outer, key=lambda one: (sum(len(groups[label]) for label in members[one]), one))
    groups[chosen] = [position for label in members[chosen] for position in groups.pop(label)]


def allocate(sizes: Sequence[int], n: int) -> list[int]:
    """Units to draw per stratum: at least `MIN_PER_STRATUM`, the rest in proportion to the root of the size.

    Rare strata get more than their share and large ones are still seen: the compromise between proportional and equal
    allocation that Olofsson et al. (2014, section 5.1.3) recommend for estimating both accuracy and area.
    """
    n = min(n, sum(sizes))
    counts = [min(MIN_PER_STRATUM, size) for size in sizes]
    roots = np.sqrt(np.asarray(sizes, np.float64))
    while sum(counts) < n:
        open_ = [index for index, size in enumerate(sizes) if counts[index] < size]
        counts[max(open_, key=lambda index: (roots[index] / (counts[index] + 0.5), -index))] += 1
    return counts


def core_sums(values: npt.NDArray[np.float64], core_px: int) -> npt.NDArray[np.float64]:
    """Sum of a (y, x) block over each of its cores, as (cores down, cores across)."""
    height, width = values.shape
    parts = values.reshape(height // core_px, core_px, width // core_px, core_px)
    return np.asarray(parts.sum(axis=(1, 3)))


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else 0.0
