"""Which units are drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from think2seg.errors import ConfigError
from think2seg.learning.review.sampling import (
    MIN_PER_STRATUM,
    UNITS_PER_STRATUM,
    Unit,
    allocate,
    core_sums,
    group,
    labels_of,
    plan_sample,
)


def unit(number: int, mapped: float = 0.0, changed: float | None = 0.0, score: float | None = 0.5) -> Unit:
    return Unit(
        acquisition="20140720-aircraft", revision=0, tile=f"r{number}c0", row=number, col=0, observed_m2=100.0,
        mapped_m2=mapped, changed_m2=changed, score=score,
    )  # fmt: skip


UNITS = st.builds(
    unit,
    number=st.just(0),
    mapped=st.sampled_from([0.0, 0.0, 0.0, 1.0, 20.0, 100.0]),
    changed=st.sampled_from([None, 0.0, 5.0]),
    score=st.sampled_from([None, 0.1, 0.5, 0.9]),
)
POPULATIONS = st.lists(UNITS, min_size=1, max_size=120).map(
    lambda units: [replace(one, tile=f"r{i}c0", row=i) for i, one in enumerate(units)]
)


@settings(deadline=None, max_examples=60)
@given(POPULATIONS, st.integers(2, 60), st.integers(0, 3))
def test_every_plan_is_a_design(population: list[Unit], n: int, seed: int) -> None:
    plan = plan_sample(population, n, seed)
    ids = [one.unit.id for one in plan.units]
    assert len(ids) == len(set(ids)) == max(min(n, len(population)), min(2, len(population)))
    assert sum(stratum.size for stratum in plan.strata) == len(population)
    assert len(plan.strata) <= max(1, n // UNITS_PER_STRATUM)
    assert Counter(one.stratum for one in plan.units) == {i: s.drawn for i, s in enumerate(plan.strata)}
    for stratum in plan.strata:
        assert stratum.drawn >= min(MIN_PER_STRATUM, stratum.size)
        assert 0 < stratum.probability <= 1
        assert stratum.weight * stratum.drawn == pytest.approx(stratum.size)
    assert sum(s.mapped_m2 for s in plan.strata) == pytest.approx(sum(u.mapped_m2 for u in population))
    assert plan == plan_sample(list(reversed(population)), n, seed), "the order of the population does not matter"


@given(st.lists(st.integers(1, 400), min_size=1, max_size=9), st.integers(2, 500))
def test_allocation_spends_what_there_is(sizes: list[int], n: int) -> None:
    counts = allocate(sizes, n)
    assert all(min(MIN_PER_STRATUM, size) <= count <= size for size, count in zip(sizes, counts, strict=True))
    least = sum(min(MIN_PER_STRATUM, size) for size in sizes)
    assert sum(counts) == max(least, min(n, sum(sizes)))


def test_rare_strata_get_more_than_their_share() -> None:
    rare, common = allocate([100, 10_000], 44)
    assert rare == pytest.approx(44 / 11, abs=1)
    assert common > rare


def test_class_is_parted_before_anything_else() -> None:
    population = [unit(i) for i in range(500)] + [
        unit(500 + i, mapped=30.0 + i, changed=float(i % 2)) for i in range(20)
    ]
    plan = plan_sample(population, 12, 0)
    assert {s.name.split(",")[0]: s.size for s in plan.strata} == {"absent": 500, "present": 20}


def test_a_single_unit_of_a_class_is_looked_at() -> None:
    plan = plan_sample([unit(i, mapped=float(i > 0)) for i in range(200)], 10, 0)
    assert {s.name.split(",")[0]: (s.size, s.drawn) for s in plan.strata} == {"absent": (1, 1), "present": (199, 9)}


def test_more_units_part_deeper() -> None:
    population = [unit(i, mapped=float(i % 7), changed=float(i % 3), score=(i % 10) / 10) for i in range(600)]
    names = {stratum.name for stratum in plan_sample(population, 80, 0).strata}
    assert {"present, changed, low score, small", "present, changed, high score, large"} <= names
    assert any(name.startswith("absent") for name in names)


def test_every_unit_of_a_stratum_is_as_likely_as_any_other() -> None:
    population = [unit(i, mapped=float(i >= 30)) for i in range(40)]
    drawn = Counter(one.unit.id for seed in range(600) for one in plan_sample(population, 12, seed).units)
    plan = plan_sample(population, 12, 0)
    for stratum in plan.strata:
        members = population[:30] if stratum.name.startswith("absent") else population[30:]
        counts = np.array([drawn[one.id] for one in members])
        expected = 600 * stratum.probability
        assert abs(counts.mean() - expected) < 1e-9
        assert np.abs(counts - expected).max() < 5 * np.sqrt(600 * stratum.probability * (1 - stratum.probability))


def test_groups_of_one_branch_come_together_first() -> None:
    labels = [("absent", "unchanged", "low score")] * 9 + [("present", "changed", "low score", "small")] * 1
    labels += [("present", "changed", "high score", "large")] * 4
    assert len(group(labels, 3)) == 3
    found = group(labels, 2)
    assert {label[:1]: len(members) for label, members in found.items()} == {("absent",): 9, ("present",): 5}
    assert list(group(labels, 1)) == [()]


def test_scores_are_parted_at_the_median_of_their_class() -> None:
    labels = labels_of([unit(i, mapped=10.0, score=s) for i, s in enumerate((0.2, 0.6, 0.9))] + [unit(9, score=0.1)])
    assert [label[2] for label in labels] == ["low score", "high score", "high score", "high score"]


def test_nothing_to_draw_from_is_said() -> None:
    with pytest.raises(ConfigError, match="no observed pixel"):
        plan_sample([], 40, 0)
    with pytest.raises(ConfigError, match="at least 2"):
        plan_sample([unit(1)], 1, 0)


def test_sums_of_cores() -> None:
    values = np.arange(16, dtype=float).reshape(4, 4)
    assert core_sums(values, 2).tolist() == [[10, 18], [42, 50]]
