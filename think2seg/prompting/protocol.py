"""What every prompter offers, whether its model runs in this process or behind a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Protocol, runtime_checkable

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ask:
    """A tile and which questions to ask about it."""

    tile: npt.NDArray[np.uint8]
    """(t, t, 3) uint8 sRGB."""
    questions: tuple[int, ...]
    """Positions among the questions at hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One reply among those to many asks."""

    ask: int
    """Position of the ask."""
    question: int
    """Position of the question among those at hand."""
    reply: Reply


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


@runtime_checkable
class StreamingPrompter(Prompter, Protocol):
    """A prompter that takes tiles as it has room for them, and shares what questions about one tile have in common."""

    def answers(self, asks: Iterable[Ask], questions: Sequence[str]) -> Iterator[Answered]:
        """One reply per ask and question, in any order; the same ones as `ask` gives."""


def answers_of(prompter: Prompter, asks: Iterable[Ask], questions: Sequence[str]) -> Iterator[Answered]:
    """Replies of any prompter as they come: one that does not stream is asked batch by batch."""
    if isinstance(prompter, StreamingPrompter):
        yield from prompter.answers(asks, questions)
        return
    for part in batched(enumerate(asks), max(1, prompter.batch)):
        for question, text in enumerate(questions):
            wanted = [(number, ask.tile) for number, ask in part if question in ask.questions]
            replies = prompter.ask([tile for _, tile in wanted], text) if wanted else []
            for (number, _), reply in zip(wanted, replies, strict=True):
                yield Answered(ask=number, question=question, reply=reply)
