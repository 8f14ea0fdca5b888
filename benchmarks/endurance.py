"""100,000 blocks planned, executed against a null model, killed half-way, resumed and reported, with memory watched.

    python benchmarks/endurance.py                  1,000 acquisitions × 100 blocks, about forty minutes on two cores
    python benchmarks/endurance.py --scenes 100     a tenth of it

Everything but the models is real: imagery is read, tiles are asked about (the answer is always `[]`), blocks, receipts
and publications are written by Dask workers in processes of their own. The run is killed (SIGKILL) at half of its
blocks and started again. The last line is one JSON object: blocks, and by how much the memory of each process grew
from a fifth of its run to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from rich.table import Table

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

SIDE, BLOCK_PX, RESOLUTION, HALO_PX = 10, 64, 5.0, 16
CRS = "EPSG:26914"
LEFT, TOP = 1520 * BLOCK_PX * RESOLUTION, 16276 * BLOCK_PX * RESOLUTION
FIRST = datetime(1990, 1, 1, 17, tzinfo=UTC)
SETTLED = 0.2
"""Share of a run after which its memory should not grow any more."""


def main() -> None:
    """Show progress, then a table, then one JSON object."""
    options = _options()
    if options.run:
        run(Path(options.run))
        return
    with tempfile.TemporaryDirectory(prefix="endurance-") as name:
        endure(Path(name), options.scenes)


def endure(folder: Path, n_scenes: int) -> None:
    """Prepare the archive and the workers, run, kill, resume, report, and print what it took."""
    from support.gangs import Gang
    from support.standins import make_folders

    write_archive(folder, n_scenes)
    make_folders(folder / "weights")
    os.environ["THINK2SEG_WEIGHTS"] = str(folder / "weights")
    gang = Gang(_Case(_World(folder)))
    total = n_scenes * SIDE * SIDE
    rows: list[Row] = []
    with gang, Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        write_monitor(folder, n_scenes, gang.address)
        bar = progress.add_task("first run", total=total)
        first = Watched(folder, gang, total)
        for done in first.until(total // 2):
            progress.update(bar, completed=done)
        rows.append(first.kill())
        progress.update(bar, description="resumed run")
        second = Watched(folder, gang, total)
        for done in second.until(total):
            progress.update(bar, completed=done)
        rows.append(second.end())
        rows.append(alone("no-op run", [sys.executable, __file__, "--run", str(folder)]))
        rows.append(alone("report", [sys.executable, "-m", "think2seg", "report", str(folder / "monitor.yaml")]))
    _print(rows, total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one process took."""

    what: str
    blocks: int
    seconds: float
    settled_mib: float
    """Resident memory of the process after a fifth of its blocks."""
    end_mib: float
    workers_mib: float = 0.0
    """Resident memory of the largest worker at the end."""


class Watched:
    """A run in a process of its own, and its resident memory as it goes on."""

    def __init__(self, folder: Path, gang: Any, total: int) -> None:
        self._gang, self._total = gang, total
        self._started = time.monotonic()
        command = [sys.executable, __file__, "--run", str(folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._sampled: list[tuple[int, float]] = []

    def until(self, blocks: int) -> Iterator[int]:
        """Blocks done so far, until there are `blocks` or the run ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            done = self._total - told["left"]
            self._sampled.append((done, told["mib"]))
            yield done
            if done >= blocks and blocks < self._total:
                return

    def kill(self) -> Row:
        """Kill the run."""
        self._process.kill()
        self._process.wait()
        return self._row("run, killed half-way")

    def end(self) -> Row:
        """Wait for the run's end."""
        assert self._process.wait() == 0
        return self._row("resumed run")

    def _row(self, what: str) -> Row:
        first, last = self._sampled[0][0], self._sampled[-1][0]
        settled = next(mib for blocks, mib in self._sampled if blocks >= first + SETTLED * (last - first))
        workers = max(psutil.Process(worker.pid).memory_info().rss for worker in self._gang.workers) / 2**20
        return Row(
            what=what,
            blocks=last - first,
            seconds=time.monotonic() - self._started,
            settled_mib=settled,
            end_mib=self._sampled[-1][1],
            workers_mib=workers,
        )


def run(folder: Path) -> None:
    """Run the monitor; one JSON line for every further hundredth of its blocks."""
    import pytest
    from support.standins import install

    from think2seg.config import load_monitor
    from think2seg.coordinator import find
    from think2seg.coordinator.run import ArchiveRun
    from think2seg.coordinator.run import Progress as Done

    install(folder / "weights", pytest.MonkeyPatch())
    process, told = psutil.Process(), [-1]

    def tell(left: int) -> None:
        print(json.dumps({"left": left, "mib": process.memory_info().rss / 2**20}), flush=True)

    def on_progress(done: Done) -> None:
        hundredth = 100 * done.blocks_done // max(1, done.blocks_total)
        if hundredth > told[0]:
            told[0] = hundredth
            tell(done.blocks_total - done.blocks_done)

    with ArchiveRun(find(load_monitor(folder / "monitor.yaml")), on_progress=on_progress) as going:
        for group in going.groups():
            going.execute(group)
        going.summary()
    tell(0)


def alone(what: str, command: Sequence[str]) -> Row:
    """Run a command to its end; its largest resident memory."""
    started, peak = time.monotonic(), 0.0
    with tempfile.TemporaryFile("w+") as said:
        process = psutil.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, process.memory_info().rss / 2**20)
            time.sleep(0.1)
        said.seek(0)
        assert process.returncode == 0, f"{what}: {said.read()}"
    return Row(what=what, blocks=0, seconds=time.monotonic() - started, settled_mib=peak, end_mib=peak)


def write_archive(folder: Path, n_scenes: int) -> None:
    """One bright image of 10 × 10 blocks, and an item collection in which every day shows it."""
    import numpy as np
    from rasterio.transform import from_origin
    from support.rasters import write_raster

    side = SIDE * BLOCK_PX + 2 * HALO_PX
    left, top = LEFT - HALO_PX * RESOLUTION, TOP + HALO_PX * RESOLUTION
    values = np.random.default_rng(0).integers(150, 220, (4, side, side), dtype=np.uint8)
    write_raster(folder / "scene.tif", values, from_origin(left, top, RESOLUTION, RESOLUTION), CRS)
    west, south, east, north = _degrees(left, top - side * RESOLUTION, left + side * RESOLUTION, top)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    items = [_item(number, ring, (west, south, east, north), (left, top), side) for number in range(n_scenes)]
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items, "links": []}))


