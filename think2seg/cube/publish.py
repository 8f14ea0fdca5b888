"""How steps become visible: decide in the ledger, then roll forward to the root's consolidated metadata.

The order is the guarantee. Workers leave arrays, staged rows and receipts where no reader looks. The ledger's next
file, created exclusively, decides. Everything after it is derived from the ledger and the receipts, written the same
way however often it is repeated, and visible only once the root's metadata names the new extent. A run that dies
anywhere leaves either undecided work, which the next run's plan finds by its receipts, or decided work, which
`roll_forward` completes.

A run that falls asleep anywhere and wakes up after another one took its lease changes nothing: the ledger is sealed
against it, labels and metadata go through the lease's fence, and whatever else it may still write follows from the
ledger's decisions alone and is what stands there already.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np

from think2seg.cube.layout import (
    DATA,
    LABELS,
    NO_LABELS,
    NOT_OBSERVED,
    ROOT_KEY,
    CubeSpec,
    array_documents,
    as_bytes,
    chunk_key,
    encode_chunks,
    identity_digest,
    root_document,
)
from think2seg.cube.lease import Lease
from think2seg.cube.ledger import Entry, Ledger, check_line, commit, read_ledger
from think2seg.cube.receipts import FOLDER as RECEIPTS
from think2seg.cube.receipts import Receipt, bundle_key, read_receipts, receipt_key
from think2seg.cube.records import STAGING, TABLES, merge, staged_key
from think2seg.cube.store import CubeStore, shown
from think2seg.errors import CubeError, LeaseError, StoreError
from think2seg.grid import Block
from think2seg.imagery import Quality
from think2seg.plan import BlockState, HeldStep, PlanLine


def publish(
    store: CubeStore,
    spec: CubeSpec,
    ledger: Ledger,
    lines: Sequence[PlanLine],
    receipts: Sequence[Receipt],
    lease: Lease,
    *,
    region: str,
    region_px: int,
) -> Ledger:
    """Publish finished steps on top of a ledger that is rolled forward; see `Cube.publish`."""
    by_step: dict[int | None, dict[Block, Receipt]] = {}
    for receipt in receipts:
        by_step.setdefault(receipt.step, {})[receipt.block] = receipt
    published = max([_now(), *(entry.published for entry in ledger.entries[-1:])])
    known = dict(ledger.latest)
    entries: list[Entry] = []
    for line in lines:
        done, base = by_step.get(line.step, {}), known.get(line.id)
        check_line(line, done, base, n_published=len(ledger.entries) + len(entries))
        _check_objects(store, line)
        entry = _new_entry(store, ledger, line, done, base, published, region, region_px)
        known[line.id] = entry
        entries.append(entry)
    if not entries:
        return ledger
    return roll_forward(store, spec, _decide(store, ledger, entries, lease), lease)


def seal(store: CubeStore, ledger: Ledger, lease: Lease) -> Ledger:
    """Make sure that a run which lost the lease cannot decide anything any more; return the ledger as it stands then.

    Where the lease was seized, an empty publication takes the next number: a sleeper that decides after all did so
    before, and counts, or finds its number taken.
    """
    while lease.seized:
        lease.check()
        if (sealed := commit(store, ledger, (), epoch=lease.epoch)) is not None:
            lease.seized, ledger = False, sealed
        else:
            ledger = read_ledger(store)
    return ledger


def roll_forward(store: CubeStore, spec: CubeSpec, ledger: Ledger, lease: Lease) -> Ledger:
    """Complete what the ledger has decided and the root's metadata does not show yet; return the ledger."""
    visible = published_extent(store, spec)
    if visible > len(ledger.entries):
        raise CubeError(
            f"{shown(store.uri)} shows {visible} steps, its ledger knows {len(ledger.entries)}",
            "The ledger knows every step.",
            "Restore _records/ledger from a copy of the cube, or start a new cube.uri.",
        )
    if visible < len(ledger.entries):
        document = array_documents(spec, ledger.labels)["state"]
        for entry in ledger.entries[visible:]:
            lease.check()
            _complete_step(store, spec, ledger, entry, lease)
            states = entry.state_array(spec.grid.rows, spec.grid.cols)
            _put_all(store, encode_chunks("state", document, entry.step, states))
        lease.check()
        _write_labels(store, spec, ledger, lease)
        for entry in ledger.entries[visible:]:
            sweep(store, entry.step)
    return ledger


