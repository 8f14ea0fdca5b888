"""One Prefect server, one worker and the deployments of the repository, for all tests of this room."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.server import prefect_api

ROOT = Path(__file__).resolve().parents[2]
MONITOR = "conf/monitors/nd-wetlands.yaml"
PLACE = "region.bbox=[-99.1560,47.0190,-99.1550,47.0200]"
WAIT_S = 240


class Orchestra:
    """A running Prefect API with a worker, as its users meet it: command lines and HTTP."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        self.env, self.folder = env, folder
        self.api = httpx.Client(base_url=env["PREFECT_API_URL"], timeout=60)

    def command(self, *arguments: str, module: str = "prefect") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def call(self, *arguments: str, module: str = "prefect") -> tuple[int, str]:
        """Run a command to its end; return its exit code and all it wrote."""
        process = self.command(*arguments, module=module)
        output, _ = process.communicate(timeout=WAIT_S)
        return process.returncode, output

    def overrides(self, name: str) -> list[str]:
        """A cube of one block and one date, called `name`."""
        cube = [f"cube.uri={self.folder / name}", "cube.block_px=256", "tile={footprint_m: 960, halo_m: 160}"]
        return [PLACE, "source.datetime=2014-01-01/2014-12-31", *cube, "cluster.workers=1"]

    def post(self, path: str, body: Any) -> Any:
        answer = self.api.post(path, json=body)
        answer.raise_for_status()
        return answer.json()

    def deployment(self, name: str) -> Any:
        answer = self.api.get(f"/deployments/name/segment-archive/{name}")
        answer.raise_for_status()
        return answer.json()

    def flow_runs(self, deployment: str, *, scheduled: bool) -> list[Any]:
        """Flow runs of a deployment in the order they were due."""
        which = {"deployments": {"id": {"any_": [self.deployment(deployment)["id"]]}}}
        runs = self.post("/flow_runs/filter", which | {"sort": "EXPECTED_START_TIME_ASC"})
        return [run for run in runs if run["auto_scheduled"] == scheduled]

    def until[T](self, ask: Callable[[], list[T]], otherwise: str) -> list[T]:
        """What `ask` gives as soon as it is not empty: the server shows events and logs some seconds late."""
        give_up = time.monotonic() + WAIT_S
        while not (found := ask()):
            assert time.monotonic() < give_up, otherwise
            time.sleep(0.2)
        return found

    def messages(self, run: Any) -> str:
        wanted = {"logs": {"flow_run_id": {"any_": [run["id"]]}}}
        logs = self.until(lambda: self.post("/logs/filter", wanted), "no log line came")
        return "\n".join(log["message"] for log in logs)


@pytest.fixture(scope="session")
def orchestra(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestra]:
    """Server, worker and deployments, by the commands that docs/how-to/deploy.md gives."""
    folder = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PREFECT_API_URL", raising=False)
        patch.setenv("THINK2SEG_WEIGHTS", str(pair))
        patch.setenv("PREFECT_WORKER_QUERY_SECONDS", "1")
        patch.setenv("PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS", "3")
        patch.setenv("OMP_NUM_THREADS", "1")
        with prefect_api(folder / "home") as env:
            playing = Orchestra(env, folder)
            worker = playing.command("worker", "start", "--pool", "think2seg", "--type", "process")
            try:
                _wait_for_pool(playing)
                code, output = playing.call(
                    "--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml"
                )
                assert code == 0, output
                yield playing
            finally:
                os.killpg(worker.pid, signal.SIGINT)
                worker.communicate(timeout=WAIT_S)


def _wait_for_pool(orchestra: Orchestra) -> None:
    def pool() -> list[Any]:
        answer = orchestra.api.get("/work_pools/think2seg")
        return [answer.json()] if answer.status_code == httpx.codes.OK else []

    orchestra.until(pool, "the worker did not make its pool")
