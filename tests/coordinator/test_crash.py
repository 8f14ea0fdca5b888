"""The whole thing, as a user starts it, with models that really look: killed, interrupted, robbed of a worker.

One run is killed with all its processes, the next is interrupted from the keyboard, the third loses a worker. The cube
they leave together is that of one undisturbed run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.miniature import Archive, Miniature, assert_equal_cubes

from think2seg.coordinator import cube_status, run_archive
from think2seg.cube import check_cube, open_cube
from think2seg.errors import LeaseError

MODELS = {
    "prompter": {"kind": "local", "dtype": "float32", "device": "cpu", "batch": 1},
    "segmenter": {"kind": "sam", "dtype": "float32", "device": "cpu"},
}
_DAYS = ("2009-08-18", "2010-06-29", "2014-07-20", "2015-09-26", "2020-08-31")
_BLOCKS = 4 * len(_DAYS)
"""Enough that no run ends before its signal reaches it."""
_PATIENCE_S = 280.0


class Run:
    """``think2seg run --json`` in a process group of its own."""

    def __init__(self, monitor: Path, cube: Path) -> None:
        self.cube = cube
        command = [sys.executable, "-m", "think2seg", "run", str(monitor), "--json"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def wait_until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not done():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                pytest.fail(f"the run ended early or hangs:\n{self.process.communicate()}")
            time.sleep(0.02)

    def wait_for_receipts(self, count: int) -> int:
        self.wait_until(lambda: receipts(self.cube) >= count)
        return receipts(self.cube)

    def workers(self) -> list[psutil.Process]:
        family = psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in family if any("spawn_main" in word for word in one.cmdline())]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the run, as a terminal does."""
        os.killpg(self.process.pid, number)

    def end(self) -> tuple[int, str, str]:
        """Exit code, stdout and stderr, once all its processes are gone."""
        out, err = self.process.communicate(timeout=_PATIENCE_S)
        deadline = time.monotonic() + 20
        while left := group(self.process.pid):
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.05)
        return self.process.returncode, out, err


def group(number: int) -> list[str]:
    """Living processes of a process group."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found


def receipts(cube: Path) -> int:
    """Blocks with a receipt, published or not."""
    folder = cube / "_records" / "receipts"
    published = sum(path.read_text().count("\n") for path in folder.glob("*.jsonl"))
    return published + len([path for path in folder.glob("*/*.json") if not path.parent.with_suffix(".jsonl").exists()])


@pytest.fixture
def world(tmp_path: Path, scheduler: str, pair: Path, monkeypatch: pytest.MonkeyPatch) -> Miniature:
    monkeypatch.setenv("THINK2SEG_WEIGHTS", str(pair))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return Miniature(tmp_path, Archive.of(tmp_path / "archive", _DAYS), scheduler)


@pytest.mark.timeout(900)
def test_a_run_killed_interrupted_and_robbed_of_a_worker_ends_in_the_cube_of_an_undisturbed_one(
    world: Miniature,
) -> None:
    local: dict[str, Any] = {"scheduler": None, "workers": 2, "order_blocks": 1}
    file = world.file(cluster=local, models=MODELS)
    monitor = world.monitor(cluster=local, models=MODELS)

    killed = Run(file, world.cube)
    killed.wait_until(lambda: any(status.holder for status in cube_status(monitor)))
    with pytest.raises(LeaseError, match=f"Another run is writing to .*: process {killed.process.pid} on "):
        run_archive(monitor)
    killed.wait_for_receipts(2)
    killed.signal(signal.SIGKILL)
    assert killed.end()[0] == -signal.SIGKILL
    done = receipts(world.cube)
    assert done < _BLOCKS
    (status,) = cube_status(monitor)
    assert open_cube(world.cube).sizes["time"] <= status.steps, "a step may be decided and not shown yet"

    interrupted = Run(file, world.cube)
    done = interrupted.wait_for_receipts(done + 1)
    assert interrupted.process.poll() is None
    interrupted.signal(signal.SIGINT)
    code, out, err = interrupted.end()
    assert code == 130
    assert out == ""
    assert "Stopped. Finished blocks are kept" in err
    assert "Traceback" not in err
    assert done < _BLOCKS
    assert cube_status(monitor)[0].holder is None, "an interrupted run gives its lease back"

    robbed = Run(file, world.cube)
    robbed.wait_for_receipts(receipts(world.cube) + 1)
    robbed.workers()[0].send_signal(signal.SIGKILL)
    code, out, err = robbed.end()
    assert code == 0, err
    summary = json.loads(out)
    assert summary["failures"] == []
    assert summary["blocks"]["failed"] == 0
    assert "Traceback" not in err
    assert "Warning" not in err
    assert check_cube(world.cube) == []

    world.run(world.folder / "undisturbed.zarr", models=MODELS)
    assert_equal_cubes(world.cube, world.folder / "undisturbed.zarr")
