"""Do probabilities mean what they say: reliability curves, and the correction that makes presence honest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, logit

type Values = npt.NDArray[np.float64]

EDGE = 1e-4
"""Probabilities are kept this far from 0 and 1, where presence is rounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Stated figures against what came true, in ten classes of the stated figure."""

    stated: tuple[float, ...]
    observed: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def error(self) -> float:
        """Expected calibration error: |stated − observed|, averaged over what was stated."""
        gaps = np.abs(np.subtract(self.stated, self.observed))
        return float(np.average(gaps, weights=self.counts)) if self.counts else float("nan")


def reliability(stated: Values, observed: Values, *, classes: int = 10) -> Reliability:
    """Reliability of figures in [0, 1] against outcomes in [0, 1], both (n,)."""
    index = np.minimum((stated * classes).astype(np.intp), classes - 1)
    used = [k for k in range(classes) if (index == k).any()]
    return Reliability(
        stated=tuple(float(stated[index == k].mean()) for k in used),
        observed=tuple(float(observed[index == k].mean()) for k in used),
        counts=tuple(int((index == k).sum()) for k in used),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Platt:
    """A logistic correction of probabilities: sigmoid(scale · logit(p) + bias)."""

    scale: float
    bias: float

    def __call__(self, stated: Values) -> Values:
        """Correct probabilities (n,)."""
        return np.asarray(expit(self.scale * logit(np.clip(stated, EDGE, 1 - EDGE)) + self.bias))


def fit_platt(stated: Values, came_true: Values) -> Platt:
    """Fit scale and bias to probabilities and what came true (0 or 1), both (n,).

    Source: J. Platt, Probabilistic outputs for support vector machines (1999), with his smoothed targets.
    """
    positive = came_true > 0.5
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    x = logit(np.clip(stated, EDGE, 1 - EDGE))

    def loss(parameters: Values) -> float:
        z = parameters[0] * x + parameters[1]
        return float(np.mean(np.logaddexp(0, z) - target * z))

    scale, bias = minimize(loss, np.array([1.0, 0.0]), method="BFGS").x
    return Platt(scale=float(scale), bias=float(bias))


def draw_reliability(curves: Mapping[str, Reliability], path: Path) -> None:
    """Draw reliability curves into one PNG, the marks as large as their classes are full."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(curves), 4.2), layout="constrained")
    for number, (name, curve) in enumerate(curves.items(), start=1):
        axes = figure.add_subplot(1, len(curves), number)
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        axes.plot(curve.stated, curve.observed, color="tab:blue", linewidth=1)
        sizes = 20 + 180 * np.array(curve.counts) / max(1, *curve.counts)
        axes.scatter(curve.stated, curve.observed, s=sizes, color="tab:blue", alpha=0.7)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="stated", ylabel="observed", aspect="equal")
        axes.set_title(f"{name}\nexpected calibration error {curve.error:.3f}", fontsize=10)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
