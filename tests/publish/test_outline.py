from __future__ import annotations

import re

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from think2seg.publish.outline import UNITS_PER_PIXEL, outline, shrink


def rings(path: str) -> list[shapely.LinearRing]:
    """Rings of path data of the form ``Mx,ylx,y…z``."""
    found = []
    for start, moves in re.findall(r"M([^l]+)(l[^z]+)z", path):
        steps = [re.findall(r"-?\d+", move) for move in moves.split("l")[1:]]
        points = np.cumsum([[int(v) for v in start.split(",")], *[[int(x), int(y)] for x, y in steps]], axis=0)
        found.append(shapely.LinearRing(points / UNITS_PER_PIXEL))
    return found


def filled(path: str, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre an even–odd fill of `path` covers."""
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    inside = np.zeros(shape, dtype=int)
    for ring in rings(path):
        inside += shapely.contains_xy(shapely.Polygon(ring), cols + 0.5, rows + 0.5)
    return inside % 2 == 1


@given(hnp.arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))))
def test_filling_the_outline_gives_the_mask_back(mask: np.ndarray) -> None:
    assert np.array_equal(filled(outline(mask, tolerance_px=0.0), mask.shape), mask)


def test_simplified_outline_stays_close() -> None:
    rows, cols = np.mgrid[:200, :200]
    mask = ((rows - 100) ** 2 + (cols - 90) ** 2 < 70**2) & ~((rows - 100) ** 2 + (cols - 90) ** 2 < 20**2)
    coarse, fine = outline(mask, tolerance_px=0.5), outline(mask, tolerance_px=0.0)
    assert len(coarse) < len(fine) / 2
    assert np.mean(filled(coarse, mask.shape) != mask) < 0.005


def test_objects_at_the_edge_are_not_closed_along_it() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5:15, :6] = True
    x = np.concatenate([shapely.get_coordinates(ring)[:, 0] for ring in rings(outline(mask))])
    assert x.min() < -2


def test_nothing_has_no_outline() -> None:
    assert outline(np.zeros((5, 5), bool)) == ""


@pytest.mark.parametrize(("shape", "factor"), [((7, 9), 3), ((8, 8), 4), ((5, 5), 1), ((3, 10), 20)])
def test_cells_count_every_pixel_once(shape: tuple[int, int], factor: int) -> None:
    mask = np.random.default_rng(0).random(shape) > 0.5
    cells = shrink(mask, factor)
    assert cells.shape == (-(-shape[0] // factor), -(-shape[1] // factor))
    assert cells.sum() == mask.sum()
