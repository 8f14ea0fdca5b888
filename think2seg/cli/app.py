"""The application, the options its verbs share, and how they print."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

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
RetryQuarantined = Annotated[bool, typer.Option(help="Try blocks again that were given up after three tries.")]
AllowChanges = Annotated[bool, typer.Option(help="Go on although more than 5 % of the finished scenes changed.")]

_UNBROKEN = 1000
"""Columns of what is no terminal: in files and pipes no path is broken and no cell is cut."""


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _UNBROKEN
    return console


stderr = _console(stderr=True)
stdout = _console(stderr=False)


def monitor_at(path: Path, overrides: list[str] | None) -> Monitor:
    """The monitor at a path, with overrides."""
    from think2seg.config import load_monitor

    return load_monitor(path, overrides or [])


def day(moment: datetime | None) -> date | None:
    """The day of an option."""
    return moment.date() if moment else None


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def print_paths(paths: Any, as_json: bool) -> None:
    """Paths, a line each or as one JSON document."""
    if as_json:
        print_json({"paths": [str(path) for path in paths]})
    else:
        for path in paths:
            stdout.print(str(path), markup=False, soft_wrap=True)


@contextmanager
def counting_bar(first: str = "loading models") -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for a function that tells what it does, how much is done and of how much; `first` comes first."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(first, total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None, description=what)

        yield show


@contextmanager
def stopped_in_words(kept: str = "blocks") -> Iterator[None]:
    """Turn Ctrl-C into a sentence and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        stderr.print(f"Stopped. Finished {kept} are kept: run the same command again to go on.")
        raise typer.Exit(130) from None


@contextmanager
def progress_bar() -> Iterator[Callable[[RunProgress], None]]:
    """A progress bar for a run."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("blocks"),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task("starting workers", total=None)

        def show(now: RunProgress) -> None:
            bar.update(task, completed=now.blocks_done, total=now.blocks_total, description=now.message)

        yield show
