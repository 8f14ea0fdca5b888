"""Runs that are cut short, get in each other's way, or lose their workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from distributed import KilledWorker
from support.miniature import DAYS, Miniature, area, assert_equal_cubes
from support.standins import Standins

import think2seg.engine.spec
from think2seg.cluster import Cluster, OrderResult
from think2seg.coordinator import ArchiveRun, Progress, cube_status, find, run_archive
from think2seg.cube import BlockWriter, check_cube, open_cube
from think2seg.engine import RunSpec
from think2seg.errors import ClusterError, LeaseError, ModelError, StoreError
from think2seg.grid import Block
from think2seg.imagery import Quality
from think2seg.plan import Reason, WorkOrder

ONE_BY_ONE = {"order_blocks": 1, "in_flight": 1}


class Interrupt:
    """Presses Ctrl-C once a number of blocks is done."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks

    def __call__(self, progress: Progress) -> None:
        if progress.blocks_done >= self.blocks:
            raise KeyboardInterrupt


@pytest.mark.parametrize("blocks", [1, 6, 12])
def test_an_interrupted_run_goes_on_where_it_stopped(world: Miniature, blocks: int) -> None:
    monitor = world.monitor(cluster=ONE_BY_ONE)
    with pytest.raises(KeyboardInterrupt):
        run_archive(monitor, on_progress=Interrupt(blocks))
    (status,) = cube_status(monitor)
    assert status.holder is None, "the lease is given back"
    assert status.acquisitions == blocks // 4
    summary = run_archive(monitor)
    assert summary.blocks["reused"] >= blocks % 4
    assert summary.acquisitions["done"] == 3 - blocks // 4
    world.run(world.folder / "whole.zarr")
    assert_equal_cubes(world.cube, world.folder / "whole.zarr")
    assert check_cube(world.cube) == []


def test_an_interrupted_run_answers_anew_for_a_region_that_changed(world: Miniature) -> None:
    cube = {"block_px": 256, "uri": str(world.cube)}
    small, large = ({"kind": "geometry", "geometry": area(cols, 2)} for cols in (1, 2))
    with pytest.raises(KeyboardInterrupt):
        run_archive(world.monitor(cube, region=small, cluster=ONE_BY_ONE), on_progress=Interrupt(1))
    world.run(cube, region=large)
    assert (open_cube(world.cube)["mask"].values != 255).sum() == 3 * 4 * 128**2


def test_two_runs_at_once(world: Miniature) -> None:
    monitor = world.monitor()
    with ArchiveRun(find(monitor)) as first:
        with pytest.raises(LeaseError, match=r"Another run is writing to .*cube\.zarr: process") as caught:
            run_archive(monitor)
        assert "Wait for it to end" in caught.value.todo
        for group in first.groups():
            first.execute(group)
        assert first.summary().acquisitions["done"] == 3
    assert run_archive(monitor).acquisitions == {"done": 0, "skipped": 3, "failed": 0}


def test_a_run_that_waited_for_the_lease_plans_from_what_the_other_published(world: Miniature) -> None:
    """Both were planned before either began; what the first publishes is not done twice."""
    late = ArchiveRun(find(world.monitor()))
    world.run()
    with late:
        assert late.plan.n_blocks == 0
        assert late.groups() == ()


