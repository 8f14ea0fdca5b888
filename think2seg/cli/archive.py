"""Verbs of archives, cubes and the machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from think2seg.cli.app import (
    AllowChanges,
    CubeUri,
    Day,
    Json,
    MonitorPath,
    Overrides,
    RetryQuarantined,
    app,
    counting_bar,
    day,
    monitor_at,
    print_json,
    print_paths,
    progress_bar,
    stderr,
    stdout,
    stopped_in_words,
)

if TYPE_CHECKING:
    from think2seg.coordinator import RunSummary

Region = Annotated[str | None, typer.Option(metavar="W,S,E,N|FILE", help="Measure a part: degrees, or a GeoJSON file.")]


@app.command()
def plan(
    monitor: MonitorPath,
    set_: Overrides = None,
    since: Day = None,
    until: Day = None,
    retry_quarantined: RetryQuarantined = False,
    allow_changes: AllowChanges = False,
    as_json: Json = False,
) -> None:
    """Show what a run would do, and why, without loading a model."""
    from think2seg.coordinator import find, plan_rows, plan_run

    found = find(monitor_at(monitor, set_), since=day(since), until=day(until))
    planned = plan_run(found, retry_quarantined=retry_quarantined, allow_changes=allow_changes)
    rows = plan_rows(planned)
    if as_json:
        print_json({**planned.totals(), "notes": list(found.notes), "acquisitions": rows})
        return
    table = Table(
        title=f"{planned.monitor.monitor}: {'; '.join(planned.monitor.asked)}",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for column, justify in (("time", "left"), ("acquisition", "left"), ("reason", "left"), ("blocks", "right"),
                            ("tiles", "right"), ("MB", "right"), ("note", "left")):  # fmt: skip
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(
            row["time"][:10], row["acquisition"], row["reason"], str(row["blocks"]), str(row["tiles"]),
            f"{row['bytes'] / 1e6:.1f}", row["note"],
        )  # fmt: skip
    stdout.print(table)
    for note in found.notes:
        stderr.print(note, markup=False)
    stdout.print(planned.sentence(), markup=False)


@app.command()
def backfill(
    monitor: MonitorPath,
    since: Day = None,
    until: Day = None,
    set_: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan only.")] = False,
    as_json: Json = False,
) -> None:
    """Ask again what other weights than today's champion answered, as new revisions; earlier answers stay readable."""
    from think2seg.coordinator import find, plan_run, run_archive

    asked = monitor_at(monitor, set_)
    first = day(since or asked.source.interval[0])
    if dry_run:
        planned = plan_run(find(asked, since=first, until=day(until)), backfill=True)
        if as_json:
            print_json(planned.totals())
        else:
            stdout.print(planned.sentence(), markup=False)
        return
    with stopped_in_words(), progress_bar() as show:
        summary = run_archive(asked, since=first, until=day(until), backfill=True, on_progress=show)
    _tell(summary, as_json)


@app.command()
def run(
    monitor: MonitorPath,
    set_: Overrides = None,
    since: Day = None,
    until: Day = None,
    dask_scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="An existing Dask cluster: tcp://host:8786")
    ] = None,
    retry_quarantined: RetryQuarantined = False,
    allow_changes: AllowChanges = False,
    as_json: Json = False,
) -> None:
    """Do what `plan` shows and append the answers to the cube."""
    from think2seg.coordinator import run_archive

    overrides = [*(set_ or []), *([f"cluster.scheduler={dask_scheduler}"] if dask_scheduler else [])]
    asked = monitor_at(monitor, overrides)
    with stopped_in_words(), progress_bar() as show:
        summary = run_archive(
            asked,
            since=day(since),
            until=day(until),
            retry_quarantined=retry_quarantined,
            allow_changes=allow_changes,
            on_progress=show,
        )
    _tell(summary, as_json)


