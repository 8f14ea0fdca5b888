"""Pictures that small models understand: a dark lake in grass."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

type Disc = tuple[float, float, float]
"""Centre y, centre x, radius."""

SIDE = 96
DISC: Disc = (48.0, 40.0, 22.0)
NOWHERE: Disc = (-90.0, -90.0, 1.0)


def disc_mask(side: int = SIDE, disc: Disc = DISC) -> npt.NDArray[np.bool_]:
    rows, cols = np.mgrid[:side, :side]
    y, x, radius = disc
    return np.asarray((rows - y) ** 2 + (cols - x) ** 2 <= radius**2)


def lake_tile(side: int = SIDE, disc: Disc = DISC, seed: int = 0) -> npt.NDArray[np.uint8]:
    """(side, side, 3) uint8: mottled grass with a round lake."""
    noise = np.random.default_rng(seed).normal(0, 6, (side, side, 1))
    image = np.array([104, 128, 74]) + noise
    image[disc_mask(side, disc)] = np.array([30, 48, 70])
    return image.clip(0, 255).astype(np.uint8)


def iou(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    return float((first & second).sum() / max(1, (first | second).sum()))