def test_groups_divide_the_work_and_may_be_executed_again(world: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("think2seg.coordinator.run._MIN_BLOCKS_PER_GROUP", 4)
    with ArchiveRun(find(world.monitor())) as run:
        groups = run.groups()
        assert [group.name for group in groups] == [
            "2010-06-29 (4 blocks)",
            "2014-07-20 (4 blocks)",
            "2020-08-31 (4 blocks)",
        ]
        assert [group.name for group in run.groups(at_most=1)] == ["2010-06-29 to 2020-08-31 (12 blocks)"]
        for group in (groups[0], groups[0], *groups[1:]):
            run.execute(group)
        assert run.summary().blocks["done"] == 12
    assert open_cube(world.cube).sizes["time"] == 3


class Poison:
    """`Cluster.run` whose workers do the other jobs of an order first, and die of one block."""

    def __init__(self, block: Block) -> None:
        self.block, self.honest = block, Cluster.run
        self.killed: list[int] = []
        """Jobs of each order that killed its workers."""

    def __call__(self, cluster: Cluster, orders: Iterable[WorkOrder], spec: RunSpec) -> Iterator[OrderResult]:
        for order in orders:
            healthy = tuple(job for job in order.jobs if job.block != self.block)
            results = list(self.honest(cluster, [replace(order, jobs=healthy)], spec)) if healthy else []
            if healthy == order.jobs:
                yield from results
            else:
                self.killed.append(len(order.jobs))
                lost = KilledWorker("order", SimpleNamespace(address="tcp://10.0.0.7:4242"), 3)
                yield OrderResult(order=order, receipts=(), error=lost)


def test_a_block_that_kills_its_workers_fails_alone(world: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    poison = Poison(Block(0, 1))
    day = {"source": {"datetime": f"{DAYS[0]}/{DAYS[0]}"}, "cluster": {"order_blocks": 4}}
    with monkeypatch.context() as patch:
        patch.setattr(Cluster, "run", lambda *given: poison(*given))
        summary = world.run(**day)
        assert poison.killed == [4, 1], "the other three had receipts"
        assert (summary.exit_code, summary.blocks["failed"], summary.blocks["done"]) == (3, 1, 3)
        (failure,) = summary.failures
        assert (failure["block"], failure["reason"]) == ([0, 1], "worker lost")
        assert "tcp://10.0.0.7:4242" in failure["message"]
        failed = (open_cube(world.cube)["quality"][0].values & Quality.FAILED) != 0
        assert failed[:128, 128:].all()
        assert failed.sum() == 128**2
        assert check_cube(world.cube) == []
        assert [world.run(**day).blocks["failed"] for _ in range(2)] == [1, 1]
        assert world.plan(**day)[DAYS[0]].reason is Reason.QUARANTINED
    assert world.run(retry_quarantined=True, **day).exit_code == 0
    assert set(np.unique(open_cube(world.cube)["mask"])) == {0, 1}


def test_blocks_whose_workers_died_are_sent_again_one_by_one(world: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, jobs = Cluster.run, list[int]()

    def deadly(self: Cluster, orders: Iterable[WorkOrder], spec: RunSpec) -> Iterator[OrderResult]:
        for order in orders:
            jobs.append(len(order.jobs))
            if len(order.jobs) == 1:
                yield from honest(self, [order], spec)
            else:
                lost = KilledWorker("order", SimpleNamespace(address="tcp://10.0.0.7:4242"), 3)
                yield OrderResult(order=order, receipts=(), error=lost)

    monkeypatch.setattr(Cluster, "run", deadly)
    uri = world.folder / "{question}.zarr"
    summary = world.run(uri, question=None, questions=["water bodies", "roads"], cluster={"order_blocks": 4})
    assert jobs == [8] * 3 + [1] * 24, "two questions, three dates, four blocks"
    assert (summary.exit_code, summary.blocks["done"]) == (0, 24)


def test_a_block_whose_worker_died_after_its_receipt_is_done(world: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, sent = Cluster.run, list[Block]()

    def deadly(self: Cluster, orders: Iterable[WorkOrder], spec: RunSpec) -> Iterator[OrderResult]:
        for result in honest(self, orders, spec):
            sent.extend(job.block for job in result.order.jobs)
            lost = KilledWorker("order", SimpleNamespace(address="tcp://10.0.0.7:4242"), 3)
            yield OrderResult(order=result.order, receipts=(), error=lost)

    monkeypatch.setattr(Cluster, "run", deadly)
    summary = world.run(source={"datetime": f"{DAYS[0]}/{DAYS[0]}"}, cluster={"order_blocks": 1})
    assert (summary.exit_code, summary.blocks["done"], summary.blocks["failed"]) == (0, 4, 0)
    assert len(sent) == len(set(sent)) == 4, "none is asked again"
    assert check_cube(world.cube) == []


def test_a_gpu_that_no_worker_offers_is_refused_at_once(world: Miniature) -> None:
    with pytest.raises(ClusterError, match=r"none of the 2 workers at .* offers the resource GPU") as caught:
        world.run(cluster={"gpus": True})
    assert "--resources GPU=1" in str(caught.value)
    assert cube_status(world.monitor())[0].holder is None
    assert world.run().exit_code == 0


def test_weights_that_cannot_be_loaded(world: Miniature, by_rule: Standins, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise ModelError("The folder holds half a model.", "A whole one.", "Download it again.")

    with monkeypatch.context() as patch:
        patch.setattr(think2seg.engine.spec, "load_segmenter", load)
        with pytest.raises(ModelError, match="half a model"):
            world.run()
    assert cube_status(world.monitor())[0].steps == 0
    assert world.run().exit_code == 0, "the workers load them when they are mended"


def test_weights_that_changed_under_a_run(world: Miniature, by_rule: Standins) -> None:
    with ArchiveRun(find(world.monitor())) as run:
        by_rule.retrain()
        with pytest.raises(ModelError, match="the run was planned with"):
            run.execute(run.groups()[0])
    assert cube_status(world.monitor())[0].steps == 0


def test_a_store_that_fails_ends_the_run_and_keeps_what_is_done(
    world: Miniature, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, left = BlockWriter.write_block, iter(range(5))

    def write_block(self: BlockWriter, *given: Any, **rows: Any) -> Any:
        if next(left, None) is None:
            raise StoreError("Cannot write 'mask' in s3://cubes/a.zarr: token expired", "", "Renew the credentials.")
        return honest(self, *given, **rows)

    with monkeypatch.context() as patch:
        patch.setattr(BlockWriter, "write_block", write_block)
        with pytest.raises(StoreError, match="token expired"):
            world.run()
    assert 0 < cube_status(world.monitor())[0].waiting + 4 * cube_status(world.monitor())[0].steps <= 5
    assert world.run().exit_code == 0
    world.run(world.folder / "whole.zarr")
    assert_equal_cubes(world.cube, world.folder / "whole.zarr")
