"""The cube: masks of one question over time, appended and never rewritten."""

from __future__ import annotations

from think2seg.cube.check import Finding, check_cube, missing_scenes, repair_cube
from think2seg.cube.cube import Cube, find_cube, find_store, is_cube, open_or_create, read_spec
from think2seg.cube.layout import CubeSpec
from think2seg.cube.lease import Holder, Lease, current_holder
from think2seg.cube.ledger import Entry, Ledger, read_ledger
from think2seg.cube.reader import open_cube, read_instances, read_traces
from think2seg.cube.receipts import Failure, Receipt, read_receipts, read_unpublished, reusable
from think2seg.cube.store import CubeStore, sibling_uri
from think2seg.cube.writer import BlockWriter

__all__ = [
    "BlockWriter",
    "Cube",
    "CubeSpec",
    "CubeStore",
    "Entry",
    "Failure",
    "Finding",
    "Holder",
    "Lease",
    "Ledger",
    "Receipt",
    "check_cube",
    "current_holder",
    "find_cube",
    "find_store",
    "is_cube",
    "missing_scenes",
    "open_cube",
    "open_or_create",
    "read_instances",
    "read_ledger",
    "read_receipts",
    "read_spec",
    "read_traces",
    "read_unpublished",
    "repair_cube",
    "reusable",
    "sibling_uri",
]
