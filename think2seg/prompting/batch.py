"""Continuous batching: rows whose answers end leave the batch, and the next tiles take their places.

On a CPU in float32 with one thread an answer does not depend on what is asked beside it, bit for bit: tiles are read
one by one, steps are taken by groups of rows of one fixed number, and a row looks at its own positions alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from think2seg.prompting.answers import Finish
from think2seg.prompting.decision import Decision
from think2seg.prompting.decoder import WINDOW_TOKENS, Rope, TextDecoder
from think2seg.prompting.presence import TokenClasses
from think2seg.prompting.vision import VisionEncoder

type Frame = npt.NDArray[np.uint8]
type Choice = Callable[[Tensor], Tensor]
"""The next token of every row, (n,) int64, from its logits (n, vocabulary)."""
type Coming = Iterator[tuple[int, Frame, tuple[int, ...]]]
"""Number of an ask, its frame, the questions about it."""
_GROUP_ON_CPU = 16
_TILES_AT_ONCE = 8
"""Tiles whose images are encoded and read together on a GPU."""
_OPENS, _CLOSES = "<answer>", "</answer>"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Script:
    """The tokens of one question, which a frame's image is part of."""

    head: Tensor
    """(h,) int64: what precedes the image."""
    tail: Tensor
    """(t,) int64: what follows it, the question included."""
    positions: Tensor
    """(3, h + image + t) int64: positions of all tokens in time, height and width."""

    @classmethod
    def of(cls, tokens: Tensor, model: Any, grid: Tensor) -> Self:
        """From a whole prompt (n,) int64 for a Qwen2.5-VL, whose image has a `grid` (1, 3) of patches."""
        image = tokens == model.config.image_token_id
        places = image.nonzero()[:, 0]
        positions, _ = model.model.get_rope_index(
            tokens[None], mm_token_type_ids=image[None].int(), image_grid_thw=grid
        )
        return cls(
            head=tokens[: int(places[0])].to(model.device),
            tail=tokens[int(places[-1]) + 1 :].to(model.device),
            positions=positions[:, 0].to(model.device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When an answer ends."""

    ends: frozenset[int]
    """Tokens that end it."""
    max_new_tokens: int
    at_tag: bool = True
    """Whether its closing tag ends it, too."""


@dataclass(slots=True, eq=False)
class Row:
    """One answer under way."""

    ask: int
    question: int
    frame: Frame
    length: int = 0
    """Positions of the cache that are filled."""
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    decision: Decision = field(default_factory=Decision)
    finish: Finish | None = None

    def take(self, token: int, piece: str, limits: Limits) -> bool:
        """Note the next token; whether the answer ends with it."""
        self.tokens.append(token)
        self.decision.read(piece)
        self.text += piece
        closed = limits.at_tag and _OPENS in self.text and _CLOSES in self.text.partition(_OPENS)[2]
        if token in limits.ends or closed:
            self.finish = "stop"
        elif len(self.tokens) == limits.max_new_tokens:
            self.finish = "length"
        return self.finish is not None


def likeliest(logits: Tensor) -> Tensor:
    """The greedy choice."""
    return logits.argmax(dim=-1)


def rows_of(wanted: int, device: torch.device) -> int:
    """Rows of a batch that shall have `wanted`: on a CPU whole groups."""
    return -(-wanted // _GROUP_ON_CPU) * _GROUP_ON_CPU if device.type == "cpu" else wanted


class Batch:
    """Rows of one shape over one cache. All questions of a tile share its image's keys and values."""

    def __init__(
        self,
        decoder: TextDecoder,
        vision: VisionEncoder,
        classes: TokenClasses,
        scripts: Sequence[Script],
        limits: Limits,
        *,
        rows: int,
        choose: Choice = likeliest,
    ) -> None:
        """Allocate a batch of at least `rows` rows, on a CPU of whole groups."""
        on_cpu = decoder.device.type == "cpu"
        self.n_rows = rows_of(rows, decoder.device)
        self._group = _GROUP_ON_CPU if on_cpu else self.n_rows
        self._at_once = 1 if on_cpu else min(_TILES_AT_ONCE, self.n_rows)
        self._decoder, self._vision, self._classes, self._limits = decoder, vision, classes, limits
        self._scripts, self._choice = scripts, choose
        longest = max(script.positions.shape[1] for script in scripts)
        positions = -(-(longest + limits.max_new_tokens) // WINDOW_TOKENS) * WINDOW_TOKENS
        self._cache = decoder.cache(self.n_rows, positions)
        self._scratch = decoder.cache(self._at_once, longest)
        self._ropes = [decoder.rope(script.positions) for script in scripts]
        script = scripts[0]
        self._read = script.positions.shape[1] - len(script.tail)
        self._shift = int(script.positions[0, -1]) + 1 - script.positions.shape[1]
        self._text_rope = decoder.rope(torch.arange(positions).add(self._shift).clamp(min=0).expand(3, -1))
        self._slots: list[Row | None] = [None] * self.n_rows
        self._ended: list[Row] = []
        self._unplaced: list[list[Row | None]] = []
        """Questions still to be read about the images in the scratch cache, by the rows of that."""
        self._latest: tuple[Script, Tensor] | None = None
        """What was last read about these images, and the logits after it."""
        self._read_heads()

    @property
    def idle(self) -> bool:
        """Whether no answer is under way."""
        return not self._unplaced and not any(self._slots)

    def unfinished(self) -> list[Row]:
        """Rows that have not ended."""
        rows = [*self._slots, *(row for rows in self._unplaced for row in rows)]
        return [row for row in rows if row and not row.finish]

    def take_ended(self) -> list[Row]:
        """Rows that have ended since this was last asked."""
        ended, self._ended = self._ended, []
        return ended

    def advance(self, coming: Coming) -> bool:
        """Fill the batch, then add a token to every row; False where no answer is under way and nothing more comes.

        Looked at after the step, a batch is idle as well when all its answers ended at once, with tiles still to come.
        """
        self.fill(coming)
        under_way = not self.idle
        self.step()
        return under_way

    @torch.inference_mode()
    def fill(self, coming: Coming) -> None:
        """Take tiles while there are places for them."""
        while True:
            free = [slot for slot, row in enumerate(self._slots) if row is None]
            if len(free) < self._at_once:
                return
            if not self._unplaced:
                tiles = list(islice(coming, self._at_once))
                if not tiles:
                    return
                self._unplaced = [
                    [Row(ask, question, frame) if question in asked else None for ask, frame, asked in tiles]
                    for question in range(len(self._scripts))
                    if any(question in asked for *_, asked in tiles)
                ]
                self._read_images([frame for _, frame, _ in tiles])
            self._place(free)

    @torch.inference_mode()
    def step(self) -> None:
        """Add a token to every row."""
        for start in range(0, self.n_rows, self._group):
            group = self._slots[start : start + self._group]
            if not any(group):
                continue
            lengths = torch.tensor([row.length if row else 0 for row in group], device=self._decoder.device)
            tokens = torch.tensor([row.tokens[-1] if row else 0 for row in group], device=self._decoder.device)
            cache = self._cache[:, :, start : start + self._group]
            logits = self._decoder.step(tokens, lengths, self._text_rope[lengths], cache)
            for row in group:
                if row:
                    row.length += 1
            self._choose(group, logits)
        self._slots = [None if row and row.finish else row for row in self._slots]

    def _read_heads(self) -> None:
        head, rope = self._scripts[0].head, self._ropes[0]
        with torch.inference_mode():
            hidden = self._decoder.embed(head).expand(self._at_once, -1, -1)
            self._decoder.extend(hidden, rope[: len(head)], self._scratch, 0, logits=False)

    def _read_images(self, frames: list[Frame]) -> None:
        """Encode images and fill the scratch cache with their keys and values, after those of the head."""
        full = frames + frames[-1:] * (self._at_once - len(frames))
        head = len(self._scripts[0].head)
        rope = self._ropes[0][head : self._read]
        self._decoder.extend(self._vision(full), rope, self._scratch, head, logits=False)
        self._latest = None

    def _place(self, free: Sequence[int]) -> None:
        """Read the next question about the images in the scratch cache, and give its rows their places."""
        rows = self._unplaced[0]
        question = next(row.question for row in rows if row)
        script = self._scripts[question]
        logits = self._after(script, self._ropes[question])
        length = script.positions.shape[1]
        placed = [(number, row) for number, row in enumerate(rows) if row]
        for slot, (number, row) in zip(free, placed, strict=False):
            self._cache[:, :, slot, :, :length] = self._scratch[:, :, number, :, :length]
            row.length = length
            self._slots[slot] = row
        self._unplaced.pop(0)
        self._choose(rows, logits)
        self._slots = [None if row and row.finish else row for row in self._slots]

    def _after(self, script: Script, rope: Rope) -> Tensor:
        """Logits after a question about the images in the scratch cache; asked again, it is not read again."""
        if self._latest is None or self._latest[0] is not script:
            hidden = self._decoder.embed(script.tail).expand(self._at_once, -1, -1)
            logits = self._decoder.extend(hidden, rope[self._read :], self._scratch, self._read, logits=True)
            assert logits is not None
            self._latest = script, logits
        return self._latest[1]

    def _choose(self, rows: Sequence[Row | None], logits: Tensor) -> None:
        """Give every row its next token."""
        chosen = self._choice(logits).tolist()
        for row, token, scores in zip(rows, chosen, logits, strict=False):
            if row is None:
                continue
            if row.decision.deciding:
                self._classes.weigh(row.decision, scores)
            if row.take(token, self._classes.pieces[token], self._limits):
                self._ended.append(row)
