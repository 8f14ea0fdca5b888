"""The report of one cube: a page about what was found, what was not seen, and what it took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xarray as xr

from think2seg.cube import open_cube
from think2seg.cube.ledger import Entry
from think2seg.insight.records import Records, read_records, shown_entries
from think2seg.insight.series import Series, SeriesPoint, measure
from think2seg.insight.units import AreaUnit, day, metres, percent
from think2seg.plan import PlanLine
from think2seg.publish.cartography import furniture
from think2seg.publish.chart import draw_chart
from think2seg.publish.html import render
from think2seg.publish.maps import View, step_map, view_of
from think2seg.publish.outline import UNITS_PER_PIXEL, outline
from think2seg.publish.page import Frame, MapView, Page
from think2seg.publish.pictures import LONGEST_PX, Quicklook, encode_all
from think2seg.publish.sentences import facts, failures, honesty, redo_command, reviewed, stats, summary
from think2seg.publish.tables import Bill, costs, rows, stages

_BUDGET_BYTES = 6_000_000
"""Of the pictures; outlines and text come on top."""
MOST_FRAMES = 120
"""Acquisitions with a map of their own; more than these would make a page that no browser likes to open."""
_MOST_FAILURES = 200
_STOPS = 12
"""At most this many labels under the slider."""


def write_report(
    uri: str | Path,
    out: Path,
    *,
    quicklook: Quicklook,
    run: Mapping[str, Any] | None = None,
    plan: Sequence[PlanLine] = (),
    command: str = "think2seg run MONITOR.yaml",
) -> Path:
    """Write one self-contained HTML file about a cube.

    Parameters
    ----------
    uri
        The cube.
    out
        The file to write; its folder is made if need be.
    quicklook
        Acquisition id → (y, x, 3) uint8 picture of the whole grid, at any size; None where there is none.
    run
        ``RunSummary.to_dict()`` of the run to bill; without it the page bills all answers the cube shows.
    plan
        The run's plan for this cube: reasons and notes of each acquisition, those not read included.
    command
        Shell command that runs the monitor again.

    Raises
    ------
    CubeError, StoreError
        There is no cube at the URI, or it cannot be read.
    OSError
        The file cannot be written.
    """
    cube = open_cube(uri)
    page = compose(cube, read_records(uri, cube), quicklook=quicklook, run=run, plan=plan, command=command)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render(page), encoding="utf-8")
    return out


def compose(
    cube: xr.Dataset,
    records: Records,
    *,
    quicklook: Quicklook,
    run: Mapping[str, Any] | None,
    plan: Sequence[PlanLine],
    command: str,
) -> Page:
    """All that the page shows, as values; see `write_report`."""
    entries, series = shown_entries(cube, records), measure(cube, records)
    steps, labels = framed(len(entries)), _labels(entries)
    chart = draw_chart(series.points, steps)
    view = view_of(_widest(cube, entries), LONGEST_PX) if entries else None
    failed = failures(entries, records)
    bill = Bill.of_run(run, series, plan) if run else Bill.of_cube(entries, series, records)
    return Page(
        title=records.spec.title or records.spec.question,
        question=records.spec.question,
        summary=summary(series, chart.unit),
        stats=stats(series, entries, chart.unit),
        map=_map_view(records, view) if view else None,
        frames=tuple(_frames(cube, records, series, steps, chart.unit, labels, quicklook, view)) if view else (),
        sampled=_sampled(len(steps), len(entries)),
        chart=chart,
        rows=rows(series, entries, labels, {step: frame for frame, step in enumerate(steps)}, plan, chart.unit),
        failures=failed[:_MOST_FAILURES],
        more_failures=max(0, len(failed) - _MOST_FAILURES),
        redo=redo_command(command, entries) if failed else command,
        bill=bill.title,
        costs=costs(bill),
        stages=stages(bill),
        notes=(*honesty(entries, records), *(one.sentence() for one in series.overlaps), *reviewed(records)),
        facts=facts(records, entries, run),
        attribution=records.spec.attribution,
        written=f"on {day(datetime.now(UTC))}",
        version=version("think2seg"),
    )


def _frames(
    cube: xr.Dataset,
    records: Records,
    series: Series,
    steps: Sequence[int],
    unit: AreaUnit,
    labels: Sequence[str],
    quicklook: Quicklook,
    view: View,
) -> Iterator[Frame]:
    points = [series.points[step] for step in steps]
    ids = [point.acquisition for point in points]
    pictures = encode_all(ids, quicklook, view.window(records.grid), longest_px=LONGEST_PX, budget_bytes=_BUDGET_BYTES)
    stops = _stops(points)
    for place, (step, point, picture) in enumerate(zip(steps, points, pictures, strict=True)):
        cells = step_map(cube.isel(time=step), view)
        share = f"{percent(point.area_m2 / point.region_m2)} of the region" if point.region_m2 else ""
        bounds = f"between {unit.number(point.area_low_m2)} and {unit.text(point.area_high_m2)}"
        yield Frame(
            label=labels[step],
            picture=picture,
            present=outline(cells.present),
            cloud=outline(cells.cloud, tolerance_px=1.0),
            hidden=outline(cells.hidden, tolerance_px=1.0),
            area=unit.text(point.area_m2) if point.observed_m2 else "not observed",
            range=(share if point.observed_fraction >= 0.995 else bounds) if point.observed_m2 else "",
            observed=percent(point.observed_fraction),
            share=round(100 * point.observed_fraction, 1),
            at=place / max(1, len(ids) - 1),
            stop=stops[place],
        )


def _map_view(records: Records, view: View) -> MapView:
    height, width = view.outside.shape
    drawn_m = view.factor * max(records.grid.gsd_m)
    return MapView(
        width=width * UNITS_PER_PIXEL,
        height=height * UNITS_PER_PIXEL,
        outside=outline(view.outside, tolerance_px=1.0),
        hatch=round(max(width, height) * UNITS_PER_PIXEL / 120, 1),
        furniture=furniture(records.grid.crs, view.bounds(records.grid)),
        drawn_at=metres(round(drawn_m, 1)) if view.factor > 1 else "",
    )


def _widest(cube: xr.Dataset, entries: Sequence[Entry]) -> xr.DataArray:
    """Quality of the step that covers most of the region, which may have grown over time."""
    step = max(range(len(entries)), key=lambda index: entries[index].region_px)
    return cube["quality"].isel(time=step)


def _labels(entries: Sequence[Entry]) -> list[str]:
    """Day of each step; with the time, or the acquisition's id, where that alone would not tell two apart."""
    candidates = [
        (day(entry.held.time), f"{day(entry.held.time)}, {entry.held.time:%H:%M} UTC", entry.held.acquisition)
        for entry in entries
    ]
    counts: dict[str, int] = {}
    for texts in candidates:
        for text in texts:
            counts[text] = counts.get(text, 0) + 1
    return [next(text for text in texts if counts[text] == 1 or text is texts[-1]) for texts in candidates]


