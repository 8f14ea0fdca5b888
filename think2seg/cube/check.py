"""Prove a cube: its structure, its ledger against its arrays, its receipts against its bytes."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from obstore.exceptions import BaseError

from think2seg.cube.conventions import broken_conventions
from think2seg.cube.cube import find_store, read_spec
from think2seg.cube.layout import (
    DATA,
    LABELS,
    NOT_OBSERVED,
    ROOT_KEY,
    CubeSpec,
    array_documents,
    chunk_key,
    open_array,
    root_document,
)
from think2seg.cube.ledger import Entry, Ledger, read_ledger
from think2seg.cube.publish import blank_block
from think2seg.cube.receipts import Receipt, read_receipts, read_unpublished
from think2seg.cube.records import STAGING, TABLES, table_key
from think2seg.cube.store import CubeStore, shown
from think2seg.cube.writer import array_digest
from think2seg.errors import CubeError, Think2SegError
from think2seg.grid import Block
from think2seg.imagery import BLOCKING
from think2seg.plan import BlockState

type Severity = Literal["error", "warning", "info"]
type Arrays = Mapping[str, zarr.Array[Any]]

_UNREADABLE = (RuntimeError, ValueError, OSError, BaseError)
"""What a damaged chunk raises on its way through the codecs."""
_RESTORE = "Restore it from a copy of the cube."
_REPAIR = "`think2seg check --repair` removes it."
PARTIAL = ".partial"
"""Ending of a file that another program was writing when it died."""
_FOREIGN, _AWAY = "does not belong to the cube.", "Move it elsewhere."
_RUN = "The next `think2seg run` completes it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be, or worth knowing."""

    severity: Severity
    """``error``: the cube is damaged. ``warning``: something does not belong here. ``info``: normal, but unfinished."""
    where: str
    """Key, step or block."""
    message: str
    todo: str

    def render(self) -> str:
        """One line for people."""
        return f"{self.severity}: {self.where}: {self.message} {self.todo}"

    def to_dict(self) -> dict[str, str]:
        """JSON values."""
        return asdict(self)


def check_cube(uri: str | Path) -> list[Finding]:
    """Look at every object of a cube and say what is wrong; an empty list proves it.

    Reads all chunks once, a block at a time.

    Raises
    ------
    CubeError
        There is no cube at `uri`.
    StoreError
        It cannot be read.
    """
    store = find_store(uri)
    spec = read_spec(store) if store is not None else None
    if store is None or spec is None:
        raise CubeError(f"There is no cube at {shown(str(uri))}", "A folder or URL that `think2seg run` wrote.")
    try:
        ledger = read_ledger(store)
    except Think2SegError as error:
        return [Finding(severity="error", where="_records/ledger", message=error.given, todo=error.todo)]
    arrays = {name: open_array(store, name, document, read_only=True) for name, document in _documents(spec, ledger)}
    return [
        *_structure(store, spec, ledger),
        *_conventions(store),
        *_labels(arrays, spec, ledger),
        *_blocks(store, spec, ledger, arrays),
        *_tables(store, ledger),
        *_orphans(store, ledger, {*arrays, "_records", ROOT_KEY}),
    ]


def repair_cube(uri: str | Path, findings: Iterable[Finding]) -> list[str]:
    """Remove what `check_cube` found to be unfinished files; return their keys.

    Nothing else is ever removed: the next run takes care of what an interrupted one left, and damage is not mended by
    deleting.

    Raises
    ------
    StoreError
        The store refuses.
    """
    store = CubeStore(uri)
    keys = [finding.where for finding in findings if finding.where.endswith(PARTIAL)]
    for key in keys:
        store.delete(key)
    return keys


def missing_scenes(uri: str | Path, present: Collection[str]) -> list[Finding]:
    """Say which scenes of a cube's latest revisions are not in its catalog any more.

    Parameters
    ----------
    uri
        The cube.
    present
        Fingerprints of the scenes that the catalog has.
    """
    ledger = read_ledger(CubeStore(uri))
    return [
        Finding(
            severity="warning",
            where=f"step {entry.step} ({acquisition})",
            message=f"was made from {scene}, which the catalog does not have as it was read.",
            todo="Nothing is lost; the source cannot be looked at again.",
        )
        for acquisition, entry in sorted(ledger.latest.items())
        for scene, fingerprint in sorted(entry.held.scenes.items())
        if fingerprint not in present
    ]


