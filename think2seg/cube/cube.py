"""A cube as a run sees it: opened or created, written block by block, published step by step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from think2seg.cube.layout import (
    FORMAT,
    NO_LABELS,
    ROOT_KEY,
    CubeSpec,
    array_documents,
    as_bytes,
    axis_values,
    differences,
    open_array,
    root_document,
)
from think2seg.cube.lease import Lease
from think2seg.cube.ledger import Ledger, compact, read_ledger
from think2seg.cube.publish import publish, roll_forward, seal, sweep_all
from think2seg.cube.receipts import Receipt, read_receipts, read_unpublished
from think2seg.cube.store import BeforeWrite, CubeStore, explained, local_path, shown
from think2seg.cube.writer import BlockWriter
from think2seg.errors import CubeError
from think2seg.plan import PlanLine

SPEC_KEY = "_records/cube.json"
_RECORDS_GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {}}


class Cube:
    """One cube, opened for a run with a pair of weights. See `open_or_create`."""

    def __init__(self, store: CubeStore, spec: CubeSpec, *, prompter: str, segmenter: str) -> None:
        self.store, self.spec = store, spec
        self.prompter, self.segmenter = prompter, segmenter
        self._ledger = read_ledger(store)
        self._rolled_forward = False

    @property
    def uri(self) -> str:
        """Where the cube is; a local path is absolute."""
        return self.store.uri

    def ledger(self) -> Ledger:
        """What the cube holds. `len(ledger.entries)` is the next step."""
        return self._ledger

    def acquire_lease(self, ttl_s: float = 30.0, *, say: Callable[[str], None] = lambda message: None) -> Lease:
        """Take the right to publish; see `Lease.acquire`. Call `recover` next: others may have published meanwhile."""
        self._rolled_forward = False
        return Lease.acquire(self.store, ttl_s, say=say)

    def recover(self, lease: Lease) -> None:
        """Read the ledger anew, complete what a killed run decided but did not finish, and sweep what it left."""
        ledger = seal(self.store, read_ledger(self.store, self._ledger), lease)
        ledger = roll_forward(self.store, self.spec, ledger, lease)
        self._ledger = compact(self.store, ledger)
        sweep_all(self.store, len(self._ledger.entries))
        self._rolled_forward = True

    def writer(self, n_steps: int, lease: Lease | None = None) -> BlockWriter:
        """Picklable writer for the blocks of steps up to `n_steps`, the length of time once all is published."""
        return BlockWriter(
            store=self.store,
            spec=self.spec,
            n_steps=n_steps,
            prompter=self.prompter,
            segmenter=self.segmenter,
            epoch=None if lease is None else lease.epoch,
        )

    def receipts(self, step: int) -> tuple[Receipt, ...]:
        """Receipts of one step, published or not; none of blocks copied from an earlier revision."""
        return read_receipts(self.store, step)

    def unpublished_receipts(self) -> tuple[Receipt, ...]:
        """Receipts that an interrupted run left; `think2seg.cube.receipts.reusable` picks those still asked for."""
        return read_unpublished(self.store, len(self._ledger.entries))

    def publish(
        self,
        lines: Sequence[PlanLine],
        receipts: Iterable[Receipt],
        lease: Lease,
        *,
        region_px: int,
        region: str = "",
    ) -> None:
        """Make finished steps visible, all at once.

        Where this raises, it can be called again: what was decided by then is completed, not done twice.

        Parameters
        ----------
        lines
            Lines of `Plan.work`, in step order, following on the last published step.
        receipts
            Of all their blocks; others are ignored.
        lease
            This run's lease on the cube.
        region_px
            Pixels of the grid inside the region: the denominator of `observed_fraction`.
        region
            The region (WGS 84, WKT): where it has grown, blocks are asked again. Empty where it never does.

        Raises
        ------
        CubeError
            A line is out of order or lacks receipts, or the cube's structure changed underneath.
        LeaseError
            The lease was lost, or another run published at the same time.
        StoreError
            The store refuses, or chunks are missing from it.
        """
        if not self._rolled_forward:
            self.recover(lease)
            lines = [line for line in lines if not self._holds(line)]
        self._rolled_forward = False
        ledger = publish(
            self.store, self.spec, self._ledger, lines, list(receipts), lease, region=region, region_px=region_px
        )
        self._ledger = compact(self.store, ledger)
        self._rolled_forward = True

    def _holds(self, line: PlanLine) -> bool:
        """Whether the ledger has decided exactly this line."""
        if line.step is None or line.acquisition is None or line.step >= len(self._ledger.entries):
            return False
        held = self._ledger.entries[line.step].held
        scenes = {scene.id: scene.fingerprint for scene in line.acquisition.scenes}
        return (held.acquisition, held.revision, held.scenes) == (line.id, line.revision, scenes)


def open_or_create(
    uri: str | Path,
    spec: CubeSpec,
    *,
    prompter: str,
    segmenter: str,
    registered: bool = False,
    before_write: BeforeWrite | None = None,
) -> Cube:
    """Open the cube at `uri`, or create an empty one where there is nothing.

    Parameters
    ----------
    uri
        See `CubeStore`.
    spec
        What the cube must be about.
    prompter, segmenter
        Digests of the weights that will write.
    registered
        The weights come from a registered promotion: they may follow other ones in the same cube.
    before_write
        See `CubeStore`.

    Raises
    ------
    CubeError
        Something else is at `uri`, the cube there has another identity, or other weights wrote to it.
    StoreError
        The place cannot be read or written.
    """
    store = CubeStore(uri, before_write, create=True)
    held = read_spec(store)
    if held is None:
        store.create(SPEC_KEY, spec.to_json().encode())
        held = read_spec(store) or spec
    _check_identity(store, held, spec)
    if store.get(ROOT_KEY) is None:
        _create(store, held)
    return _opened(store, held, prompter, segmenter, registered)


def find_cube(
    uri: str | Path, spec: CubeSpec, *, prompter: str, segmenter: str, registered: bool = False
) -> Cube | None:
    """Open the cube at `uri` for planning; None where there is nothing. Writes nothing.

    Parameters and errors as in `open_or_create`.
    """
    store = find_store(uri)
    held = read_spec(store) if store is not None else None
    if store is None or held is None:
        return None
    _check_identity(store, held, spec)
    return _opened(store, held, prompter, segmenter, registered)


def is_cube(uri: str | Path) -> bool:
    """Whether a cube of this project is at `uri`."""
    store = find_store(uri)
    return store is not None and store.get(SPEC_KEY) is not None


def find_store(uri: str | Path) -> CubeStore | None:
    """Open the store at `uri`; None where a local folder is missing."""
    path = local_path(uri)
    return None if path is not None and not path.exists() else CubeStore(uri)


def read_spec(store: CubeStore) -> CubeSpec | None:
    """Return what the cube in a store is about; None where the store is empty.

    Raises
    ------
    CubeError
        Something else is there, or a cube of a later layout.
    """
    data = store.get(SPEC_KEY)
    if data is None:
        if store.is_empty():
            return None
        raise _foreign(store)
    try:
        version = json.loads(data)["format"]
        if version == FORMAT:
            return CubeSpec.from_json(data)
    except (ValueError, LookupError, TypeError) as error:
        raise _foreign(store) from error
    raise CubeError(
        f"The cube at {shown(store.uri)} has layout {version}",
        f"This version reads and writes layout {FORMAT}.",
        "Upgrade think2seg, or set another cube.uri.",
    )


def _opened(store: CubeStore, spec: CubeSpec, prompter: str, segmenter: str, registered: bool) -> Cube:
    cube = Cube(store, spec, prompter=prompter, segmenter=segmenter)
    if not registered:
        _check_weights(cube)
    return cube


def _check_identity(store: CubeStore, held: CubeSpec, asked: CubeSpec) -> None:
    if told := list(differences(held.identity, asked.identity)):
        raise CubeError(
            f"The cube at {shown(store.uri)} answers something else:\n  " + "\n  ".join(told),
            "One cube holds one question, grid, source, recipe, tiling and template.",
            "Put the named fields back, or give this monitor another cube.uri.",
        )


def _create(store: CubeStore, spec: CubeSpec) -> None:
    """Write an empty cube, its root last. Two creators, or a repeated one, write the same."""
    store.put(f"_records/{ROOT_KEY}", as_bytes(_RECORDS_GROUP))
    documents = array_documents(spec, NO_LABELS)
    with explained(store.uri, "write", "coordinates"):
        for axis in ("y", "x"):
            open_array(store, axis, documents[axis])[:] = axis_values(spec.grid, axis)
        open_array(store, "spatial_ref", documents["spatial_ref"])[...] = 0
    for name, document in documents.items():
        store.create(f"{name}/{ROOT_KEY}", as_bytes(document))
    store.create(ROOT_KEY, as_bytes(root_document(spec, documents)))


def _check_weights(cube: Cube) -> None:
    if not (entries := cube.ledger().entries):
        return
    last = entries[-1]
    changed = [
        f"{kind} {old[:12]} wrote the last step, this run has {new[:12]}"
        for kind, old, new in (
            ("prompter", last.held.prompter, cube.prompter),
            ("segmenter", last.segmenter, cube.segmenter),
        )
        if old != new
    ]
    if changed:
        raise CubeError(
            f"Other weights wrote to the cube at {shown(cube.uri)}: " + "; ".join(changed),
            "Weights may only change by a registered promotion: a curve over time must not bend silently.",
            "Use the former weights, promote the new ones in the registry, or set another cube.uri.",
        )


def _foreign(store: CubeStore) -> CubeError:
    return CubeError(
        f"There is something at {shown(store.uri)} that think2seg did not make",
        "An empty or missing place, or a cube of this project; nothing is ever overwritten.",
        "Set another cube.uri.",
    )
