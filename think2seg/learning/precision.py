"""In which number format a training computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def in_bfloat16(wanted: bool | None) -> bool:
    """Whether to compute in bfloat16: as wanted, else where this machine has instructions for it.

    A processor without them works such products out some other way: a float32 one of a training's size took 10, a
    bfloat16 one 24 ms (2,048 × 256 × 704, one core of an Ice Lake Xeon).
    """
    if wanted is not None:
        return wanted
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # which older versions do not have
    return any(has.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16"))


def number_format(wanted: bool | None) -> str:
    """What a training computes in, as its record says it."""
    return "bfloat16" if in_bfloat16(wanted) else "float32"