def _documents(spec: CubeSpec, ledger: Ledger) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from array_documents(spec, ledger.labels).items()


def _structure(store: CubeStore, spec: CubeSpec, ledger: Ledger) -> Iterator[Finding]:
    documents = dict(_documents(spec, ledger))
    wanted = {f"{name}/{ROOT_KEY}": document for name, document in documents.items()}
    wanted[ROOT_KEY] = root_document(spec, documents)
    for key, document in wanted.items():
        data = store.get(key)
        if data is None:
            yield Finding(severity="error", where=key, message="is missing.", todo=_RUN)
            continue
        try:
            held = json.loads(data)
        except ValueError:
            yield Finding(severity="error", where=key, message="is not JSON.", todo=_RESTORE)
            continue
        if held != document:
            behind = key == ROOT_KEY and _extent(held) < len(ledger.entries)
            message = (
                "is behind the ledger: a publication was interrupted." if behind else "differs from what was written."
            )
            yield Finding(
                severity="warning" if behind else "error", where=key, message=message, todo=_RUN if behind else _RESTORE
            )


def _conventions(store: CubeStore) -> Iterator[Finding]:
    try:
        broken = list(broken_conventions(json.loads(store.get(ROOT_KEY) or b"")))
    except (ValueError, LookupError, TypeError):
        return  # `_structure` says so
    for sentence in broken:
        yield Finding(severity="error", where=ROOT_KEY, message=sentence, todo=_RESTORE)


def _extent(root: Any) -> int:
    try:
        return int(root["consolidated_metadata"]["metadata"]["mask"]["shape"][0])
    except (LookupError, TypeError, ValueError):
        return -1


def _labels(arrays: Arrays, spec: CubeSpec, ledger: Ledger) -> Iterator[Finding]:
    labels = ledger.labels
    for name in LABELS:
        values = _read(arrays[name], ...)
        if values is None or not np.array_equal(values, labels.values(name)):
            yield Finding(severity="error", where=name, message="differs from the ledger.", todo=_RESTORE)
    for entry in ledger.entries:
        values = _read(arrays["state"], entry.step)
        if values is None or not np.array_equal(values, entry.state_array(spec.grid.rows, spec.grid.cols)):
            yield Finding(
                severity="error", where=f"state, step {entry.step}", message="differs from the ledger.", todo=_RESTORE
            )


def _blocks(store: CubeStore, spec: CubeSpec, ledger: Ledger, arrays: Arrays) -> Iterator[Finding]:
    @cache
    def receipts_of(step: int) -> dict[Block, Receipt]:
        return {receipt.block: receipt for receipt in read_receipts(store, step)}

    blank = {name: array_digest(array) for name, array in blank_block(spec).items()}
    for entry in ledger.entries:
        keys = (key for name in DATA for key in store.list_keys(f"{name}/c/{entry.step}"))
        present = {key for key in keys if _chunk_of(key) is not None}
        for block, state in sorted(entry.held.states.items()):
            origin = ledger.origin(entry, block)
            receipt = receipts_of(origin.step).get(block)
            digests = blank if block in origin.blank else receipt.digests if receipt is not None else None
            where = f"step {entry.step} ({entry.held.acquisition}), block {tuple(block)}"
            if digests is None:
                yield Finding(severity="error", where=where, message="has no receipt.", todo=_RESTORE)
                continue
            values = dict[str, npt.NDArray[Any]]()
            for name in DATA:
                key = chunk_key(name, entry.step, *block)
                found = _block(arrays[name], entry, block, spec.grid.block_px) if key in present else None
                present.discard(key)
                if found is None:
                    message = f"chunk {key} is missing or unreadable."
                    yield Finding(severity="error", where=where, message=message, todo=_RESTORE)
                elif array_digest(found) != digests[name]:
                    message = f"chunk {key} is not what was written."
                    yield Finding(severity="error", where=where, message=message, todo=_RESTORE)
                else:
                    values[name] = found
            yield from _rules(values, state, where)
        for key in sorted(present):
            message = "holds a block that the ledger does not know."
            yield Finding(severity="error", where=key, message=message, todo="Remove the object.")


