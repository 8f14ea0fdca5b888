"""Kill everything that can be killed, run again until done, and compare with a run that nobody disturbed.

    python benchmarks/crash_matrix.py                  110 kills, one row per kind of failure
    python benchmarks/crash_matrix.py --kills 12       a taste of it

What a case, a difference and a loss are stands in ``tests/support/crash_matrix.py``. Folders of cases that went wrong
are kept. The last line is ``kills N, differences D, losses L``; the exit code is 0 where D and L are.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main() -> int:
    """Show a progress bar, then the table and the last line."""
    from support.crash_matrix import Result, run_matrix
    from support.troubles import TROUBLES

    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="crash-matrix-"))
    started = time.monotonic()
    columns = (TextColumn("{task.description:<60}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("the cube of an undisturbed run", total=options.kills)

        def told(result: Result) -> None:
            progress.update(bar, advance=result.kills, description=result.kind)
            if not progress.console.is_terminal:
                print(f"{result.kind}: {result.kills} kills, {result.seconds:.0f} s", file=sys.stderr)
            for what in (*result.differences, *result.losses):
                progress.console.print(f"{result.kind}: {what}", style="red", markup=False)

        results = run_matrix(folder, kills=options.kills, seed=options.seed, told=told)
    by_kind = {kind: [one for one in results if one.kind == kind] for kind in TROUBLES}
    Console(width=120).print(_table(by_kind))
    kills, differences, losses = (
        sum(one.kills for one in results),
        sum(len(one.differences) for one in results),
        sum(len(one.losses) for one in results),
    )
    print(f"seed {options.seed}, {len(results)} cases, {(time.monotonic() - started) / 60:.1f} minutes")
    print(f"kills {kills}, differences {differences}, losses {losses}")
    if differences or losses:
        print(f"cases that went wrong: {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


def _table(by_kind: dict[str, list[Result]]) -> Table:  # noqa: F821
    table = Table("kind of failure", box=None)
    for name in ("cases", "kills", "troubles", "runs", "differences", "losses", "seconds"):
        table.add_column(name, justify="right")
    for kind, found in by_kind.items():
        figures = (
            len(found),
            sum(one.kills for one in found),
            sum(one.troubles for one in found),
            sum(one.runs for one in found),
            sum(len(one.differences) for one in found),
            sum(len(one.losses) for one in found),
            round(sum(one.seconds for one in found)),
        )
        table.add_row(kind, *map(str, figures))
    return table


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=110, help="how many, at least")
    parser.add_argument("--seed", type=int, default=1, help="which points in time and of the protocol")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
