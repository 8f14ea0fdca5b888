"""Physical values → 8-bit RGB with fixed limits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

type RGB = npt.NDArray[np.uint8]
"""(y, x, 3) uint8."""


def to_rgb(bands: Sequence[npt.NDArray[np.float32]], limits: tuple[float, float]) -> RGB:
    """(y, x, 3) uint8 from three (y, x) float32 bands of physical values; NaN becomes 0.

    The lower limit maps to 0, the upper to 255, both the same for every pixel ever read.
    """
    low, high = limits
    rgb = np.empty((*bands[0].shape, 3), dtype=np.uint8)
    for channel, band in enumerate(bands):
        stretched = (band.astype(np.float64) - low) * (255 / (high - low))
        rgb[..., channel] = np.nan_to_num(np.rint(np.clip(stretched, 0, 255)), nan=0.0)
    return rgb
