"""What every prompter offers, whether its model runs in this process or behind a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from think2seg.prompting.answers import Finish
from think2seg.prompting.template import Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The raw answer to one question about one tile."""

    text: str
    finish: Finish
    """``stop``: the model ended its answer. ``length``: the limit on new tokens ended it."""
    tokens: int
    """Tokens generated, the closing one included."""
    presence: float | None
    """P(the list opens an instance) against P(the list closes at once), in [0, 1] and rounded to 4 decimals; None where
    the answer never came to its list or the prompter does not tell."""


class Prompter(Protocol):
    """A vision–language model that answers a question about tiles with spatial prompts.

    Answers do not depend on which tiles are asked together, nor on their order.
    """

    @property
    def digest(self) -> str:
        """Content hash of the weights."""

    @property
    def template(self) -> Template:
        """The words around the question."""

    @property
    def frame_px(self) -> int:
        """Side of the square frame the model sees; answers are in its pixels."""

    @property
    def batch(self) -> int:
        """Number of tiles that are best asked together."""

    @property
    def footprint_m(self) -> tuple[float, float] | None:
        """Smallest and largest tile footprint the model was trained on, metres; None where it is not known."""

    @property
    def unknown_reasoning(self) -> str | None:
        """What the reasoning says when the model does not know the concept asked for."""

    def ask(self, tiles: Sequence[npt.NDArray[np.uint8]], question: str) -> list[Reply]:
        """One reply per tile, in order.

        tiles: (t, t, 3) uint8 sRGB each; the prompter resizes them to its frame.
        Raises ModelError when the model cannot answer at all.
        """
