"""Presence: with which probability an answer opens an instance rather than closing its list at once.

Read off the logits while an answer is generated; `think2seg.prompting.decision` says where.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from think2seg.prompting.decision import Decision, decides


class TokenClasses:
    """Which tokens of a vocabulary open an instance or close the list, before and after the list's bracket."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> None:
        """`vocabulary` is the width of the model's logits, which may exceed the tokenizer's."""
        known = min(vocabulary, len(tokenizer))
        self.pieces: list[str] = tokenizer.batch_decode([[token] for token in range(known)])
        self.pieces += [""] * (vocabulary - known)
        self.before = self._classes(after_bracket=False)
        self.after = self._classes(after_bracket=True)

    def _classes(self, *, after_bracket: bool) -> Tensor:
        """(2, vocabulary) float32: members of the opening and of the closing class."""
        masks = torch.zeros(2, len(self.pieces))
        for token, piece in enumerate(self.pieces):
            if kind := decides(piece, after_bracket=after_bracket):
                masks[0 if kind == "opens" else 1, token] = 1
        return masks

    def weigh(self, decision: Decision, scores: Tensor) -> None:
        """Let `decision` take note of the logits (vocabulary,) that its next token is drawn from."""
        masks = self.after if decision.bracket else self.before
        opens, closes = (masks.to(scores.device) @ scores.float().softmax(-1)).tolist()
        decision.weigh(opens, closes)
