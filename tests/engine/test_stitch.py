"""Looks, quarters and seams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.worlds import GRID, Bench

from think2seg.engine.looks import MIN_LOOK_PX, look_at
from think2seg.grid import Block, Grid, Tile


def grid_of(core_px: int, halo_px: int) -> Grid:
    return Grid(
        crs=GRID.crs, resolution=5.0, block_px=core_px * 3, core_px=core_px, halo_px=halo_px,
        row0=0, col0=0, rows=1, cols=1,
    )  # fmt: skip


@given(st.integers(8, 90), st.integers(0, 40))
def test_quarters_share_out_the_core_and_stay_inside_the_tile(core_px: int, halo_px: int) -> None:
    grid = grid_of(core_px, halo_px)
    tile = Tile(id="r0c0", block=Block(0, 0), y=core_px, x=2 * core_px)
    rgb = np.arange(grid.tile_px**2 * 3, dtype=np.int64).reshape(grid.tile_px, grid.tile_px, 3)
    look = look_at(tile, rgb, grid)
    answered = np.zeros((grid.block_px, grid.block_px), np.int64)
    quarters = look.quarters()
    assert quarters or grid.tile_px < 2 * MIN_LOOK_PX
    for quarter in quarters:
        answered[quarter.core.slices] += 1
        assert quarter.rgb.shape == (quarter.side, quarter.side, 3)
        assert quarter.side <= look.side // 2 + 1
        top, left = quarter.y - look.y, quarter.x - look.x
        assert (quarter.rgb == rgb[top : top + quarter.side, left : left + quarter.side]).all()
        for start, size, origin in zip(quarter.core[:2], quarter.core[2:], (quarter.y, quarter.x), strict=True):
            assert origin <= start
            assert start + size <= origin + quarter.side
    if quarters:
        core = np.zeros_like(answered)
        core[look.core.slices] = 1
        assert (answered == core).all()


def test_a_tile_too_small_to_divide_is_not_asked_again(bench: Bench) -> None:
    grid = grid_of(8, 0)
    tile = Tile(id="r0c0", block=Block(0, 0), y=0, x=0)
    assert look_at(tile, np.zeros((8, 8, 3), np.uint8), grid).quarters() == ()


def test_neighbours_that_agree_have_no_seam(bench: Bench) -> None:
    seam = bench.run([Block(0, 1)])[Block(0, 1)]["seam"]
    assert seam["halo_differs"] == 0
    assert seam["halo_compared"] == 4 * 2 * GRID.halo_px * GRID.tile_px
    assert seam["edge_compared"] == 2 * GRID.block_px
    assert seam["inside_compared"] == 2 * GRID.block_px * (GRID.block_px - 2)


def test_neighbours_that_disagree_show(bench: Bench) -> None:
    """A prompter that is blind to every second tile."""
    seen: list[int] = []

    def say(tile: np.ndarray) -> str | None:
        seen.append(1)
        return "<answer>[]</answer>" if len(seen) % 2 else None

    bench.world.present[:] = True
    seam = bench.run([Block(0, 1)], say=say)[Block(0, 1)]["seam"]
    assert seam["halo_differs"] == pytest.approx(seam["halo_compared"] / 2)
    assert seam["edge_differs"] / seam["edge_compared"] == pytest.approx(0.5)
    assert seam["inside_differs"] == 0


def test_pixels_that_are_not_observed_do_not_count(bench: Bench) -> None:
    bench.world.quality[:, ::2] = 1
    seam = bench.run([Block(0, 1)])[Block(0, 1)]["seam"]
    assert seam["halo_compared"] == 4 * GRID.halo_px * GRID.tile_px
    assert seam["edge_compared"] == GRID.block_px / 2
