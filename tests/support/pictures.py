"""Pictures for small models: a drawn dark lake in grass, and real ponds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.windows import Window

from think2seg.samples.archive import catalog_path

type Disc = tuple[float, float, float]
"""Centre y, centre x, radius."""

SIDE = 96
DISC: Disc = (48.0, 40.0, 22.0)


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


def pond_tile() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """(192, 192, 3) uint8 of real ponds, 26 September 2015 at 5 m, and their (192, 192) bool reference mask."""
    folder = catalog_path("naip-wetlands").parent / "naip" / "nd_m_4709963_se_14_1_20150926"
    window = Window(288, 288, 192, 192)
    with rasterio.open(folder / "image.tif") as image, rasterio.open(folder / "water.tif") as water:
        return np.moveaxis(image.read([1, 2, 3], window=window), 0, -1).copy(), water.read(1, window=window) == 1
