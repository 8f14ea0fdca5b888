"""What a worker leaves behind for every block it finishes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from think2seg.cube.store import CubeStore
from think2seg.grid import Block
from think2seg.plan import BlockState, PlanLine

FOLDER = "_records/receipts"
VOID = b""
"""Stands in a receipt's place while its block is written anew."""
NOT_ASKED = frozenset({"cloud", "nodata", "outside", "gated", "failed"})
"""Tile statuses that stand for no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why one block could not be done, or could only be done in part."""

    item: str
    """STAC item id; empty where no single item is to blame."""
    block: Block
    reason: str
    """Short and countable: ``unreadable``, ``truncated file``, ``404``."""
    message: str
    """The error in full, without secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Proof that one block of one step is written, and the figures of its making.

    Written last, after the block's arrays and rows: a block without a receipt does not count.
    """

    step: int
    acquisition: str
    revision: int
    block: Block
    attempt: int
    """1 for the first try."""
    fingerprint: str
    """`Acquisition.fingerprint` of what was read."""
    prompter: str
    segmenter: str
    """Digests of the weights that answered and drew."""
    state: BlockState
    digests: Mapping[str, str]
    """Array name (mask, score, quality) → sha256 of the block's array bytes, C order, little endian."""
    present_px: int
    observed_px: int
    region_px: int
    """Pixels of the block with mask 1; with mask 0 or 1; inside the region."""
    tiles: Mapping[str, int]
    """Tile status → count. ``ok``, ``truncated``, ``unparsable``, ``unknown concept``, ``cloud``, ``nodata``, …"""
    seconds: Mapping[str, float]
    """Stage (read, prompt, segment, write) → wall seconds."""
    failures: tuple[Failure, ...] = ()
    seam: Mapping[str, float] = field(default_factory=dict)
    """Sums behind the seam figure: disagreeing and compared pixels, at core edges and inside."""
    question: str = ""
    """What was asked; empty in receipts of old."""
    audit: Mapping[str, int] = field(default_factory=dict)
    """Sums behind the gates' miss rate: tiles by gate that were gated, asked all the same, and missed."""

    @property
    def unparsable(self) -> bool:
        """Whether a tile of the block stayed unreadable: asked again only when the model changes."""
        return self.tiles.get("unparsable", 0) > 0

    def to_json(self) -> str:
        """Return one line of JSON."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        plain["failures"] = [{name: getattr(failure, name) for name in Failure.__slots__} for failure in self.failures]
        return json.dumps(plain, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Receipt:
        """Rebuild a receipt from `to_json`."""
        plain = json.loads(text)
        plain["block"] = Block(*plain["block"])
        plain["state"] = BlockState(plain["state"])
        plain["failures"] = tuple(
            Failure(**(failure | {"block": Block(*failure["block"])})) for failure in plain["failures"]
        )
        return cls(**plain)


def receipt_key(step: int, block: Block) -> str:
    """Return the key of an unpublished block's receipt."""
    return f"{FOLDER}/{step:06d}/{block.row:05d}-{block.col:05d}.json"


def bundle_key(step: int) -> str:
    """Return the key of a published step's receipts, one per line."""
    return f"{FOLDER}/{step:06d}.jsonl"


def read_receipts(store: CubeStore, step: int) -> tuple[Receipt, ...]:
    """Receipts of one step in block order, published or not. Blocks copied from an earlier revision have none here."""
    bundle = store.get(bundle_key(step))
    if bundle is not None:
        return tuple(Receipt.from_json(line) for line in bundle.splitlines())
    return _read(store, store.list_keys(f"{FOLDER}/{step:06d}"))


def read_unpublished(store: CubeStore, n_published: int) -> tuple[Receipt, ...]:
    """Receipts that a run left without publishing them, in step and block order."""
    keys = [key for key in store.list_keys(FOLDER) if key.endswith(".json") and int(key.split("/")[-2]) >= n_published]
    return _read(store, keys)


def reusable(
    receipts: Iterable[Receipt], lines: Iterable[PlanLine], *, prompter: str, segmenter: str
) -> tuple[Receipt, ...]:
    """Receipts of a killed run that a plan's lines still ask for, answered by the same weights.

    Blocks that failed are not reused: they are tried again.
    """
    wanted = {
        (line.step, line.id, line.revision, block): line.acquisition.fingerprint
        for line in lines
        if line.acquisition is not None
        for block in line.blocks
    }
    return tuple(
        receipt
        for receipt in receipts
        if wanted.get((receipt.step, receipt.acquisition, receipt.revision, receipt.block)) == receipt.fingerprint
        and (receipt.prompter, receipt.segmenter) == (prompter, segmenter)
        and receipt.state is not BlockState.FAILED
    )


def _read(store: CubeStore, keys: Iterable[str]) -> tuple[Receipt, ...]:
    """Read single receipts, but for those that are void or gone."""
    return tuple(Receipt.from_json(text) for key in keys if (text := store.get(key)))
