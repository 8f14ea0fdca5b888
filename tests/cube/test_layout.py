"""Metadata and chunks are what zarr itself would write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.archive_run import GRID, SPEC

from think2seg.cube.layout import NO_LABELS, array_documents, chunk_key, encode_block, encode_chunks


@pytest.mark.parametrize(("name", "dtype"), [("mask", np.uint8), ("quality", np.uint16)])
def test_a_block_is_encoded_as_zarr_would(name: str, dtype: type[np.unsignedinteger[Any]]) -> None:
    documents = array_documents(SPEC, NO_LABELS)
    documents[name]["shape"][0] = 1
    side = GRID.block_px
    values = np.random.default_rng(0).integers(0, 3, (side, side)).astype(dtype)
    by_zarr = encode_chunks(name, documents[name], (0, slice(0, side), slice(0, side)), values)
    assert by_zarr == {chunk_key(name, 0, 0, 0): encode_block(documents[name], values)}
