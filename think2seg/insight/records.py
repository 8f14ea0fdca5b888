"""What the records beside a cube say about the answers it shows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import xarray as xr

from think2seg.cube.layout import CubeSpec
from think2seg.cube.ledger import Entry, Ledger, read_ledger
from think2seg.cube.receipts import Receipt, read_receipts
from think2seg.cube.store import CubeStore
from think2seg.grid import Block, Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Spec, ledger and receipts of an opened cube. Receipts are read when they are asked for, and kept."""

    store: CubeStore
    spec: CubeSpec
    ledger: Ledger
    _receipts: dict[int, Mapping[Block, Receipt]] = field(default_factory=dict, repr=False)

    @property
    def grid(self) -> Grid:
        """The cube's grid."""
        return self.spec.grid

    def entry(self, acquisition: str, revision: int) -> Entry:
        """Ledger entry of one step that the cube shows."""
        return next(
            entry
            for entry in self.ledger.entries
            if (entry.held.acquisition, entry.held.revision) == (acquisition, revision)
        )

    def receipts(self, entry: Entry) -> tuple[Receipt, ...]:
        """Receipts of all blocks of a step, in block order; those of copied blocks from the step that made them."""
        found = {block: self._receipt(entry, block) for block in sorted(entry.held.states)}
        return tuple(receipt for receipt in found.values() if receipt is not None)

    def tiles(self, entry: Entry) -> Mapping[str, int]:
        """Tile status → count, over all blocks of a step."""
        counts: Counter[str] = Counter()
        for receipt in self.receipts(entry):
            counts.update(receipt.tiles)
        return counts

    def _receipt(self, entry: Entry, block: Block) -> Receipt | None:
        while block in entry.copied and entry.base is not None:
            entry = self.ledger.entries[entry.base]
        if entry.step not in self._receipts:
            receipts = read_receipts(self.store, entry.step)
            self._receipts[entry.step] = {receipt.block: receipt for receipt in receipts}
        return self._receipts[entry.step].get(block)


def read_records(uri: str | Path, cube: xr.Dataset) -> Records:
    """Read the records of a cube that `open_cube` has opened from `uri`.

    Raises
    ------
    CubeError, StoreError
        The ledger is incomplete, or cannot be read.
    """
    store = CubeStore(uri)
    spec = CubeSpec.from_json(json.dumps(cube.attrs["think2seg"]))
    return Records(store=store, spec=spec, ledger=read_ledger(store))
