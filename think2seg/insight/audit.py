"""What gates have skipped, and how much they miss by it: from the sample that was asked about all the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scipy.stats import binomtest

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class GateAudit:
    """One gate's record."""

    gate: str
    """``nodata``, ``cloud`` or ``unchanged``."""
    gated: int
    """Tiles that the gate closed on, the audited ones included."""
    asked: int
    """Those of them that were drawn by lot and asked about."""
    missed: int
    """Those of the audited ones that held something, or had changed."""
    low: float
    high: float
    """Bounds of the miss rate at 95 % confidence (Clopper and Pearson 1934); 0 and 1 where nothing was audited."""

    @property
    def rate(self) -> float | None:
        """Estimated miss rate; None where nothing was audited."""
        return self.missed / self.asked if self.asked else None

    def sentence(self) -> str:
        """For people."""
        skipped = f"The gate “{self.gate}” closed on {self.gated:,} tiles"
        if self.rate is None:
            return f"{skipped}. None of them was asked about to see what it misses: set gates.audit, or skip less."
        return (
            f"{skipped}. Of {self.asked:,} that were asked about all the same, drawn by lot, {self.missed:,} would "
            f"have been missed: {self.rate:.1%}, between {self.low:.1%} and {self.high:.1%} at 95 % confidence."
        )


def audits(counts: Iterable[Mapping[str, int]]) -> tuple[GateAudit, ...]:
    """The record of every gate that closed on a tile, by name, from what receipts hold as `audit`."""
    sums: Counter[str] = Counter()
    for some in counts:
        sums.update(some)
    gates = sorted({name.partition(" ")[0] for name in sums})
    return tuple(_audit(gate, *(sums[f"{gate} {what}"] for what in ("gated", "asked", "missed"))) for gate in gates)


def _audit(gate: str, gated: int, asked: int, missed: int) -> GateAudit:
    low, high = 0.0, 1.0
    if asked:
        interval = binomtest(missed, asked).proportion_ci(confidence_level=CONFIDENCE, method="exact")
        low, high = float(interval.low), float(interval.high)
    return GateAudit(gate=gate, gated=gated, asked=asked, missed=missed, low=low, high=high)
