"""Optimisers of the small models."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor, nn

from think2seg.learning.optim import AsItIs, Optimisers, Rates


def stepped(context: AbstractContextManager[object]) -> tuple[Tensor, Tensor, Tensor]:
    """A matrix before and after one step of Muon within `context`, and its gradient afterwards."""
    torch.manual_seed(0)
    layer = nn.Linear(24, 40, bias=False)
    before, gradient = layer.weight.detach().clone(), torch.randn(40, 24)
    layer.weight.grad = gradient.clone()
    with context:
        torch.optim.Muon([layer.weight], lr=0.01, adjust_lr_fn="match_rms_adamw").step()
    assert layer.weight.grad.equal(gradient)
    return before, layer.weight.detach(), gradient


def test_muon_takes_the_same_step_in_float32_but_for_rounding():
    before, usual, _ = stepped(nullcontext())
    _, ours, _ = stepped(AsItIs())
    assert (ours - usual).norm() < 0.03 * (usual - before).norm()
    assert not ours.equal(usual)


def test_muon_multiplies_nothing_in_bfloat16_within(monkeypatch: pytest.MonkeyPatch):
    formats = []
    addmm = torch.addmm

    def noted(*args: Tensor, **kwargs: float) -> Tensor:
        formats.append(args[0].dtype)
        return addmm(*args, **kwargs)

    monkeypatch.setattr(torch, "addmm", noted)
    stepped(AsItIs())
    assert set(formats) == {torch.float32}


@pytest.mark.parametrize("bfloat16", [True, False])
def test_optimisers_orthogonalise_in_what_they_are_told(monkeypatch: pytest.MonkeyPatch, bfloat16: bool):
    formats = []
    layer = nn.Linear(8, 6, bias=False)
    optimisers = Optimisers([layer], Rates(), is_matrix=lambda _, p: p.ndim == 2, bfloat16=bfloat16)
    addmm = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *a, **k: (formats.append(a[0].dtype), addmm(*a, **k))[1])
    optimisers.update(layer(torch.ones(2, 8)).sum(), 1.0)
    assert set(formats) == {torch.bfloat16 if bfloat16 else torch.float32}
