"""Acquisition + block → 8-bit RGB + quality bits."""

from __future__ import annotations

from think2seg.imagery.blocks import BlockImagery, cut_tiles, read_block
from think2seg.imagery.estimates import estimate_bytes, resampling_note
from think2seg.imagery.quality import BLOCKING, Quality

__all__ = ["BLOCKING", "BlockImagery", "Quality", "cut_tiles", "estimate_bytes", "read_block", "resampling_note"]
