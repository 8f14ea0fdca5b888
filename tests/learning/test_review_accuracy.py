"""Estimators against the published example, by hand, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from think2seg.errors import ConfigError
from think2seg.learning.review.accuracy import Accuracy, Estimate, joined, of_units, share, total

# Olofsson et al. (2014), tables 8 and 9: deforestation, forest gain, stable forest, stable non-forest.
COUNTS = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
MAPPED = [200_000, 150_000, 3_200_000, 6_450_000]
HECTARES = 0.09
"""Of a pixel of 30 m."""


def of_matrix(counts: list[list[int]], mapped: list[int]) -> Accuracy:
    """Accuracy and area from counts of sampled pixels: rows are the map's classes, and the strata."""
    k = len(mapped)
    rows, cols = np.divmod(np.repeat(np.arange(k * k), np.ravel(counts)), k)
    seen = np.zeros((len(rows), k, k))
    seen[np.arange(len(rows)), rows, cols] = 1.0
    return of_units(seen, rows, np.asarray(mapped, float))


def as_published(estimates: tuple[Estimate | None, ...]) -> list[tuple[float, float]]:
    """Values and half-widths of intervals, which the paper takes as 1.96 standard errors, to two places."""
    return [(round(one.value, 2), round(1.96 * one.standard_error, 2)) for one in estimates if one]


def test_published_accuracies() -> None:
    found = of_matrix(COUNTS, MAPPED)
    assert as_published((found.overall,)) == [(0.95, 0.02)]
    assert as_published(found.users) == [(0.88, 0.07), (0.73, 0.10), (0.93, 0.04), (0.96, 0.02)]
    assert as_published(found.producers[:1]) == [(0.75, 0.21)]
    assert [value for value, _ in as_published(found.producers)] == [0.75, 0.85, 0.93, 0.96]


def test_standard_errors_of_producers_accuracies_are_those_of_equation_7() -> None:
    n, mapped = np.array(COUNTS, float), np.array(MAPPED, float)
    rows = n.sum(axis=1)
    for j, found in enumerate(of_matrix(COUNTS, MAPPED).producers):
        truth = (mapped * n[:, j] / rows).sum()
        user, producer = n[j, j] / rows[j], mapped[j] * n[j, j] / rows[j] / truth
        others = [i for i in range(4) if i != j]
        missed = sum(mapped[i] ** 2 * n[i, j] / rows[i] * (1 - n[i, j] / rows[i]) / (rows[i] - 1) for i in others)
        caught = mapped[j] ** 2 * (1 - producer) ** 2 * user * (1 - user) / (rows[j] - 1)
        assert found is not None
        assert found.standard_error == pytest.approx(np.sqrt(caught + producer**2 * missed) / truth, rel=1e-3)


def test_published_areas() -> None:
    areas = of_matrix(COUNTS, MAPPED).areas
    assert [round(one.value * HECTARES) for one in areas] == [21_158, 11_686, 285_770, 581_386]
    published = [6_158, 3_756, 15_510, 16_282]
    assert [1.96 * one.standard_error * HECTARES for one in areas] == pytest.approx(published, abs=1.0)
    assert [(one.high - one.low) / 2 * HECTARES for one in areas] == pytest.approx(published, rel=4e-3), "t, not 1.96"
    assert areas[0].standard_error == pytest.approx(68_418 / 1.96, rel=1e-4), "in pixels"
    assert sum(one.value for one in areas) == pytest.approx(sum(MAPPED))


def test_known_mapped_area_leaves_only_the_difference_to_the_sample() -> None:
    seen = np.zeros((4, 2, 2))
    seen[:, 1, 1] = [4.0, 9.0, 6.0, 7.0]
    seen[:, 0, 1] = 1.0
    found = of_units(seen, np.zeros(4, np.int64), np.array([10.0]), mapped=np.array([30.0, 65.0]))
    assert found.areas[1].value == pytest.approx(65 + 10)
    assert found.areas[1].standard_error == pytest.approx(0, abs=1e-9)


def test_units_that_all_agree_do_not_make_certainty() -> None:
    found = share(np.ones(20), np.ones(20), np.zeros(20, np.int64), np.array([500.0]))
    assert found.value == 1
    assert found.low == pytest.approx(0.025 ** (1 / 20))
    whole = share(np.ones(20), np.ones(20), np.zeros(20, np.int64), np.array([20.0]))
    assert whole.low == 1, "everything was looked at"
    none = share(np.zeros(20), np.ones(20), np.zeros(20, np.int64), np.array([500.0]))
    assert (none.value, none.low, none.high) == (0, 0, pytest.approx(1 - 0.025 ** (1 / 20)))


def test_interval_holds_its_value_where_every_unit_says_the_same_part() -> None:
    found = share(np.full(20, 0.6), np.ones(20), np.zeros(20, np.int64), np.array([500.0]))
    assert found.low <= found.value <= found.high


def test_one_unit_of_a_stratum_shows_no_spread() -> None:
    with pytest.raises(ConfigError, match="one shows no spread"):
        total(np.ones(3), np.array([0, 0, 1]), np.array([10.0, 10.0]))
    stratum, sizes = joined(np.array([0, 0, 1, 3, 3]), np.array([10.0, 5.0, 7.0, 8.0]))
    assert sizes.tolist() == [10.0, 20.0]
    assert stratum.tolist() == [0, 0, 1, 1, 1]
    stratum, sizes = joined(np.array([0, 0, 1]), np.array([10.0, 5.0]))
    assert sizes.tolist() == [15.0], "what is left over at the end joins the one before"


def test_intervals_cover_what_they_promise() -> None:
    rng = np.random.default_rng(7)
    sizes = np.array([400, 120, 80])
    of_stratum = [rng.beta(a, b, size) for size, (a, b) in zip(sizes, [(1, 8), (4, 4), (8, 2)], strict=True)]
    truth = [np.clip(y + rng.normal(0, 0.15, len(y)), 0, 1) for y in of_stratum]
    true_area = sum(map(np.sum, truth))
    both = [np.minimum(y, t) for y, t in zip(of_stratum, truth, strict=True)]
    true_recall = sum(map(np.sum, both)) / true_area
    counts, hits = [20, 15, 15], np.zeros(2)
    stratum = np.repeat([0, 1, 2], counts)
    for _ in range(400):
        chosen = [rng.choice(size, n, replace=False) for size, n in zip(sizes, counts, strict=True)]
        y, t, b = (np.concatenate([v[c] for v, c in zip(values, chosen, strict=True)])
                   for values in (of_stratum, truth, both))  # fmt: skip
        area = total(t - y, stratum, sizes.astype(float), known=float(sum(map(np.sum, of_stratum))))
        recall = share(b, t, stratum, sizes.astype(float))
        hits += [area.low <= true_area <= area.high, recall.low <= true_recall <= recall.high]
    assert ((hits / 400 > 0.92) & (hits / 400 < 0.985)).all(), hits / 400
