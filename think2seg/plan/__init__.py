"""(scenes × blocks) − ledger = plan: every line with its reason. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from itertools import batched

from think2seg.errors import CatalogError
from think2seg.grid import Block, Grid
from think2seg.plan.coverage import Coverage
from think2seg.stac.scenes import Acquisition


class Reason(StrEnum):
    """Why an acquisition is, or is not, worked on."""

    NEW = "new"
    LATE = "late"
    CHANGED = "changed"
    RETRY = "retry"
    BACKFILL = "backfill"
    DONE = "done"
    CLOUDY = "cloudy"
    OUTSIDE = "outside"
    MISSING_BANDS = "missing bands"
    GONE = "gone"
    QUARANTINED = "quarantined"
    OVER_BUDGET = "over budget"


class BlockState(StrEnum):
    """What became of one block of one acquisition; the cube's `state` array holds the position in this list."""

    PENDING = "pending"
    DONE = "done"
    CLOUD = "cloud"
    FAILED = "failed"
    GATED = "gated"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldStep:
    """One published step, as the ledger knows it."""

    step: int
    acquisition: str
    revision: int
    time: datetime
    scenes: Mapping[str, str]
    """Scene id → fingerprint."""
    prompter: str
    """Digest of the weights that answered."""
    states: Mapping[Block, BlockState]
    attempts: Mapping[Block, int]
    """How often a failed block was tried."""
    unparsable: frozenset[Block] = frozenset()
    """Blocks with a tile whose answer stayed unreadable: asked again only by other weights."""
    answered_by: Mapping[Block, str] = field(default_factory=dict)
    """Digests of the weights that answered blocks copied from an earlier revision; `prompter`'s where not named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLine:
    """What happens to one acquisition."""

    id: str
    time: datetime
    reason: Reason
    acquisition: Acquisition | None
    """None for an acquisition that is gone from the catalog."""
    blocks: tuple[Block, ...] = ()
    """Blocks to do now; empty unless the reason asks for work."""
    tiles: int = 0
    bytes_to_read: int = 0
    step: int | None = None
    """Index on the cube's time axis that the work will have."""
    revision: int = 0
    note: str = ""
    """Detail for people: which band is missing, how cloudy, what was resampled."""
    over_budget: tuple[Block, ...] = ()
    """Blocks that the budget cut off; they stay pending and are planned again."""
    attempts: Mapping[Block, int] = field(default_factory=dict)
    """How often blocks of this line failed before; zero where not named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All lines of one run, in time order."""

    lines: tuple[PlanLine, ...]

    @property
    def work(self) -> tuple[PlanLine, ...]:
        """Lines that ask for work, in step order."""
        return tuple(line for line in self.lines if line.blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockJob:
    """One block of one acquisition, to be read, asked, drawn and written."""

    acquisition: Acquisition
    block: Block
    step: int
    revision: int
    attempt: int = 1
    question: int = 0
    """Position of the question among those asked of the same tiles."""
    earlier: tuple[Acquisition, ...] = ()
    """Acquisitions before this one, newest first, that a gate may compare it with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOrder:
    """A bundle of block jobs for one worker, big enough to fill its batches."""

    id: str
    jobs: tuple[BlockJob, ...]


MAX_CHANGED = 0.05
"""Share of the done scenes that may have changed before a run stops and asks."""
TRIES = 3
"""Tries after which a failing block is quarantined: left alone until its scenes change or somebody asks for it."""


def make_plan(
    acquisitions: Sequence[Acquisition],
    grid: Grid,
    blocks: Sequence[Block],
    held: Sequence[HeldStep],
    *,
    required_bands: Collection[str],
    prompter_digest: str,
    n_published: int,
    estimate: Callable[[Acquisition, int], int],
    max_cloud: float | None = None,
    budget_tiles: int | None = None,
    retry_quarantined: bool = False,
    allow_changes: bool = False,
    backfill: bool = False,
    window: tuple[datetime | None, datetime | None] = (None, None),
) -> Plan:
    """Decide, with a reason each, what is to be done for every acquisition.

    Parameters
    ----------
    acquisitions
        What the catalog has, in any order.
    grid, blocks
        The cube's grid, and the blocks of it that touch the region.
    held
        What the cube holds: `Ledger.held`.
    required_bands
        Canonical names of the bands that the recipe reads.
    prompter_digest
        The weights that will answer: blocks left unparsable by other ones are asked again.
    n_published
        Steps on the cube's time axis; new ones follow on.
    estimate
        Bytes to read for an acquisition and a number of blocks.
    max_cloud
        Percent; an acquisition is skipped when all of its scenes are cloudier.
    budget_tiles
        Tiles that may be asked; what it cuts off is planned again by the next run.
    retry_quarantined
        Try failing blocks again that were tried `TRIES` times.
    allow_changes
        Do what has changed, however much it is.
    backfill
        Ask again what other weights than `prompter_digest` answered.
    window
        (since, until) of the search, both inclusive; held acquisitions outside it are not expected in the catalog.

    Raises CatalogError when more than one, and more than `MAX_CHANGED`, of the done scenes changed.
    """
    latest = {step.acquisition: step for step in sorted(held, key=lambda step: step.revision)}
    if not allow_changes:
        _refuse_many_changes(acquisitions, latest)
    ordered = sorted(acquisitions, key=lambda a: (a.time, a.id))
    covered = Coverage(ordered, grid, blocks)
    newest = max((step.time for step in held), default=None)
    lines: list[PlanLine] = []
    for acquisition in ordered:
        usable, lacking = _usable(acquisition, frozenset(required_bands))
        step = latest.get(acquisition.id)
        if not usable.scenes:
            line = _line(acquisition, Reason.MISSING_BANDS, revision=step.revision if step else 0)
        elif step is not None:
            line = _next_line(
                usable, covered, step, prompter_digest, retry_quarantined=retry_quarantined, backfill=backfill
            )
        else:
            line = _first_line(usable, covered.of(usable), max_cloud, newest)
        lines.append(replace(line, note="; ".join(part for part in (line.note, lacking) if part)))
    lines += _gone_lines({a.id for a in ordered}, latest, window)
    lines.sort(key=lambda line: (line.time, line.id))
    return Plan(lines=tuple(_allot(lines, grid, budget_tiles, n_published, estimate)))


def bundle(lines: Iterable[PlanLine], blocks_per_order: int) -> tuple[WorkOrder, ...]:
    """Pack the blocks of plan lines into work orders; see `bundle_together`."""
    return bundle_together([lines], blocks_per_order)


def bundle_together(questions: Sequence[Iterable[PlanLine]], blocks_per_order: int) -> tuple[WorkOrder, ...]:
    """Pack the blocks of plan lines into work orders, in order; one may hold blocks of several acquisitions.

    `questions` holds the lines of each question that is asked of the same tiles: jobs about one block come together.
    """
    if blocks_per_order < 1:
        raise ValueError(f"blocks_per_order is {blocks_per_order}, it must be 1 or more")
    shared: dict[tuple[datetime, str, Block], list[BlockJob]] = {}
    for question, lines in enumerate(questions):
        for line in lines:
            if line.acquisition is not None and line.step is not None:
                for block in line.blocks:
                    job = BlockJob(acquisition=line.acquisition, block=block, step=line.step, revision=line.revision,
                                   attempt=line.attempts.get(block, 0) + 1, question=question)  # fmt: skip
                    shared.setdefault((line.time, line.id, block), []).append(job)
    ordered = shared.values() if len(questions) == 1 else [shared[key] for key in sorted(shared)]
    return tuple(_order([job for jobs in pack for job in jobs]) for pack in batched(ordered, blocks_per_order))


def _order(jobs: Sequence[BlockJob]) -> WorkOrder:
    first = jobs[0]
    return WorkOrder(id=f"{first.step:06d}-{first.block.row:05d}-{first.block.col:05d}", jobs=tuple(jobs))


def _refuse_many_changes(acquisitions: Sequence[Acquisition], latest: Mapping[str, HeldStep]) -> None:
    """A scene counts as changed when it is held, and another fingerprint stands in its place, under any id."""
    changed, done = list[str](), 0
    for acquisition in acquisitions:
        if acquisition.id in latest:
            known = set(latest[acquisition.id].scenes.values())
            new = [scene.id for scene in acquisition.scenes if scene.fingerprint not in known]
            lost = known - {scene.fingerprint for scene in acquisition.scenes}
            changed += new[: len(lost)]
            done += len(known)
    if len(changed) > 1 and len(changed) > MAX_CHANGED * done:
        raise CatalogError(
            f"{len(changed)} of {done} scenes that are done have changed in the catalog, such as {changed[0]}",
            f"Up to {MAX_CHANGED:.0%} are done again without asking.",
            "If the archive was really re-processed, allow the changes for one run (--allow-changes).",
        )


def _usable(acquisition: Acquisition, required: frozenset[str]) -> tuple[Acquisition, str]:
    """Keep the scenes that have all bands; the note names one that has not."""
    lacking = [scene for scene in acquisition.scenes if required - scene.bands]
    if not lacking:
        return acquisition, ""
    example = lacking[0]
    count = "" if len(lacking) == 1 else f", nor have {len(lacking) - 1} more scenes all bands"
    note = f"{example.id} has no {', '.join(sorted(required - example.bands))}{count}"
    return replace(acquisition, scenes=tuple(s for s in acquisition.scenes if not required - s.bands)), note


def _first_line(
    acquisition: Acquisition, blocks: tuple[Block, ...], max_cloud: float | None, newest: datetime | None
) -> PlanLine:
    """Line of an acquisition that the cube does not hold."""
    clouds = [scene.cloud_cover for scene in acquisition.scenes]
    if max_cloud is not None and all(cloud is not None and cloud > max_cloud for cloud in clouds):
        clearest = min(cloud for cloud in clouds if cloud is not None)
        return _line(acquisition, Reason.CLOUDY, note=f"{clearest:g} % cloud, limit {max_cloud:g} %")
    if not blocks:
        return _line(acquisition, Reason.OUTSIDE, note="no scene reaches a block of the region")
    late = newest is not None and acquisition.time < newest
    return _line(acquisition, Reason.LATE if late else Reason.NEW, blocks)


def _next_line(
    acquisition: Acquisition,
    covered: Coverage,
    step: HeldStep,
    prompter: str,
    *,
    retry_quarantined: bool,
    backfill: bool,
) -> PlanLine:
    """Line of an acquisition that the cube holds: done, or a revision."""
    known = set(step.scenes.values())
    fresh_scenes = [scene for scene in acquisition.scenes if scene.fingerprint not in known]
    changed, seen = covered.of(acquisition, fresh_scenes), covered.of(acquisition)
    failed, pending = _in_state(step, BlockState.FAILED), _in_state(step, BlockState.PENDING)
    undone = {block for block in failed if retry_quarantined or step.attempts.get(block, 1) < TRIES}
    undone |= {*pending, *_of_others(step, step.unparsable, prompter)}
    again = {block for block in seen if block in undone or block not in step.states}
    attempts = {block: count for block, count in step.attempts.items() if block in again and block not in changed}
    if changed:
        note = f"{len(fresh_scenes)} of {len(acquisition.scenes)} scenes changed"
        blocks = tuple(sorted({*changed, *again}))
        return _line(acquisition, Reason.CHANGED, blocks, step.revision + 1, note, attempts)
    if backfill and (answered := _of_others(step, _in_state(step, BlockState.DONE), prompter) & set(seen)):
        note = f"{len(answered)} blocks were answered by other weights"
        blocks = tuple(sorted({*answered, *again}))
        return _line(acquisition, Reason.BACKFILL, blocks, step.revision + 1, note, attempts)
    if again:
        note = f"{len(again)} of {len(step.states)} blocks were not done"
        return _line(acquisition, Reason.RETRY, tuple(sorted(again)), step.revision + 1, note, attempts)
    if undone:
        note = f"{len(undone)} blocks were not done, and no scene reaches them now"
        return _line(acquisition, Reason.OUTSIDE, (), step.revision, note)
    if failed:
        note = f"{len(failed)} blocks failed {TRIES} times; --retry-quarantined tries them again"
        return _line(acquisition, Reason.QUARANTINED, (), step.revision, note)
    return _line(acquisition, Reason.DONE, (), step.revision)


def _of_others(step: HeldStep, blocks: Iterable[Block], prompter: str) -> set[Block]:
    """Those of `blocks` that other weights than `prompter` answered."""
    return {block for block in blocks if step.answered_by.get(block, step.prompter) != prompter}


def _in_state(step: HeldStep, state: BlockState) -> list[Block]:
    return [block for block, held in step.states.items() if held is state] if state in step.states.values() else []


def _gone_lines(
    present: Collection[str], latest: Mapping[str, HeldStep], window: tuple[datetime | None, datetime | None]
) -> Iterator[PlanLine]:
    since, until = window
    for step in latest.values():
        inside = (since is None or step.time >= since) and (until is None or step.time <= until)
        if step.acquisition not in present and inside:
            note = "no longer in the catalog; its masks are kept"
            yield PlanLine(
                id=step.acquisition, time=step.time, reason=Reason.GONE, acquisition=None,
                revision=step.revision, note=note,
            )  # fmt: skip


def _allot(
    lines: Sequence[PlanLine],
    grid: Grid,
    budget_tiles: int | None,
    n_published: int,
    estimate: Callable[[Acquisition, int], int],
) -> Iterator[PlanLine]:
    """Give the lines that ask for work their steps and sizes, until the budget is spent."""
    per_block = (grid.block_px // grid.core_px) ** 2
    left = None if budget_tiles is None else budget_tiles // per_block
    step = n_published
    for line in lines:
        if not line.blocks or line.acquisition is None:
            yield line
            continue
        count = len(line.blocks) if left is None else min(left, len(line.blocks))
        left = None if left is None else left - count
        if not count:
            note = f"{len(line.blocks) * per_block} tiles ({line.reason}) wait for the next run"
            yield replace(line, reason=Reason.OVER_BUDGET, blocks=(), over_budget=line.blocks, note=note)
            continue
        yield replace(
            line,
            blocks=line.blocks[:count],
            over_budget=line.blocks[count:],
            tiles=count * per_block,
            bytes_to_read=estimate(line.acquisition, count),
            step=step,
        )
        step += 1


def _line(
    acquisition: Acquisition,
    reason: Reason,
    blocks: tuple[Block, ...] = (),
    revision: int = 0,
    note: str = "",
    attempts: Mapping[Block, int] | None = None,
) -> PlanLine:
    """Line without step and sizes; `_allot` fills them in."""
    return PlanLine(
        id=acquisition.id, time=acquisition.time, reason=reason, acquisition=acquisition,
        blocks=blocks, revision=revision, note=note, attempts=attempts or {},
    )  # fmt: skip
