"""Answers that share their prompt in one row have the values and gradients they have in rows of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.reinforcement import training_file

pytest.importorskip("trl")

from trl.trainer.grpo_trainer import GRPOTrainer

from think2seg.learning.grpo.model import MaskTrainer
from think2seg.learning.grpo.packing import NO_LABEL, PADDING, Packed
from think2seg.learning.train import train

ATTENTION = torch.tensor([[0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0]])
TOKENS = torch.tensor([[0, 5, 6, 7, 8, 0], [4, 5, 6, 9, 0, 0], [0, 5, 6, 7, 7, 9], [0, 5, 6, 0, 0, 0]])
"""Two prompts, *5 6* three times and *4 5 6*; answers of two, one, three tokens, and none."""


@pytest.fixture
def pack() -> Packed:
    return Packed.of(torch.tensor([3, 1, 3, 3]), ATTENTION, answer=3)


def test_a_prompt_stands_once_before_its_answers(pack: Packed) -> None:
    assert pack.packed(TOKENS, padding=PADDING).tolist() == [[5, 6, 7, 6, 7, 7], [4, 5, 6, -1, -1, -1]]
    assert pack.part.tolist() == [[0, 1, 1, 2, 2, 2], [0, 0, 1, -1, -1, -1]]
    assert pack.labels(TOKENS).tolist() == [[NO_LABEL, 7, 8, 7, 7, 9], [NO_LABEL, NO_LABEL, 9, *[NO_LABEL] * 3]]
    assert [pack.first.tolist(), pack.packed(ATTENTION.cumsum(1), padding=0)[0].tolist()] == [
        [0, 1],
        [1, 2, 3, 2, 3, 4],
    ]


def test_a_long_row_is_broken_between_answers(pack: Packed) -> None:
    broken = Packed.of(torch.tensor([3, 1, 3, 3]), ATTENTION, answer=3, longest=5)
    assert broken.packed(TOKENS, padding=PADDING).tolist() == [[5, 6, 7, -1], [4, 5, 6, -1], [5, 6, 7, 7]]
    assert broken.unpacked(broken.labels(TOKENS)).equal(pack.unpacked(pack.labels(TOKENS)))


def test_an_answer_sees_the_prompt_and_itself(pack: Packed) -> None:
    seen = pack.visible()[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 0, 1, 0, 0],
        [1, 0, 0, 1, 1, 0],
        [1, 0, 0, 1, 1, 1],
    ]
    assert pack.visible()[1, 0].any(-1).all()


def test_values_return_to_the_tokens_they_are_of(pack: Packed) -> None:
    values = pack.unpacked(pack.labels(TOKENS))
    assert values.tolist() == [[7, 8, 0], [9, 0, 0], [7, 7, 9], [0, 0, 0]]


def test_a_packed_step_has_the_values_and_gradients_of_a_step_of_rows(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = MaskTrainer._get_per_token_logps_and_entropies
    compared: list[str] = []

    def both(self: MaskTrainer, model: Any, *rows: Any, **inputs: Any) -> Any:
        """What TRL computes row by row, beside which the packed must be the same."""
        found = packed(self, model, *rows, **inputs)
        expected = GRPOTrainer._get_per_token_logps_and_entropies(self, model, *rows, **inputs)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-4)
        if inputs.get("compute_entropy"):
            torch.testing.assert_close(found[1], expected[1].masked_fill(found[0] == 0, 0), rtol=1e-4, atol=1e-4)
            weights = [weight for weight in model.parameters() if weight.requires_grad]
            ours, theirs = (
                torch.autograd.grad(values.square().sum(), weights, retain_graph=True, allow_unused=True)
                for values in (found[0], expected[0])
            )
            for one, other in zip(ours, theirs, strict=True):
                assert (one is None) == (other is None)
                if one is not None and other is not None:
                    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()) + 1e-6)
            compared.append("gradients")
        return found

    monkeypatch.setattr(MaskTrainer, "_get_per_token_logps_and_entropies", both)
    train(training_file(tmp_path, pair, steps=1))
    assert compared == ["gradients"]


def test_answers_that_teach_nothing_are_not_gone_through(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, log_probs = MaskTrainer._compute_loss, MaskTrainer._get_per_token_logps_and_entropies
    seen: list[int] = []

    def counted(self: MaskTrainer, model: Any, tokens: Any, *rows: Any, **inputs: Any) -> Any:
        seen.append(len(tokens))
        return log_probs(self, model, tokens, *rows, **inputs)

    def both(self: MaskTrainer, model: Any, inputs: dict[str, Any]) -> Any:
        for advantages, rows in ([1.0, 0.0, -0.5, 0.0, 0.0, 0.0], 2), ([0.0] * 6, 6):
            inputs["advantages"] = torch.tensor(advantages)
            seen.clear()
            loss, expected = ours(self, model, inputs), GRPOTrainer._compute_loss(self, model, inputs)  # type: ignore[no-untyped-call]
            torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
            assert seen == [rows, 6]
        return loss

    monkeypatch.setattr(MaskTrainer, "_get_per_token_logps_and_entropies", counted)
    monkeypatch.setattr(MaskTrainer, "_compute_loss", both)
    train(training_file(tmp_path, pair, steps=1))
    assert seen == [6, 6]
