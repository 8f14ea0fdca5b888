"""The area curve as geometry: everything in percent of the plot, so that the page can stretch it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import ceil, floor, log10

from think2seg.insight.series import SeriesPoint
from think2seg.insight.units import TRUSTED_SHARE, AreaUnit, area_unit, day, percent

_HEADROOM = 1.6
"""The axis ends at most this far above the largest area; a band of a cloudy date may leave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A label beside an axis."""

    at: float
    """Percent from the left or the top."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One acquisition on the curve."""

    x: float
    y: float
    solid: bool
    tip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The curve, in percent: x from the left, y from the top."""

    line: str
    """``points`` of an SVG polyline through the well observed dates."""
    band: str
    """``points`` of an SVG polygon: unobserved all absent to unobserved all present."""
    marks: tuple[Mark, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    model_changes: tuple[float, ...]
    """Where another version of the prompter took over: percent from the left."""
    unit: AreaUnit


def draw_chart(points: Sequence[SeriesPoint], marked: Sequence[int] | None = None) -> Chart:
    """Lay out a series in the order given, with a mark at the points of these places; by default at all."""
    largest = max((p.area_m2 for p in points), default=0.0)
    top = min(max((p.area_high_m2 for p in points), default=1.0), largest * _HEADROOM or float("inf"))
    unit = area_unit(top)
    steps = nice_steps((top or 1.0) / unit.square_metres)
    scale = max(top * 1.04, steps[1] * unit.square_metres)
    first, last = _span(points)

    def x(time: datetime) -> float:
        return round(100 * (time - first) / (last - first), 3)

    def y(area_m2: float) -> float:
        return round(100 * (1 - min(area_m2 / scale, 1.05)), 3)

    solid = [p for p in points if p.observed_fraction >= TRUSTED_SHARE]
    upper = [f"{x(p.time)},{y(p.area_high_m2)}" for p in points]
    lower = [f"{x(p.time)},{y(p.area_low_m2)}" for p in reversed(points)]
    return Chart(
        line=" ".join(f"{x(p.time)},{y(p.area_m2)}" for p in solid),
        band=" ".join(upper + lower),
        marks=tuple(
            Mark(x=x(p.time), y=y(p.area_m2), solid=p.observed_fraction >= TRUSTED_SHARE, tip=_tip(p, unit))
            for p in (points if marked is None else [points[place] for place in marked])
        ),
        x_ticks=tuple(Tick(at=x(time), text=text) for time, text in time_ticks(first, last)),
        y_ticks=tuple(
            Tick(at=y(step * unit.square_metres), text=f"{step:g}")
            for step in steps
            if step * unit.square_metres <= scale
        ),
        model_changes=tuple(
            x(before.time + (after.time - before.time) / 2)
            for before, after in pairwise(points)
            if before.prompter != after.prompter
        ),
        unit=unit,
    )


def nice_steps(largest: float, about: int = 4) -> tuple[float, ...]:
    """Round axis values from 0 to the first that is not below `largest`, about `about` of them."""
    raw = largest / about
    power = 10.0 ** floor(log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    return tuple(round(step * i, 10) for i in range(ceil(largest / step - 1e-9) + 1))


def time_ticks(first: datetime, last: datetime, at_most: int = 8) -> list[tuple[datetime, str]]:
    """Starts of years, or of months where the span is short, that lie between two times."""
    months = (last.year - first.year) * 12 + last.month - first.month + 1
    if months > 24:
        every = next(n for n in (1, 2, 5, 10, 20, 50) if months / 12 / n <= at_most)
        years = [datetime(year, 1, 1, tzinfo=UTC) for year in range(first.year, last.year + 1) if year % every == 0]
        return [(time, str(time.year)) for time in years if first <= time <= last]
    every = next(n for n in (1, 2, 3, 6) if months / n <= at_most)
    numbers = range(first.month - 1, first.month + months)
    starts = [datetime(first.year + n // 12, n % 12 + 1, 1, tzinfo=UTC) for n in numbers if n % every == 0]
    inside = [time for time in starts if first <= time <= last]
    return [(time, f"{time:%b %Y}" if time.month == 1 or time is inside[0] else f"{time:%b}") for time in inside]


def _span(points: Sequence[SeriesPoint]) -> tuple[datetime, datetime]:
    """First and last time with a margin, so that no mark sits on the frame."""
    times = [p.time for p in points] or [datetime(1970, 1, 1, tzinfo=UTC)]
    first, last = min(times), max(times)
    margin = (last - first) / 40 or (datetime(1970, 2, 1) - datetime(1970, 1, 1))
    return first - margin, last + margin


def _tip(point: SeriesPoint, unit: AreaUnit) -> str:
    observed = f"{percent(point.observed_fraction)} observed"
    if not point.observed_fraction:
        return f"{day(point.time)} · not observed"
    bounds = f"{unit.number(point.area_low_m2)} to {unit.text(point.area_high_m2)}"
    spread = f" · between {bounds}" if point.observed_fraction < 0.995 else ""
    return f"{day(point.time)} · {unit.text(point.area_m2)} · {observed}{spread}"
