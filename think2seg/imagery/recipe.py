"""Physical values → 8-bit RGB with fixed limits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from think2seg.imagery.lookup import NUMBERS, look_up

type RGB = npt.NDArray[np.uint8]
"""(y, x, 3) uint8."""


def to_rgb(bands: Sequence[npt.NDArray[np.float32]], limits: tuple[float, float]) -> RGB:
    """(y, x, 3) uint8 from three (y, x) float32 bands of physical values; NaN becomes 0.

    The lower limit maps to 0, the upper to 255, both the same for every pixel ever read.
    """
    rgb = np.empty((*bands[0].shape, 3), dtype=np.uint8)
    for channel, band in enumerate(bands):
        rgb[..., channel] = _stretched(band, limits)
    return rgb


def grey(
    numbers: npt.NDArray[np.float32],
    scale: float,
    offset: float,
    limits: tuple[float, float],
    out: npt.NDArray[np.uint8],
) -> npt.NDArray[np.bool_]:
    """Write one (y, x) float32 band of digital numbers to `out`, (y, x) uint8; return where it has none, (y, x) bool.

    The same as `to_rgb` of ``numbers * scale + offset``, bit for bit. Where all numbers are whole, as on a scene's own
    grid, they are looked up.
    """
    missing = look_up(numbers, _table(scale, offset, limits), out)
    if missing is None:
        physical = _physical(numbers, scale, offset)
        out[:] = _stretched(physical, limits)
        missing = np.isnan(physical)
    elif missing.any():
        out[missing] = 0
    return missing


@lru_cache(maxsize=64)
def _table(scale: float, offset: float, limits: tuple[float, float]) -> npt.NDArray[np.uint8]:
    return _stretched(_physical(np.arange(NUMBERS, dtype=np.float32), scale, offset), limits)


def _physical(numbers: npt.NDArray[np.float32], scale: float, offset: float) -> npt.NDArray[np.float32]:
    return (numbers.astype(np.float64) * scale + offset).astype(np.float32)


def _stretched(band: npt.NDArray[np.float32], limits: tuple[float, float]) -> npt.NDArray[np.uint8]:
    low, high = limits
    stretched = (band.astype(np.float64) - low) * (255 / (high - low))
    return np.nan_to_num(np.rint(np.clip(stretched, 0, 255)), nan=0.0).astype(np.uint8)
