"""``make demo``: the archive flow on the embedded imagery, with a Prefect server of its own.

``python -m flows.demo key=value …`` overrides fields of the monitor.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from flows.server import prefect_api

MONITOR = "conf/monitors/nd-wetlands.yaml"
OUT = Path("out")
_STOPS_WITHIN_S = 60

_console = Console(highlight=False)


def main(overrides: list[str]) -> int:
    """Run the flow and say where to look; return its exit code."""
    started = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _console.print("[bold]think2seg[/]: where was open water in these North Dakota wetlands, 2009 to 2020?")
    try:
        _console.print("Starting a private Prefect server ...")
        with prefect_api(OUT / "prefect") as env:
            code = _run([sys.executable, "-m", "flows", MONITOR, *overrides], env)
    except KeyboardInterrupt:
        return 130
    except RuntimeError as error:
        _console.print(str(error), markup=False, soft_wrap=True)
        return 3
    if code == 0:
        _tell_what_came_of_it(overrides, time.monotonic() - started)
    return code


def _run(command: list[str], env: dict[str, str]) -> int:
    """Run a command to its end. Ctrl-C reaches it by itself, and it gets the time to leave in good order."""
    process = subprocess.Popen(command, env=env)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        return process.wait(_STOPS_WITHIN_S)
    finally:
        process.kill()


def _tell_what_came_of_it(overrides: list[str], seconds: float) -> None:
    from think2seg.config import load_monitor
    from think2seg.insight import series
    from think2seg.publish import report_path

    uri = load_monitor(Path(MONITOR), overrides).cube.uri
    points = series(uri).points
    first, last = points[0], points[-1]
    _console.print(
        f"\nAcquisitions: {len(points)}. Open water: {first.area_m2 / 1e4:.0f} ha in {first.time:%Y}, "
        f"{last.area_m2 / 1e4:.0f} ha in {last.time:%Y}. Seconds: {seconds:.0f}."
    )
    _console.print(f"Open [bold]{report_path(uri)}[/] in a browser: it needs no network.")
    _console.print(f'The cube, in Python:  [bold]think2seg.open_cube("{uri}")[/]')


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
