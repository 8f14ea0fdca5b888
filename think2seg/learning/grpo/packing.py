"""Answers to one question side by side in one row, so that their common prompt goes through the model once.

Eight answers of 30 tokens to a prompt of 200 are 1,840 tokens in rows of their own, and 439 packed. Each answer sees
the prompt and itself alone, at the positions it has in a row of its own: values and gradients are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

NO_LABEL = -100
"""Label of what predicts nothing, as transformers has it."""
PADDING = -1
LONGEST = 4096
"""Tokens from which a row takes no more answers: attention grows by the square of its length."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Packed:
    """Where the tokens of n rows, each a prompt padded on the left and an answer padded on the right, come to lie.

    A prompt's last token, which predicts the first of an answer, stands before each of its answers.
    """

    first: Tensor
    """(groups,) int64: the first row of each group; a group has one prompt."""
    source: Tensor
    """(groups, length) int64: flat index of each token among those of the rows; 0 for padding."""
    part: Tensor
    """(groups, length) int64: 0 for the prompt, 1 and up for its answers, -1 for padding."""
    place: Tensor
    """(n, answer) int64: flat index, among the packed, of the token that predicts one of an answer; 0 for padding."""
    answered: Tensor
    """(n, answer) bool: tokens of answers, as opposed to padding."""

    @classmethod
    def of(cls, prompts: Tensor, attention: Tensor, *, answer: int, longest: int = LONGEST) -> Self:
        """Plan it.

        Parameters
        ----------
        prompts
            (n,) numbers; rows of the same prompt have the same.
        attention
            (n, prompt + answer) of 0 and 1: which tokens are no padding.
        answer
            Columns of answers.
        longest
            Tokens of a row from which a further answer begins another row.
        """
        width, start = attention.shape[1], attention.shape[1] - answer
        answered = attention[:, start:].bool()
        lengths = answered.sum(1).tolist()
        place = torch.zeros_like(answered, dtype=torch.int64)
        first, sources, parts, groups = [], [], [], torch.zeros(len(prompts), 1, dtype=torch.int64)
        for group, members in enumerate(_groups(prompts.tolist(), lengths, start - 1, longest)):
            shown = attention[members[0], : start - 1].nonzero().flatten()
            source, part, at = [shown + members[0] * width], [torch.zeros_like(shown)], len(shown)
            for number, row in enumerate(members, start=1):
                own = torch.arange(lengths[row])
                source.append(own + row * width + start - 1)
                part.append(torch.full_like(own, number))
                place[row, : len(own)] = own + at
                at += len(own)
            first.append(members[0])
            sources.append(torch.cat(source))
            parts.append(torch.cat(part))
            groups[members] = group
        packed = torch.nn.utils.rnn.pad_sequence(sources, batch_first=True)
        return cls(
            first=torch.tensor(first),
            source=packed,
            part=torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=PADDING),
            place=(place + groups * packed.shape[1]).masked_fill(~answered, 0),
            answered=answered,
        )

    def to(self, device: torch.device) -> Self:
        """The same plan on `device`."""
        return type(self)(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def visible(self) -> Tensor:
        """(groups, 1, length, length) bool: what a token (third axis) attends to (fourth); padding sees itself."""
        length = self.part.shape[1]
        seer, seen = self.part[:, :, None], self.part[:, None, :]
        earlier = torch.ones(length, length, dtype=torch.bool, device=self.part.device).tril()
        own = torch.eye(length, dtype=torch.bool, device=self.part.device)
        return (own | (earlier & ((seen == 0) | (seen == seer)) & (seen != PADDING)))[:, None]

    def packed(self, values: Tensor, *, padding: int) -> Tensor:
        """(..., groups, length) from (..., n, prompt + answer)."""
        return values.flatten(-2)[..., self.source].masked_fill(self.part == PADDING, padding)

    def labels(self, tokens: Tensor) -> Tensor:
        """(groups, length): what each packed token predicts, -100 for nothing; tokens: (n, prompt + answer)."""
        labels = torch.full_like(self.source, NO_LABEL)
        answers = tokens[:, -self.answered.shape[1] :]
        labels.view(-1)[self.place[self.answered]] = answers[self.answered]
        return labels

    def unpacked(self, values: Tensor) -> Tensor:
        """(n, answer) from (groups, length): the value of each token of an answer, 0 for padding."""
        return values.flatten()[self.place].masked_fill(~self.answered, 0)


def _groups(prompts: Sequence[int], lengths: Sequence[int], prompt_tokens: int, longest: int) -> list[list[int]]:
    """Rows that share a prompt, in as few groups as keep within `longest` tokens where that is possible."""
    found: list[list[int]] = []
    room = dict.fromkeys(prompts, 0)
    latest: dict[int, list[int]] = {}
    for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        if room[prompt] < length or prompt not in latest:
            latest[prompt], room[prompt] = [], longest - prompt_tokens
            found.append(latest[prompt])
        latest[prompt].append(row)
        room[prompt] -= length
    return found
