"""Gates: tiles that are not asked about, because the imagery says that it would not pay.

What a gate skips is *gated*, never absent. A part of it, drawn by a hash of acquisition and tile, is asked about all
the same: what the gate would have missed there tells how much it misses everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal

import numpy as np
import numpy.typing as npt

from think2seg.engine.looks import RGB, Look, Seen, claims
from think2seg.engine.spec import RunSpec
from think2seg.errors import ImageryError
from think2seg.imagery import BLOCKING, BlockImagery, Quality, cut_tiles, read_block
from think2seg.plan import BlockJob

type Gate = Literal["nodata", "cloud", "unchanged"]

BEFORE = "before"
"""`Look.part` of the earlier picture of an audited tile, asked about to compare."""
CHANGED_SHARE = 0.01
"""Part of a core whose mask must differ from the earlier one's before an unchanged tile counts as missed."""
_CLOUD = np.uint16(Quality.CLOUD | Quality.SHADOW)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GatedTile:
    """A tile that a gate closed on."""

    look: Look
    gate: Gate
    audited: bool
    """Whether it is asked about all the same."""
    before: Look | None = None
    """The earlier picture that it looks like."""


class Gatekeeper:
    """Applies a run's gates to the looks at one block after the other."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec, self._gates = spec, spec.gates

    def judge(self, job: BlockJob, imagery: BlockImagery, looks: Sequence[Look]) -> list[GatedTile]:
        """Which of the `looks` at a block a gate closes on; none where the monitor has no gates."""
        if self._gates.off:
            return []
        earlier = self._earlier(job) if self._gates.unchanged is not None else []
        found = []
        for look in looks:
            bits = imagery.quality[look.core.moved(self._spec.grid.halo_px, self._spec.grid.halo_px).slices]
            gate, before = self._gate(look, bits, earlier)
            if gate is not None:
                audited = _drawn(f"{job.acquisition.id}\0{look.tile.id}", self._gates.audit)
                found.append(GatedTile(look=look, gate=gate, audited=audited, before=before))
        return found

    def _gate(
        self, look: Look, bits: npt.NDArray[np.uint16], earlier: Iterable[BlockImagery]
    ) -> tuple[Gate | None, Look | None]:
        gates = self._gates
        inside = bits[(bits & Quality.OUTSIDE) == 0]
        if gates.nodata is not None and ((inside & Quality.NODATA) != 0).mean() >= gates.nodata:
            return "nodata", None
        if gates.cloud is not None and ((inside & _CLOUD) != 0).mean() >= gates.cloud:
            return "cloud", None
        if gates.unchanged is not None and not (inside & BLOCKING).any():
            before = self._last_clear(look, earlier)
            if before is not None and _difference(look.rgb, before) <= gates.unchanged:
                return "unchanged", replace(look, rgb=before, part=BEFORE)
        return None, None

    def _earlier(self, job: BlockJob) -> list[BlockImagery]:
        """Imagery of the acquisitions before, newest first; those that cannot be read are no help."""
        spec, found = self._spec, []
        for acquisition in job.earlier:
            try:
                found.append(read_block(acquisition, job.block, spec.grid, spec.archive, spec.region))
            except ImageryError:
                continue
        return found

    def _last_clear(self, look: Look, earlier: Iterable[BlockImagery]) -> RGB | None:
        for imagery in earlier:
            for tile, rgb, quality in cut_tiles(imagery, self._spec.grid, look.tile.block):
                if tile == look.tile and not (quality & BLOCKING & ~np.uint16(Quality.OUTSIDE)).any():
                    return rgb
        return None


def audit_sums(gated: Iterable[GatedTile], seen: Sequence[Seen], quality: npt.NDArray[np.uint16]) -> dict[str, int]:
    """Sums behind the miss rate of one block and question: ``GATE gated``, ``GATE asked`` and ``GATE missed`` tiles.

    A tile without data or under cloud is missed when something is found in it where `quality` (block_px, block_px)
    has no blocking bit, an unchanged one when its mask differs from the earlier picture's; either is looked at in one
    view. An audited tile whose answers did not all come to an end tells nothing and is not counted as asked.
    """
    sums: Counter[str] = Counter()
    for one in gated:
        sums[f"{one.gate} gated"] += 1
        if one.audited:
            now = [s for s in seen if s.look.tile == one.look.tile and s.look.part != BEFORE and not s.look.view]
            then = [s for s in seen if s.look.tile == one.look.tile and s.look.part == BEFORE]
            if not all(claim.last.settled for looks in (now, then) for claim in claims(looks)):
                continue
            storable = (quality[one.look.core.slices] & BLOCKING) == 0
            differs = (_found(one.look, now) ^ _found(one.look, then)) & storable
            missed = differs.mean() > CHANGED_SHARE if one.gate == "unchanged" else differs.any()
            sums[f"{one.gate} asked"] += 1
            sums[f"{one.gate} missed"] += int(missed)
    return dict(sums)


def _found(look: Look, seen: Sequence[Seen]) -> npt.NDArray[np.bool_]:
    """What was drawn in the core of a look."""
    core = look.core
    present = np.zeros((core.height, core.width), dtype=np.bool_)
    for claim in claims(seen):
        present[claim.window.moved(-core.y, -core.x).slices] |= claim.present
    return present


def _difference(first: RGB, second: RGB) -> float:
    """Mean absolute difference of two pictures, in steps of 255."""
    return float(np.abs(first.astype(np.int16) - second).mean())


def _drawn(key: str, share: float) -> bool:
    """Whether `key` is among the `share` of all keys that are drawn."""
    return int.from_bytes(sha256(key.encode()).digest()[:8]) < share * 2**64
