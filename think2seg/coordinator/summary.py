"""What a run did, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from think2seg.cube.receipts import NOT_ASKED, Receipt
from think2seg.plan import TRIES, BlockState, Reason

STAGES = ("search", "read", "prompt", "segment", "write")
_UNREADABLE = ("unparsable", "truncated")
_CHANCE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """Figures of one run; `to_dict` is the JSON contract of ``think2seg run --json``."""

    monitor: str
    monitor_hash: str
    cubes: tuple[str, ...]
    acquisitions: dict[str, int]
    """done, skipped, failed."""
    blocks: dict[str, int]
    """Block state → count; ``reused`` counts receipts taken over from a run that was killed."""
    tiles: dict[str, int]
    """done, cloud, failed, gated; tiles beyond the region or without imagery are none of these."""
    failures: tuple[dict[str, Any], ...]
    """item, block, reason, message."""
    seconds: dict[str, float]
    """``total`` is wall time; the stages are summed over workers."""
    square_km: float
    """Area of the blocks done, counted once per acquisition."""
    seam_ratio: float | None
    """Disagreement of neighbouring tiles at core edges over that of their interior; at most 1.2 by design."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Plan reason → acquisitions."""
    unparsable_tiles: int = 0
    """Tiles whose answer stayed unreadable, or was cut off."""
    unknown_tiles: int = 0
    """Tiles of which the prompter said that it does not know the concept: not observed, which is not absent."""
    probes: dict[str, int] = field(default_factory=dict)
    """Observed blocks of probes, and those where something was found: ``blocks``, ``false_alarms``; ``…_before`` in the
    latest steps before this run. Empty without probes."""

    @property
    def has_more_false_alarms(self) -> bool:
        """Whether probes found something more often than before, by Fisher's exact test (one-sided, 1 %)."""
        if not self.probes:
            return False
        from scipy.stats import fisher_exact

        table = [
            [self.probes[f"false_alarms{when}"], self.probes[f"blocks{when}"] - self.probes[f"false_alarms{when}"]]
            for when in ("", "_before")
        ]
        return bool(fisher_exact(table, alternative="greater").pvalue < _CHANCE)

    @property
    def exit_code(self) -> int:
        """0 when everything asked for is in the cube, 3 when part of it failed."""
        return 3 if self.acquisitions["failed"] else 0

    def sentence(self) -> str:
        """One line for people."""
        done, failed = self.acquisitions["done"], self.acquisitions["failed"]
        if not done and not failed:
            if given_up := self.reasons.get(Reason.QUARANTINED, 0):
                blocks = f"blocks of {_counted(given_up, 'acquisition')} failed {TRIES} times"
                return f"Nothing to do, but {blocks}: --retry-quarantined tries them again."
            return "Nothing to do: the cube holds every acquisition that can be read."
        text = f"{_counted(done, 'acquisition')} done in {self.seconds['total']:.0f} s"
        if failed:
            text += f", {failed} in part: {_counted(self.blocks.get('failed', 0), 'block')} failed and will be retried"
        if self.unknown_tiles:
            text += f". The prompter does not know this concept: {_counted(self.unknown_tiles, 'tile')} not observed"
        return f"{text}."

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "monitor": self.monitor,
            "monitor_hash": self.monitor_hash,
            "cubes": list(self.cubes),
            "acquisitions": self.acquisitions,
            "blocks": self.blocks,
            "tiles": self.tiles,
            "failures": list(self.failures),
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
            "square_km": round(self.square_km, 3),
            "seam_ratio": None if self.seam_ratio is None else round(self.seam_ratio, 4),
            "reasons": self.reasons,
            "unparsable_tiles": self.unparsable_tiles,
            "unknown_tiles": self.unknown_tiles,
            "probes": self.probes,
            "exit_code": self.exit_code,
        }


class Tally:
    """Running totals over receipts, so that a run need not keep them all."""

    def __init__(self) -> None:
        self.states = Counter({state.value: 0 for state in (BlockState.DONE, BlockState.CLOUD, BlockState.FAILED)})
        """Block state → blocks."""
        self.tiles = Counter({"done": 0, "cloud": 0, "failed": 0, "gated": 0})
        """What became of a tile → tiles."""
        self.unparsable_tiles = 0
        """Tiles whose answer stayed unreadable, or was cut off."""
        self.unknown_tiles = 0
        """Tiles that the prompter had no notion of."""
        self.seconds: Counter[str] = Counter()
        """Stage → seconds, summed over workers."""
        self.failures: list[dict[str, Any]] = []
        """Rows of `failure_rows`."""
        self.probes: Counter[str] = Counter()
        """See `RunSummary.probes`."""
        self.failed: set[str] = set()
        """Acquisitions of which a block failed."""
        self._acquisitions: set[str] = set()
        self._seam: Counter[str] = Counter()

    @property
    def done(self) -> set[str]:
        """Acquisitions of which no block failed."""
        return self._acquisitions - self.failed

    def add_probes(self, receipts: Iterable[Receipt], *, before: bool) -> None:
        """Count what probes found, in this run or before it."""
        when = "_before" if before else ""
        seen = [receipt for receipt in receipts if receipt.observed_px]
        self.probes[f"blocks{when}"] += len(seen)
        self.probes[f"false_alarms{when}"] += sum(receipt.present_px > 0 for receipt in seen)

    def add(self, receipts: Iterable[Receipt]) -> None:
        """Count some more."""
        for receipt in receipts:
            self.states[receipt.state.value] += 1
            self.seconds.update(receipt.seconds)
            self._seam.update(receipt.seam)
            self._acquisitions.add(receipt.acquisition)
            self.unknown_tiles += receipt.tiles.get("unknown concept", 0)
            self.unparsable_tiles += sum(receipt.tiles.get(status, 0) for status in _UNREADABLE)
            for status, number in receipt.tiles.items():
                if status in self.tiles:
                    self.tiles[status] += number
                elif status not in NOT_ASKED:
                    self.tiles["done"] += number
            if receipt.state is BlockState.FAILED:
                self.failed.add(receipt.acquisition)
            self.failures.extend(failure_rows([receipt]))

    def seam_ratio(self) -> float | None:
        """Disagreement at core edges relative to that of the interior; None where no two tiles meet."""
        edge, inside = self._seam["edge_compared"], self._seam["inside_compared"]
        if not edge or not inside or not self._seam["inside_differs"]:
            return None
        return (self._seam["edge_differs"] / edge) / (self._seam["inside_differs"] / inside)


def failure_rows(receipts: Iterable[Receipt]) -> tuple[dict[str, Any], ...]:
    """One row per failure of the contract: item, block, reason, message."""
    return tuple(
        {
            "acquisition": receipt.acquisition,
            "item": failure.item,
            "block": list(failure.block),
            "reason": failure.reason,
            "message": failure.message,
        }
        for receipt in receipts
        for failure in receipt.failures
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
