"""Presence: with which probability an answer opens an instance rather than closing its list at once.

Read off the logits while an answer is generated; `think2seg.prompting.decision` says where.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

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


class PresenceRecorder(LogitsProcessor):  # type: ignore[misc]  # of an untyped module
    """Watches one call of `generate` and leaves the logits as they are; `presence` then tells each row's figure."""

    def __init__(self, classes: TokenClasses, prompt_tokens: int) -> None:
        """`prompt_tokens` is the length of the padded prompts."""
        self._classes = classes
        self._prompt_tokens = prompt_tokens
        self._rows: list[Decision] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`input_ids`: (n, tokens so far) int64; `scores`: (n, vocabulary) logits of the next token."""
        if not self._rows:
            self._rows = [Decision() for _ in range(len(scores))]
        if input_ids.shape[1] > self._prompt_tokens:
            for row, token in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
                row.read(self._classes.pieces[token])
        for masks, after in ((self._classes.before, False), (self._classes.after, True)):
            indices = [i for i, row in enumerate(self._rows) if row.deciding and row.bracket is after]
            if indices:
                mass = scores[indices].float().softmax(-1) @ masks.to(scores.device).T
                for i, (opens, closes) in zip(indices, mass.tolist(), strict=True):
                    self._rows[i].weigh(opens, closes)
        return scores

    @property
    def presence(self) -> list[float | None]:
        """`Decision.presence` of every row."""
        return [row.presence for row in self._rows]
