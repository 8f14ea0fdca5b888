"""``python -m flows MONITOR [key=value …]``: the archive flow in this process, told in plain lines and a progress bar.

Prefect must find an API: set ``PREFECT_API_URL``.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from think2seg.coordinator import Progress
from think2seg.coordinator.run import OnProgress
from think2seg.errors import Think2SegError

_console = Console(stderr=True, highlight=False)
_stopped = threading.Event()


class Lines(logging.Handler):
    """Shows what this project's flows say, and warnings of anything but Prefect's account of the run."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record's message alone. Errors that end the run are left to `main`."""
        ours = Path(record.pathname).parent == Path(__file__).parent
        account = record.name.startswith(("prefect.flow_runs", "prefect.task_runs"))
        if ours or (record.levelno >= logging.WARNING and not account):
            _console.print(self.format(record), markup=False, soft_wrap=True)


def main(arguments: list[str]) -> int:
    """Run the flow on a monitor; return the exit code of the command line's contract."""
    logging.basicConfig(format="%(message)s", handlers=[Lines()])
    signal.signal(signal.SIGINT, _stop)
    from flows.progress import watched_by
    from flows.segment_archive import segment_archive

    try:
        with _bar() as show, watched_by(show):
            state = segment_archive(arguments[0], overrides=arguments[1:], return_state=True)
            if isinstance(error := state.result(raise_on_failure=False), Exception):
                raise error
    except (KeyboardInterrupt, Exception) as error:
        if _stopped.is_set():  # by whatever error the interrupt became on its way through Prefect
            _console.print("Stopped. Finished blocks are kept: run the same command again to go on.")
            return 130
        if not isinstance(error, Think2SegError):
            raise
        _console.print(f"Error: {error}", markup=False, soft_wrap=True)
        return error.exit_code
    return 0 if state.is_completed() else 3


def _stop(number: int, frame: object) -> NoReturn:
    """Leave in good order and without a word from the libraries, undisturbed by another Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _stopped.set()
    logging.disable()
    raise KeyboardInterrupt


@contextmanager
def _bar() -> Iterator[OnProgress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("blocks"),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Bar(*columns, console=_console, transient=True, disable=not _console.is_terminal) as bar:
        task = bar.add_task("search and plan", total=None)

        def show(now: Progress) -> None:
            bar.update(task, completed=now.blocks_done, total=now.blocks_total, description=now.message)

        yield show


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
