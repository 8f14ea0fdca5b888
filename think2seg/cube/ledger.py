"""What the cube holds, from which scenes and models: one file per publication, created exclusively, never changed.

The ledger decides. Once a publication's file stands, its steps belong to the cube, and whatever is still missing of
them (copied chunks, labels, shapes, consolidated metadata) is rolled forward from what the file and the receipts say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from think2seg.cube.layout import OUTSIDE_STATE, Labels
from think2seg.cube.receipts import Receipt
from think2seg.cube.store import CubeStore
from think2seg.errors import CubeError
from think2seg.grid import Block
from think2seg.plan import BlockState, HeldStep, PlanLine

FOLDER = "_records/ledger"
_STATES = tuple(BlockState)
_NOTHING = "."
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One published step, with what is needed to finish publishing it."""

    held: HeldStep
    segmenter: str
    published: datetime
    base: int | None
    """Step of the revision that untouched blocks are copied from."""
    copied: frozenset[Block]
    """Blocks copied from `base`."""
    region: str
    """The region (WGS 84, WKT) that the step was published with; empty where it is not known."""
    region_px: int
    observed_px: int
    """Pixels of the region; of those, observed ones in this step."""

    @property
    def step(self) -> int:
        """Position on the time axis."""
        return self.held.step

    @property
    def fresh(self) -> tuple[Block, ...]:
        """Blocks that this step's own receipts account for, in order."""
        held = self.held.states
        return tuple(sorted(b for b, s in held.items() if b not in self.copied and s is not BlockState.PENDING))

    @property
    def blank(self) -> tuple[Block, ...]:
        """Blocks over budget, with no earlier answer to copy."""
        held = self.held.states
        return tuple(sorted(b for b, s in held.items() if b not in self.copied and s is BlockState.PENDING))

    @property
    def model_version(self) -> str:
        """Name of the weights that answered this step's fresh blocks."""
        return model_version(self.held.prompter, self.segmenter)

    def state_array(self, rows: int, cols: int) -> npt.NDArray[np.uint8]:
        """(rows, cols) uint8, the step's slice of the cube's `state`."""
        array = np.full((rows, cols), OUTSIDE_STATE, np.uint8)
        for block, state in self.held.states.items():
            array[block] = _STATES.index(state)
        return array


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """All published steps, in step order."""

    entries: tuple[Entry, ...] = ()
    sequence: int = 0
    """Number of the last publication."""

    @property
    def held(self) -> tuple[HeldStep, ...]:
        """The steps as the planner wants them."""
        return tuple(entry.held for entry in self.entries)

    @property
    def latest(self) -> Mapping[str, Entry]:
        """Acquisition id → its highest revision."""
        found: dict[str, Entry] = {}
        for entry in self.entries:
            known = found.get(entry.held.acquisition)
            if known is None or entry.held.revision > known.held.revision:
                found[entry.held.acquisition] = entry
        return found

    def origin(self, entry: Entry, block: Block) -> Entry:
        """The step whose receipts account for a block of a step: itself, or the one it was first copied from."""
        while block in entry.copied and entry.base is not None:
            entry = self.entries[entry.base]
        return entry

    @property
    def labels(self) -> Labels:
        """Values of the cube's labels along time."""
        return Labels(
            time=[_since_epoch(e.held.time, timedelta(seconds=1)) for e in self.entries],
            published=[_since_epoch(e.published, timedelta(milliseconds=1)) for e in self.entries],
            acquisition=[e.held.acquisition for e in self.entries],
            revision=[e.held.revision for e in self.entries],
            model_version=[e.model_version for e in self.entries],
            observed_fraction=[e.observed_px / e.region_px if e.region_px else 0.0 for e in self.entries],
        )


def model_version(prompter: str, segmenter: str) -> str:
    """Name of a pair of weights: the beginnings of both digests."""
    return f"{prompter[:12]}+{segmenter[:12]}"


def read_ledger(store: CubeStore) -> Ledger:
    """Read the whole ledger.

    Raises
    ------
    CubeError
        Its files do not follow on each other: some were removed or added by hand.
    """
    entries: list[Entry] = []
    sequence = 0
    for key in store.list_keys(FOLDER):
        data = store.get(key)
        if data is None:
            continue
        plain = json.loads(data)
        sequence += 1
        if plain["sequence"] != sequence or any(
            step["step"] != len(entries) + offset for offset, step in enumerate(plain["steps"])
        ):
            raise CubeError(
                f"The ledger breaks off before {key!r}",
                f"Publication {sequence}, from step {len(entries)} on, was expected.",
                "Restore the missing files of _records/ledger from a copy of the cube.",
            )
        for step in plain["steps"]:
            entries.append(_entry(step, entries[-1].region if entries else ""))
    return Ledger(entries=tuple(entries), sequence=sequence)