def _rules(values: Mapping[str, npt.NDArray[Any]], state: BlockState, where: str) -> Iterator[Finding]:
    if not {"mask", "quality"} <= values.keys():
        return
    unobserved = values["mask"] == NOT_OBSERVED
    if (unobserved != ((values["quality"] & BLOCKING) != 0)).any():
        message = "mask is not 255 exactly where a blocking quality bit is set."
        yield Finding(severity="error", where=where, message=message, todo="Report this: it should be impossible.")
    if state in (BlockState.FAILED, BlockState.CLOUD) and not unobserved.all():
        message = f"is {state}, yet pixels of it are observed."
        yield Finding(severity="error", where=where, message=message, todo="Report this: it should be impossible.")


def _tables(store: CubeStore, ledger: Ledger) -> Iterator[Finding]:
    for name in TABLES:
        present = set(store.list_keys(f"_records/{name}"))
        for entry in ledger.entries:
            key = table_key(name, entry.held.acquisition, entry.held.revision)
            if key not in present:
                yield Finding(severity="error", where=key, message="is missing.", todo=_RESTORE)
            present.discard(key)
        for key in sorted(present):
            message = "belongs to no published revision."
            yield Finding(severity="warning", where=key, message=message, todo="Remove the object.")


def _orphans(store: CubeStore, ledger: Ledger, known: set[str]) -> Iterator[Finding]:
    n_published = len(ledger.entries)
    waiting = {(receipt.step, receipt.block) for receipt in read_unpublished(store, n_published)}
    if waiting:
        message = f"{len(waiting)} finished blocks wait for publication."
        yield Finding(severity="info", where="_records/receipts", message=message, todo=_RUN)
    for name in DATA:
        for chunk, key in ((_chunk_of(key), key) for key in store.list_keys(f"{name}/c")):
            if chunk is not None and chunk[0] >= n_published and chunk not in waiting:
                message = "is left over from an interrupted block."
                yield Finding(severity="info", where=key, message=message, todo=_RUN)
    for key in ledger.leftover:
        message = "is left over: the ledger's files have been put together."
        yield Finding(severity="info", where=key, message=message, todo=_RUN)
    for key in store.list_keys(STAGING):
        step = key.removeprefix(f"{STAGING}/").partition("/")[0]
        if not step.isdecimal():
            yield Finding(severity="warning", where=key, message=_FOREIGN, todo=_AWAY)
        elif int(step) < n_published:
            message = "is left over from a published step."
            yield Finding(severity="info", where=key, message=message, todo=_RUN)
    for key in store.list_keys():
        if key.endswith(PARTIAL):
            yield Finding(severity="info", where=key, message="is a file that was never finished.", todo=_REPAIR)
        elif (name := key.partition("/")[0]) not in known or (
            name in DATA and _chunk_of(key) is None and key != f"{name}/{ROOT_KEY}"
        ):
            yield Finding(severity="warning", where=key, message=_FOREIGN, todo=_AWAY)


def _chunk_of(key: str) -> tuple[int, Block] | None:
    """Step and block of a chunk's key; None for anything else."""
    parts = key.split("/")[2:]
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        return None
    step, row, col = map(int, parts)
    return step, Block(row, col)


def _block(array: zarr.Array[Any], entry: Entry, block: Block, side: int) -> npt.NDArray[Any] | None:
    y, x = block.row * side, block.col * side
    return _read(array, (entry.step, slice(y, y + side), slice(x, x + side)))


def _read(array: zarr.Array[Any], selection: Any) -> npt.NDArray[Any] | None:
    """Values of an array, or None where they cannot be decoded."""
    try:
        return np.asarray(array[selection])
    except _UNREADABLE:
        return None
