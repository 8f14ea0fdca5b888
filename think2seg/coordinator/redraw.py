"""Draw an archive again with another segmenter, from the prompts that its cube keeps; no prompter is asked.

Masks of other weights go into a cube of their own beside the first: a curve over time must not bend silently.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

from think2seg.coordinator.redraw_plan import RedrawPlan, is_lost, redraw_lines, region_of
from think2seg.coordinator.redrawn import Memory, draw_again, write_unreadable
from think2seg.coordinator.run import Progress
from think2seg.coordinator.summary import failure_rows
from think2seg.cube import Cube, Entry, Lease, Receipt, open_or_create, reusable
from think2seg.errors import ImageryError
from think2seg.grid import Block
from think2seg.imagery import BlockImagery, read_block
from think2seg.plan import BlockJob, BlockState, PlanLine, Reason
from think2seg.segmentation import Segmenter, load_segmenter
from think2seg.stac.scenes import Acquisition


@dataclass(frozen=True, slots=True, kw_only=True)
class RedrawSummary:
    """Figures of one redraw."""

    cube: str
    into: str
    segmenter: str
    acquisitions: Mapping[str, int]
    """done, skipped, failed."""
    blocks: int
    instances: int
    failures: tuple[dict[str, Any], ...]
    seconds: Mapping[str, float]
    """``total`` is wall time; segment and write are parts of it."""

    @property
    def exit_code(self) -> int:
        """0 when every acquisition of the cube is drawn again, 3 when some could not be."""
        return 3 if self.acquisitions["failed"] else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        seconds = {stage: round(value, 3) for stage, value in self.seconds.items()}
        return asdict(self) | {"seconds": seconds, "failures": list(self.failures), "exit_code": self.exit_code}

    def sentence(self) -> str:
        """One line for people."""
        counts = self.acquisitions
        if not counts["done"] and not counts["failed"]:
            return f"Nothing to do: {self.into} holds every acquisition."
        told = f", {counts['failed']} not or in part" if counts["failed"] else ""
        spent = f"{self.instances} instances in {self.blocks} blocks in {self.seconds['total']:.0f} s"
        return f"{counts['done']} acquisitions drawn again{told}: {spent}, no prompter asked."


def run_redraw(plan: RedrawPlan, *, on_progress: Callable[[Progress], None] = lambda progress: None) -> RedrawSummary:
    """Do what `plan_redraw` planned; acquisitions are published one by one, and a killed run goes on where it was.

    Raises
    ------
    CubeError
        The cube at `into` is of another identity or other weights drew it.
    LeaseError, StoreError, ModelError
        As runs do.
    """
    started = time.monotonic()
    receipts: list[Receipt] = []
    if plan.work:
        segmenter = load_segmenter(plan.segmenter, plan.weights.path, digest=plan.weights.digest)
        cube = open_or_create(
            plan.into, plan.spec, prompter="", segmenter=segmenter.digest, registered=True
        )  # prompters of the first cube may differ by step, and are its own affair
        with cube.acquire_lease() as lease:
            cube.recover(lease)
            plan = replace(plan, lines=redraw_lines(plan, cube.ledger()))
            for receipt in _Redraw(plan, cube, lease, segmenter).receipts():
                receipts.append(receipt)
                done, total = len(receipts), sum(len(line.blocks) for line in plan.work)
                on_progress(Progress(blocks_done=done, blocks_total=total, message=receipt.acquisition))
    return _summary(plan, receipts, time.monotonic() - started)


class _Redraw:
    """The work of one redraw, under the lease of the cube it writes."""

    def __init__(self, plan: RedrawPlan, cube: Cube, lease: Lease, segmenter: Segmenter) -> None:
        self._plan, self._cube, self._lease, self._segmenter = plan, cube, lease, segmenter

    def receipts(self) -> Iterator[Receipt]:
        """Receipts of all blocks, as they are done."""
        for line in self._plan.work:
            entry = self._plan.ledger.latest[line.id]
            done = {receipt.block: receipt for receipt in self._left(line, entry)}
            yield from done.values()
            for receipt in self._drawn(line, entry, [block for block in line.blocks if block not in done]):
                done[receipt.block] = receipt
                yield receipt
            self._cube.publish([line], done.values(), self._lease, region=entry.region, region_px=entry.region_px)

    def _left(self, line: PlanLine, entry: Entry) -> tuple[Receipt, ...]:
        """Receipts that a killed redraw left for a line."""
        return reusable(
            self._cube.unpublished_receipts(), [line], prompter=entry.held.prompter, segmenter=self._segmenter.digest
        )

    def _drawn(self, line: PlanLine, entry: Entry, blocks: Sequence[Block]) -> Iterator[Receipt]:
        assert line.acquisition is not None
        assert line.step is not None
        n_steps = len(self._cube.ledger().entries) + 1
        writer = replace(self._cube.writer(n_steps, self._lease), prompter=entry.held.prompter)
        memory = self._plan.memory(line.id)
        for block, imagery in self._read_ahead(line.acquisition, entry, memory, blocks):
            job = BlockJob(acquisition=line.acquisition, block=block, step=line.step, revision=line.revision)
            kept = memory.of(block)
            if isinstance(imagery, ImageryError):
                yield write_unreadable(job, kept, str(imagery), writer=writer)
            else:
                yield draw_again(job, kept, imagery, segmenter=self._segmenter, writer=writer)

    def _read_ahead(
        self, acquisition: Acquisition, entry: Entry, memory: Memory, blocks: Sequence[Block]
    ) -> Iterator[tuple[Block, BlockImagery | ImageryError | None]]:
        """Blocks in turn with their imagery, none where there is nothing to draw; the next is read meanwhile."""
        plan, region = self._plan, region_of(entry, self._plan.spec)

        def read(block: Block) -> BlockImagery | ImageryError | None:
            if not memory.n_instances(block):
                return None
            try:
                return read_block(acquisition, block, plan.spec.grid, plan.archive, region)
            except ImageryError as error:
                return error

        with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
            coming: Future[BlockImagery | ImageryError | None] | None = None
            for block, following in zip([None, *blocks], chain(blocks, [None]), strict=True):
                imagery = coming.result() if coming is not None else None
                coming = reader.submit(read, following) if following is not None else None
                if block is not None:
                    yield block, imagery


def _summary(plan: RedrawPlan, receipts: Sequence[Receipt], seconds: float) -> RedrawSummary:
    unreadable = {
        receipt.acquisition
        for receipt in receipts
        if receipt.state is BlockState.FAILED and not is_lost(plan.ledger.latest[receipt.acquisition], receipt.block)
    }
    not_drawn = {line.id for line in plan.lines if line.acquisition is None and line.reason is not Reason.DONE}
    failed, touched = unreadable | not_drawn, {receipt.acquisition for receipt in receipts}
    stages = {stage: sum(one.seconds.get(stage, 0.0) for one in receipts) for stage in ("segment", "write")}
    return RedrawSummary(
        cube=plan.cube,
        into=plan.into,
        segmenter=plan.weights.digest,
        acquisitions={
            "done": len(touched - failed),
            "skipped": len(plan.lines) - len(touched | failed),
            "failed": len(failed),
        },
        blocks=len(receipts),
        instances=sum(plan.instances.get(line.id, 0) for line in plan.work),
        failures=failure_rows(receipts),
        seconds={"total": seconds, **stages},
    )