def write_monitor(folder: Path, n_scenes: int, scheduler: str) -> None:
    """A monitor of exactly 10 × 10 blocks."""
    inset, side = RESOLUTION, SIDE * BLOCK_PX * RESOLUTION
    bbox = _degrees(LEFT + 8 * inset, TOP - side + 8 * inset, LEFT + side - 8 * inset, TOP - 8 * inset)
    until = f"{FIRST + timedelta(days=n_scenes):%Y-%m-%d}"
    footprint = (BLOCK_PX + 2 * HALO_PX) * RESOLUTION
    monitor = {
        "monitor": "endurance", "question": "water", "region": {"kind": "bbox", "bbox": list(bbox)},
        "source": {"archive": "naip-local", "catalog": str(folder / "items.json"), "datetime": f"1990-01-01/{until}"},
        "grid": {"crs": CRS, "resolution": RESOLUTION},
        "tile": {"footprint_m": footprint, "halo_m": HALO_PX * RESOLUTION},
        "models": {"prompter": {"kind": "local", "dtype": "float32"}, "segmenter": {"kind": "sam", "dtype": "float32"}},
        "cube": {"uri": str(folder / "cube.zarr"), "block_px": BLOCK_PX},
        "cluster": {"scheduler": scheduler},
    }  # fmt: skip
    (folder / "monitor.yaml").write_text(json.dumps(monitor))


@dataclass(frozen=True, slots=True)
class _World:
    folder: Path


@dataclass(frozen=True, slots=True)
class _Case:
    world: _World


def _item(
    number: int, ring: Sequence[Sequence[float]], bbox: Sequence[float], corner: tuple[float, float], side: int
) -> dict[str, Any]:
    moment = FIRST + timedelta(days=number)
    left, top = corner
    return {
        "type": "Feature", "stac_version": "1.1.0", "stac_extensions": [], "id": f"scene_{moment:%Y%m%d}",
        "collection": "naip", "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": list(bbox), "links": [],
        "properties": {"datetime": moment.isoformat(), "proj:code": CRS, "proj:shape": [side, side]},
        "assets": {"image": {
            "href": "scene.tif", "type": "image/tiff", "file:checksum": f"1220{number:064x}",
            "proj:transform": [RESOLUTION, 0, left, 0, -RESOLUTION, top],
            "eo:bands": [{"name": band} for band in ("red", "green", "blue", "nir08")],
        }},
    }  # fmt: skip


def _degrees(west: float, south: float, east: float, north: float) -> tuple[float, float, float, float]:
    from think2seg.crs import transformer

    return transformer(CRS, "EPSG:4326").transform_bounds(west, south, east, north)


def _print(rows: Sequence[Row], total: int) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("", "blocks", "minutes", "ms a block", "MiB settled", "MiB at end", "MiB worker"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        each = f"{1000 * row.seconds / row.blocks:.1f}" if row.blocks else ""
        table.add_row(
            row.what, str(row.blocks), f"{row.seconds / 60:.1f}", each,
            f"{row.settled_mib:.0f}", f"{row.end_mib:.0f}", f"{row.workers_mib:.0f}" if row.workers_mib else "",
        )  # fmt: skip
    Console(width=120).print(table)
    grown = {row.what: round(row.end_mib - row.settled_mib, 1) for row in rows if row.blocks}
    print(json.dumps({"blocks": total, "grown_mib": grown}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
