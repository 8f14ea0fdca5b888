"""A run falls asleep anywhere, another one takes its lease and does other work, the first wakes up: nothing changes.

Between any two of its writes the first run is held up until a second one, whose catalog knows of one more acquisition
and which therefore gives the steps away differently, has done everything. What is left must be what the second run
alone would have left, or, where the first had decided before it fell asleep, both runs one after the other.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.archive_run import (
    BLOCKS,
    PROMPTER,
    REGION_PX,
    SEGMENTER,
    SPEC,
    acquisition,
    contents,
    moment,
    plan_of,
    run,
    scene,
    write,
)

import think2seg.cube.lease
import think2seg.cube.publish
from think2seg.cube import Lease, check_cube, open_cube, open_or_create, read_ledger
from think2seg.cube.ledger import FOLDER as LEDGER
from think2seg.cube.store import CubeStore
from think2seg.errors import LeaseError, StoreError
from think2seg.plan import bundle

OLD, NEW, MISSED = "2014-07-20", "2020-08-31", "2010-06-29"
SHARES = 6


def changed(version: str) -> Any:
    return acquisition(OLD, scene("old", moment(OLD)), scene("patch", moment(OLD), BLOCKS[:1], version=version))


BEFORE = [changed("1")]
SLEEPER = [changed("2"), acquisition(NEW, scene("new", moment(NEW), BLOCKS[1:3]))]
OTHER = [acquisition(MISSED, scene("missed", moment(MISSED), BLOCKS[:2])), *SLEEPER]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("prepared") / "cube.zarr"
    run(place, BEFORE)
    return place


@pytest.fixture(scope="module")
def expected(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Any]:
    """Whether the sleeper had decided → what is left."""
    found = {}
    for decided in (False, True):
        place = tmp_path_factory.mktemp("expected") / "cube.zarr"
        shutil.copytree(prepared, place)
        if decided:
            run(place, SLEEPER, together=True)
        run(place, OTHER)
        found[decided] = contents(place)
    assert found[False] != found[True]
    return found


@pytest.fixture(scope="module")
def writes(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    place = tmp_path_factory.mktemp("count") / "cube.zarr"
    shutil.copytree(prepared, place)
    seen: list[str] = []
    run(place, SLEEPER, before_write=seen.append, together=True)
    return [key for key in seen if "/lease/heartbeat-" not in key and "/lease/epoch-" not in key]


class Asleep:
    """Before the sleeper's write number `count`, another run does all there is to do."""

    def __init__(self, count: int, meanwhile: Callable[[], None]) -> None:
        self.left, self.meanwhile = count, meanwhile

    def __call__(self, key: str) -> None:
        if "/lease/heartbeat-" in key or "/lease/epoch-" in key:
            return
        if self.left == 0:
            self.left -= 1
            self.meanwhile()
        self.left -= 1


