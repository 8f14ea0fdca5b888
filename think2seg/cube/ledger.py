"""What the cube holds, from which scenes and models: one file per publication, created exclusively, never changed.

The ledger decides. Once a publication's file stands, its steps belong to the cube, and whatever is still missing of
them (copied chunks, labels, shapes, consolidated metadata) is rolled forward from what the file and the receipts say.

Every `COMPACT_AFTER` publications their files are put together into one, so that reading the ledger takes a handful of
requests however long the cube has been growing. The file of all publications so far is written whole, and only then are
those that it replaces removed: whoever reads takes the one that reaches furthest and what follows on it, and begins
again when files go away meanwhile.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
COMPACT_AFTER = 64
"""Publications after which their files are put together."""
_STATES = tuple(BlockState)
_NOTHING = "."
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_COMPACT = ".jsonl"
_NUMBERS = re.compile(r"(?P<first>\d{8})(-(?P<last>\d{8})\.jsonl|\.json)")


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
    compacted: int = 0
    """Number of the last publication that has been put together with those before it."""
    leftover: tuple[str, ...] = ()
    """Keys of files that an interrupted compaction has replaced and not removed."""

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


def read_ledger(store: CubeStore, known: Ledger | None = None) -> Ledger:
    """Read the whole ledger.

    Parameters
    ----------
    store
        The cube's store.
    known
        What was read of it before: publications never change, so that only later ones are read.

    Raises
    ------
    CubeError
        Its files do not follow on each other: some were removed or added by hand.
    """
    listed = store.list_keys(FOLDER)
    while True:
        spans = {key: span for key in listed if (span := _span(key)) is not None}
        furthest = max((key for key in spans if key.endswith(_COMPACT)), key=lambda key: spans[key], default=None)
        compacted = spans[furthest][1] if furthest else 0
        current = [*([furthest] if furthest else []), *(key for key in spans if spans[key][0] > compacted)]
        base = known if known is not None and compacted <= known.sequence else Ledger(sequence=compacted)
        wanted = current if base is not known else [key for key in current if spans[key][1] > base.sequence]
        texts = [store.get(key) for key in wanted]
        if None not in texts:
            base = replace(base, compacted=compacted, leftover=tuple(sorted(spans.keys() - set(current))))
            return _continued(base, list(zip(wanted, texts, strict=True)))
        before, listed = listed, store.list_keys(FOLDER)
        if listed == before:
            raise CubeError(f"{wanted[texts.index(None)]!r} is listed and cannot be read", "", "Check the store.")


def compact(store: CubeStore, ledger: Ledger) -> Ledger:
    """Put the ledger's files together where there are many, and remove those that this replaces.

    To be called by the holder of the lease alone. Dying between any two of its writes changes nothing of what the
    ledger says, and the next call goes on.
    """
    leftover = list(ledger.leftover)
    if ledger.sequence - ledger.compacted >= COMPACT_AFTER:
        old = [_compact_key(ledger.compacted)] if ledger.compacted else []
        loose = [_loose_key(number) for number in range(ledger.compacted + 1, ledger.sequence + 1)]
        steps = [json.dumps(step).encode() for key in loose for step in json.loads(_whole(store, key))["steps"]]
        lines = [line for key in old for line in _whole(store, key).splitlines()]
        store.put(_compact_key(ledger.sequence), b"\n".join([*lines, *steps, b""]))
        ledger = replace(ledger, compacted=ledger.sequence)
        leftover += [*old, *loose]
    for key in leftover:
        store.delete(key)
    return replace(ledger, leftover=()) if leftover else ledger


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
    if not store.create(_loose_key(sequence), json.dumps(plain).encode()) or _is_compacted(store, sequence):
        return None
    return replace(ledger, entries=(*ledger.entries, *entries), sequence=sequence)


def _whole(store: CubeStore, key: str) -> bytes:
    if (data := store.get(key)) is None:
        raise CubeError(f"{key!r} is missing", "The ledger's own files.", "Restore it from a copy of the cube.")
    return data


def _is_compacted(store: CubeStore, sequence: int) -> bool:
    """Whether a publication's number was taken long ago, and its file removed since."""
    spans = (_span(key) for key in store.list_keys(FOLDER) if key.endswith(_COMPACT))
    return any(span is not None and span[1] >= sequence for span in spans)


