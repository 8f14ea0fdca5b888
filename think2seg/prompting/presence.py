"""Presence: with which probability an answer opens an instance rather than closing its list at once.

The decision may take several tokens (``[`` then ``{``) or be merged into one (``[{``, ``[]``, ``]```</answer>``),
depending on the tokenizer. Along the generated text, every token of the vocabulary either opens an instance, closes
the list, or leaves the matter undecided; the mass of the undecided ones passes on to the next step.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

_LEAD = r"[\s`]*(?:json)?\s*"
_BEFORE_BRACKET = re.compile(rf"{_LEAD}\[\s*(?:(?P<opens>\{{)|(?P<closes>\]))")
_AFTER_BRACKET = re.compile(r"\s*(?:(?P<opens>\{)|(?P<closes>\]))")
_BRACKET_ONLY = re.compile(rf"{_LEAD}\[\s*")
_UNDECIDED = re.compile(rf"{_LEAD}")
_ANSWER = "<answer>"


class TokenClasses:
    """Which tokens of a vocabulary open an instance or close the list, before and after the list's bracket."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> None:
        """`vocabulary` is the width of the model's logits, which may exceed the tokenizer's."""
        known = min(vocabulary, len(tokenizer))
        self.pieces: list[str] = tokenizer.batch_decode([[token] for token in range(known)])
        self.pieces += [""] * (vocabulary - known)
        self.before = self._classes(_BEFORE_BRACKET)
        self.after = self._classes(_AFTER_BRACKET)

    def _classes(self, pattern: re.Pattern[str]) -> Tensor:
        """(2, vocabulary) float32: members of the opening and of the closing class."""
        masks = torch.zeros(2, len(self.pieces))
        for token, piece in enumerate(self.pieces):
            if match := pattern.match(piece):
                masks[0 if match["opens"] else 1, token] = 1
        return masks


class PresenceRecorder(LogitsProcessor):  # type: ignore[misc]  # of an untyped module
    """Watches one call of `generate` and leaves the logits as they are; `presence` then tells each row's figure."""

    def __init__(self, classes: TokenClasses, prompt_tokens: int) -> None:
        """`prompt_tokens` is the length of the padded prompts."""
        self._classes = classes
        self._prompt_tokens = prompt_tokens
        self._rows: list[_Row] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`input_ids`: (n, tokens so far) int64; `scores`: (n, vocabulary) logits of the next token."""
        if not self._rows:
            self._rows = [_Row() for _ in range(len(scores))]
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
        """P(opens) / (P(opens) + P(closes)) per row, rounded to 4 decimals; None where no list came."""
        return [row.presence for row in self._rows]


class _Row:
    """How far one answer has come, and the mass of both classes up to there."""

    __slots__ = ("_closes", "_opens", "_text", "_undecided", "bracket", "decided", "deciding")

    def __init__(self) -> None:
        self._text = ""
        self._opens = self._closes = 0.0
        self._undecided = 1.0
        self.deciding = False
        self.decided = False
        self.bracket = False

    def read(self, piece: str) -> None:
        """Take note of a generated token."""
        if self.decided:
            return
        self._text += piece
        _, answer, body = self._text.partition(_ANSWER)
        self.bracket = bool(_BRACKET_ONLY.fullmatch(body))
        self.deciding = bool(answer) and (self.bracket or bool(_UNDECIDED.fullmatch(body)))
        self.decided = bool(answer) and not self.deciding

    def weigh(self, opens: float, closes: float) -> None:
        """Add one step's masses, of which only the part is due that was undecided so far."""
        self._opens += self._undecided * opens
        self._closes += self._undecided * closes
        self._undecided *= max(0.0, 1.0 - opens - closes)

    @property
    def presence(self) -> float | None:
        mass = self._opens + self._closes
        return round(self._opens / mass, 4) if self.decided and mass > 0 else None
