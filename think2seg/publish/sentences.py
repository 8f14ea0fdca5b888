"""What the page says in words."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from think2seg.cube.ledger import Entry
from think2seg.cube.store import shown
from think2seg.errors import ModelError
from think2seg.insight.audit import audits
from think2seg.insight.records import Records
from think2seg.insight.series import Series, SeriesPoint
from think2seg.insight.units import TRUSTED_SHARE, AreaUnit, day, metres
from think2seg.learning.review.figures import read_figures
from think2seg.plan import TRIES, BlockState
from think2seg.publish.page import Fact, FailureRow, Stat
from think2seg.registry import Kind, resolve, weights_digest

_STEADY = 0.02
"""A smaller relative change is told as none."""


def summary(series: Series, unit: AreaUnit) -> str:
    """One sentence: what happened between the first and the last well observed date."""
    trusted = _trusted(series)
    if not trusted:
        return f"No date was observed to {TRUSTED_SHARE:.0%} or more: the curve below is a lower bound throughout."
    first, last = trusted[0], trusted[-1]
    if first is last:
        return f"On {day(first.time)} an area of {unit.text(first.area_m2)} was found."
    span, (before, after) = f"Between {day(first.time)} and {day(last.time)}", (first.area_m2, last.area_m2)
    if before == after == 0:
        return f"{span} none was found."
    if before and abs(after / before - 1) < _STEADY:
        return f"{span} the area found stayed at about {unit.text(after)}."
    verb = "grew" if after > before else "shrank"
    return f"{span} the area found {verb} from {unit.text(before)} to {unit.text(after)}{_relative(before, after)}."


def stats(series: Series, entries: Sequence[Entry], unit: AreaUnit) -> tuple[Stat, ...]:
    """The large figures of the masthead."""
    trusted = _trusted(series)
    if not trusted:
        return (_acquisitions(entries),)
    first, last = trusted[0], trusted[-1]
    change = unit.text(abs(last.area_m2 - first.area_m2))
    sign = "" if last.area_m2 == first.area_m2 else "+" if last.area_m2 > first.area_m2 else "−"
    figures = [
        Stat(name="First well observed", value=unit.text(first.area_m2), detail=day(first.time)),
        Stat(name="Latest well observed", value=unit.text(last.area_m2), detail=day(last.time)),
        Stat(name="Change", value=f"{sign}{change}", detail=_times(first.area_m2, last.area_m2)),
        _acquisitions(entries),
    ]
    return tuple(figures if first is not last else figures[1:2] + figures[3:])


def failures(entries: Sequence[Entry], records: Records) -> tuple[FailureRow, ...]:
    """Why each block that is failed in the latest answers failed, and what was only done in part."""
    return tuple(
        FailureRow(
            item=failure.item or entry.held.acquisition,
            block=f"row {failure.block.row}, column {failure.block.col}",
            reason=failure.reason,
            message=failure.message,
        )
        for entry in entries
        for failure in records.account(entry).failures
    )


def redo_command(command: str, entries: Sequence[Entry]) -> str:
    """Shell command that tries the failed acquisitions again, quarantined ones too, and only their span of days."""
    failed = [entry.held for entry in entries if BlockState.FAILED in entry.held.states.values()]
    if not failed:
        return command
    times, margin = [held.time for held in failed], timedelta(days=1)
    since, until = (min(times) - margin).date(), (max(times) + margin).date()
    given_up = any(tries >= TRIES for held in failed for tries in held.attempts.values())
    return f"{command} --since {since} --until {until}{' --retry-quarantined' if given_up else ''}"


def command_of(monitor: str | Path, overrides: Sequence[str] = ()) -> str:
    """Shell command that runs a monitor with overrides."""
    options = " ".join(f"--set {shlex.quote(override)}" for override in overrides)
    return f"think2seg run {shlex.quote(str(monitor))} {options}".strip()


def honesty(entries: Sequence[Entry], records: Records) -> tuple[str, ...]:
    """What a reader must know before believing the masks."""
    prompters = {entry.held.prompter for entry in entries}
    bundled = _bundled("prompter") in prompters or _bundled("segmenter") in {entry.segmenter for entry in entries}
    notes = []
    if bundled:
        notes.append(
            "These masks come from the small models that travel with think2seg: a few million parameters, made to run "
            "on any computer and trained for demonstrations like this one. They miss and they invent; read the "
            "outlines against the imagery. For work that matters, point models.prompter and models.segmenter at "
            "larger weights: the question, the cube and this page stay the same."
        )
    tiles: Counter[str] = Counter()
    for entry in entries:
        tiles.update(records.account(entry).tiles)
    if unknown := tiles["unknown concept"]:
        notes.append(
            f"Asked about {unknown:,} of {tiles.total():,} tiles, the prompter said that it does not know what "
            f"“{records.spec.question}” means. There the map says not observed, which is not the same as absent. Ask "
            "in other words, or point models.prompter at weights that know more."
        )
    notes += [one.sentence() for one in audits(records.account(entry).audit for entry in entries)]
    if len(prompters) > 1:
        notes.append(
            f"{len(prompters)} versions of the prompter answered. Where one took over from another, marked on the "
            "curve, a step may be the model and not the world. `think2seg models shadow` measures how large it is; "
            "`think2seg backfill` answers an old period anew."
        )
    return tuple(notes)


def reviewed(records: Records) -> tuple[str, ...]:
    """What people said of a random sample of the masks, the last time that they did; nothing where they never did."""
    latest = read_figures(records.store)[-1:]
    return tuple(f"Reviewed on {day(one.imported)}. {' '.join(one.sentences())}" for one in latest)


def facts(records: Records, entries: Sequence[Entry], run: Mapping[str, Any] | None) -> tuple[Fact, ...]:
    """The small print: models, grid, source."""
    return tuple(_facts(records, entries, run or {}))


def _facts(records: Records, entries: Sequence[Entry], run: Mapping[str, Any]) -> Iterator[Fact]:
    spec, grid = records.spec, records.grid
    gsd_m = max(grid.gsd_m)
    for name, digests in (
        ("Prompter, answers with boxes and points", dict.fromkeys(entry.held.prompter for entry in entries)),
        ("Segmenter, draws the masks", dict.fromkeys(entry.segmenter for entry in entries)),
    ):
        if digests:
            yield Fact(name=name, value=", ".join(digests), code=True)
    yield Fact(name="Prompt template", value=spec.template, code=True)
    yield Fact(name="Source", value=_plain(spec.source))
    yield Fact(name="Picture the models saw", value=_plain(spec.recipe))
    crs = grid.crs if grid.crs.startswith("EPSG:") else "a CRS without an EPSG code"
    yield Fact(name="Grid", value=f"{crs}, {grid.resolution:g} per pixel, about {metres(round(gsd_m, 1))}")
    halo_m = round(grid.halo_px * gsd_m)
    yield Fact(name="Tile", value=f"{metres(round(grid.tile_px * gsd_m))} on the ground, {metres(halo_m)} of it halo")
    if run.get("seam_ratio") is not None:
        yield Fact(name="Disagreement at tile edges", value=f"{run['seam_ratio']:.2f} times that inside tiles")
    if run.get("monitor_hash"):
        yield Fact(name="Monitor", value=f"{run.get('monitor', '')} {run['monitor_hash']}".strip(), code=True)
    uri = shown(records.store.uri)
    yield Fact(name="Cube", value=uri if "://" in uri else Path(uri).name, code=True)


def _plain(values: Mapping[str, Any]) -> str:
    """Nested settings as ``name: value`` pairs."""

    def text(value: Any) -> str:
        if isinstance(value, Mapping):
            return " ".join(f"{name} {text(one)}" for name, one in value.items())
        if isinstance(value, list | tuple):
            return " ".join(text(one) for one in value)
        return f"{value:g}" if isinstance(value, float) else str(value)

    told = {name: value for name, value in values.items() if name != "digest" and value not in (None, "", [], {})}
    return "; ".join(f"{name}: {text(value)}" for name, value in told.items())


def _trusted(series: Series) -> list[SeriesPoint]:
    return [point for point in series.points if point.observed_fraction >= TRUSTED_SHARE]


def _relative(before: float, after: float) -> str:
    return f", by {abs(after / before - 1):.0%}".replace("%", "\u202f%") if before else ""


def _times(before: float, after: float) -> str:
    return f"× {after / before:.2f}" if before else ""


def _acquisitions(entries: Sequence[Entry]) -> Stat:
    failed = sum(BlockState.FAILED in entry.held.states.values() for entry in entries)
    revised = sum(entry.held.revision > 0 for entry in entries)
    details = [f"{failed} with failed blocks" if failed else "", f"{revised} revised" if revised else ""]
    return Stat(name="Acquisitions", value=str(len(entries)), detail=", ".join(filter(None, details)))


def _bundled(kind: Kind) -> str | None:
    """Digest of the bundled weights; None where this installation has none."""
    try:
        return weights_digest(resolve(kind, "bundled"))
    except ModelError:
        return None
