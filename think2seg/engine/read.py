"""The reading stage: blocks ahead of the prompter, and the looks at them that are worth taking."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from think2seg.cube.receipts import Failure
from think2seg.engine.gates import GatedTile, Gatekeeper
from think2seg.engine.looks import Look, Seen, look_at
from think2seg.engine.spec import RunSpec
from think2seg.errors import ImageryError
from think2seg.grid import Grid
from think2seg.imagery import BLOCKING, BlockImagery, Quality, cut_tiles, read_block
from think2seg.plan import BlockJob

_READERS = 2
_BYTES_PER_PIXEL = 5
"""RGB and quality bits."""
_SKIPPED = {Quality.OUTSIDE: "outside", Quality.NODATA: "nodata"}


@dataclass(slots=True, kw_only=True, eq=False)
class Work:
    """One block of one acquisition under way, for all questions that are asked about it."""

    jobs: tuple[BlockJob, ...]
    """One per question."""
    imagery: BlockImagery | None
    """None where it could not be read."""
    failures: tuple[Failure, ...] = ()
    skipped: Counter[str] = field(default_factory=Counter)
    """Why tiles were not asked about → tiles."""
    looks: list[Look] = field(default_factory=list)
    """What to ask about: tiles, each in all its views."""
    gated: list[GatedTile] = field(default_factory=list)
    """Tiles that a gate would skip, those that are asked about all the same included."""
    open: int = 0
    """Looks without all their answers so far."""
    seen: dict[int, list[Seen]] = field(default_factory=dict)
    """Question → what the looks brought."""
    seconds_read: float = 0.0

    @property
    def questions(self) -> tuple[int, ...]:
        """Positions of the questions asked about the block."""
        return tuple(job.question for job in self.jobs)


def read_ahead(jobs: Sequence[BlockJob], spec: RunSpec) -> Iterator[Work]:
    """Blocks in turn, jobs that ask about the same one together; the next ones are read meanwhile.

    As many blocks are read ahead as fit into `RunSpec.prefetch_bytes`, at least one.
    """
    waiting = deque(
        tuple(group) for _, group in groupby(jobs, key=lambda job: (job.acquisition.fingerprint, job.block))
    )
    ahead = max(1, spec.prefetch_bytes // block_bytes(spec.grid))
    keeper = Gatekeeper(spec)
    coming: deque[Future[Work]] = deque()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as readers:
        try:
            while waiting or coming:
                while waiting and len(coming) < ahead:
                    coming.append(readers.submit(_read, waiting.popleft(), spec, keeper))
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()


def block_bytes(grid: Grid) -> int:
    """Memory that the imagery of one block takes."""
    return _BYTES_PER_PIXEL * (grid.block_px + 2 * grid.halo_px) ** 2


def _read(jobs: tuple[BlockJob, ...], spec: RunSpec, keeper: Gatekeeper) -> Work:
    """Imagery of a block, and the looks worth taking: those whose core has a pixel that can be observed."""
    started = time.perf_counter()
    job, grid = jobs[0], spec.grid
    try:
        imagery = read_block(job.acquisition, job.block, grid, spec.archive, spec.region)
    except ImageryError as error:
        work = Work(jobs=jobs, imagery=None, failures=(_failure(job, error),))
        work.skipped["failed"] = len(grid.tiles(job.block))
    else:
        work = Work(jobs=jobs, imagery=imagery)
        for tile, rgb, quality in cut_tiles(imagery, grid, job.block):
            bits = quality[grid.halo_px : grid.halo_px + grid.core_px, grid.halo_px : grid.halo_px + grid.core_px]
            if ((bits & BLOCKING) == 0).any():
                work.looks.append(look_at(tile, rgb, grid))
            else:
                work.skipped[_why_skipped(bits)] += 1
        _keep_back(work, keeper.judge(job, imagery, work.looks), grid)
        work.looks = [view for look in work.looks for view in (look.views(spec.views) if not look.part else (look,))]
    work.open = len(work.looks)
    work.seen = {question: [] for question in work.questions}
    work.seconds_read = time.perf_counter() - started
    return work


def _keep_back(work: Work, gated: list[GatedTile], grid: Grid) -> None:
    """Take gated tiles off the looks, audited ones excepted, to which the earlier pictures they look like are added."""
    assert work.imagery is not None
    work.gated = gated
    skipped = {one.look.tile for one in gated if not one.audited}
    work.looks = [look for look in work.looks if look.tile not in skipped]
    work.looks += [one.before for one in gated if one.audited and one.before is not None]
    for one in gated:
        if not one.audited:
            work.skipped["gated"] += 1
            core = work.imagery.quality[one.look.core.moved(grid.halo_px, grid.halo_px).slices]
            core[(core & BLOCKING) == 0] |= np.uint16(Quality.GATED)


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
