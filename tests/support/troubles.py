"""The kinds of failure: what is killed, stopped, filled up or set back, and when."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from support.crash_cases import Case, ended, until
from support.gangs import Gang
from support.victims import At, run, start

from think2seg.cube import CubeStore, Holder, read_ledger
from think2seg.cube.lease import FOLDER as LEASE

type Trouble = Callable[[Case], None]
TROUBLES: dict[str, tuple[int, Trouble]] = {}
"""Kind of failure → its share of all cases, and what happens."""


def trouble(kind: str, share: int) -> Callable[[Trouble], Trouble]:
    """Enter a kind of failure in the matrix."""

    def enter(function: Trouble) -> Trouble:
        TROUBLES[kind] = (share, function)
        return function

    return enter


@trouble("killed just before a step of writing a block", 9)
def dies_writing(case: Case) -> None:
    words = ("mask", "score", "quality", "staging", "receipts/######/")
    dies_at(case, case.any_step(case.random.choice(words)))


@trouble("killed just before a step of publication", 12)
def dies_publishing(case: Case) -> None:
    dies_at(case, case.any_step())


@trouble("killed three times in a row, before any steps", 4)
def dies_again_and_again(case: Case) -> None:
    for word in ("c/#", "aside", ""):
        dies_at(case, case.any_step(word))


def dies_at(case: Case, point: At) -> None:
    code = case.run(before_write=point)
    if code == -9:
        case.kills += 1


@trouble("whole run killed, four processes, at a random time", 3)
def whole_run_dies(case: Case) -> None:
    with Gang(case) as gang:
        coordinator = gang.coordinator()
        case.wait(coordinator)
        case.kills += gang.kill_all(coordinator)


@trouble("a worker killed at a random time", 3)
def worker_dies(case: Case) -> None:
    with Gang(case) as gang:
        coordinator = gang.coordinator()
        case.wait(coordinator)
        case.kills += gang.kill_worker()
        gang.add_worker()
        if ended(coordinator) != 0:
            case.losses.append(f"the run did not go on without the worker: {case.log()}")


@trouble("the scheduler killed at a random time", 2)
def scheduler_dies(case: Case) -> None:
    with Gang(case) as gang:
        coordinator = gang.coordinator()
        case.wait(coordinator)
        case.kills += gang.kill_scheduler()
        ended(coordinator)


@trouble("the coordinator killed, its workers going on", 2)
def coordinator_dies(case: Case) -> None:
    with Gang(case) as gang:
        coordinator = gang.coordinator()
        case.wait(coordinator)
        case.kills += gang.kill(coordinator)
        case.finish()


@trouble("two runs started together, one killed", 2)
def two_at_once(case: Case) -> None:
    other = replace(case.errand(), outcome=str(case.folder / "other.json"))
    first, second = case.start(), start(run, other)
    case.wait(first)
    if first.is_alive():
        first.kill()
        case.kills += 1
    codes = {ended(first), ended(second)}
    if not codes <= {0, 3, -9}:
        case.losses.append(f"exit codes {codes}: {case.log()}")


@trouble("a lease left by a run that died on another machine, then killed", 2)
def lease_left(case: Case) -> None:
    store = CubeStore(case.cube)
    holder = Holder(epoch=90, machine="elsewhere/boot/pid:[1]", pid=7, started=0.0, command="think2seg",
                    since=datetime.now(UTC).isoformat())  # fmt: skip
    store.put(f"{LEASE}/epoch-{holder.epoch:08d}.json", json.dumps(asdict(holder)).encode())
    store.put(f"{LEASE}/aside/{holder.epoch:08d}-mask~c~1~0~0", b"half a block")
    case.troubles += 1
    point = case.any_step("c/#")
    if case.run(before_write=point, ttl_s=0.5) == -9:
        case.kills += 1


@trouble("asleep past its lease while another run does all, then awake", 3)
def sleeps(case: Case) -> None:
    sleeper = case.start(before_write=replace(case.any_step(), what="stop"))
    process = psutil.Process(sleeper.pid)
    with suppress(psutil.NoSuchProcess):
        until(lambda: process.status() == psutil.STATUS_STOPPED or not sleeper.is_alive())
        case.troubles += process.status() == psutil.STATUS_STOPPED
    other = replace(case.errand(ttl_s=0.5), outcome=str(case.folder / "other.json"))
    if ended(start(run, other)) != 0:
        case.losses.append(f"the second run failed: {Path(other.outcome).read_text()}")
    with suppress(psutil.NoSuchProcess):
        process.resume()
    if ended(sleeper) not in (0, 3):
        case.losses.append(f"the sleeper ended with {sleeper.exitcode}: {case.log()}")


@trouble("disk full, then killed", 3)
def disk_full(case: Case) -> None:
    with small_disk(case, kib=case.random.randrange(240, 520)) as enlarge:
        refused(case, "No space left on device (os error 28)", by_disk=enlarge is not None)
        if enlarge:
            enlarge()
        dies_at(case, case.any_step("c/#"))
        settle(case)


@trouble("store read-only half-way, then killed", 2)
def read_only(case: Case) -> None:
    refused(case, "Read-only file system (os error 30)", by_disk=False)
    dies_at(case, case.any_step("c/#"))


@trouble("clock set back and forth, killed between", 3)
def clock_jumps(case: Case) -> None:
    case.troubles += 2
    point = case.any_step("c/#")
    if case.run(before_write=point, clock_s=case.random.choice((-1, 1)) * 400 * 86400.0) == -9:
        case.kills += 1
    settle(case, clock_s=-3 * 86400.0)
    times = [entry.published for entry in read_ledger(CubeStore(case.cube)).entries]
    if times != sorted(times):
        case.losses.append(f"publications out of order: {times}")


def refused(case: Case, message: str, *, by_disk: bool) -> None:
    """A run whose store refuses: it must say so, and stop."""
    point = None if by_disk else replace(case.any_step("c/#"), what=message)
    code = case.run(before_write=point)
    case.troubles += code == 3
    if code == 3 and case.summary()["error"] != "StoreError":
        case.losses.append(f"a store that refuses was told as {case.summary()}")
    elif code not in (0, 3):
        case.losses.append(f"exit code {code} where the store refused: {case.log()}")


def settle(case: Case, **values: Any) -> None:
    """Finish where the cube is now, and bring it back to the case's folder."""
    case.finish(**values)
    if case.place is not None:
        shutil.rmtree(case.folder / "cube.zarr")
        shutil.copytree(case.cube, case.folder / "cube.zarr")
        case.place = None


@contextmanager
def small_disk(case: Case, *, kib: int) -> Iterator[Callable[[], None] | None]:
    """Put the cube on a disk that is nearly full; yields how to enlarge it, or None where mounting is not allowed."""
    place = case.folder / "disk"
    place.mkdir()

    def mount(*options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", *options, "tmpfs", str(place)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if not mount(f"size={kib}k"):
        yield None
        return
    try:
        shutil.copytree(case.cube, place / "cube.zarr")
        case.place = place
        yield lambda: mount("remount,size=64m") and None
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
