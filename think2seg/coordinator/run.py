"""One run over a monitor's cubes: lease, dispatch of work orders, receipts, publication."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from itertools import groupby
from types import TracebackType
from typing import Self

import numpy as np
import shapely
from distributed import KilledWorker

from think2seg.cluster import Cluster, OrderResult, connect
from think2seg.config import Monitor
from think2seg.coordinator.groups import Group, divided
from think2seg.coordinator.prepare import CubePlan, Found, RunPlan, find, plan_run
from think2seg.coordinator.summary import STAGES, RunSummary, Tally
from think2seg.crs import project
from think2seg.cube import Cube, Lease, Receipt, open_or_create, reusable
from think2seg.engine import RunSpec, Target, write_failed
from think2seg.grid import Block, Zone
from think2seg.plan import BlockJob, PlanLine, Reason, WorkOrder, bundle_together

_MAX_GROUPS = 40
_MIN_BLOCKS_PER_GROUP = 32
_EARLIER = 3
"""Acquisitions before its own among which a job may find the last clear look."""
_LOOKED_BACK = 10
"""Steps of a probe's cube with which a run's false alarms are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is."""

    blocks_done: int
    blocks_total: int
    message: str


type OnProgress = Callable[[Progress], None]


class ArchiveRun:
    """A run that holds the leases of all its cubes while it is open.

    The plan is made under the lease, so that nothing can be published between planning and doing. Workers start with
    the first group, so that a run with nothing to do starts none.

    Raises
    ------
    LeaseError
        On entering, when another run is writing to one of the cubes.
    """

    def __init__(
        self,
        found: Found,
        *,
        retry_quarantined: bool = False,
        allow_changes: bool = False,
        backfill: bool = False,
        on_progress: OnProgress = lambda progress: None,
    ) -> None:
        self._found, self._on_progress = found, on_progress
        self._planned = partial(
            plan_run, found, retry_quarantined=retry_quarantined, allow_changes=allow_changes, backfill=backfill
        )
        self._started = time.monotonic()
        self._stack = ExitStack()
        self._plan = self._planned()
        self._open: dict[int, _OpenCube] = {}
        self._tally = Tally()
        self._cluster: Cluster | None = None

    @property
    def plan(self) -> RunPlan:
        """What this run does."""
        return self._plan

    @property
    def monitor(self) -> Monitor:
        """The monitor that asks."""
        return self._found.monitor

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for number, planned in enumerate(self._plan.cubes):
                if planned.exists or planned.plan.work:
                    self._open[number] = stack.enter_context(_OpenCube(self._found, planned, self._tally))
            self._plan = self._planned()
            for number, opened in self._open.items():
                opened.adopt(self._plan.cubes[number])
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def groups(self, at_most: int = _MAX_GROUPS) -> tuple[Group, ...]:
        """Divide the work into at most `at_most` groups of about equal numbers of blocks."""
        size = max(_MIN_BLOCKS_PER_GROUP, -(-self._plan.n_blocks // at_most))
        cubes = enumerate(self._plan.cubes)
        return tuple(
            group
            for _, alike in groupby(cubes, key=lambda cube: cube[1].zone.grid)
            for group in divided({number: cube.plan.work for number, cube in alike}, size)
        )

    def execute(self, group: Group) -> None:
        """Do the blocks of a group and publish each acquisition as soon as it and those before it are whole.

        Of an order that killed its workers, the blocks with a receipt are kept, and the others sent one by one: only
        one that kills its workers alone, and left no receipt, has failed.

        Raises
        ------
        StoreError, ModelError, LeaseError
            When going on makes no sense; blocks that are finished stay finished.
        """
        opened = [(self._open[number], lines) for number, lines in group.lines.items()]
        self._report(group.name)
        self._send(_orders_left(opened, self.monitor.cluster.order_blocks), opened, group.name)
        alone = [replace(order, jobs=(job,)) for order in _orders_left(opened, 1) for job in order.jobs]
        self._send(alone, opened, group.name)
        for cube, lines in opened:
            cube.publish_ready(lines)

    def summary(self) -> RunSummary:
        """Figures of what was done so far."""
        tally, reasons = self._tally, self._plan.reasons()
        stages = {stage: tally.seconds[stage] for stage in STAGES} | {"search": self._found.seconds}
        return RunSummary(
            monitor=self.monitor.monitor,
            monitor_hash=self.monitor.hash,
            cubes=tuple(cube.uri for cube in self._plan.cubes),
            acquisitions={"done": len(tally.done), "skipped": _skipped(reasons), "failed": len(tally.failed)},
            blocks={**tally.states, "reused": sum(opened.n_reused for opened in self._open.values())},
            tiles=dict(tally.tiles),
            failures=tuple(tally.failures),
            seconds={"total": time.monotonic() - self._started + self._found.seconds, **stages},
            square_km=sum(opened.square_km() for opened in self._open.values()),
            seam_ratio=tally.seam_ratio(),
            reasons=reasons,
            unparsable_tiles=tally.unparsable_tiles,
            unknown_tiles=tally.unknown_tiles,
            probes=dict(tally.probes),
        )

    def _send(self, orders: Sequence[WorkOrder], opened: Sequence[_Opened], message: str) -> None:
        """Have orders done and publish what becomes whole; a killed order of several jobs brings nothing."""
        if not orders:
            return
        spec = replace(opened[0][0].spec, targets=tuple(cube.spec.targets[0] for cube, _ in opened))
        for result in self._workers(spec).run(self._with_earlier(orders), spec):
            receipts = _receipts_of(result, spec, opened)
            for cube, lines in opened:
                cube.take(receipts)
                cube.publish_ready(lines)
            self._report(message)

    def _with_earlier(self, orders: Sequence[WorkOrder]) -> Sequence[WorkOrder]:
        """`orders` whose jobs know the acquisitions before their own, where a gate compares with them."""
        if self.monitor.gates.unchanged is None:
            return orders
        known = sorted(self._found.result.acquisitions, key=lambda one: (one.time, one.id))
        before = {one.id: tuple(known[max(0, place - _EARLIER) : place][::-1]) for place, one in enumerate(known)}
        return [
            replace(order, jobs=tuple(replace(job, earlier=before.get(job.acquisition.id, ())) for job in order.jobs))
            for order in orders
        ]

    def _workers(self, spec: RunSpec) -> Cluster:
        if self._cluster is None:
            self._cluster = self._stack.enter_context(connect(self.monitor.cluster))
        self._cluster.load_models(spec)
        return self._cluster

    def _report(self, message: str) -> None:
        done = sum(opened.n_done for opened in self._open.values())
        self._on_progress(Progress(blocks_done=done, blocks_total=self._plan.n_blocks, message=message))


class _OpenCube:
    """A cube under this run's lease, and the receipts that came in for it and are not published yet."""

    def __init__(self, found: Found, planned: CubePlan, tally: Tally) -> None:
        self._monitor, self._models, self._archive, self._planned = found.monitor, found.models, found.archive, planned
        self._tally = tally
        self._receipts: dict[tuple[int, Block], Receipt] = {}
        self._published: set[int] = set()
        self._n_published = 0
        self.n_reused = 0

    def __enter__(self) -> Self:
        planned = self._planned
        self._cube: Cube = open_or_create(
            planned.uri,
            planned.spec,
            prompter=planned.prompter,
            segmenter=planned.segmenter,
            registered=planned.registered,
        )
        self._lease: Lease = self._cube.acquire_lease()
        try:
            self._cube.recover(self._lease)
        except BaseException:
            self._lease.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lease.release()

    def adopt(self, planned: CubePlan) -> None:
        """Take the plan made under the lease, and the receipts a killed run left for it."""
        self._planned = planned
        work, zone = planned.plan.work, planned.zone
        n_steps = max((line.step for line in work if line.step is not None), default=-1) + 1
        held = self._cube.ledger().entries
        n = max(n_steps, len(held))
        self._is_probe = planned.spec.question in self._monitor.probes
        if self._is_probe:
            earlier = (receipt for entry in held[-_LOOKED_BACK:] for receipt in self._cube.receipts(entry.step))
            self._tally.add_probes(earlier, before=True)
            self._tally.add_probes((), before=False)
        self.spec = RunSpec(
            targets=(Target(question=planned.spec.question, writer=self._cube.writer(n, self._lease)),),
            grid=zone.grid,
            region=zone.region,
            archive=self._archive,
            models=self._models,
            gates=self._monitor.gates,
            prefetch_bytes=self._monitor.cluster.prefetch_mb * 1_000_000,
            views=self._monitor.tile.views,
        )
        self._inside_px = _region_px(zone, planned.blocks)
        self._region_px = sum(self._inside_px.values())
        self._receipts.clear()
        self.resume(work)
        self.n_reused = len(self._receipts)

    @property
    def n_done(self) -> int:
        """Blocks with a receipt."""
        return self._n_published + len(self._receipts)

    def resume(self, lines: Sequence[PlanLine]) -> None:
        """Keep the receipts that `lines` ask for of those in the store: a killed run or a dead worker left them."""
        planned, standing = self._planned, self._cube.unpublished_receipts()
        for receipt in reusable(standing, lines, prompter=planned.prompter, segmenter=planned.segmenter):
            if receipt.region_px == self._inside_px.get(receipt.block):
                self._receipts[receipt.step, receipt.block] = receipt

    def has(self, job: BlockJob) -> bool:
        """Whether what the job asks for is written: it has a receipt, or is published already."""
        return job.step in self._published or (job.step, job.block) in self._receipts

    def left(self, lines: Sequence[PlanLine]) -> list[PlanLine]:
        """`lines` with the blocks that have no receipt yet, without those that have none."""
        left = [
            replace(line, blocks=tuple(block for block in line.blocks if (line.step, block) not in self._receipts))
            for line in lines
            if line.step not in self._published
        ]
        return [line for line in left if line.blocks]

    def take(self, receipts: Iterable[Receipt]) -> None:
        """Keep those of `receipts` that are about this cube's question, and not published yet."""
        for receipt in receipts:
            if receipt.question == self.spec.targets[0].question and receipt.step not in self._published:
                self._receipts[receipt.step, receipt.block] = receipt

    def publish_ready(self, lines: Sequence[PlanLine]) -> None:
        """Publish the lines that come next and are whole."""
        for line in lines:
            if line.step in self._published:
                continue
            keys = [(_step(line), block) for block in line.blocks]
            if any(key not in self._receipts for key in keys):
                return
            receipts = [self._receipts[key] for key in keys]
            region = self._planned.zone.region.wkt
            self._cube.publish([line], receipts, self._lease, region=region, region_px=self._region_px)
            self._published.add(_step(line))
            self._n_published += len(keys)
            self._tally.add(receipts)
            if self._is_probe:
                self._tally.add_probes(receipts, before=False)
            for key in keys:
                del self._receipts[key]

    def square_km(self) -> float:
        """Area of the blocks published."""
        grid = self._planned.zone.grid
        area = float(grid.pixel_area_m2.mean()) * grid.block_px**2 / 1e6
        return area * self._n_published


