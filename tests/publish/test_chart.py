from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from think2seg.insight import SeriesPoint
from think2seg.publish.chart import draw_chart, nice_steps, time_ticks

REGION_M2 = 1e6


def point(year: int, area_m2: float, observed: float = 1.0, prompter: str = "a") -> SeriesPoint:
    return SeriesPoint(
        time=datetime(year, 7, 1, tzinfo=UTC), acquisition=str(year), revision=0, area_m2=area_m2,
        observed_m2=observed * REGION_M2, region_m2=REGION_M2, tiles=9, prompter=prompter,
    )  # fmt: skip


def pairs(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (one.split(",") for one in text.split())]


def test_larger_areas_stand_higher_and_later_dates_further_right() -> None:
    chart = draw_chart([point(2010, 1e5), point(2012, 2e5), point(2020, 4e5)])
    xs, ys = zip(*pairs(chart.line), strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys, reverse=True)
    assert all(0 <= value <= 100 for value in (*xs, *ys))


def test_badly_observed_date_is_hollow_and_left_out_of_the_line() -> None:
    chart = draw_chart([point(2010, 1e5), point(2011, 0.2e5, observed=0.3), point(2012, 2e5)])
    assert [mark.solid for mark in chart.marks] == [True, False, True]
    assert len(pairs(chart.line)) == 2
    assert "between" in chart.marks[1].tip


def test_unobserved_date_says_so() -> None:
    assert draw_chart([point(2010, 1e5), point(2011, 0, observed=0)]).marks[1].tip == "1 July 2011 · not observed"


def test_band_encloses_every_mark() -> None:
    points = [point(2010, 1e5, 0.95), point(2011, 1.2e5, 0.85), point(2012, 2e5, 0.99)]
    chart = draw_chart(points)
    outline = pairs(chart.band)
    upper, lower = outline[: len(points)], outline[len(points) :][::-1]
    for mark, (_, high), (_, low) in zip(chart.marks, upper, lower, strict=True):
        assert high <= mark.y <= low


def test_change_of_weights_is_marked_between_the_dates() -> None:
    chart = draw_chart([point(2010, 1e5), point(2012, 1e5), point(2014, 1e5, prompter="b")])
    (at,) = chart.model_changes
    assert chart.marks[1].x < at < chart.marks[2].x


@pytest.mark.parametrize("points", [[], [point(2010, 0.0)], [point(2010, 0.0, observed=0)], [point(2010, 3.0)]])
def test_degenerate_series_can_be_drawn(points: list[SeriesPoint]) -> None:
    chart = draw_chart(points)
    assert len(chart.marks) == len(points)
    assert chart.y_ticks


@pytest.mark.parametrize("largest", [0.003, 0.9, 1.0, 3.7, 10, 11, 99.9, 12345])
def test_axis_values_are_round_and_reach_the_top(largest: float) -> None:
    steps = nice_steps(largest)
    assert 3 <= len(steps) <= 7
    assert steps[0] == 0
    assert steps[-2] < largest <= steps[-1] * (1 + 1e-9)


@pytest.mark.parametrize(("days", "at_least"), [(10, 0), (40, 1), (200, 3), (700, 3), (2000, 3), (9000, 3), (40000, 3)])
def test_time_ticks_are_few_and_inside(days: int, at_least: int) -> None:
    first = datetime(2001, 3, 14, 5, tzinfo=UTC)
    ticks = time_ticks(first, first + timedelta(days=days))
    assert at_least <= len(ticks) <= 9
    assert all(first <= time <= first + timedelta(days=days) for time, _ in ticks)