def framed(n_steps: int) -> tuple[int, ...]:
    """Steps that get a map: all of them, or `MOST_FRAMES` evenly spread ones, the first and the last among them."""
    n = min(n_steps, MOST_FRAMES)
    return tuple(round(place * (n_steps - 1) / max(1, n - 1)) for place in range(n))


def _sampled(n_frames: int, n_steps: int) -> str:
    if n_frames == n_steps:
        return ""
    return (
        f"The map shows {n_frames} of {n_steps:,} dates, evenly spread; the curve and the table hold all of them. "
        "Open the cube in QGIS to see any other."
    )


def _stops(points: Sequence[SeriesPoint]) -> list[str]:
    """Labels under the slider: years where they change, as far as there is room, months of a short series."""
    times = [point.time for point in points]
    short = bool(times) and (times[-1] - times[0]).days < 500
    texts = [f"{time:%b %Y}" if short else str(time.year) for time in times]
    changes = [index for index, text in enumerate(texts) if index == 0 or text != texts[index - 1]]
    every = -(-len(changes) // _STOPS)
    room = len(texts) / _STOPS
    kept: list[int] = []
    for index in changes[::every]:
        if not kept or index - kept[-1] >= room:
            kept.append(index)
    return [text if index in kept else "" for index, text in enumerate(texts)]