type _Opened = tuple[_OpenCube, tuple[PlanLine, ...]]


def run_archive(
    monitor: Monitor,
    *,
    since: date | None = None,
    until: date | None = None,
    retry_quarantined: bool = False,
    allow_changes: bool = False,
    backfill: bool = False,
    on_progress: OnProgress = lambda progress: None,
) -> RunSummary:
    """Search, plan, and do everything the plan asks for.

    retry_quarantined, allow_changes, backfill: see `think2seg.plan.make_plan`.

    Raises
    ------
    Think2SegError
        With what was given, what is allowed and what to do.
    """
    found = find(monitor, since=since, until=until)
    with ArchiveRun(
        found,
        retry_quarantined=retry_quarantined,
        allow_changes=allow_changes,
        backfill=backfill,
        on_progress=on_progress,
    ) as run:
        for group in run.groups():
            run.execute(group)
        return run.summary()


def _region_px(zone: Zone, blocks: Sequence[Block]) -> dict[Block, int]:
    """Pixels of each block that lie in the zone's region; only blocks on its edge are looked at pixel by pixel."""
    grid, region = zone.grid, project(zone.region, zone.grid.crs)
    rows, cols = np.asarray(blocks, dtype=np.int64).reshape(-1, 2).T
    side, corner = grid.block_px * grid.resolution, grid.transform
    left, top = corner.c + cols * side, corner.f - rows * side
    shapely.prepare(region)
    whole = shapely.covers(region, shapely.box(left, top - side, left + side, top))
    return {
        block: grid.block_px**2 if inside else int(grid.region_mask(zone.region, block).sum())
        for block, inside in zip(blocks, whole.tolist(), strict=True)
    }


