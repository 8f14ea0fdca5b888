"""Region → GeoBox → blocks → tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Block(NamedTuple):
    """Position of a block in a grid: whole Zarr chunks, owned by exactly one worker."""

    row: int
    col: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One model unit: a core that belongs to one block, and a halo around it."""

    id: str
    """Absolute lattice position, the same in every grid: ``r-8139c760``."""
    block: Block
    y: int
    x: int
    """Upper-left pixel of the core inside its block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The frozen pixel grid of a cube.

    Blocks and tiles lie on lattices anchored at the CRS origin, so that growing a region never moves a tile.
    """

    crs: str
    """``EPSG:…`` where there is one, else WKT."""
    resolution: float
    """Pixel size in CRS units (metres, or degrees)."""
    block_px: int
    core_px: int
    """Side of a tile's core; divides `block_px`."""
    halo_px: int
    row0: int
    """Lattice row of the first block: its upper edge is at ``y = -row0 * block_px * resolution``."""
    col0: int
    """Lattice column of the first block: its left edge is at ``x = col0 * block_px * resolution``."""
    rows: int
    cols: int
