"""``make demo``: the archive flow on the embedded imagery, with a Prefect server of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rich.console import Console

from flows.server import prefect_api

MONITOR = "conf/monitors/nd-wetlands.yaml"
OUT = Path("out")


def main() -> int:
    """Run the flow and say where to look; return its exit code."""
    console = Console(highlight=False)
    console.print("[bold]think2seg[/]: where was open water in these North Dakota wetlands, 2009 to 2020?")
    with prefect_api(OUT / "prefect") as env:
        flow = subprocess.run([sys.executable, "-m", "flows.segment_archive", MONITOR], env=env, check=False)
    if flow.returncode == 0:
        console.print(f"\nOpen [bold]{OUT / 'nd-wetlands.html'}[/] in a browser: it needs no network.")
        console.print('The cube, in Python:  [bold]think2seg.open_cube("out/nd-wetlands.zarr")[/]')
    return flow.returncode


if __name__ == "__main__":
    sys.exit(main())
