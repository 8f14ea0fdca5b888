"""One work order from imagery to receipts."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from think2seg.cube.receipts import Failure, Receipt
from think2seg.engine.looks import Look, Seen, claims, look_at
from think2seg.engine.rows import instance_rows, trace_rows
from think2seg.engine.spec import Models, RunSpec
from think2seg.engine.stitch import seam_sums, stitch, unread
from think2seg.errors import ImageryError
from think2seg.imagery import BLOCKING, BlockImagery, Quality, cut_tiles, read_block
from think2seg.plan import BlockJob, BlockState, WorkOrder
from think2seg.prompting import parse_answer

_SKIPPED = {Quality.OUTSIDE: "outside", Quality.NODATA: "nodata"}
_WORST_FIRST = ("unparsable", "truncated", "unknown concept", "ok")


def execute(order: WorkOrder, spec: RunSpec, models: Models) -> tuple[Receipt, ...]:
    """Read, ask, draw and write every block of `order`; receipts in the order the blocks were finished.

    Tiles of different blocks share batches. A block whose imagery cannot be read is written as failed.

    Raises
    ------
    ModelError
        When the models are not those of the run, or cannot answer at all.
    CubeError, LeaseError, StoreError
        As `BlockWriter.write_block` does.
    """
    models.check(spec.writer)
    bench = _Bench(spec, models)
    receipts: list[Receipt] = []
    for work in _read_ahead(order.jobs, spec):
        bench.put(work)
        receipts += [_written(done, spec, models) for done in bench.work(full=True)]
    receipts += [_written(done, spec, models) for done in bench.work(full=False)]
    return tuple(receipts)


def write_failed(job: BlockJob, spec: RunSpec, *, reason: str, message: str) -> Receipt:
    """Write a block that no worker could do as failed; parameters as in `Failure`, errors as in `execute`."""
    region = spec.grid.region_mask(spec.region, job.block)
    stitched = unread(np.where(region, 0, Quality.OUTSIDE).astype(np.uint16))
    return spec.writer.write_block(
        job,
        mask=stitched.mask,
        score=stitched.score,
        quality=stitched.quality,
        state=BlockState.FAILED,
        tiles={"failed": len(spec.grid.tiles(job.block))},
        failures=(Failure(item="", block=job.block, reason=reason, message=message),),
    )


@dataclass(slots=True, kw_only=True, eq=False)
class _Work:
    """One block under way."""

    job: BlockJob
    imagery: BlockImagery | None
    """None where it could not be read."""
    failures: tuple[Failure, ...] = ()
    skipped: Counter[str] = field(default_factory=Counter)
    """Why tiles were not asked about → tiles."""
    looks: list[Look] = field(default_factory=list)
    """Tiles to ask about."""
    open: int = 0
    """Looks without an answer so far."""
    seen: list[Seen] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "prompt": 0.0, "segment": 0.0})


class _Bench:
    """Looks of several blocks on their way through the models, in batches of the prompter's size."""

    def __init__(self, spec: RunSpec, models: Models) -> None:
        self._spec, self._models = spec, models
        self._queue: deque[tuple[_Work, Look]] = deque()
        self._idle: list[_Work] = []

    def put(self, work: _Work) -> None:
        """Queue the looks of a block; one without any is done at once."""
        work.open = len(work.looks)
        self._queue.extend((work, look) for look in work.looks)
        if not work.open:
            self._idle.append(work)

    def work(self, *, full: bool) -> Iterator[_Work]:
        """Work on the queue, with `full` in full batches only, else to its end; give back blocks as they are done."""
        size = max(1, self._models.prompter.batch)
        while len(self._queue) >= (size if full else 1):
            batch = [self._queue.popleft() for _ in range(min(size, len(self._queue)))]
            seen = self._answer([look for _, look in batch])
            for (work, look), one in zip(batch, seen, strict=True):
                self._take(work, look, one)
            yield from self._finished()
        yield from self._finished()

    def _finished(self) -> Iterator[_Work]:
        done, self._idle = self._idle, []
        return iter(done)

    def _take(self, work: _Work, look: Look, seen: Seen) -> None:
        """Note an answer; a whole tile whose answer was cut off is asked again in quarters."""
        work.seen.append(seen)
        work.seconds["prompt"] += seen.seconds_prompt
        work.seconds["segment"] += seen.seconds_segment
        quarters = look.quarters() if seen.answer.status == "truncated" and not look.part else ()
        self._queue.extend((work, quarter) for quarter in quarters)
        work.open += len(quarters) - 1
        if not work.open:
            self._idle.append(work)

    def _answer(self, looks: Sequence[Look]) -> list[Seen]:
        prompter, segmenter = self._models.prompter, self._models.segmenter
        started = time.perf_counter()
        replies = prompter.ask([look.rgb for look in looks], self._spec.question)
        answers = [
            parse_answer(
                reply.text,
                frame_px=prompter.frame_px,
                finish=reply.finish,
                unknown_reasoning=prompter.unknown_reasoning,
            ).scaled(look.side / prompter.frame_px)
            for look, reply in zip(looks, replies, strict=True)
        ]
        asked = time.perf_counter()
        drawn = segmenter.draw([look.rgb for look in looks], [answer.instances for answer in answers])
        drew = time.perf_counter()
        return [
            Seen(
                look=look,
                reply=reply,
                answer=answer,
                drawn=instances,
                seconds_prompt=(asked - started) / len(looks),
                seconds_segment=(drew - asked) / len(looks),
            )
            for look, reply, answer, instances in zip(looks, replies, answers, drawn, strict=True)
        ]


