"""140 dates × three monitors on one machine, through a real Prefect server and worker, two runs at a time.

    python benchmarks/load.py                    about twenty minutes on two cores
    python benchmarks/load.py --dates 23         a sixth of it

The archive is the embedded Sentinel-2 sample, its acquisitions repeated on further days; the pair is the bundled one.
The first monitor runs without Prefect, as a deployment and without again, nothing beside it: what the deployment takes,
less the report that only it writes and less the mean of the other two, is what orchestration costs. Then all three are
started at once into new cubes, of which the worker takes two at a time. The last line is one JSON object with two
limits: milliseconds of orchestration a tile, and the largest memory (resident, shared pages counted once) of server,
worker, runs and Dask workers together.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import Any

import httpx
import psutil
import yaml
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

QUESTIONS = ("forest clearings", "water bodies", "forest")
LIMIT_MS = 5.0
FIRST = datetime(2016, 1, 1, 9, 30, tzinfo=UTC)
DONE = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def main() -> None:
    """Print what is going on, then a table, then one JSON object."""
    options = _options()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="load-") as name:
        folder = Path(name)
        write_archive(folder, options.dates)
        monitors = [write_monitor(folder, number, question) for number, question in enumerate(QUESTIONS)]
        _say("without Prefect")
        plain = [plain_run(monitors[0], "before")]
        with Prefect(folder) as prefect:
            _say("as a deployment")
            (single,) = prefect.run([(monitors[0], "single")])
            tasks_s = prefect.tasks_of(single)
            _say("without Prefect again")
            plain.append(plain_run(monitors[0], "after"))
            _say("three monitors, two at a time")
            started = time.monotonic()
            together = prefect.run([(monitor, "together") for monitor in monitors])
            wall = time.monotonic() - started
    _print(plain, single, tasks_s, together, wall, prefect.peak_gib)


def write_archive(folder: Path, n_dates: int) -> None:
    """An item collection of `n_dates` acquisitions, five days apart, made of those that the sample holds."""
    import pystac

    from think2seg.samples.archive import catalog_path

    source = catalog_path("carpathian-clearings")
    shutil.copytree(source.parent, folder / "sample")
    items = []
    held = list(pystac.Catalog.from_file(str(folder / "sample" / source.name)).get_items(recursive=True))
    for number, known in zip(range(n_dates), itertools.cycle(held), strict=False):
        item = known.make_asset_hrefs_absolute().to_dict(transform_hrefs=False)
        when = FIRST + timedelta(days=5 * number)
        item |= {"id": f"S2_{when:%Y%m%d}", "links": []}
        item["properties"] = item["properties"] | {"datetime": when.isoformat()}
        items.append(item)
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items, "links": []}))


def write_monitor(folder: Path, number: int, question: str) -> Path:
    """The embedded monitor with another question over the longer archive."""
    monitor = yaml.safe_load((ROOT / "conf/monitors/carpathian-clearings.yaml").read_text())
    monitor |= {"monitor": f"load-{number}", "title": question, "question": question}
    monitor["source"] |= {"catalog": str(folder / "items.json"), "datetime": "2016-01-01/2025-12-31"}
    monitor["cluster"] = {"workers": 1}
    del monitor["schedule"]
    path = folder / f"load-{number}.yaml"
    path.write_text(yaml.safe_dump(monitor, sort_keys=False))
    return path


def plain_run(monitor: Path, cube: str) -> dict[str, Any]:
    """The summary of a run that nobody orchestrates."""
    command = [sys.executable, "-m", "think2seg", "run", str(monitor), "--json", "--set", cube_of(monitor, cube)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout))


def cube_of(monitor: Path, name: str) -> str:
    """An override: the run's own cube."""
    return f"cube.uri={monitor.with_suffix('')}-{name}.zarr"