def _tell(summary: RunSummary, as_json: bool) -> None:
    """Say what a run did, and leave with its exit code."""
    if as_json:
        print_json(summary.to_dict())
    else:
        for failure in summary.failures:
            where = f"{failure['acquisition']} block {failure['block']}"
            stderr.print(f"{where}: {failure['reason']}: {failure['message']}", markup=False)
        stdout.print(summary.sentence(), markup=False)
        for uri in summary.cubes:
            stdout.print(f"cube: {uri}", markup=False)
    raise typer.Exit(summary.exit_code)


@app.command()
def status(monitor: MonitorPath, set_: Overrides = None, as_json: Json = False) -> None:
    """Show what a monitor's cubes hold, and whether a run is writing to them."""
    from think2seg.coordinator import cube_status

    statuses = cube_status(monitor_at(monitor, set_))
    if as_json:
        print_json({"cubes": [one.to_dict() for one in statuses]})
        return
    for one in statuses:
        stdout.print(one.render(), markup=False, soft_wrap=True)


@app.command()
def report(
    monitor: MonitorPath,
    set_: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Where to write it; default beside a local cube, else here.")] = None,
    as_json: Json = False,
) -> None:
    """Write the report of a monitor's cubes: one HTML file each, with no outside parts."""
    from think2seg.publish import command_of, report_monitor

    paths = report_monitor(monitor_at(monitor, set_), out, command=command_of(monitor, set_ or []))
    print_paths(paths, as_json)


@app.command()
def check(
    cube: CubeUri,
    monitor: Annotated[
        Path | None, typer.Option(metavar="MONITOR.yaml", help="Also look whether its catalog still has the scenes.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Remove files that were never finished.")] = False,
    as_json: Json = False,
) -> None:
    """Prove a cube: structure, conventions, ledger against arrays, digests against bytes, states against quality."""
    from think2seg.coordinator import missing_sources
    from think2seg.cube import check_cube, repair_cube

    findings = check_cube(cube)
    if monitor:
        findings += missing_sources(cube, monitor_at(monitor, None))
    if repair:
        removed = set(repair_cube(cube, findings))
        findings = [finding for finding in findings if finding.where not in removed]
    errors = [finding for finding in findings if finding.severity == "error"]
    if as_json:
        print_json({"findings": [finding.to_dict() for finding in findings], "exit_code": 3 if errors else 0})
    else:
        for finding in findings:
            stdout.print(finding.render(), markup=False, soft_wrap=True)
        stdout.print(f"{len(errors)} errors, {len(findings) - len(errors)} other findings")
    raise typer.Exit(3 if errors else 0)


@app.command()
def explain(
    cube: CubeUri,
    time: Annotated[str, typer.Option(metavar="T", help="Day or time of an acquisition: 2014-07-20")],
    lon: Annotated[float, typer.Option(help="Longitude, degrees.")],
    lat: Annotated[float, typer.Option(help="Latitude, degrees.")],
    as_json: Json = False,
) -> None:
    """Walk from a pixel to its instance, the prompt, the model's reasoning and the scene."""
    from think2seg.insight import explain as explain_pixel

    explanation = explain_pixel(cube, time=time, lon=lon, lat=lat)
    if as_json:
        print_json(explanation.to_dict())
    else:
        stdout.print(explanation.render(), markup=False, soft_wrap=True)


@app.command()
def series(
    cube: CubeUri,
    csv: Annotated[Path | None, typer.Option(help="Write a CSV file.")] = None,
    png: Annotated[Path | None, typer.Option(help="Write a plot.")] = None,
    region: Region = None,
    as_json: Json = False,
) -> None:
    """Print the area over time, with the share of the region that was observed."""
    from think2seg.config import region_named
    from think2seg.insight import series as area_series

    values = area_series(cube, region_named(region) if region else None)
    if csv:
        values.to_csv(csv)
    if png:
        values.plot(png)
    if as_json:
        print_json(values.to_dict())
    else:
        stdout.print(values.render(), markup=False, soft_wrap=True)


