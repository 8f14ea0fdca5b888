"""What a stratified random sample says about accuracy and area, with 95 % intervals. Pure.

Estimators of stratified random sampling as in Olofsson, Foody, Herold, Stehman, Woodcock and Wulder (2014), *Good
practices for estimating area and assessing accuracy of land change*, Remote Sensing of Environment 148, 42–57; in the
form of Stehman (2014, International Journal of Remote Sensing 35, 4923–4939) where strata are not the map's classes: a
total is a sum of stratum means, a share is a ratio of two totals. A unit may be a pixel or a cluster of them.

Intervals take Student's t with as many degrees of freedom as there are units beyond one per stratum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from think2seg.errors import ConfigError

CONFIDENCE = 0.95

type Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its standard error and interval."""

    value: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """What a sample says of a map. Tuples are by class."""

    overall: Estimate
    users: tuple[Estimate | None, ...]
    """Of what the map calls so, the share that is so; None where the map never does."""
    producers: tuple[Estimate | None, ...]
    """Of what is so, the share that the map calls so; None where nothing is."""
    areas: tuple[Estimate, ...]
    """Error-adjusted area, in the units of the mapped area."""


def of_units(
    seen: Numbers, stratum: npt.NDArray[np.int64], sizes: Numbers, *, mapped: Numbers | None = None
) -> Accuracy:
    """Accuracy and area from sampled units.

    Parameters
    ----------
    seen
        (n, k, k) area of each unit by class on the map and class of the reference.
    stratum
        (n,) index of each unit's stratum.
    sizes
        (strata,) units of the population in each.
    mapped
        (k,) mapped area of each class over the population where it is known: only the difference is then estimated.

    Raises
    ------
    ConfigError
        As `total` does.
    """
    k = seen.shape[1]
    known = np.zeros(k) if mapped is None else mapped
    right = np.einsum("nii->n", seen)
    on_map, in_truth = seen.sum(axis=2), seen.sum(axis=1)
    differs = in_truth if mapped is None else in_truth - on_map
    return Accuracy(
        overall=share(right, seen.sum(axis=(1, 2)), stratum, sizes),
        users=tuple(_share_or_none(seen[:, i, i], on_map[:, i], stratum, sizes) for i in range(k)),
        producers=tuple(_share_or_none(seen[:, i, i], in_truth[:, i], stratum, sizes) for i in range(k)),
        areas=tuple(total(differs[:, i], stratum, sizes, known=float(known[i])) for i in range(k)),
    )


def total(y: Numbers, stratum: npt.NDArray[np.int64], sizes: Numbers, *, known: float = 0.0) -> Estimate:
    """Total of `y` over the population, plus a part of it that is known; never below 0.

    Raises
    ------
    ConfigError
        When a stratum was sampled with fewer than two units, and not completely.
    """
    counts, means, spread = _moments(y, stratum, sizes)
    value = known + float(sizes @ means)
    error = _error(spread, counts, sizes)
    reach = _quantile(counts) * error
    return Estimate(value=value, standard_error=error, low=max(0.0, value - reach), high=value + reach)


def share(y: Numbers, x: Numbers, stratum: npt.NDArray[np.int64], sizes: Numbers) -> Estimate:
    """Total of `y` over that of `x`, in [0, 1]; `y` is never above `x`.

    Where all units say 0, or all say 1, they show no spread. The interval then ends where that many units would agree
    by chance in one case of forty (the exact binomial bound).

    Raises
    ------
    ConfigError
        As `total` does, and where `x` is nothing but zeros.
    """
    counts, y_means, _ = _moments(y, stratum, sizes)
    _, x_means, _ = _moments(x, stratum, sizes)
    below = float(sizes @ x_means)
    if below <= 0:
        raise ConfigError("A share of nothing.", "At least one unit that counts.")
    value = min(1.0, float(sizes @ y_means) / below)
    _, _, spread = _moments(y - value * x, stratum, sizes)
    error = _error(spread, counts, sizes) / below
    reach = _quantile(counts) * error
    low, high = max(0.0, value - reach), min(1.0, value + reach)
    unanimous = not y.any() or np.array_equal(y, x)
    if unanimous and (counts < sizes).any():
        bound = float(((1 - CONFIDENCE) / 2) ** (1 / np.count_nonzero(x > 0)))
        low, high = (bound, 1.0) if y.any() else (0.0, 1 - bound)
    return Estimate(value=value, standard_error=error, low=low, high=high)


def joined(stratum: npt.NDArray[np.int64], sizes: Numbers) -> tuple[npt.NDArray[np.int64], Numbers]:
    """Strata of units that were judged, joined with the next one where fewer than two are left of one.

    Returns the units' new strata and their sizes. A joined stratum is treated as if it had been drawn as one.
    """
    counts = np.bincount(stratum, minlength=len(sizes))
    target, new_sizes, held = np.zeros(len(sizes), np.int64), [0.0], 0
    for index, size in enumerate(sizes):
        target[index] = len(new_sizes) - 1
        new_sizes[-1] += float(size)
        held += int(counts[index])
        if held >= min(2, new_sizes[-1]) and index + 1 < len(sizes):
            new_sizes.append(0.0)
            held = 0
    if len(new_sizes) > 1 and held < min(2, new_sizes[-1]):
        last = new_sizes.pop()
        new_sizes[-1] += last
        target[target == len(new_sizes)] -= 1
    return target[stratum], np.asarray(new_sizes)


def _share_or_none(y: Numbers, x: Numbers, stratum: npt.NDArray[np.int64], sizes: Numbers) -> Estimate | None:
    return share(y, x, stratum, sizes) if x.any() else None


def _moments(
    y: Numbers, stratum: npt.NDArray[np.int64], sizes: Numbers
) -> tuple[npt.NDArray[np.int64], Numbers, Numbers]:
    """Count, mean and variance of each stratum; the variance of a complete one does not matter and is 0."""
    counts = np.bincount(stratum, minlength=len(sizes))
    if short := [i for i, (n, size) in enumerate(zip(counts, sizes, strict=True)) if n < min(2, size)]:
        raise ConfigError(
            f"Stratum {short[0]} has {counts[short[0]]} judged units.",
            "Two at least: one shows no spread.",
            "Judge more units, or join strata.",
        )
    means = np.bincount(stratum, weights=y, minlength=len(sizes)) / np.maximum(counts, 1)
    squares = np.bincount(stratum, weights=(y - means[stratum]) ** 2, minlength=len(sizes))
    return counts, means, squares / np.maximum(counts - 1, 1)


def _error(spread: Numbers, counts: npt.NDArray[np.int64], sizes: Numbers) -> float:
    """Standard error of a total, with the correction for finite populations."""
    left = np.maximum(0.0, 1 - counts / sizes)
    return float(np.sqrt((sizes**2 * left * spread / np.maximum(counts, 1)).sum()))


def _quantile(counts: npt.NDArray[np.int64]) -> float:
    freedom = max(1, int(counts.sum()) - len(counts))
    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom))