def check_line(line: PlanLine, done: Mapping[Block, Receipt], base: Entry | None, *, n_published: int) -> None:
    """Refuse a line that cannot be the cube's next step.

    Raises
    ------
    CubeError
        It is out of order, incomplete, or its receipts belong to something else.
    """
    if line.acquisition is None or not line.blocks:
        raise CubeError(f"{line.id} has no blocks to publish", "Lines of Plan.work.")
    if not _SAFE.fullmatch(line.id):
        raise CubeError(f"Acquisition {line.id!r}", "Letters, digits, '.', '_' and '-' only: it becomes a folder name.")
    revision = 0 if base is None else base.held.revision + 1
    if (line.step, line.revision) != (n_published, revision):
        raise CubeError(
            f"{line.id} wants step {line.step}, revision {line.revision}",
            f"The cube goes on with step {n_published}, and with revision {revision} of this acquisition.",
            "Plan again from the cube's ledger.",
        )
    if missing := [block for block in line.blocks if block not in done]:
        raise CubeError(
            f"{line.id} lacks receipts of {len(missing)} of its {len(line.blocks)} blocks, such as {tuple(missing[0])}",
            "A step is published whole.",
            "Run again: finished blocks are kept.",
        )
    wanted = (line.id, line.revision, line.acquisition.fingerprint)
    for block in line.blocks:
        receipt = done[block]
        if (receipt.acquisition, receipt.revision, receipt.fingerprint) != wanted:
            raise CubeError(f"A receipt of {receipt.acquisition} was handed in for {line.id}", todo="Plan again.")


def commit(store: CubeStore, ledger: Ledger, entries: Sequence[Entry], *, epoch: int) -> Ledger | None:
    """Record a publication on top of a ledger; None if another one took its number. This is the moment that decides."""
    regions = [ledger.entries[-1].region if ledger.entries else "", *(entry.region for entry in entries)]
    steps = [_plain(entry, before) for entry, before in zip(entries, regions[:-1], strict=True)]
    sequence = ledger.sequence + 1
    plain = {"sequence": sequence, "epoch": epoch, "steps": steps}
    if not store.create(f"{FOLDER}/{sequence:08d}.json", json.dumps(plain).encode()):
        return None
    return Ledger(entries=(*ledger.entries, *entries), sequence=sequence)


def _plain(entry: Entry, region_before: str) -> dict[str, Any]:
    """Return an entry as JSON values; its region only where it is not that of the entry before."""
    held = entry.held
    return {
        "step": held.step,
        "acquisition": held.acquisition,
        "revision": held.revision,
        "time": held.time.isoformat(),
        "scenes": dict(held.scenes),
        "prompter": held.prompter,
        "segmenter": entry.segmenter,
        "states": _runs(held.states),
        "attempts": [[*block, count] for block, count in sorted(held.attempts.items())],
        "unparsable": _listed(held.unparsable),
        "published": entry.published.isoformat(),
        "base": entry.base,
        "copied": _listed(entry.copied),
        "region": entry.region if entry.region != region_before else None,
        "region_px": entry.region_px,
        "observed_px": entry.observed_px,
    }


def _entry(plain: Mapping[str, Any], region_before: str) -> Entry:
    states = {
        Block(int(row), first + offset): _STATES[int(code)]
        for row, first, codes in plain["states"]
        for offset, code in enumerate(codes)
        if code != _NOTHING
    }
    held = HeldStep(
        step=plain["step"],
        acquisition=plain["acquisition"],
        revision=plain["revision"],
        time=datetime.fromisoformat(plain["time"]),
        scenes=plain["scenes"],
        prompter=plain["prompter"],
        states=states,
        attempts={Block(row, col): count for row, col, count in plain["attempts"]},
        unparsable=_blocks(plain["unparsable"]),
    )
    return Entry(
        held=held,
        segmenter=plain["segmenter"],
        published=datetime.fromisoformat(plain["published"]),
        base=plain["base"],
        copied=_blocks(plain["copied"]),
        region=region_before if plain.get("region") is None else plain["region"],
        region_px=plain["region_px"],
        observed_px=plain["observed_px"],
    )


def _runs(states: Mapping[Block, BlockState]) -> list[tuple[int, int, str]]:
    """States row by row: row, first column, one digit per column."""
    rows: dict[int, dict[int, int]] = {}
    for block, state in states.items():
        rows.setdefault(block.row, {})[block.col] = _STATES.index(state)
    return [
        (row, min(cols), "".join(str(cols.get(col, _NOTHING)) for col in range(min(cols), max(cols) + 1)))
        for row, cols in sorted(rows.items())
    ]


def _listed(blocks: Iterable[Block]) -> list[list[int]]:
    return [list(block) for block in sorted(blocks)]


def _blocks(listed: Iterable[Sequence[int]]) -> frozenset[Block]:
    return frozenset(Block(row, col) for row, col in listed)


def _since_epoch(moment: datetime, unit: timedelta) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // unit
