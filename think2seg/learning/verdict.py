"""What the gate asks for, and what it says: values, their plain form and their page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

RULE = 2
"""Version of the rule that scores an answer; a verdict under another one is not given again, nor promoted on."""
SCENES = 800
"""Simulated scenes of the gate's own set, and as many tiles of the embedded imagery."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the gate asks for. Margins and ceilings are those of the whole set unless they say otherwise."""

    confidence: float = 0.95
    margin: float = 0.01
    """How much less of the answers may be readable, and how much lower gIoU may be within one category."""
    false_alarm_rate: float = 0.10
    """Highest share of negative probes on which the candidate may draw, or the champion's own where that is higher."""
    latency_ratio: float = 1.25
    memory_ratio: float = 1.25
    """Highest cost of the candidate in units of the champion's."""
    min_images: int = 30
    min_probes: int = 20
    """A set with fewer images, or fewer negative probes, proves nothing."""
    resamples: int = 5000
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of both models, and their difference with its interval; NaN where it was not to be had."""

    name: str
    champion: float
    candidate: float
    difference: float
    low: float
    high: float
    n: int
    """Images it is taken over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One condition of the gate."""

    name: str
    passed: bool
    sentence: str
    """What was found against what is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate says about a candidate, with everything it is based on."""

    candidate: str
    champion: str
    """Digests of the weights."""
    frozen_set: str
    """Digest of the questions, images and truths that were asked about."""
    segmenter: str
    """Digest of the weights that drew for both."""
    n_images: int
    n_questions: int
    figures: tuple[Figure, ...]
    checks: tuple[Check, ...]
    limits: Limits
    rule: int = RULE
    """`RULE` of the time."""

    @property
    def passed(self) -> bool:
        """Whether every condition is met."""
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Sentences of the conditions that are not met."""
        return tuple(check.sentence for check in self.checks if not check.passed)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; NaN as None."""
        plain = asdict(self) | {"passed": self.passed, "reasons": list(self.reasons)}
        plain["figures"] = [{k: None if v != v else v for k, v in figure.items()} for figure in plain["figures"]]
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Verdict:
        """The verdict that `to_dict` made plain."""
        figures: list[dict[str, Any]] = [
            {name: math.nan if value is None else value for name, value in figure.items()}
            for figure in plain["figures"]
        ]
        return cls(
            candidate=plain["candidate"],
            champion=plain["champion"],
            frozen_set=plain["frozen_set"],
            segmenter=plain["segmenter"],
            n_images=plain["n_images"],
            n_questions=plain["n_questions"],
            figures=tuple(Figure(**figure) for figure in figures),
            checks=tuple(Check(**check) for check in plain["checks"]),
            limits=Limits(**plain["limits"]),
            rule=plain.get("rule", 1),
        )


def verdict_markdown(verdict: Verdict) -> str:
    """The verdict as a page for people: what is decided, why, every condition and every figure."""
    from think2seg.learning.suite.tables import Table

    word = "may be promoted" if verdict.passed else "is refused"
    head = (
        f"# The candidate {word}\n\nCandidate `{verdict.candidate[:12]}` against champion `{verdict.champion[:12]}` "
        f"on {verdict.n_questions} questions about {verdict.n_images} images of the frozen set "
        f"`{verdict.frozen_set[:12]}`. "
        f"Intervals are {verdict.limits.confidence:.0%} ones, over images drawn with replacement "
        f"{verdict.limits.resamples:,} times."
    )
    conditions = [("yes" if check.passed else "**no**", check.name, check.sentence) for check in verdict.checks]
    figures = [
        (one.name, one.champion, one.candidate, one.difference, one.low, one.high, one.n or "")
        for one in verdict.figures
    ]
    tables = (
        Table(title="Conditions", columns=("met", "condition", "found"), rows=tuple(conditions)),
        Table(
            title="Figures",
            columns=("", "champion", "candidate", "difference", "low", "high", "images"),
            rows=tuple(figures),
        ),
    )
    return "\n\n".join([head, *(table.markdown() for table in tables)]) + "\n"
