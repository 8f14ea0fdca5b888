"""What is retried, how errors are told, and what spawned workers import."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from prefect.states import Failed

from flows.logs import PlainErrors
from flows.progress import ProgressArtifact, watched_by
from flows.segment_archive import _is_io
from think2seg.coordinator import Progress
from think2seg.errors import CatalogError, ConfigError, LeaseError, ModelError, StoreError
from think2seg.stac.transport import HttpError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "error",
    [HttpError("no answer"), HttpError("busy", status=503), HttpError("slow down", status=429), StoreError("disk full"),
     ConnectionResetError()],
)  # fmt: skip
def test_input_and_output_is_retried(error: Exception) -> None:
    assert _is_io(None, None, Failed(data=error))


@pytest.mark.parametrize(
    "error",
    [HttpError("no such collection", status=404), CatalogError("nothing found"), ConfigError("unknown field"),
     ModelError("no weights"), LeaseError("taken"), ZeroDivisionError()],
)  # fmt: skip
def test_what_a_person_wrote_is_not_retried(error: Exception) -> None:
    assert not _is_io(None, None, Failed(data=error))


@pytest.mark.parametrize(("error", "plain"), [(StoreError("Given.", "Allowed.", "To do."), True), (KeyError(1), False)])
def test_only_errors_made_for_people_lose_their_traceback(error: Exception, plain: bool) -> None:
    record = logging.LogRecord("prefect.flow_runs", 40, __file__, 1, "failed: %r", (error,), (type(error), error, None))
    assert PlainErrors().filter(record)
    assert (record.getMessage() == "Given.\nAllowed.\nTo do.") is plain
    assert (record.exc_info is None) is plain


def test_progress_is_published_seldom_and_watched_always(monkeypatch: pytest.MonkeyPatch) -> None:
    published, watched = [], []
    monkeypatch.setattr("flows.progress.create_progress_artifact", lambda share, **_: published.append(share))
    with watched_by(watched.append):
        tell = ProgressArtifact("some-progress")
    for done in range(50):
        tell(Progress(blocks_done=done, blocks_total=1000, message="2014"))
    assert published == [0.0]
    assert len(watched) == 50


SPAWNING = """
import multiprocessing
from flows.processes import main_module_kept_back
print("main module run as", __name__, flush=True)
if __name__ == "__main__":
    start = lambda: multiprocessing.get_context("spawn").Process(target=print, args=("worker",))
    with main_module_kept_back():
        one = start(); one.start(); one.join()
    one = start(); one.start(); one.join()
"""


def test_spawned_processes_do_not_import_the_main_module(tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(SPAWNING)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, cwd=ROOT,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    runs, kept = done.stdout.splitlines(), "main module run as"
    assert runs == [f"{kept} __main__", "worker", f"{kept} __mp_main__", "worker"]


def test_private_server_dies_with_its_parent(tmp_path: Path) -> None:
    code = (
        f"from pathlib import Path; from flows.server import prefect_api\nwith prefect_api(Path({str(tmp_path)!r})): 1"
    )
    env = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env)
    try:
        while not (servers := psutil.Process(parent.pid).children()):
            time.sleep(0.05)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert not psutil.wait_procs(servers, timeout=60)[1]