def published_extent(store: CubeStore, spec: CubeSpec) -> int:
    """Steps that readers of the root's consolidated metadata see.

    Raises
    ------
    CubeError
        The root's metadata is not what this cube wrote.
    """
    data = store.get(ROOT_KEY)
    try:
        root = json.loads(data or b"{}")
        arrays, identity = root["consolidated_metadata"]["metadata"], root["attributes"]["think2seg"]["identity_digest"]
        extent = int(arrays["mask"]["shape"][0])
    except (ValueError, LookupError, TypeError) as error:
        raise _drift(store, f"its {ROOT_KEY} is missing or was changed by something else") from error
    if identity != identity_digest(spec.identity):
        raise _drift(store, "its metadata names another identity")
    for name, document in array_documents(spec, NO_LABELS).items():
        held = arrays.get(name, {})
        for part in ("data_type", "chunk_grid", "codecs", "fill_value"):
            if held.get(part) != document[part]:
                raise _drift(store, f"{part} of {name} is {held.get(part)!r} instead of {document[part]!r}")
    return extent


def sweep(store: CubeStore, step: int) -> None:
    """Remove staged rows and single receipts of a published step."""
    for folder in (STAGING, RECEIPTS):
        for key in store.list_keys(f"{folder}/{step:06d}"):
            store.delete(key)


def sweep_all(store: CubeStore, n_published: int) -> None:
    """Remove what interrupted sweeps left."""
    for folder in (STAGING, RECEIPTS):
        steps = {key.removeprefix(f"{folder}/").partition("/")[0] for key in store.list_keys(folder)}
        for step in sorted(step for step in steps if step.isdigit() and int(step) < n_published):
            sweep(store, int(step))


def blank_block(spec: CubeSpec) -> Mapping[str, np.ndarray[tuple[int, int], np.dtype[np.generic]]]:
    """Arrays of a block that the budget cut off."""
    shape = (spec.grid.block_px, spec.grid.block_px)
    return {
        "mask": np.full(shape, NOT_OBSERVED, np.uint8),
        "score": np.full(shape, 255, np.uint8),
        "quality": np.full(shape, int(Quality.OVER_BUDGET), np.uint16),
    }


def _complete_step(store: CubeStore, spec: CubeSpec, ledger: Ledger, entry: Entry, lease: Lease) -> None:
    """Write all of one decided step but its labels. Repeating it changes nothing."""
    base = ledger.entries[entry.base] if entry.base is not None else None
    for array in DATA:
        if base is not None:
            for block in sorted(entry.copied):
                store.copy(chunk_key(array, base.step, *block), chunk_key(array, entry.step, *block))
        wanted = {chunk_key(array, entry.step, *block) for block in entry.held.states}
        for key in store.list_keys(f"{array}/c/{entry.step}"):
            if key not in wanted:
                store.delete(key)
    _write_blank(store, spec, entry)
    if store.get(bundle_key(entry.step)) is None:
        _gather_records(store, entry, base, lease)


def _gather_records(store: CubeStore, entry: Entry, base: Entry | None, lease: Lease) -> None:
    """Merge staged rows and single receipts; the bundle of receipts, written last, says that it is done.

    Whoever lost the lease may find them swept away, half of them even: nothing is written then.
    """
    staged = {table: [store.get(staged_key(table, entry.step, block)) for block in entry.fresh] for table in TABLES}
    receipts = [store.get(receipt_key(entry.step, block)) for block in entry.fresh]
    if lost := sum(not data for found in (*staged.values(), receipts) for data in found):
        lease.check()
        raise CubeError(
            f"{lost} staged tables and receipts of {entry.held.acquisition} are missing from {shown(store.uri)}",
            "What the ledger has decided is completed from them.",
            f"Restore {STAGING}/{entry.step:06d} and {RECEIPTS}/{entry.step:06d} from a copy of the cube.",
        )
    for table in TABLES:
        merge(
            store,
            table,
            [data for data in staged[table] if data],
            acquisition=entry.held.acquisition,
            revision=entry.held.revision,
            base_revision=base.held.revision if base is not None else None,
            copied=entry.copied,
        )
    store.put(bundle_key(entry.step), b"".join(receipt + b"\n" for receipt in receipts if receipt))


def _write_blank(store: CubeStore, spec: CubeSpec, entry: Entry) -> None:
    if not entry.blank:
        return
    documents, side = array_documents(spec, Ledger(entries=(entry,)).labels), spec.grid.block_px
    for array, values in blank_block(spec).items():
        documents[array]["shape"][0] = entry.step + 1
        for row, col in entry.blank:
            index = (entry.step, slice(row * side, (row + 1) * side), slice(col * side, (col + 1) * side))
            _put_all(store, encode_chunks(array, documents[array], index, values))


def _put_all(store: CubeStore, objects: Mapping[str, bytes]) -> None:
    for key, data in objects.items():
        store.put(key, data)


