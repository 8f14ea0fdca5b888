"""What models need of a device's memory, as arithmetic that can be read."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from think2seg.errors import ModelError

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Number format → bytes of one number."""
_RUNTIME = {"cuda": GIB, "mps": GIB // 2, "cpu": GIB // 4}
"""What a process holds on a device before the first model, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Memory that a model needs, bytes. Weights are exact; the rest is an estimate on the safe side."""

    weights: int
    cache: int = 0
    """Keys and values of a full batch at the limit on new tokens."""
    working: int = 0
    """Activations at their peak."""
    runtime: int = 0

    @property
    def total(self) -> int:
        """Everything together."""
        return self.weights + self.cache + self.working + self.runtime

    def __str__(self) -> str:
        parts = {"weights": self.weights, "cache": self.cache, "working": self.working, "runtime": self.runtime}
        terms = " + ".join(f"{value / GIB:.1f} {name}" for name, value in parts.items() if value)
        return f"{terms} = {self.total / GIB:.1f} GiB"


def runtime_bytes(device: torch.device) -> int:
    """What a process holds on `device` before the first model."""
    return _RUNTIME.get(device.type, 0)


def free_bytes(device: torch.device) -> int:
    """Memory of `device` that is free now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return int(psutil.virtual_memory().available)


def refuse_early(what: str, need: Need, device: torch.device, todo: str) -> None:
    """Raise ModelError when not even the weights of `what` fit on `device`; the rest is found out while running."""
    free = free_bytes(device)
    if need.weights + need.runtime > free:
        raise ModelError(
            f"{what} needs about {need} on {device}, where {free / GIB:.1f} GiB are free.",
            "The weights alone must fit, and a batch's cache and activations besides.",
            todo,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmenterShape:
    """The sizes of a SAM that decide its memory."""

    parameters: int
    heads: int
    """Attention heads of a global layer over 64 × 64 patches whose scores are held, on a CPU one by one; 0: of none."""

    def need(self, *, dtype: str, device: torch.device) -> Need:
        """Memory for the calls that this project makes on `device`."""
        encoded, decoded = calls_at_once(device)
        heads = min(self.heads, 1) if device.type == "cpu" else self.heads
        scores = encoded * heads * 4096**2 * BYTES[dtype]
        maps = encoded * _IMAGE_BYTES
        return Need(
            weights=self.parameters * BYTES[dtype],
            working=max(2 * scores + maps, decoded * _INSTANCE_BYTES),
            runtime=runtime_bytes(device),
        )


_IMAGE_BYTES = 128 * 2**20
"""Feature maps of one image while it is encoded, about."""
_INSTANCE_BYTES = 24 * 2**20
"""Feature maps of one instance while it is drawn, about."""
SEGMENTERS = {
    "SAM vit_b": SegmenterShape(parameters=93_735_472, heads=12),
    "SAM vit_l": SegmenterShape(parameters=312_342_832, heads=16),
    "SAM vit_h": SegmenterShape(parameters=641_090_608, heads=16),
    "SAM 2.1 tiny": SegmenterShape(parameters=31_440_721, heads=0),
    "SAM 2.1 small": SegmenterShape(parameters=38_538_577, heads=0),
    "SAM 2.1 base-plus": SegmenterShape(parameters=73_328_401, heads=0),
    "SAM 2.1 large": SegmenterShape(parameters=216_924_865, heads=0),
}
"""The published segmenters by name; of SAM 2, the parts that are loaded for images."""


def calls_at_once(device: torch.device) -> tuple[int, int]:
    """Images that are encoded, and instances that are decoded, in one call."""
    return (1, 4) if device.type == "cpu" else (8, 64)
