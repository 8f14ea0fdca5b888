"""(scenes × blocks) − ledger = plan: every line with its reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from think2seg.grid import Block
from think2seg.stac.scenes import Acquisition


class Reason(StrEnum):
    """Why an acquisition is, or is not, worked on."""

    NEW = "new"
    LATE = "late"
    CHANGED = "changed"
    RETRY = "retry"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLine:
    """What happens to one acquisition."""

    id: str
    time: datetime
    reason: Reason
    acquisition: Acquisition | None
    """None for an acquisition that is gone from the catalog."""
    blocks: tuple[Block, ...]
    """Blocks to do now; empty unless the reason asks for work."""
    tiles: int
    bytes_to_read: int
    step: int | None
    """Index on the cube's time axis that the work will have."""
    revision: int
    note: str
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


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOrder:
    """A bundle of block jobs for one worker, big enough to fill its batches."""

    id: str
    jobs: tuple[BlockJob, ...]