def _write_labels(store: CubeStore, spec: CubeSpec, ledger: Ledger, lease: Lease) -> None:
    """Labels, then array documents, then, last, the root: the point of publication."""
    labels = ledger.labels
    documents = array_documents(spec, labels)
    objects: dict[str, bytes] = {}
    for name in LABELS:
        objects |= encode_chunks(name, documents[name], ..., labels.values(name))
    objects |= {f"{name}/{ROOT_KEY}": as_bytes(document) for name, document in documents.items()}
    lease.fence.put({**objects, ROOT_KEY: as_bytes(root_document(spec, documents))})


def _decide(store: CubeStore, ledger: Ledger, entries: Sequence[Entry], lease: Lease) -> Ledger:
    """Record a publication in the ledger."""
    while True:
        lease.check()
        if (committed := commit(store, ledger, entries, epoch=lease.epoch)) is not None:
            return committed
        latest = read_ledger(store)
        if latest.entries == (*ledger.entries, *entries):
            return latest  # it was this publication that took the number: the store's first answer got lost
        if latest.entries != ledger.entries:
            raise LeaseError(
                f"Another run published to {shown(store.uri)} at the same time",
                "Only the holder of the lease may publish.",
                "Nothing is lost: run again; finished blocks are kept.",
            )
        ledger = latest


def _new_entry(
    store: CubeStore,
    ledger: Ledger,
    line: PlanLine,
    done: Mapping[Block, Receipt],
    base: Entry | None,
    published: datetime,
    region: str,
    region_px: int,
) -> Entry:
    assert line.acquisition is not None
    assert line.step is not None
    fresh = {block: done[block] for block in line.blocks}
    copied = frozenset[Block]() if base is None else base.held.states.keys() - fresh.keys()
    states = {} if base is None else {block: base.held.states[block] for block in copied}
    attempts = {} if base is None else {b: count for b, count in base.held.attempts.items() if b in copied}
    unparsable = frozenset[Block]() if base is None else base.held.unparsable & copied
    replaced = () if base is None else [block for block in fresh if block in base.held.states]
    kept_px = 0 if base is None else base.observed_px - _observed_px(store, ledger, base, replaced)
    first = done[line.blocks[0]]
    states |= dict.fromkeys(line.over_budget, BlockState.PENDING) | {b: r.state for b, r in fresh.items()}
    before = ledger.entries[-1].held.states if ledger.entries else {}
    held = HeldStep(
        step=line.step,
        acquisition=line.id,
        revision=line.revision,
        time=line.acquisition.time,
        scenes={scene.id: scene.fingerprint for scene in line.acquisition.scenes},
        prompter=first.prompter,
        states=before if before == states else states,
        attempts=attempts | {b: r.attempt for b, r in fresh.items() if r.state is BlockState.FAILED},
        unparsable=unparsable | {b for b, r in fresh.items() if r.unparsable},
    )
    return Entry(
        held=held,
        segmenter=first.segmenter,
        published=published,
        base=None if base is None else base.step,
        copied=frozenset(copied),
        region=region,
        region_px=region_px,
        observed_px=kept_px + sum(receipt.observed_px for receipt in fresh.values()),
    )


def _observed_px(store: CubeStore, ledger: Ledger, entry: Entry, blocks: Sequence[Block]) -> int:
    """Observed pixels of some blocks of a published step."""
    steps: dict[int, set[Block]] = {}
    for block in blocks:
        steps.setdefault(ledger.origin(entry, block).step, set()).add(block)
    return sum(
        receipt.observed_px
        for step, wanted in steps.items()
        for receipt in read_receipts(store, step)
        if receipt.block in wanted
    )


def _check_objects(store: CubeStore, line: PlanLine) -> None:
    """Make sure that all there is to publish of a line is in the store."""
    step = line.step or 0
    wanted = {f"chunks of {array}": [chunk_key(array, step, *block) for block in line.blocks] for array in DATA}
    wanted |= {f"staged {table}": [staged_key(table, step, block) for block in line.blocks] for table in TABLES}
    wanted["receipts"] = [receipt_key(step, block) for block in line.blocks]
    folders = [*(f"{array}/c/{step}" for array in DATA), *(f"{folder}/{step:06d}" for folder in (STAGING, RECEIPTS))]
    present = {key for folder in folders for key in store.list_keys(folder)}
    for what, keys in wanted.items():
        if lost := [key for key in keys if key not in present]:
            raise StoreError(
                f"{len(lost)} of {len(keys)} {what} of {line.id} are not in the store, such as {lost[0]}",
                "Every block with a receipt has its chunks, rows and receipt there.",
                "Check the store, then run again.",
            )


def _drift(store: CubeStore, what: str) -> CubeError:
    return CubeError(
        f"{shown(store.uri)}: {what}",
        "Nothing but this project may change a cube's metadata.",
        "Restore the metadata from a copy of the cube, or start a new cube.uri.",
    )


def _now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
