"""Where a model runs and in which number format."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import torch

from think2seg.errors import ModelError

_LOADING = Lock()
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_whole(kind: Any, folder: Path, **options: Any) -> Any:
    """A transformers model of class `kind` from a local folder, ready for inference.

    One at a time in a process: transformers replaces functions of its classes while it loads, and two threads that load
    at once would leave them replaced. Raises ValueError when the folder lacks weights, which transformers would draw at
    random; OSError, KeyError or RuntimeError when it holds no such model.
    """
    with _LOADING:
        model, loaded = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True, **options)
    if missing := sorted(loaded["missing_keys"]):
        raise ValueError(f"{len(missing)} weights are missing, such as {missing[0]}")
    return model.eval()


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