class Prefect:
    """A server, a worker that takes two runs at a time, and the deployments of this repository."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.peak_gib = 0.0

    def __enter__(self) -> Prefect:
        from flows.server import prefect_api

        self._serving = prefect_api(self._folder / "prefect")
        self._env = self._serving.__enter__() | {"PREFECT_WORKER_QUERY_SECONDS": "1", "PYTHONUNBUFFERED": "1"}
        self._api = httpx.Client(base_url=self._env["PREFECT_API_URL"], timeout=60)
        self._worker = self._start("worker", "start", "--pool", "think2seg", "--type", "process", "--limit", "2")
        while self._api.get("/work_pools/think2seg").status_code != httpx.codes.OK:
            time.sleep(0.5)
        deploy = self._start("--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
        assert deploy.wait() == 0
        self._ends = threading.Event()
        self._watch = threading.Thread(target=self._watch_memory)
        self._watch.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._ends.set()
        self._watch.join()
        self._worker.terminate()
        self._worker.wait()
        self._serving.__exit__(*error)

    def run(self, monitors: Sequence[tuple[Path, str]]) -> list[dict[str, Any]]:
        """Start a run of each monitor at once; their flow runs when all have ended."""
        deployment = self._ask("GET", "/deployments/name/segment-archive/any")["id"]
        ids = [self._create(deployment, monitor, cube) for monitor, cube in monitors]
        while True:
            time.sleep(1)
            runs = [self._ask("GET", f"/flow_runs/{one}") for one in ids]
            if all(run["state"]["type"] in DONE for run in runs):
                break
        for run in runs:
            assert run["state"]["type"] == "COMPLETED", run["state"]["message"]
        return runs

    def tasks_of(self, run: dict[str, Any]) -> dict[str, float]:
        """What each task run of a flow run took, in seconds."""
        answer = self._api.post("/task_runs/filter", json={"flow_runs": {"id": {"any_": [run["id"]]}}})
        answer.raise_for_status()
        return {one["name"]: float(one["total_run_time"]) for one in answer.json()}

    def _create(self, deployment: str, monitor: Path, cube: str) -> str:
        parameters = {"monitor": str(monitor), "overrides": [cube_of(monitor, cube)]}
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return str(self._ask("POST", f"/deployments/{deployment}/create_flow_run", json=body)["id"])

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The server's answer; it says 503 while its database is busy."""
        while (answer := self._api.request(method, path, **options)).status_code == httpx.codes.SERVICE_UNAVAILABLE:
            time.sleep(1)
        answer.raise_for_status()
        return dict(answer.json())

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self._folder / "prefect.log").open("ab") as log:
            command = [sys.executable, "-m", "prefect", *words]
            return subprocess.Popen(command, cwd=ROOT, env=self._env, stdout=log, stderr=log)

    def _watch_memory(self) -> None:
        while not self._ends.wait(2):
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak_gib = max(self.peak_gib, total / 2**30)


def _print(
    plain: Sequence[dict[str, Any]],
    single: dict[str, Any],
    tasks_s: dict[str, float],
    together: Sequence[dict[str, Any]],
    wall: float,
    peak: float,
) -> None:
    tiles = sum(plain[0]["tiles"].values())
    alone_s, flow_s, report_s = [one["seconds"]["total"] for one in plain], single["total_run_time"], tasks_s["report"]
    table = Table(box=None, pad_edge=False)
    for column in ("", "seconds", "waited"):
        table.add_column(column, justify="right" if column else "left")
    for seconds in alone_s:
        table.add_row(f"{tiles} tiles without Prefect", f"{seconds:.1f}", "")
    table.add_row("as a deployment, less its report", f"{flow_s - report_s:.1f}", "")
    table.add_row("  of this outside of its tasks", f"{flow_s - sum(tasks_s.values()):.1f}", "")
    table.add_row("its report", f"{report_s:.1f}", "")
    for question, run in zip(QUESTIONS, together, strict=True):
        table.add_row(
            f"together: {question}", f"{run['total_run_time']:.1f}", f"{run['estimated_start_time_delta']:.1f}"
        )
    table.add_row("together, until all had ended", f"{wall:.1f}", "")
    Console(width=100).print(table)
    each = 1000 * (flow_s - report_s - mean(alone_s)) / tiles
    print(f"orchestration {each:.1f} ms a tile of {LIMIT_MS:g}; largest memory {peak:.2f} GiB")
    print(json.dumps({"limits": {"orchestration_ms_per_tile": round(each, 2), "peak_gib": round(peak, 2)}}))


def _say(what: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {what}", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dates", type=int, default=140)
    return parser.parse_args()


if __name__ == "__main__":
    main()
