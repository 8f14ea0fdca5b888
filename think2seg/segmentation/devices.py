"""Where a model runs and in which number format."""

from __future__ import annotations

from threading import Lock

import torch

from think2seg.errors import ModelError

LOADING = Lock()
"""Held while transformers loads a model: it replaces functions of its classes meanwhile, and two threads that load at
the same time would leave them replaced."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """The device called `name`; ``auto`` is the first GPU, else the CPU.

    Raises ModelError when this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if not present.get(device.type, False) or (device.index or 0) >= count:
        raise ModelError(
            f"There is no device {name!r} on this machine.",
            f"Present: {', '.join(kind for kind, there in present.items() if there)}.",
            "Choose another device for the model, or auto.",
        )
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format called `name`; ``auto`` is float32 on a CPU and bfloat16 elsewhere."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return _DTYPES[name]
