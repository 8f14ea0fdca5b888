"""The tokenizer of the small prompter: few tokens for the fixed parts of an answer, one for every coordinate.

The *text* is the published format; only its cutting into tokens is ours. An instance takes eleven tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from think2seg.learning.tiny.anchors import FRAME_PX

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
SPECIAL = (PAD, START, END, VISION_START, VISION_END, IMAGE, VIDEO)

THINK, SOME, NONE, UNKNOWN = "<think>", "The image shows ", "No ", "I do not know this concept"
VISIBLE, ANSWER = " is visible", ".</think> <answer>```json["
OPEN, POINTS, BETWEEN = '{"bbox_2d": [', '], "positive_points": [[', "], ["
NEXT, CLOSE, EMPTY = ']]}, {"bbox_2d": [', "]]}]```</answer>", "]```</answer>"
PIECES = (THINK, SOME, NONE, UNKNOWN, VISIBLE, ANSWER, OPEN, POINTS, BETWEEN, NEXT, CLOSE, EMPTY)
UNKNOWN_REASONING = UNKNOWN + "."

MERGES = 640
"""Learnt merges beyond the 256 bytes."""


class Role(IntEnum):
    """What a token of an answer decides; the loss is averaged for each role separately."""

    PADDING = -1
    STRUCTURE = 0
    COORDINATE = 1
    DECISION = 2
    """How many instances there are, and whether another one follows."""
    PRESENCE = 3
    """Whether there is anything, nothing, or the question is not understood."""


def build_tokenizer(corpus: Iterable[str]) -> Tokenizer:
    """Byte-level BPE over lower-cased text, plus one token for every fixed piece and coordinate of an answer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + MERGES, initial_alphabet=alphabet, special_tokens=[], show_progress=False
    )
    tokenizer.train_from_iterator(sorted(corpus), trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    numbers = [str(value) for value in range(FRAME_PX + 1)]
    added = [*PIECES, *numbers, *(f"{number}, " for number in numbers)]
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in added])
    return tokenizer


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer with the ids that training needs to know; picklable."""

    tokenizer: Tokenizer

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def id(self, token: str) -> int:
        """Id of a token that is in the vocabulary."""
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise KeyError(token)
        return int(found)

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without the special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    @cached_property
    def number_ids(self) -> npt.NDArray[np.int64]:
        """(2, FRAME_PX + 1) ids of the numbers, without and with their comma."""
        values = range(FRAME_PX + 1)
        return np.array([[self.id(str(v)) for v in values], [self.id(f"{v}, ") for v in values]])

    @cached_property
    def number_of_id(self) -> npt.NDArray[np.int64]:
        """(vocabulary,) the number that an id stands for, −1 for all others."""
        numbers = np.full(len(self), -1)
        numbers[self.number_ids] = np.arange(FRAME_PX + 1)
        return numbers

    def roles(self, answer: Sequence[int]) -> npt.NDArray[np.int64]:
        """Role of every token of an answer that ends with END."""
        choices = {self.id(token) for token in (OPEN, NEXT, CLOSE, EMPTY)}
        roles = np.full(len(answer), Role.STRUCTURE.value)
        begun = False
        for index, token in enumerate(answer):
            if self.number_of_id[token] >= 0:
                roles[index] = Role.COORDINATE if begun else Role.DECISION
            elif token in choices:
                roles[index] = Role.DECISION
            elif token == self.id(ANSWER):
                begun = True
        roles[answer.index(self.id(THINK)) + 1] = Role.PRESENCE
        return roles