def _read_ahead(jobs: Sequence[BlockJob], spec: RunSpec) -> Iterator[_Work]:
    """Blocks in turn; while one is worked on, the next is being read."""
    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        coming = reader.submit(_read, jobs[0], spec) if jobs else None
        for following in chain(jobs[1:], [None]):
            if coming is None:
                return
            work = coming.result()
            coming = reader.submit(_read, following, spec) if following else None
            yield work


def _read(job: BlockJob, spec: RunSpec) -> _Work:
    """Imagery of a block, and the looks worth taking: those whose core has a pixel that can be observed."""
    started = time.perf_counter()
    try:
        imagery = read_block(job.acquisition, job.block, spec.grid, spec.archive, spec.region)
    except ImageryError as error:
        work = _Work(job=job, imagery=None, failures=(_failure(job, error),))
        work.skipped["failed"] = len(spec.grid.tiles(job.block))
    else:
        work = _Work(job=job, imagery=imagery)
        for tile, rgb, quality in cut_tiles(imagery, spec.grid, job.block):
            halo, core = spec.grid.halo_px, spec.grid.core_px
            bits = quality[halo : halo + core, halo : halo + core]
            if ((bits & BLOCKING) == 0).any():
                work.looks.append(look_at(tile, rgb, spec.grid))
            else:
                work.skipped[_why_skipped(bits)] += 1
    work.seconds["read"] = time.perf_counter() - started
    return work


def _why_skipped(bits: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> str:
    """Word for a tile without a pixel to observe: ``cloud`` unless all of it is outside the region or has no data."""
    for flag, word in _SKIPPED.items():
        if ((bits & flag) != 0).all():
            return word
    inside = bits[(bits & Quality.OUTSIDE) == 0]
    return "cloud" if ((inside & ~np.uint16(Quality.NODATA)) & BLOCKING).any() else "nodata"


def _failure(job: BlockJob, error: ImageryError) -> Failure:
    blamed = [scene.id for scene in job.acquisition.scenes if scene.id in error.given]
    return Failure(item=blamed[0] if blamed else "", block=job.block, reason="unreadable", message=str(error))


def _written(work: _Work, spec: RunSpec, models: Models) -> Receipt:
    """Stitch and write a block all of whose looks are answered."""
    grid = spec.grid
    if work.imagery is None:
        region = np.where(grid.region_mask(spec.region, work.job.block), 0, Quality.OUTSIDE).astype(np.uint16)
        stitched, seam = unread(region), {}
    else:
        inner = slice(grid.halo_px, grid.halo_px + grid.block_px)
        stitched = stitch(work.imagery.quality[inner, inner], work.seen)
        seam = seam_sums(grid, stitched.mask, work.imagery.quality, work.seen)
    return spec.writer.write_block(
        work.job,
        mask=stitched.mask,
        score=stitched.score,
        quality=stitched.quality,
        state=_state(work),
        traces=trace_rows(
            work.job,
            work.seen,
            grid=grid,
            question=spec.question,
            prompter=models.prompter,
            segmenter=models.segmenter,
        ),
        instances=instance_rows(work.job, work.seen, stitched.mask == 1, grid=grid),
        tiles=_tile_counts(work),
        seconds=work.seconds,
        failures=work.failures,
        seam=seam,
    )


def _state(work: _Work) -> BlockState:
    if work.imagery is None:
        return BlockState.FAILED
    return BlockState.CLOUD if not work.looks and work.skipped["cloud"] else BlockState.DONE


def _tile_counts(work: _Work) -> dict[str, int]:
    """What became of the block's tiles; one asked again counts as the worst of its quarters."""
    statuses: dict[str, set[str]] = {}
    for claim in claims(work.seen):
        statuses.setdefault(claim.last.look.tile.id, set()).add(claim.last.answer.status)
    worst = Counter(next(word for word in _WORST_FIRST if word in found) for found in statuses.values())
    return dict(sorted((worst + work.skipped).items()))
