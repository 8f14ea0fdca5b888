"""Where an answer decides whether anything is there: the tokens that open its list's first instance or close the list.

The decision may take several tokens (``[`` then ``{``) or be merged into one (``[{``, ``[]``, ``]```</answer>``),
depending on the tokenizer. Along the generated text, every token of the vocabulary either opens an instance, closes
the list, or leaves the matter undecided; the mass of the undecided ones passes on to the next step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

_LEAD = r"[\s`]*(?:json)?\s*"
_BEFORE_BRACKET = re.compile(rf"{_LEAD}\[\s*(?:(?P<opens>\{{)|(?P<closes>\]))")
_AFTER_BRACKET = re.compile(r"\s*(?:(?P<opens>\{)|(?P<closes>\]))")
_BRACKET_ONLY = re.compile(rf"{_LEAD}\[\s*")
_UNDECIDED = re.compile(rf"{_LEAD}")
_ANSWER = "<answer>"


def decides(piece: str, *, after_bracket: bool) -> Literal["opens", "closes"] | None:
    """What a token that reads `piece` decides, before or after the list's bracket."""
    match = (_AFTER_BRACKET if after_bracket else _BEFORE_BRACKET).match(piece)
    if match is None:
        return None
    return "opens" if match["opens"] else "closes"


class Decision:
    """How far one answer has come, and the mass of both classes up to there.

    For every token in turn: while `deciding`, `weigh` the probabilities that it was drawn from; then `read` it.
    """

    __slots__ = ("_closes", "_decided", "_opens", "_text", "_undecided", "bracket", "deciding")

    def __init__(self) -> None:
        self._text = ""
        self._opens = self._closes = 0.0
        self._undecided = 1.0
        self._decided = False
        self.deciding = False
        """Whether the next token may decide."""
        self.bracket = False
        """Whether the list's bracket has come."""

    def read(self, piece: str) -> None:
        """Take note of a generated token."""
        if self._decided:
            return
        self._text += piece
        _, answer, body = self._text.partition(_ANSWER)
        self.bracket = bool(_BRACKET_ONLY.fullmatch(body))
        self.deciding = bool(answer) and (self.bracket or bool(_UNDECIDED.fullmatch(body)))
        self._decided = bool(answer) and not self.deciding

    def weigh(self, opens: float, closes: float) -> None:
        """Add one step's masses, of which only the part is due that was undecided so far."""
        self._opens += self._undecided * opens
        self._closes += self._undecided * closes
        self._undecided *= max(0.0, 1.0 - opens - closes)

    def weigh_pieces(self, pieces: Iterable[tuple[str, float]]) -> None:
        """Add one step's masses from the probabilities of its likeliest tokens."""
        mass = {"opens": 0.0, "closes": 0.0}
        for piece, probability in pieces:
            if (kind := decides(piece, after_bracket=self.bracket)) is not None:
                mass[kind] += probability
        self.weigh(**mass)

    @property
    def presence(self) -> float | None:
        """P(opens) / (P(opens) + P(closes)), rounded to 4 decimals; None where no list came."""
        mass = self._opens + self._closes
        return round(self._opens / mass, 4) if self._decided and mass > 0 else None
