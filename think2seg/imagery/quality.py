"""Quality bits: why a pixel was, or was not, observed."""

from __future__ import annotations

from enum import IntFlag
from functools import reduce
from operator import or_

import numpy as np
import numpy.typing as npt

from think2seg.config import QualityBits, QualityClasses
from think2seg.imagery.lookup import NUMBERS, look_up

type Bits = npt.NDArray[np.uint16]
"""(y, x) uint16, bits of `Quality`."""


class Quality(IntFlag):
    """Bits of the cube's `quality` array."""

    NODATA = 1
    """No pixel in the imagery, or one without a quality class."""
    CLOUD = 2
    SHADOW = 4
    """Shadow of a cloud."""
    FAILED = 8
    """The imagery could not be read, or the models failed."""
    TRUNCATED = 16
    """The answer ended before this part of the tile was covered."""
    UNPARSABLE = 32
    UNKNOWN_CONCEPT = 64
    """The prompter does not know what was asked for."""
    GATED = 128
    """Not asked, because a gate judged that nothing changed."""
    OVER_BUDGET = 256
    OUTSIDE = 512
    """Outside the region, or in a block that no scene of the acquisition touches."""
    SNOW = 1024
    SATURATED = 2048


BLOCKING = reduce(or_, (flag for flag in Quality if flag not in (Quality.SNOW, Quality.SATURATED)))
"""Bits that make a pixel *not observed*; snow and saturation are only noted."""


def quality_of(values: npt.NDArray[np.float32], rule: QualityClasses | QualityBits) -> npt.NDArray[np.uint16]:
    """Quality bits of a band of classes or bit flags.

    Parameters
    ----------
    values
        (y, x) float32, whole numbers; NaN where the band has no data, which becomes `Quality.NODATA`.

    Returns
    -------
    (y, x) uint16
    """
    bits = np.empty(values.shape, dtype=np.uint16)
    table = _bits(np.arange(NUMBERS, dtype=np.uint32), rule)
    missing = look_up(values, table, bits)
    if missing is None:
        missing = np.isnan(values)
        bits = _bits(np.where(missing, 0, values).astype(np.uint32), rule)
    bits[missing] = np.uint16(Quality.NODATA)
    return bits


def _bits(codes: npt.NDArray[np.uint32], rule: QualityClasses | QualityBits) -> npt.NDArray[np.uint16]:
    bits = np.zeros(codes.shape, dtype=np.uint16)
    for flag, numbers in rule.flags.items():
        if isinstance(rule, QualityBits):
            raised = (codes & np.uint32(sum(1 << number for number in numbers))) != 0
        else:
            raised = np.isin(codes, numbers)
        bits[raised] |= np.uint16(Quality[flag.upper()])
    return bits
