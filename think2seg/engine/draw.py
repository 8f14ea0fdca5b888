"""The drawing stage: answered looks in, written blocks out; works beside the prompter, in a thread of its own."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import batched, islice

import numpy as np

from think2seg.cube.receipts import Receipt
from think2seg.engine.ask import Answers
from think2seg.engine.gates import BEFORE, audit_sums
from think2seg.engine.looks import Seen, claims
from think2seg.engine.read import Work
from think2seg.engine.rows import instance_rows, trace_rows
from think2seg.engine.spec import Models, RunSpec
from think2seg.engine.stitch import seam_sums, stitch, unread
from think2seg.engine.timings import Timings
from think2seg.imagery import Quality
from think2seg.plan import BlockJob, BlockState

LOOKS_AT_ONCE = 8
"""Looks that are drawn together."""
_WAITING = 2
"""Batches of looks that may wait for the segmenter; the prompter waits when there are more."""
_WORST_FIRST = ("unparsable", "truncated", "unknown concept", "ok")


class Drawing:
    """Draws what the answers name, and writes blocks whose looks are all drawn."""

    def __init__(self, spec: RunSpec, models: Models, timings: Timings) -> None:
        self._spec, self._models, self._timings = spec, models, timings

    def written(self, answered: Iterable[Answers]) -> Iterator[Receipt]:
        """Receipts of the blocks, as they are written."""
        waiting: deque[Future[list[Receipt]]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="draw") as pool:
            try:
                for part in batched(answered, LOOKS_AT_ONCE):
                    waiting.append(pool.submit(self._draw, part))
                    while len(waiting) > _WAITING or (waiting and waiting[0].done()):
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _draw(self, part: Sequence[Answers]) -> list[Receipt]:
        looked = [(one, one.look) for one in part if one.look is not None]
        before = self._timings.seconds("segment")
        with self._timings.computing("segment"):
            drawn = self._models.segmenter.draw(
                [look.rgb for _, look in looked],
                [[prompt for _, answer in one.said.values() for prompt in answer.instances] for one, _ in looked],
            )
        share = (self._timings.seconds("segment") - before) / max(1, len(looked))
        for (one, look), instances in zip(looked, drawn, strict=True):
            coming = iter(instances)
            for question, (reply, answer) in one.said.items():
                n_questions = len(one.said)
                seen = Seen(
                    look=look,
                    reply=reply,
                    answer=answer,
                    drawn=list(islice(coming, len(answer.instances))),
                    seconds_prompt=one.seconds / n_questions,
                    seconds_segment=share / n_questions,
                )
                one.work.seen[question].append(seen)
        return [receipt for one in part if one.last for receipt in self._write(one.work)]

    def _write(self, work: Work) -> Iterator[Receipt]:
        for job in work.jobs:
            with self._timings.working("write"):
                receipt = write_block(work, job, self._spec, self._models)
            yield receipt


def write_block(work: Work, job: BlockJob, spec: RunSpec, models: Models) -> Receipt:
    """Stitch and write a block whose looks are all drawn, for one of the questions about it."""
    grid, target = spec.grid, spec.targets[job.question]
    everything = work.seen[job.question]
    seen = [one for one in everything if one.look.part != BEFORE]
    if work.imagery is None:
        region = np.where(grid.region_mask(spec.region, job.block), 0, Quality.OUTSIDE).astype(np.uint16)
        stitched, seam, audit = unread(region), {}, {}
    else:
        inner = slice(grid.halo_px, grid.halo_px + grid.block_px)
        quality = work.imagery.quality[inner, inner]
        stitched = stitch(quality, seen)
        seam = seam_sums(grid, stitched.mask, work.imagery.quality, seen)
        audit = audit_sums(work.gated, everything, quality)
    return target.writer.write_block(
        job,
        mask=stitched.mask,
        score=stitched.score,
        quality=stitched.quality,
        state=_state(work),
        traces=trace_rows(
            job,
            seen,
            grid=grid,
            question=target.question,
            prompter=models.prompter,
            segmenter=models.segmenter,
        ),
        instances=instance_rows(job, seen, stitched.mask == 1, grid=grid),
        tiles=_tile_counts(work, seen),
        seconds=_seconds(work, everything),
        failures=work.failures,
        seam=seam,
        audit=audit,
    )


def _state(work: Work) -> BlockState:
    if work.imagery is None:
        return BlockState.FAILED
    if work.looks:
        return BlockState.DONE
    if work.skipped["gated"]:
        return BlockState.GATED
    return BlockState.CLOUD if work.skipped["cloud"] else BlockState.DONE


def _seconds(work: Work, seen: Sequence[Seen]) -> dict[str, float]:
    """Seconds by stage; what several questions share is divided among them."""
    return {
        "read": work.seconds_read / len(work.jobs),
        "prompt": sum(one.seconds_prompt for one in seen),
        "segment": sum(one.seconds_segment for one in seen),
    }


def _tile_counts(work: Work, seen: Sequence[Seen]) -> dict[str, int]:
    """What became of the block's tiles; one asked again counts as the worst of its quarters."""
    statuses: dict[str, set[str]] = {}
    for claim in claims(seen):
        statuses.setdefault(claim.last.look.tile.id, set()).add(claim.last.answer.status)
    worst = Counter(next(word for word in _WORST_FIRST if word in found) for found in statuses.values())
    return dict(sorted((worst + work.skipped).items()))
