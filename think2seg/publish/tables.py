"""The page's tables: acquisitions, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from think2seg.cube.ledger import Entry
from think2seg.insight.records import Records
from think2seg.insight.series import Series, SeriesPoint
from think2seg.insight.units import AreaUnit, day, duration, percent
from think2seg.plan import BlockState, PlanLine, Reason
from think2seg.publish.page import Row, Stage, Stat

_TONES = {
    Reason.NEW: "good",
    Reason.LATE: "good",
    Reason.CHANGED: "good",
    Reason.RETRY: "good",
    Reason.BACKFILL: "good",
    Reason.DONE: "",
    Reason.CLOUDY: "warn",
    Reason.OUTSIDE: "warn",
    Reason.OVER_BUDGET: "warn",
    Reason.MISSING_BANDS: "bad",
    Reason.GONE: "bad",
    Reason.QUARANTINED: "bad",
}
_NONE = "–"
_STAGES = ("search", "read", "prompt", "segment", "write")
"""In the order of the work."""


def rows(
    series: Series,
    entries: Sequence[Entry],
    labels: Sequence[str],
    frames: Mapping[int, int],
    plan: Sequence[PlanLine],
    unit: AreaUnit,
) -> tuple[Row, ...]:
    """One row per acquisition in time order: those the cube shows, and those that the plan left out."""
    lines = {line.id: line for line in plan}
    held = {entry.held.acquisition for entry in entries}
    dated = [
        (
            entry.held.time,
            _shown_row(frames.get(step), entry, point, labels[step], lines.get(entry.held.acquisition), unit),
        )
        for step, (entry, point) in enumerate(zip(entries, series.points, strict=True))
    ]
    dated += [(line.time, _left_out_row(line)) for line in plan if line.id not in held]
    return tuple(row for _, row in sorted(dated, key=lambda pair: pair[0]))


def _shown_row(
    frame: int | None, entry: Entry, point: SeriesPoint, label: str, line: PlanLine | None, unit: AreaUnit
) -> Row:
    states = Counter(entry.held.states.values())
    told = [f"{states[BlockState.FAILED]} of {sum(states.values())} blocks failed"] if states[BlockState.FAILED] else []
    if states[BlockState.PENDING]:
        told.append(f"{states[BlockState.PENDING]} blocks over budget")
    if line is not None and line.note:
        told.append(line.note)
    reason = line.reason if line is not None else Reason.DONE
    return Row(
        label=label,
        frame=frame,
        reason=str(reason),
        tone="warn" if states[BlockState.FAILED] else _TONES.get(reason, ""),
        note="; ".join(told),
        area=unit.text(point.area_m2) if point.observed_m2 else _NONE,
        observed=percent(point.observed_fraction),
        tiles=f"{point.tiles:,}",
        revision=str(point.revision),
        prompter=point.prompter[:12],
        scenes=tuple(entry.held.scenes),
    )


def _left_out_row(line: PlanLine) -> Row:
    return Row(
        label=day(line.time),
        frame=None,
        shown=False,
        reason=str(line.reason),
        tone=_TONES.get(line.reason, ""),
        note="; ".join(filter(None, ("waits for the next run" if line.blocks else "", line.note))),
        area=_NONE,
        observed=_NONE,
        tiles=_NONE,
        revision=_NONE,
        prompter="",
        scenes=tuple(scene.id for scene in line.acquisition.scenes) if line.acquisition else (),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What was worked on, and what it took."""

    title: str
    total_s: float | None
    """Wall time; None where several runs were added up."""
    stages_s: Mapping[str, float]
    """Stage → seconds, added up over workers."""
    tiles: int
    square_km: float
    """Ground answered for, once per acquisition."""

    @classmethod
    def of_run(cls, run: Mapping[str, Any], series: Series, plan: Sequence[PlanLine]) -> Self:
        """The bill of one run, from ``RunSummary.to_dict()``."""
        seconds = dict(run["seconds"])
        total_s = float(seconds.pop("total"))
        worked = {line.id for line in plan if line.blocks}
        observed = sum(point.observed_m2 for point in series.points if point.acquisition in worked) / 1e6
        return cls(
            title="What the run cost",
            total_s=total_s,
            stages_s=seconds,
            tiles=int(run["tiles"]["done"]),
            square_km=float(run.get("square_km", observed)),
        )

    @classmethod
    def of_cube(cls, entries: Sequence[Entry], series: Series, records: Records) -> Self:
        """The bill of all answers that the cube shows, whichever runs gave them."""
        seconds: Counter[str] = Counter()
        for entry in entries:
            seconds.update(records.account(entry).seconds)
        return cls(
            title="What these answers cost",
            total_s=None,
            stages_s=seconds,
            tiles=sum(point.tiles for point in series.points),
            square_km=sum(point.observed_m2 for point in series.points) / 1e6,
        )


def costs(bill: Bill) -> tuple[Stat, ...]:
    """Time, tiles, rate and price per area of a bill, as far as there was work."""
    return tuple(_costs(bill))


def _costs(bill: Bill) -> Iterator[Stat]:
    worked_s = sum(bill.stages_s.values())
    seconds, of_what = (worked_s, "of worker time") if bill.total_s is None else (bill.total_s, "from start to end")
    yield Stat(name="Time", value=duration(seconds), detail=of_what)
    yield Stat(name="Tiles asked", value=f"{bill.tiles:,}")
    if bill.tiles and seconds:
        yield Stat(name="Rate", value=f"{bill.tiles / seconds:.3g} tiles/s")
    if bill.square_km > 0:
        per_km2 = duration(worked_s / bill.square_km)
        yield Stat(name="Per km²", value=per_km2, detail=f"of worker time, over {bill.square_km:,.3g} km²")


def stages(bill: Bill) -> tuple[Stage, ...]:
    """Stages of a bill in the order of the work, without those that took nothing."""
    longest = max(bill.stages_s.values(), default=0.0)
    order = sorted(bill.stages_s, key=lambda name: _STAGES.index(name) if name in _STAGES else len(_STAGES))
    return tuple(
        Stage(name=name, seconds=duration(bill.stages_s[name]), percent=round(100 * bill.stages_s[name] / longest, 1))
        for name in order
        if bill.stages_s[name] > 0
    )
