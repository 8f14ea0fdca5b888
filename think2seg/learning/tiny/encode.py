"""Batches for the prompter: images with all their questions packed behind one shared image prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from think2seg.learning.tiny.anchors import CELLS, Anchored, anchor_instances
from think2seg.learning.tiny.answers import Question, choose_questions
from think2seg.learning.tiny.architecture import question_suffix, system_prefix
from think2seg.learning.tiny.dense import DenseTargets, dense_targets
from think2seg.learning.tiny.source import Source, batch_generator
from think2seg.learning.tiny.vocabulary import END, PAD, VISION_END, Role, Vocabulary
from think2seg.prompting.template import Template
from think2seg.samples.labelled import LabelledImage

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedText:
    """Questions and answers of every image, one after another behind the image; position 0 follows the prefix.

    All (b, length). `branch` numbers the questions of an image from 1; padding has branch 0.
    """

    ids: Tensor
    branch: Tensor
    positions: Tensor
    """Place of a token within its own branch, as if no other branch were there."""
    labels: Tensor
    """Id of the next token where that token belongs to an answer, else −1."""
    roles: Tensor
    """Role of the token in `labels`."""

    def rows(self, chosen: slice) -> PackedText:
        """Some rows, cut to the longest of them."""
        length = int((self.branch[chosen] > 0).sum(1).max())
        fields = (self.ids, self.branch, self.positions, self.labels, self.roles)
        ids, branch, positions, labels, roles = (field[chosen, :length] for field in fields)
        return PackedText(ids=ids, branch=branch, positions=positions, labels=labels, roles=roles)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrompterBatch:
    """What one step learns from."""

    images: Tensor
    """(b, y, x, 3) uint8 sRGB."""
    dense: DenseTargets
    text: PackedText | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrompterBatches:
    """Makes the batch of a step; picklable, so that a background process can do it."""

    source: Source
    vocabulary: Vocabulary
    template: Template
    seed: int
    stage: str
    images: int
    questions: int
    absent: float = 0.25
    unknown: float = 0.08

    def __call__(self, step: int) -> PrompterBatch:
        """The batch of `step`, images with short answers first."""
        rng = batch_generator(self.seed, self.stage, step)
        images = [self.source.draw(rng) for _ in range(self.images)]
        anchored = [anchor_instances(image.instances) for image in images]
        order, text = list(range(self.images)), None
        if self.questions:
            asked = [self._ask(image, items, rng) for image, items in zip(images, anchored, strict=True)]
            order.sort(key=lambda index: sum(len(question.answer) for question in asked[index]))
            text = pack([asked[index] for index in order], self.vocabulary, self.template)
        return PrompterBatch(
            images=torch.from_numpy(np.stack([images[index].image for index in order])),
            dense=dense_targets((images[index].labelled, anchored[index]) for index in order),
            text=text,
        )

    def _ask(
        self, image: LabelledImage, anchored: Sequence[Anchored], rng: np.random.Generator
    ) -> tuple[Question, ...]:
        return choose_questions(
            image, anchored, rng, n=self.questions, absent_share=self.absent, unknown_share=self.unknown
        )


def pack(questions: Sequence[Sequence[Question]], vocabulary: Vocabulary, template: Template) -> PackedText:
    """Pack every image's questions with their answers."""
    rows = [_pack_row(row, vocabulary, template) for row in questions]
    length = max(row.shape[1] for row in rows)
    blank = np.array([vocabulary.id(PAD), 0, 0, -1, Role.PADDING])
    packed = np.tile(blank[None, :, None], (len(rows), 1, length))
    for index, row in enumerate(rows):
        packed[index, :, : row.shape[1]] = row
    ids, branch, positions, labels, roles = torch.from_numpy(packed).unbind(1)
    return PackedText(ids=ids, branch=branch, positions=positions, labels=labels, roles=roles)


def _pack_row(questions: Sequence[Question], vocabulary: Vocabulary, template: Template) -> npt.NDArray[np.int64]:
    branches = []
    for number, question in enumerate(questions, start=1):
        asked = vocabulary.encode(question_suffix(template.fill(question.phrasing.text)))
        answer = vocabulary.encode(question.answer + END)
        ids = np.array([*asked, *answer])
        labels, roles = np.full(len(ids), -1), np.full(len(ids), Role.PADDING.value)
        learnt = slice(len(asked) - 1, len(ids) - 1)
        labels[learnt], roles[learnt] = answer, vocabulary.roles(answer)
        branches.append(np.stack([ids, np.full(len(ids), number), np.arange(len(ids)), labels, roles]))
    return np.concatenate(branches, axis=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prefix:
    """The part of every prompt that does not depend on the question: system turn, image, end of image."""

    before: Tensor
    """(p,) ids up to the image."""
    after: Tensor
    """(1,) id that ends the image."""
    positions: Tensor
    """(3, p + cells² + 1) time, row and column positions, as transformers numbers them."""
    next_position: int
    """Position of the first token of the question."""

    @classmethod
    def of(cls, system: str, vocabulary: Vocabulary) -> Prefix:
        """Prefix of a template's system turn."""
        before = torch.tensor(vocabulary.encode(system_prefix(system)))
        start, cells = len(before), torch.arange(CELLS**2)
        image = torch.stack([torch.zeros_like(cells), cells // CELLS, cells % CELLS]) + start
        text = torch.arange(start).expand(3, -1)
        end = torch.full((3, 1), start + CELLS)
        return cls(
            before=before,
            after=torch.tensor([vocabulary.id(VISION_END)]),
            positions=torch.cat([text, image, end], dim=1),
            next_position=start + CELLS + 1,
        )

    @property
    def image_slice(self) -> slice:
        """Where the image tokens lie."""
        return slice(len(self.before), len(self.before) + CELLS**2)

    def __len__(self) -> int:
        return self.positions.shape[1]


def patches(images: Tensor, *, patch_px: int = 14, merge: int = 2) -> Tensor:
    """Pixels (b, y, x, 3) uint8 as the processor hands them to the model: (b · patches, 3 · 2 · patch²) float32."""
    batch, height, width, _ = images.shape
    pixels = (images.float() / 255 - torch.tensor(IMAGE_MEAN)) / torch.tensor(IMAGE_STD)
    rows, columns = height // patch_px // merge, width // patch_px // merge
    cut = pixels.view(batch, rows, merge, patch_px, columns, merge, patch_px, 3).permute(0, 1, 4, 2, 5, 7, 3, 6)
    twice = cut[:, :, :, :, :, :, None].expand(*cut.shape[:6], 2, *cut.shape[6:])
    return twice.reshape(batch * rows * columns * merge**2, -1)
