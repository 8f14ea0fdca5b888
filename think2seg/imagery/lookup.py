"""Whole numbers → values by table: what imagery mostly is, a few passes over the pixels cheaper than arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

NUMBERS = 1 << 16
"""Entries of a table: digital numbers from 0 on."""
_STRIP_PX = 1 << 16
"""Pixels worked on at a time: what a processor's cache holds."""


def look_up(
    numbers: npt.NDArray[np.float32], table: npt.NDArray[Any], out: npt.NDArray[Any]
) -> npt.NDArray[np.bool_] | None:
    """Write ``table[numbers]`` to `out`.

    Parameters
    ----------
    numbers
        (y, x) float32; NaN where there are none.
    table
        (`NUMBERS`,) of the type of `out`.
    out
        (y, x), may be a view; what it holds where `numbers` is NaN is not defined.

    Returns
    -------
    (y, x) bool, where `numbers` is NaN; None, and `out` is not to be used, where a number is not whole or not in the
    table.
    """
    missing = np.empty(numbers.shape, dtype=np.bool_)
    rows = max(1, _STRIP_PX // max(1, numbers.shape[1]))
    for top in range(0, numbers.shape[0], rows):
        part = numbers[top : top + rows]
        with np.errstate(invalid="ignore"):
            codes = part.astype(np.uint16)
        differs = missing[top : top + rows]
        np.not_equal(codes.astype(np.float32), part, out=differs)
        if differs.any() and not np.isnan(part[differs]).all():
            return None
        out[top : top + rows] = table.take(codes)
    return missing
