"""What the records beside a cube say about the answers it shows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import xarray as xr

from think2seg.cube.layout import CubeSpec
from think2seg.cube.ledger import Entry, Ledger, read_ledger
from think2seg.cube.receipts import Failure, Receipt, read_receipts
from think2seg.cube.store import CubeStore
from think2seg.grid import Block, Grid

_RECENT = 4
"""Steps whose receipts are kept: those of one step are often asked for by another that copied most of its blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the receipts of one step come to, over all its blocks."""

    tiles: Counter[str]
    """Tile status → tiles."""
    seconds: Counter[str]
    """Stage → seconds, summed over workers."""
    audit: Counter[str]
    """Sums behind the gates' miss rate; see `think2seg.insight.audit`."""
    failures: tuple[Failure, ...]


@dataclass(frozen=True, kw_only=True)
class Records:
    """Spec, ledger and receipts of an opened cube. Receipts are read when they are asked for; their sums are kept."""

    store: CubeStore
    spec: CubeSpec
    ledger: Ledger
    _receipts: dict[int, Mapping[Block, Receipt]] = field(default_factory=dict, repr=False)
    _accounts: dict[int, Account] = field(default_factory=dict, repr=False)

    @property
    def grid(self) -> Grid:
        """The cube's grid."""
        return self.spec.grid

    def entry(self, acquisition: str, revision: int) -> Entry:
        """Ledger entry of one step that the cube shows."""
        return self._entries[acquisition, revision]

    def receipts(self, entry: Entry) -> tuple[Receipt, ...]:
        """Receipts of all blocks of a step, in block order; those of copied blocks from the step that made them."""
        found = {block: self._receipt(entry, block) for block in sorted(entry.held.states)}
        return tuple(receipt for receipt in found.values() if receipt is not None)

    def account(self, entry: Entry) -> Account:
        """What the receipts of all blocks of a step come to."""
        if entry.step not in self._accounts:
            self._accounts[entry.step] = _account(self.receipts(entry))
        return self._accounts[entry.step]

    @cached_property
    def _entries(self) -> Mapping[tuple[str, int], Entry]:
        return {(entry.held.acquisition, entry.held.revision): entry for entry in self.ledger.entries}

    def _receipt(self, entry: Entry, block: Block) -> Receipt | None:
        while block in entry.copied and entry.base is not None:
            entry = self.ledger.entries[entry.base]
        if entry.step not in self._receipts:
            receipts = read_receipts(self.store, entry.step)
            self._receipts[entry.step] = {receipt.block: receipt for receipt in receipts}
            while len(self._receipts) > _RECENT:
                del self._receipts[next(iter(self._receipts))]
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


def shown_entries(cube: xr.Dataset, records: Records) -> tuple[Entry, ...]:
    """Ledger entry of every step that an opened cube shows, in its order."""
    labels = zip(cube["acquisition"].to_numpy().tolist(), cube["revision"].to_numpy().tolist(), strict=True)
    return tuple(records.entry(acquisition, revision) for acquisition, revision in labels)


def _account(receipts: Iterable[Receipt]) -> Account:
    account = Account(tiles=Counter(), seconds=Counter(), audit=Counter(), failures=())
    failures: list[Failure] = []
    for receipt in receipts:
        account.tiles.update(receipt.tiles)
        account.seconds.update(receipt.seconds)
        account.audit.update(receipt.audit)
        failures += receipt.failures
    return replace(account, failures=tuple(failures))