def _orders_left(opened: Sequence[_Opened], blocks_per_order: int) -> tuple[WorkOrder, ...]:
    """Orders for the blocks without a receipt."""
    return bundle_together([cube.left(lines) for cube, lines in opened], blocks_per_order)


def _receipts_of(result: OrderResult, spec: RunSpec, opened: Sequence[_Opened]) -> tuple[Receipt, ...]:
    """An order's receipts. Of one that killed its workers the cubes take those that it wrote before; a job that did so
    alone and wrote none becomes a failed block, of several none does yet."""
    if isinstance(result.error, KilledWorker):
        for cube, lines in opened:
            cube.resume(lines)
        job = result.order.jobs[0]
        if len(result.order.jobs) > 1 or opened[job.question][0].has(job):
            return ()
        message = f"every worker that tried the order died (last: {result.error.last_worker.address})"
        return (write_failed(job, spec, reason="worker lost", message=message),)
    if result.error is not None:
        raise result.error
    return result.receipts


def _step(line: PlanLine) -> int:
    """The step of a line that asks for work."""
    assert line.step is not None
    return line.step


def _skipped(reasons: dict[str, int]) -> int:
    idle = set(Reason) - {Reason.NEW, Reason.LATE, Reason.CHANGED, Reason.RETRY, Reason.BACKFILL}
    return sum(reasons.get(reason.value, 0) for reason in idle)
