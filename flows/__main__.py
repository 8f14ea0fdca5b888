"""``python -m flows MONITOR [key=value …]``: the archive flow in this process, told in plain lines and a progress bar.

Prefect must find an API (``PREFECT_API_URL``). Being a ``__main__`` module keeps Dask's workers, which import their
parent's main module, from importing Prefect.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from think2seg.coordinator import Progress
from think2seg.errors import Think2SegError

_console = Console(stderr=True, highlight=False)


class Lines(logging.Handler):
    """Shows what the flow itself says, and warnings of anything else."""

    muted = False

    def emit(self, record: logging.LogRecord) -> None:
        ours = record.module == "segment_archive"
        told_later = getattr(record, "told_plainly", False)
        if not self.muted and not told_later and (ours or record.levelno >= logging.WARNING):
            _console.print(self.format(record), markup=False, soft_wrap=True)


def main(arguments: list[str]) -> int:
    """Run the flow on a monitor; return the exit code of the command line's contract."""
    lines = Lines()
    lines.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(handlers=[lines])

    def stop(number: int, frame: object) -> NoReturn:
        lines.muted = True
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    from flows.progress import watched_by
    from flows.segment_archive import segment_archive

    try:
        with _bar() as show, watched_by(show):
            state = segment_archive(arguments[0], overrides=arguments[1:], return_state=True)
            if isinstance(error := state.result(raise_on_failure=False), Exception):
                raise error
    except KeyboardInterrupt:
        _console.print("Stopped. Finished blocks are kept: run the same command again to go on.")
        return 130
    except Think2SegError as error:
        _console.print(f"Error: {error}", markup=False, soft_wrap=True)
        return error.exit_code
    return 0 if state.is_completed() else 3


@contextmanager
def _bar() -> Iterator[object]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("blocks"),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Bar(*columns, console=_console, transient=True, disable=not _console.is_terminal) as bar:
        task = bar.add_task("search and plan", total=None)

        def show(now: Progress) -> None:
            bar.update(task, completed=now.blocks_done, total=now.blocks_total, description=now.message)

        yield show


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