@pytest.mark.parametrize("share", range(SHARES))
def test_a_sleeper_changes_nothing_wherever_it_wakes_up(
    share: int, prepared: Path, expected: Any, writes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count in range(share, len(writes), SHARES):
        place = tmp_path / f"{count}.zarr"
        shutil.copytree(prepared, place)
        decided: list[bool] = []

        def meanwhile(place: Path = place, decided: list[bool] = decided) -> None:
            decided.append(len(read_ledger(CubeStore(place)).entries) > len(BEFORE))
            with monkeypatch.context() as patch:
                patch.setattr(think2seg.cube.lease, "_wait_until_free", lambda *_: False)
                run(place, OTHER)

        finished = ended_well(place, Asleep(count, meanwhile))
        assert contents(place) == expected[decided[0]], f"asleep before write {count}, {writes[count]}"
        assert not finished or decided[0], "what was decided is completed by whoever is awake"
        assert check_cube(place) == []
        shutil.rmtree(place)


def ended_well(place: Path, asleep: Asleep) -> bool:
    try:
        run(place, SLEEPER, before_write=asleep, together=True)
    except LeaseError:
        return False
    return True


class StopBefore:
    """Stops this process, as Ctrl-Z does, before it writes to a key for the first time."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, key: str) -> None:
        if self.word and self.word in key:
            self.word = ""
            os.kill(os.getpid(), signal.SIGSTOP)


def run_and_stop(uri: str, word: str) -> None:
    """End with 7 where the lease was lost meanwhile."""
    try:
        run(uri, SLEEPER, before_write=StopBefore(word), together=True)
    except LeaseError:
        os._exit(7)


@pytest.mark.parametrize("word", ["aside/00000002-mask~c~1", "ledger/00000002", "aside/00000002-time~c~0", "zarr.json"])
def test_a_process_that_was_really_stopped_finds_its_lease_gone(
    word: str, spawn: Any, prepared: Path, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "cube.zarr"
    shutil.copytree(prepared, place)
    process = spawn(run_and_stop, str(place), word)
    stopped = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    while stopped.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
        time.sleep(0.01)
    decided = len(read_ledger(CubeStore(place)).entries) > len(BEFORE)
    acquire = Lease.acquire
    monkeypatch.setattr(Lease, "acquire", lambda store, ttl_s, say: acquire(store, 0.5, say=say))
    run(place, OTHER)
    seen = open_cube(place, revisions="all").load()
    stopped.send_signal(signal.SIGCONT)
    process.join()
    assert process.exitcode == 7
    assert contents(place) == expected[decided]
    assert open_cube(place, revisions="all").load().identical(seen)


def test_the_next_number_of_the_ledger_is_taken_from_who_may_be_asleep(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "cube.zarr"
    shutil.copytree(prepared, place)
    cube = open_or_create(place, SPEC, prompter=PROMPTER, segmenter=SEGMENTER)
    asleep = cube.acquire_lease()
    cube.recover(asleep)
    other = open_or_create(place, SPEC, prompter=PROMPTER, segmenter=SEGMENTER)
    monkeypatch.setattr(think2seg.cube.lease, "_wait_until_free", lambda *_: False)
    awake = other.acquire_lease()
    awake.release()
    monkeypatch.undo()
    with other.acquire_lease() as again:
        assert again.seized, "who released the lease before sealing the ledger had not shut the sleeper out"
        other.recover(again)
        assert not again.seized
        assert len(other.store.list_keys(LEDGER)) == 2
    assert len(read_ledger(other.store).entries) == 1
    with pytest.raises(LeaseError, match="lost its lease"):
        asleep.check()
    with pytest.raises(LeaseError, match="gave its lease back"):
        awake.check()


def test_a_sleeper_decides_nothing_once_another_run_has_begun(
    prepared: Path, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "cube.zarr"
    shutil.copytree(prepared, place)
    begun: list[Lease] = []

    def begin(key: str) -> None:
        if LEDGER in key and not begun:
            other = open_or_create(place, SPEC, prompter=PROMPTER, segmenter=SEGMENTER)
            with monkeypatch.context() as patch:
                patch.setattr(think2seg.cube.lease, "_wait_until_free", lambda *_: False)
                begun.append(other.acquire_lease())
            other.recover(begun[0])

    with pytest.raises(LeaseError, match="lost its lease"):
        run(place, SLEEPER, before_write=begin, together=True)
    assert len(read_ledger(CubeStore(place)).entries) == len(BEFORE)
    begun[0].release()
    run(place, OTHER)
    assert contents(place) == expected[False]


class Trouble:
    """Fails once, before the first write to a key."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, key: str) -> None:
        if self.word and self.word in key and "/lease/" not in key:
            self.word = ""
            raise StoreError(f"a moment of trouble at {key}")


AFTER_THE_DECISION = ["mask/c/1", "traces/", "receipts/000001.jsonl", "state/c/1", "time/c/0", "mask/zarr.json",
                      "staging/000001"]  # fmt: skip


@pytest.mark.parametrize("word", AFTER_THE_DECISION)
def test_a_publication_that_failed_after_its_decision_can_be_tried_again(
    word: str, prepared: Path, tmp_path: Path
) -> None:
    whole, place = tmp_path / "whole.zarr", tmp_path / "cube.zarr"
    for copy in (whole, place):
        shutil.copytree(prepared, copy)
    run(whole, SLEEPER, together=True)
    cube = open_or_create(place, SPEC, prompter=PROMPTER, segmenter=SEGMENTER)
    with cube.acquire_lease() as lease:
        cube.recover(lease)
        plan = plan_of(SLEEPER, cube.ledger().held, 1)
        writer = cube.writer(3, lease)
        receipts = [write(writer, job) for order in bundle(plan.work, 9) for job in order.jobs]
        cube.store.before_write = Trouble(word)
        with pytest.raises(StoreError, match="a moment of trouble"):
            cube.publish(plan.work, receipts, lease, region_px=REGION_PX)
        assert len(read_ledger(cube.store).entries) == 3
        cube.publish(plan.work, receipts, lease, region_px=REGION_PX)
    assert contents(place) == contents(whole)
    assert len(cube.store.list_keys(LEDGER)) == 2


def test_a_publication_tried_again_without_the_lease_is_refused(
    prepared: Path, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "cube.zarr"
    shutil.copytree(prepared, place)
    cube = open_or_create(place, SPEC, prompter=PROMPTER, segmenter=SEGMENTER)
    with cube.acquire_lease() as lease:
        cube.recover(lease)
        plan = plan_of(SLEEPER, cube.ledger().held, 1)
        receipts = [write(cube.writer(3, lease), job) for order in bundle(plan.work, 9) for job in order.jobs]
        cube.store.before_write = Trouble("time/c/0")
        with pytest.raises(StoreError):
            cube.publish(plan.work, receipts, lease, region_px=REGION_PX)
        with monkeypatch.context() as patch:
            patch.setattr(think2seg.cube.lease, "_wait_until_free", lambda *_: False)
            run(place, OTHER)
        with pytest.raises(LeaseError):
            lease.check()
        cube.publish(plan.work, receipts, lease, region_px=REGION_PX)  # others completed it: nothing is left to do
    assert contents(place) == expected[True]


def test_an_answer_of_the_store_that_got_lost_is_no_other_run(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, place = tmp_path / "whole.zarr", tmp_path / "cube.zarr"
    for copy in (whole, place):
        shutil.copytree(prepared, copy)
    run(whole, SLEEPER, together=True)
    create = CubeStore.create

    def lost_answer(store: CubeStore, key: str, data: bytes) -> bool:
        return create(store, key, data) and LEDGER not in key

    monkeypatch.setattr(CubeStore, "create", lost_answer)
    run(place, SLEEPER, together=True)
    assert contents(place) == contents(whole)


def test_setting_the_clock_makes_no_living_holder_look_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CubeStore(tmp_path / "cube", create=True)
    with Lease.acquire(store) as lease:
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: time.time() + 3600)
        monkeypatch.setattr(time, "time", lambda: 0.0)
        with pytest.raises(LeaseError, match="Another run is writing"):
            Lease.acquire(store)
        lease.check()


def test_a_clock_set_back_never_turns_the_order_of_publications(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = tmp_path / "cube"
    for hour, day in ((9, OLD), (3, NEW), (12, MISSED)):
        monkeypatch.setattr(think2seg.cube.publish, "_now", lambda hour=hour: moment("2026-01-01").replace(hour=hour))
        run(uri, [acquisition(one) for one in (OLD, NEW, MISSED)][: (OLD, NEW, MISSED).index(day) + 1])
    published = [entry.published.hour for entry in read_ledger(CubeStore(uri)).entries]
    assert published == [9, 9, 12]
