"""Optimisers and the learning-rate schedule of the small models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def cosine_scale(step: int, steps: int, *, warm_steps: int = 60, floor: float = 0.05) -> float:
    """Factor on the base rate at `step` of `steps`: a linear rise, then half a cosine from 1 down to `floor`."""
    rise = min(1.0, (step + 1) / warm_steps)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, steps))))
    return rise * (floor + (1 - floor) * fall)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Base learning rates and regularisation."""

    muon: float = 0.005
    adamw: float = 1e-3
    weight_decay: float = 0.05
    clip: float = 1.0
    """Largest norm of the whole gradient."""


class AsItIs(TorchFunctionMode):
    """Within it, `Tensor.bfloat16` copies without converting.

    Muon orthogonalises in bfloat16, whatever it is given. On a processor without instructions for it a step of the
    bundled prompter then took 45 s, and 5 s in float32 (two cores of an EPYC with AVX2).
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Every torch function that is called within it."""
        return args[0].clone() if func is Tensor.bfloat16 else func(*args, **(kwargs or {}))


class Optimisers:
    """Muon for the hidden matrices, AdamW for everything else, stepped and saved as one.

    Source: K. Jordan et al., Muon (2024), as in `torch.optim.Muon`, with the update's RMS matched to AdamW's.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        rates: Rates,
        *,
        is_matrix: Callable[[str, Tensor], bool],
        bfloat16: bool,
    ) -> None:
        """`is_matrix`: which parameters, by name, Muon steps; `bfloat16`: whether it multiplies in that format."""
        self._rates = rates
        matrices: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        vectors: list[nn.Parameter] = []
        for module in modules:
            for name, parameter in module.named_parameters():
                group = matrices if is_matrix(name, parameter) else plain if parameter.ndim > 1 else vectors
                group.append(parameter)
        self._step_within = nullcontext if bfloat16 else AsItIs
        groups: list[dict[str, Any]] = [{"params": plain}, {"params": vectors, "weight_decay": 0.0}]
        self._parameters = [*matrices, *plain, *vectors]
        self._optimisers: list[tuple[float, torch.optim.Optimizer]] = [
            (
                rates.adamw,
                torch.optim.AdamW(
                    groups,
                    lr=rates.adamw,
                    betas=(0.9, 0.95),
                    weight_decay=rates.weight_decay,
                    fused=True,
                ),
            )
        ]
        if matrices:
            muon = torch.optim.Muon(
                matrices, lr=rates.muon, weight_decay=rates.weight_decay, adjust_lr_fn="match_rms_adamw"
            )
            self._optimisers.append((rates.muon, muon))

    def update(self, loss: Tensor, scale: float) -> float:
        """Back-propagate `loss` and take one step at `scale` times the base rates; returns the gradient's norm."""
        for _, optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_([p for p in self._parameters if p.grad is not None], self._rates.clip)
        for base, optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = base * scale
            with self._step_within():
                optimiser.step()
        return float(norm)

    def state_dict(self) -> list[dict[str, object]]:
        """State of every optimiser, in a fixed order."""
        return [optimiser.state_dict() for _, optimiser in self._optimisers]

    def load_state_dict(self, states: list[dict[str, object]]) -> None:
        """Restore what `state_dict` gave."""
        for (_, optimiser), state in zip(self._optimisers, states, strict=True):
            optimiser.load_state_dict(state)