def _loose_key(sequence: int) -> str:
    return f"{FOLDER}/{sequence:08d}.json"


def _compact_key(sequence: int) -> str:
    return f"{FOLDER}/{1:08d}-{sequence:08d}{_COMPACT}"


def _span(key: str) -> tuple[int, int] | None:
    """First and last publication in a file; None for one that is not the ledger's."""
    numbers = _NUMBERS.fullmatch(key.removeprefix(f"{FOLDER}/"))
    return (int(numbers["first"]), int(numbers["last"] or numbers["first"])) if numbers else None


def _continued(base: Ledger, files: Sequence[tuple[str, bytes | None]]) -> Ledger:
    """Return a ledger with the steps of more files."""
    entries, sequence = list(base.entries), base.sequence
    codec = _StepCodec()
    for key, text in files:
        if key.endswith(_COMPACT):
            steps = json.loads(b"[%s]" % b",".join((text or b"").splitlines()))
        else:
            document = json.loads(text or b"{}")
            sequence, steps = sequence + 1, document["steps"]
            if document["sequence"] != sequence:
                raise _broken(key, sequence, len(entries))
        for step in steps:
            if step["step"] != len(entries):
                raise _broken(key, sequence, len(entries))
            entries.append(codec.entry(step, entries[-1].region if entries else ""))
    return replace(base, entries=tuple(entries), sequence=sequence)


def _broken(key: str, sequence: int, step: int) -> CubeError:
    return CubeError(
        f"The ledger breaks off before {key!r}",
        f"Publication {sequence}, from step {step} on, was expected.",
        "Restore the missing files of _records/ledger from a copy of the cube.",
    )


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


class _StepCodec:
    """Entries from JSON values. Steps that are alike share their states, which most of a long archive's steps are."""

    def __init__(self) -> None:
        self._states: dict[str, Mapping[Block, BlockState]] = {}

    def entry(self, plain: Mapping[str, Any], region_before: str) -> Entry:
        held = HeldStep(
            step=plain["step"],
            acquisition=plain["acquisition"],
            revision=plain["revision"],
            time=datetime.fromisoformat(plain["time"]),
            scenes=plain["scenes"],
            prompter=sys.intern(plain["prompter"]),
            states=self._shared(plain["states"]),
            attempts={Block(row, col): count for row, col, count in plain["attempts"]},
            unparsable=_blocks(plain["unparsable"]),
        )
        return Entry(
            held=held,
            segmenter=sys.intern(plain["segmenter"]),
            published=datetime.fromisoformat(plain["published"]),
            base=plain["base"],
            copied=_blocks(plain["copied"]),
            region=region_before if plain.get("region") is None else plain["region"],
            region_px=plain["region_px"],
            observed_px=plain["observed_px"],
        )

    def _shared(self, runs: str) -> Mapping[Block, BlockState]:
        if runs not in self._states:
            self._states[runs] = dict(_unrolled(runs))
        return self._states[runs]


def _unrolled(runs: str) -> Iterator[tuple[Block, BlockState]]:
    for run in runs.split():
        row, first, codes = run.split(":")
        for col, code in enumerate(codes, int(first)):
            if code != _NOTHING:
                yield Block(int(row), col), _STATES[int(code)]


def _runs(states: Mapping[Block, BlockState]) -> str:
    """States row by row, ``row:first column:one digit per column``."""
    rows: dict[int, dict[int, int]] = {}
    for block, state in states.items():
        rows.setdefault(block.row, {})[block.col] = _STATES.index(state)
    return " ".join(
        f"{row}:{min(cols)}:" + "".join(str(cols.get(col, _NOTHING)) for col in range(min(cols), max(cols) + 1))
        for row, cols in sorted(rows.items())
    )


def _listed(blocks: Iterable[Block]) -> list[list[int]]:
    return [list(block) for block in sorted(blocks)]


def _blocks(listed: Iterable[Sequence[int]]) -> frozenset[Block]:
    return frozenset(Block(row, col) for row, col in listed)


def _since_epoch(moment: datetime, unit: timedelta) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // unit
