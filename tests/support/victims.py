"""Processes that are there to be killed: whole runs, schedulers and workers, forked from one that has all imports done.

Each takes care of nothing but its own work; who started it sends the signals. Points to die, to stop or to fail at are
handed to the cube's store from outside, through the hook that it offers.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import distributed
import psutil
import pytest
import torch  # noqa: F401  # workers need it: imported once, before they are forked
from support.standins import install

import think2seg.coordinator.run
import think2seg.cube.publish
from think2seg.cluster import OrderResult
from think2seg.config import load_monitor
from think2seg.coordinator import run_archive
from think2seg.cube import Cube
from think2seg.engine import Models, RunSpec, execute
from think2seg.errors import StoreError, Think2SegError
from think2seg.plan import WorkOrder

HEARTBEAT = "_records/lease/heartbeat-"
"""Written by the clock and not in order."""
_seen: Counter[str] = Counter()


def step_of(key: str) -> str:
    """Name of the protocol's step that writes a key: the key without its numbers and days."""
    return "".join("#" if c.isdigit() else c for c in key)


@dataclass(frozen=True, slots=True)
class At:
    """Something that happens just before a step of the protocol is done for the nth time (from 0) in this process."""

    step: str
    nth: int
    what: str
    """``kill``, ``stop``, or what the store says to this write and all later ones."""

    def __call__(self, key: str) -> None:
        if key.startswith(HEARTBEAT):
            return
        now = step_of(key) == self.step
        _seen[self.step] += now
        if _seen[self.step] <= self.nth:
            return
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.what == "stop" and now and _seen[self.step] == self.nth + 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.what != "stop":
            raise StoreError(f"Cannot write {key!r}: {self.what}")


@dataclass(frozen=True, slots=True)
class Record:
    """Appends every key that is written to a file."""

    path: str

    def __call__(self, key: str) -> None:
        if not key.startswith(HEARTBEAT):
            with Path(self.path).open("a") as file:
                file.write(key + "\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """One run of a monitor in a process of its own."""

    monitor: str
    weights: str
    outcome: str
    """File for what came of it, as JSON: the run's summary, or the error's name and text."""
    scheduler: str | None = None
    """None: orders are done one by one in the process itself, without Dask: every write has its place in order."""
    before_write: Callable[[str], None] | None = None
    ttl_s: float = 30.0
    clock_s: float = 0.0
    """How far the clock on the wall is off."""


def run(errand: Errand) -> None:
    """Run a monitor to its end; exit code 0, or that of the error."""
    _begin(errand.weights, f"{errand.outcome}.log")
    _set_clock(errand.clock_s)
    Cube.acquire_lease.__defaults__ = (errand.ttl_s,)
    opener = think2seg.coordinator.run.open_or_create
    think2seg.coordinator.run.open_or_create = partial(opener, before_write=errand.before_write)  # type: ignore[assignment]
    if errand.scheduler is None:
        think2seg.coordinator.run.connect = alone  # type: ignore[assignment]
    scheduler = errand.scheduler or "tcp://none:1"
    monitor = load_monitor(Path(errand.monitor), [f"cluster.scheduler={scheduler}"])
    try:
        outcome, code = run_archive(monitor, allow_changes=True).to_dict(), 0
    except Think2SegError as error:
        outcome, code = {"error": type(error).__name__, "text": str(error)}, error.exit_code
    Path(errand.outcome).write_text(json.dumps(outcome))
    os._exit(code)


class Alone:
    """Does a run's orders itself, in the place of a cluster."""

    def load_models(self, spec: RunSpec) -> None:
        self.models = Models.load(spec.models, threads=1)

    def run(self, orders: Iterable[WorkOrder], spec: RunSpec) -> Iterator[OrderResult]:
        for order in orders:
            yield OrderResult(order=order, receipts=execute(order, spec, self.models), error=None)


@contextmanager
def alone(options: object) -> Iterator[Alone]:
    yield Alone()


def serve(address: str) -> None:
    """Be a Dask scheduler at an address."""
    _quiet(os.devnull)

    async def main() -> None:
        async with distributed.Scheduler(host=address, dashboard=False) as scheduler:
            await scheduler.finished()

    asyncio.run(main())


def work(scheduler: str, weights: str) -> None:
    """Be a Dask worker of one thread."""
    _begin(weights)

    async def main() -> None:
        async with distributed.Worker(scheduler, nthreads=1, memory_limit=0, dashboard=False) as worker:
            await worker.finished()

    asyncio.run(main())


def context() -> multiprocessing.context.ForkServerContext:
    """The context that victims are started from."""
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(["support.victims"])
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return forkserver


def start(function: Callable[..., object], *arguments: Any) -> BaseProcess:
    """Start a victim."""
    process = context().Process(target=function, args=arguments)
    process.start()
    return process


def _begin(weights: str, log: str = os.devnull) -> None:
    _quiet(log)
    install(Path(weights), pytest.MonkeyPatch())


def _quiet(log: str) -> None:
    """Keep what dying libraries say out of sight."""
    place = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(place, 1)
    os.dup2(place, 2)


def _set_clock(off_s: float) -> None:
    if not off_s:
        return
    now, wall, started = think2seg.cube.publish._now, time.time, psutil.Process.create_time
    think2seg.cube.publish._now = lambda: now() + timedelta(seconds=off_s)
    time.time = lambda: wall() + off_s
    psutil.Process.create_time = lambda process: started(process) + off_s