@app.command()
def events(
    cube: CubeUri,
    confirm: Annotated[int, typer.Option(min=1, help="Observations in a row that must agree on a change.")] = 2,
    min_ha: Annotated[float, typer.Option(min=0, help="Leave out smaller patches: hectares.")] = 0,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all of them: .parquet, .gpkg, .geojson or .fgb.")
    ] = None,
    region: Region = None,
    as_json: Json = False,
) -> None:
    """Print what appeared and what vanished: since when, how large, where."""
    from think2seg.config import region_named
    from think2seg.insight import events as change_events

    values = change_events(
        cube, confirm=confirm, min_area_m2=min_ha * 1e4, region=region_named(region) if region else None
    )
    if to:
        values.to_file(to)
    if as_json:
        print_json(values.to_dict())
    else:
        stdout.print(values.render(), markup=False, soft_wrap=True)


@app.command()
def export(
    cube: CubeUri,
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; run again, it adds what is new.")],
    since: Day = None,
    until: Day = None,
    as_json: Json = False,
) -> None:
    """Write a cube's acquisitions as Cloud Optimized GeoTIFFs in a static STAC collection, for any other tool."""
    from think2seg.publish import export_cube

    with stopped_in_words("acquisitions"), counting_bar("opening the cube") as show:
        done = export_cube(cube, out, since=day(since), until=day(until), on_progress=show)
    if as_json:
        print_json(done.to_dict())
    else:
        stdout.print(done.sentence(), markup=False)
        stdout.print(str(done.collection), markup=False, soft_wrap=True)


@app.command()
def redraw(
    cube: CubeUri,
    segmenter: Annotated[str, typer.Option(metavar="S", help="bundled, a path or hub id, or sam2:PATH, sam:PATH.")],
    into: Annotated[str | None, typer.Option(metavar="URI", help="The new cube; default beside the first.")] = None,
    monitor: Annotated[
        Path | None, typer.Option(metavar="MONITOR.yaml", help="The monitor that filled the cube: where imagery lies.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done.")] = False,
    as_json: Json = False,
) -> None:
    """Draw an archive again with another segmenter, from the stored prompts, into a cube beside the first."""
    from think2seg.coordinator import plan_redraw, run_redraw
    from think2seg.registry import segmenter_named

    source = None if monitor is None else monitor_at(monitor, None)
    plan = plan_redraw(cube, segmenter_named(segmenter), into=into, monitor=source)
    if dry_run:
        print_json(plan.to_dict()) if as_json else stdout.print(plan.sentence(), markup=False, soft_wrap=True)
        return
    with stopped_in_words(), progress_bar() as show:
        summary = run_redraw(plan, on_progress=show)
    if as_json:
        print_json(summary.to_dict())
    else:
        stdout.print(summary.sentence(), markup=False, soft_wrap=True)
        stdout.print(f"cube: {summary.into}", markup=False, soft_wrap=True)
    raise typer.Exit(summary.exit_code)


@app.command()
def schema(as_json: Json = True) -> None:
    """Print the JSON Schema of a monitor, for editors and checks."""
    from think2seg.config import monitor_schema

    print_json(monitor_schema())


@app.command()
def doctor(
    monitor: Annotated[
        Path | None, typer.Argument(metavar="[MONITOR.yaml]", help="Also look whether its models can be had and fit.")
    ] = None,
    set_: Overrides = None,
    as_json: Json = False,
) -> None:
    """Report what this machine offers, which models fit on it, and what a run would miss."""
    from think2seg.doctor import examine

    checks = examine(monitor_at(monitor, set_) if monitor else None)
    failed = [one for one in checks if not one.ok]
    if as_json:
        print_json({"checks": [one.to_dict() for one in checks], "exit_code": 3 if failed else 0})
    else:
        for one in checks:
            stdout.print(f"{'ok  ' if one.ok else 'MISS'}  {one.name:<12} {one.found}", markup=False, soft_wrap=True)
            if not one.ok:
                stdout.print(f"      {one.todo}", markup=False)
    raise typer.Exit(3 if failed else 0)
