"""What it takes to plan a long archive: 10,000 scenes × 100 blocks.

    python benchmarks/planning.py

The last line is one JSON object with the limits. Every row is measured in a process of its own, so that its memory is
its own. The catalog is one item collection, the cube a folder; the ledger of the full cube is written by the library,
its arrays are left out (planning reads none).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

LIMIT_S, LIMIT_GIB, LIMIT_NO_OP_S = 5.0, 1.0, 10.0
SIDE = 10
"""Blocks along each side of the region."""
BLOCK_PX, RESOLUTION = 1024, 5.0
LEFT, TOP = 500_000 // 5120 * 5120, 5_200_960 // 5120 * 5120
CRS = "EPSG:32614"
FIRST = datetime(1990, 1, 1, 17, tzinfo=UTC)


def main() -> None:
    """Print a table, then the limits as one JSON object."""
    options = _options()
    if options.step:
        print(json.dumps(STEPS[options.step](Path(options.folder), options.scenes)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_archive(folder, options.scenes)
        rows = [_measured(step, folder, options.scenes) for step in ("first plan", "full ledger", "no-op run")]
    _print(rows, options.scenes)


def write_archive(folder: Path, n_scenes: int) -> None:
    """Write ``items.json``, an item collection with one scene a day, and ``monitor.yaml``."""
    side = SIDE * BLOCK_PX * RESOLUTION
    west, south, east, north = _degrees(LEFT, TOP - side, LEFT + side, TOP)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    items = [_item(number, ring, [west, south, east, north]) for number in range(n_scenes)]
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items, "links": []}))
    inset = 0.015
    region = {"kind": "bbox", "bbox": [west + inset, south + inset, east - inset, north - inset]}
    until = f"{FIRST + timedelta(days=n_scenes):%Y-%m-%d}"
    monitor = {
        "monitor": "planning", "question": "water", "region": region,
        "source": {"archive": "naip-local", "catalog": str(folder / "items.json"), "datetime": f"1990-01-01/{until}"},
        "grid": {"crs": CRS},
        "tile": {"footprint_m": 1600, "halo_m": 160},
        "cube": {"uri": str(folder / "cube.zarr"), "block_px": BLOCK_PX},
    }  # fmt: skip
    (folder / "monitor.yaml").write_text(json.dumps(monitor))


def first_plan(folder: Path, n_scenes: int) -> dict[str, Any]:
    """Search and plan for a cube that is not there yet."""
    from think2seg.config import load_monitor
    from think2seg.coordinator import find, plan_run

    monitor = load_monitor(folder / "monitor.yaml")
    found = find(monitor)
    with _Clock() as clock:
        plan = plan_run(found)
    assert plan.reasons() == {"new": n_scenes}
    return {"what": "plan, empty cube", "search_s": found.seconds, "blocks": plan.n_blocks, **clock.figures()}


def full_ledger(folder: Path, n_scenes: int) -> dict[str, Any]:
    """Fill the ledger as if all were published one by one, then search and plan against it."""
    from think2seg.config import load_monitor
    from think2seg.coordinator import find, plan_run

    monitor = load_monitor(folder / "monitor.yaml")
    found = find(monitor)
    child = [sys.executable, __file__, "--step", "fill", "--folder", str(folder), "--scenes", str(n_scenes)]
    subprocess.run(child, check=True, stdout=subprocess.DEVNULL)
    with _Clock() as clock:
        plan = plan_run(found)
    assert plan.reasons() == {"done": n_scenes}
    return {"what": "plan, full ledger", "search_s": found.seconds, "blocks": plan.n_blocks, **clock.figures()}


def fill(folder: Path, n_scenes: int) -> dict[str, Any]:
    """Record every acquisition of the plan as done, in publications of one step, and show them to readers."""
    from think2seg.config import load_monitor
    from think2seg.coordinator import find, plan_run
    from think2seg.cube import open_or_create
    from think2seg.cube.ledger import commit, compact
    from think2seg.cube.publish import _write_labels

    (planned,) = plan_run(find(load_monitor(folder / "monitor.yaml"))).cubes
    cube = open_or_create(planned.uri, planned.spec, prompter=planned.prompter, segmenter=planned.segmenter)
    with cube.acquire_lease() as lease:
        ledger = cube.ledger()
        for entry in _entries(planned):
            committed = commit(cube.store, ledger, [entry], epoch=lease.epoch)
            assert committed is not None
            ledger = compact(cube.store, committed)
        _write_labels(cube.store, cube.spec, ledger, lease)
    return {}


def no_op_run(folder: Path, n_scenes: int) -> dict[str, Any]:
    """Run a monitor whose cube holds everything: search, lease, plan, and nothing to do."""
    from think2seg.config import load_monitor
    from think2seg.coordinator import run_archive

    monitor = load_monitor(folder / "monitor.yaml")
    with _Clock() as clock:
        summary = run_archive(monitor)
    assert summary.reasons == {"done": n_scenes}
    return {"what": "no-op run", "search_s": summary.seconds["search"], "blocks": 0, **clock.figures()}


STEPS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "first plan": first_plan,
    "full ledger": full_ledger,
    "fill": fill,
    "no-op run": no_op_run,
}


class _Clock:
    """Wall and processor seconds of a block of code; peak memory of the process."""

    def __enter__(self) -> _Clock:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self._wall, self._cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu

    def figures(self) -> dict[str, float]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return {"seconds": self._wall, "cpu_s": self._cpu, "peak_gib": peak}


def _entries(planned: Any) -> Iterator[Any]:
    from think2seg.cube import Entry
    from think2seg.plan import BlockState, HeldStep

    for line in planned.plan.work:
        held = HeldStep(
            step=line.step, acquisition=line.id, revision=0, time=line.time,
            scenes={scene.id: scene.fingerprint for scene in line.acquisition.scenes}, prompter=planned.prompter,
            states=dict.fromkeys(line.blocks, BlockState.DONE), attempts={},
        )  # fmt: skip
        yield Entry(
            held=held, segmenter=planned.segmenter, published=line.time, base=None, copied=frozenset(),
            region=planned.zone.region.wkt, region_px=10**8, observed_px=9 * 10**7,
        )  # fmt: skip


def _item(number: int, ring: Sequence[Sequence[float]], bbox: Sequence[float]) -> dict[str, Any]:
    moment = FIRST + timedelta(days=number)
    name = f"scene_{moment:%Y%m%d}"
    return {
        "type": "Feature", "stac_version": "1.1.0", "stac_extensions": [], "id": name, "collection": "naip",
        "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": bbox, "links": [],
        "properties": {"datetime": moment.isoformat(), "proj:code": CRS, "eo:cloud_cover": number % 50},
        "assets": {"image": {
            "href": f"{name}.tif", "type": "image/tiff", "file:checksum": f"1220{number:064x}",
            "proj:transform": [RESOLUTION, 0, LEFT, 0, -RESOLUTION, TOP],
            "eo:bands": [{"name": band} for band in ("red", "green", "blue", "nir08")],
        }},
    }  # fmt: skip


def _degrees(west: float, south: float, east: float, north: float) -> tuple[float, float, float, float]:
    from think2seg.crs import transformer

    return transformer(CRS, "EPSG:4326").transform_bounds(west, south, east, north)


def _measured(step: str, folder: Path, n_scenes: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder), "--scenes", str(n_scenes)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(out.splitlines()[-1]))


def _print(rows: Sequence[dict[str, Any]], n_scenes: int) -> None:
    print(f"{n_scenes} scenes × {SIDE * SIDE} blocks")
    print(f"{'':<34}{'blocks':>10}{'seconds':>10}{'CPU s':>9}{'search s':>10}{'peak GiB':>10}")
    for row in rows:
        print(
            f"{row['what']:<34}{row['blocks']:>10}{row['seconds']:>10.2f}{row['cpu_s']:>9.2f}"
            f"{row.get('search_s', 0.0):>10.2f}{row['peak_gib']:>10.2f}"
        )
    plans = [row for row in rows if row["what"].startswith("plan")]
    no_op = next(row["seconds"] for row in rows if row["what"] == "no-op run")
    limits = {
        "seconds": round(max(row["seconds"] for row in plans), 3),
        "gib": round(max(row["peak_gib"] for row in rows), 3),
        "no_op_seconds": round(no_op, 3),
    }
    allowed = {"seconds": LIMIT_S, "gib": LIMIT_GIB, "no_op_seconds": LIMIT_NO_OP_S}
    print("; ".join(f"{name} {limits[name]} of {allowed[name]:g}" for name in limits))
    print(json.dumps({"limits": limits}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=10_000)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
