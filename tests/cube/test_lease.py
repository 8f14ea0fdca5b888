from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from support.archive_run import (
    PROMPTER,
    REGION_PX,
    SEGMENTER,
    SPEC,
    acquisition,
    contents,
    plan_of,
    run,
    write,
)

from think2seg.cube import Lease, current_holder, open_or_create
from think2seg.cube.lease import FOLDER, Holder
from think2seg.cube.store import CubeStore
from think2seg.errors import LeaseError, StoreError
from think2seg.plan import bundle


@pytest.fixture
def store(tmp_path: Path) -> CubeStore:
    return CubeStore(tmp_path / "cube", create=True)


def hold(store: CubeStore, **values: Any) -> Holder:
    """A lease whose holder shows no sign of life."""
    holder = Holder(epoch=1, machine="elsewhere/boot/pid:[1]", pid=7, started=0.0, since="2026-01-01T00:00:00+00:00",
                    command="think2seg")  # fmt: skip
    holder = replace(holder, **values)
    store.put(f"{FOLDER}/epoch-{holder.epoch:08d}.json", json.dumps(asdict(holder)).encode())
    store.put(f"{FOLDER}/heartbeat-{holder.epoch:08d}.json", b'{"count": 3, "released": false}')
    return holder


def test_a_released_lease_is_taken_at_once(store: CubeStore) -> None:
    with Lease.acquire(store) as first:
        first.check()
        assert current_holder(store) == first.holder
    assert current_holder(store) is None
    with Lease.acquire(store) as second:
        assert second.epoch == first.epoch + 1
        assert not [key for key in store.list_keys(FOLDER) if "00000001" in key]


def test_the_second_run_says_who_holds_it(store: CubeStore) -> None:
    with Lease.acquire(store) as lease, pytest.raises(LeaseError) as caught:
        Lease.acquire(store)
    message = str(caught.value)
    assert f"process {os.getpid()}" in message
    assert lease.holder.since in message
    assert "Wait for it to end" in message
    assert caught.value.exit_code == 3


def test_a_living_holder_elsewhere_is_recognised_by_its_heartbeat(store: CubeStore) -> None:
    holder = hold(store)
    waits: list[str] = []

    def beat(message: str) -> None:
        waits.append(message)
        store.put(f"{FOLDER}/heartbeat-{holder.epoch:08d}.json", b'{"count": 4, "released": false}')

    with pytest.raises(LeaseError, match="process 7 on elsewhere"):
        Lease.acquire(store, 30, say=beat)
    # The first look comes before the beat, the second after it: the lease is refused long before its time to live.
    assert "is alive" in waits[0]


def test_a_silent_holder_elsewhere_is_followed_after_its_time_to_live(store: CubeStore) -> None:
    hold(store)
    started = time.monotonic()
    with Lease.acquire(store, 0.4) as lease:
        assert time.monotonic() - started >= 0.4
        assert lease.epoch == 2


def test_a_dead_process_of_this_machine_is_followed_at_once(die: Callable[..., int], tmp_path: Path) -> None:
    assert die(str(tmp_path / "cube"), [acquisition("2014-07-20")], 40, {}) == -signal.SIGKILL
    store = CubeStore(tmp_path / "cube")
    left = current_holder(store)
    assert left is not None
    assert left.pid != os.getpid()
    waits: list[str] = []
    with Lease.acquire(store, say=waits.append) as lease:
        assert lease.epoch == left.epoch + 1
    assert waits == []


def test_a_reused_process_id_does_not_keep_the_lease(store: CubeStore) -> None:
    with Lease.acquire(store) as lease:
        mine = lease.holder
    hold(store, epoch=mine.epoch + 1, machine=mine.machine, pid=mine.pid, started=mine.started - 1000)
    with Lease.acquire(store) as again:
        assert again.epoch == mine.epoch + 2


def test_whoever_lost_the_lease_can_neither_write_nor_publish(tmp_path: Path) -> None:
    uri, day = tmp_path / "cube", [acquisition("2014-07-20")]
    cube = open_or_create(uri, SPEC, prompter=PROMPTER, segmenter=SEGMENTER)
    lease = cube.acquire_lease()
    cube.recover(lease)
    plan = plan_of(day)
    jobs = bundle(plan.work, 9)[0].jobs
    writer = cube.writer(1, lease)
    receipts = [write(writer, job) for job in jobs]
    hold(cube.store, epoch=lease.epoch + 1)
    with pytest.raises(LeaseError, match=r"lost its lease.*process 7 on elsewhere"):
        lease.check()
    with pytest.raises(LeaseError, match="lost its lease"):
        write(writer, jobs[0])
    with pytest.raises(LeaseError, match="lost its lease"):
        cube.publish(plan.work, receipts, lease, region_px=REGION_PX)
    assert cube.store.list_keys("_records/ledger") == []
    lease.release()
    assert current_holder(cube.store) is not None
    cube.store.delete(f"{FOLDER}/epoch-{lease.epoch + 1:08d}.json")
    run(uri, day)
    run("memory://undisturbed", day)
    assert contents(uri) == contents("memory://undisturbed")


def test_two_publications_of_one_number_cannot_both_stand(tmp_path: Path) -> None:
    """A run that is paused just before the ledger's file and wakes up after another one published."""
    uri, day = str(tmp_path / "cube"), [acquisition("2014-07-20")]
    cube = open_or_create(uri, SPEC, prompter=PROMPTER, segmenter=SEGMENTER)
    lease = cube.acquire_lease()
    cube.recover(lease)
    plan = plan_of(day)
    receipts = [write(cube.writer(1), job) for job in bundle(plan.work, 9)[0].jobs]

    def another_run(key: str) -> None:
        if "/ledger/" in key:
            cube.store.before_write = None
            lease.release()
            run(uri, day)

    cube.store.before_write = another_run
    with pytest.raises(LeaseError, match="published to"):
        cube.publish(plan.work, receipts, lease, region_px=REGION_PX)
    run(uri, day)
    assert len(cube.store.list_keys("_records/ledger")) == 1


def test_the_heartbeat_goes_on_while_the_store_fails_now_and_then(store: CubeStore) -> None:
    failures = iter([True, False, True, False])

    def sometimes(key: str) -> None:
        if "/heartbeat-" in key and next(failures, False):
            raise StoreError("a moment of trouble")

    store.before_write = sometimes
    with Lease.acquire(store, 0.3) as lease:
        beats = f"{FOLDER}/heartbeat-{lease.epoch:08d}.json"
        deadline = time.monotonic() + 20
        while json.loads(store.get(beats) or b'{"count": 0}')["count"] < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        lease.check()
    assert json.loads(store.get(beats) or b"")["released"]


def test_a_lease_that_cannot_be_given_back_is_free_when_its_run_ends(store: CubeStore) -> None:
    def full(key: str) -> None:
        raise StoreError("No space left on the disk")

    with Lease.acquire(store) as first:
        store.before_write = full
    store.before_write = lambda key: None
    waits: list[str] = []
    with Lease.acquire(store, say=waits.append) as second:
        assert second.epoch == first.epoch + 1
        assert second.seized
    assert waits == []
