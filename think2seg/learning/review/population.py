"""The population of a cube: every tile core of every acquisition that it shows, reduced to a few figures each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from think2seg.cube import open_cube, read_traces
from think2seg.grid import Block, Grid
from think2seg.learning.review.sampling import Unit, core_sums

type Step = tuple[str, int]
"""Acquisition and revision."""

_UNSEEN = 255


def read_population(uri: str | Path, grid: Grid) -> tuple[Unit, ...]:
    """All units of a cube, the latest revision of each acquisition; one block in memory at a time.

    Raises
    ------
    CubeError, StoreError
        There is no cube at `uri`, or it cannot be read.
    """
    cube = open_cube(uri)
    steps = list(zip(cube["acquisition"].to_numpy().tolist(), cube["revision"].to_numpy().tolist(), strict=True))
    presence = _presence(read_traces(uri))
    return tuple(
        unit
        for row in range(grid.rows)
        for col in range(grid.cols)
        for unit in _units_of_block(cube, grid, Block(row, col), steps, presence)
    )


def _units_of_block(
    cube: xr.Dataset, grid: Grid, block: Block, steps: list[Step], presence: Mapping[tuple[str, str], float]
) -> Iterator[Unit]:
    side, core = grid.block_px, grid.core_px
    rows, cols = slice(block.row * side, (block.row + 1) * side), slice(block.col * side, (block.col + 1) * side)
    pixel_m2 = np.broadcast_to(grid.pixel_area_m2[rows], (side, side))
    before = np.full((side, side), _UNSEEN, np.uint8)
    for step, (acquisition, revision) in enumerate(steps):
        part = cube.isel(time=step, y=rows, x=cols)
        mask, scored = part["mask"].to_numpy(), part["score"].to_numpy()
        seen, present = mask != _UNSEEN, mask == 1
        known = seen & (before != _UNSEEN)
        sums = {
            "observed": core_sums(pixel_m2 * seen, core),
            "mapped": core_sums(pixel_m2 * present, core),
            "known": core_sums(pixel_m2 * known, core),
            "changed": core_sums(pixel_m2 * (known & (mask != before)), core),
            "drawn": core_sums((present & (scored != _UNSEEN)).astype(np.float64), core),
            "score": core_sums(np.where(present & (scored != _UNSEEN), scored, 0) / 254.0, core),
        }
        for tile in grid.tiles(block):
            at = (tile.y // core, tile.x // core)
            if not sums["observed"][at]:
                continue
            score: float | None
            if sums["drawn"][at]:
                score = float(sums["score"][at] / sums["drawn"][at])
            else:
                score = 1 - told if (told := presence.get((acquisition, tile.id))) is not None else None
            yield Unit(
                acquisition=acquisition, revision=revision, tile=tile.id, row=rows.start + tile.y,
                col=cols.start + tile.x, observed_m2=float(sums["observed"][at]),
                mapped_m2=float(sums["mapped"][at]),
                changed_m2=float(sums["changed"][at]) if sums["known"][at] else None,
                score=score,
            )  # fmt: skip
        before[seen] = mask[seen]


def _presence(traces: pd.DataFrame) -> dict[tuple[str, str], float]:
    """(acquisition, tile) → highest probability that the tile holds anything."""
    told = traces.dropna(subset=["presence"])
    found: dict[tuple[str, str], float] = {}
    for acquisition, tile, value in told[["acquisition", "tile", "presence"]].itertuples(index=False, name=None):
        found[acquisition, tile] = max(float(value), found.get((acquisition, tile), 0.0))
    return found


def mapped_mask(cube: xr.Dataset, grid: Grid, unit: Unit) -> npt.NDArray[np.uint8]:
    """(core_px, core_px) uint8 of a unit: 0 absent, 1 present, 255 not observed."""
    found = cube.isel(
        time=cube["acquisition"].to_numpy().tolist().index(unit.acquisition),
        y=slice(unit.row, unit.row + grid.core_px),
        x=slice(unit.col, unit.col + grid.core_px),
    )
    return np.asarray(found["mask"].to_numpy(), np.uint8)
