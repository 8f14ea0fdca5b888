"""Questions of a reinforcement: each has an image and the mask that answers it, and a number that stands for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol, Self

import datasets  # type: ignore[import-untyped]
import numpy as np
from PIL import Image as PilImage

from think2seg.config.digests import content_digest
from think2seg.errors import ConfigError, ImageryError
from think2seg.learning.datasets import Dataset, Item, dataset_digest, read_dataset
from think2seg.learning.evaluate import Sample
from think2seg.learning.rewards import Target
from think2seg.learning.settings import ReinforcementData
from think2seg.learning.suite.asking import balanced_questions, truth_of
from think2seg.learning.tiny.anchors import anchor_instances
from think2seg.learning.tiny.answers import choose_questions
from think2seg.learning.tiny.source import HELD_OUT_SEED, MixedSource, batch_generator
from think2seg.prompting import Template
from think2seg.samples.labelled import Image
from think2seg.samples.simulate import simulate

FIRST_COMPARED = HELD_OUT_SEED + 25_000_000
"""Simulated scenes that old and new weights are compared on; neither looks on the way nor the gate use these."""
KEPT = 64
"""Tasks that are kept in memory: those of the steps at hand."""
STAGE = "grpo"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """One question about one image."""

    target: Target
    question: str
    source: str
    """Where the image is from, e.g. "simulated"."""


class Tasks(Protocol):
    """Tasks by their numbers; the same number always gives the same task."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, number: int) -> Task:
        """One of them."""

    def digest(self) -> str:
        """Hash of what they are made of."""


@dataclass(frozen=True, kw_only=True)
class DrawnTasks:
    """Simulated scenes and real train tiles, made as they are asked about."""

    images: MixedSource
    seed: int
    absent: float
    """Share of questions for something that is not there."""
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Task:
        """A question within the vocabulary, in a train phrasing; images that allow none are drawn again."""
        rng = batch_generator(self.seed, STAGE, number)
        while True:
            image = self.images.draw(rng)
            anchored = anchor_instances(image.instances)
            (question,) = choose_questions(image, anchored, rng, n=1, absent_share=self.absent, unknown_share=0)
            if question.phrasing.concept is not None:
                return task_of(Sample(image=image, question=question), item=f"{STAGE}/{number}")

    def digest(self) -> str:
        """Hash of scenes, tiles, and how questions are chosen."""
        return content_digest([self.images.digest(), self.seed, self.absent, self.count])


@dataclass(frozen=True, kw_only=True)
class FolderTasks:
    """Every question about every image of a labelled dataset, images at the prompter's frame size."""

    dataset: Dataset
    frame_px: int

    @cached_property
    def _asked(self) -> tuple[tuple[Item, str], ...]:
        return tuple((item, question) for item in self.dataset.items for question in item.questions)

    def __len__(self) -> int:
        return len(self._asked)

    def __getitem__(self, number: int) -> Task:
        """One question; ImageryError where its image or mask cannot be read."""
        item, question = self._asked[number]
        try:
            image, truth = item.pixels(self.frame_px), item.truth(self.frame_px)
            ignored = item.ignored(self.frame_px)
        except OSError as error:
            raise ImageryError(
                f"{item.id} of {self.dataset.name} cannot be read: {error}",
                "An image is never replaced by another.",
                "Mend or remove its image and mask.",
            ) from error
        target = Target(item=f"{self.dataset.split}/{item.id}", image=image, truth=truth, ignore=ignored)
        return Task(target=target, question=question, source=self.dataset.name)

    def digest(self) -> str:
        """Hash of questions, images and masks."""
        return dataset_digest(self.dataset)


@dataclass(frozen=True, kw_only=True)
class MixedTasks:
    """Samples that people reviewed among scenes and tiles, so that what was known is not forgotten for them."""

    samples: FolderTasks
    share: float
    """How often a sample is asked about."""
    drawn: DrawnTasks

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, number: int) -> Task:
        """A sample with probability `share`, else what would be drawn without them."""
        rng = batch_generator(self.drawn.seed, "reviewed", number)
        if rng.random() < self.share:
            return self.samples[int(rng.integers(len(self.samples)))]
        return self.drawn[number]

    def digest(self) -> str:
        """Hash of samples, scenes and tiles, and how often each is asked about."""
        return content_digest([self.samples.digest(), self.share, self.drawn.digest()])


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSets:
    """What a reinforcement learns from, looks at on the way, and is judged by at the end."""

    train: Tasks
    validation: Sequence[Task]
    held_out: Sequence[Task]

    @classmethod
    def of(
        cls, data: ReinforcementData, *, seed: int, frame_px: int, count: int, validation: int, held_out: int
    ) -> Self:
        """Read or make them.

        count: tasks to learn from where they are drawn. validation, held_out: tasks of each source.
        Raises ConfigError where there is nothing to learn from, or no such dataset.
        """
        images = MixedSource(
            real_share=data.real_share,
            folder=data.folder,
            wheels=data.wheels,
            tiles=data.tiles,
            sources=data.sources,
            seed=seed,
        )

        drawn = DrawnTasks(images=images, seed=seed, absent=data.absent, count=count)
        train: Tasks = drawn
        seen: Tasks | None = None
        if data.earthreason is not None:
            train, seen = _folder_tasks("earthreason", data.earthreason, ("train", "val"), frame_px)
            if not len(seen):
                logger.warning("%s holds nothing to look at in its split val: scenes are instead.", data.earthreason)
        elif data.reviewed is not None:
            samples, seen = _folder_tasks("reviewed", data.reviewed, ("train", "held_out"), frame_px)
            train = MixedTasks(samples=samples, share=data.reviewed_share, drawn=drawn)

        def looks(*, first: int, seed: int, n: int) -> list[Task]:
            own = _evenly(seen, n) if seen is not None else []
            if own and data.earthreason is not None:
                return own
            return [*held_out_tasks(images, first=first, seed=seed, n=n, absent=data.absent), *own]

        return cls(
            train=train,
            validation=looks(first=HELD_OUT_SEED, seed=1, n=validation),
            held_out=looks(first=FIRST_COMPARED, seed=2, n=held_out),
        )


def _folder_tasks(kind: str, folder: Path, splits: tuple[str, str], frame_px: int) -> tuple[FolderTasks, FolderTasks]:
    """What a labelled dataset gives to learn from and to look at; ConfigError where there is nothing to learn from."""
    learnt, seen = (FolderTasks(dataset=read_dataset(kind, folder, split), frame_px=frame_px) for split in splits)
    if not len(learnt):
        raise ConfigError(
            f"{folder} holds nothing to learn from.",
            "A sample has an image, a mask and a question, and was observed well.",
            "Add samples.",
        )
    return learnt, seen


def held_out_tasks(images: MixedSource, *, first: int, seed: int, n: int, absent: float) -> list[Task]:
    """Questions in held-out phrasings about `n` scenes from `first` on, and about as many tiles of the held-out half.

    seed: that of the tiles' places and of the questions.
    """
    looked_at = [*(simulate(first + number) for number in range(n)), *images.cut(split="held_out", seed=seed, n=n)]
    samples = balanced_questions(looked_at, seed=seed, absent=absent, unknown=0)
    return [
        task_of(sample, item=f"{sample.image.source}/{number}")
        for number, sample in enumerate(samples)
        if sample.question.phrasing.concept is not None
    ]


def task_of(sample: Sample, *, item: str) -> Task:
    """The task that a labelled image and a question about it make."""
    target = Target(item=item, image=sample.image.image, truth=truth_of(sample), ignore=sample.image.ignore)
    return Task(target=target, question=sample.question.phrasing.text, source=sample.image.source)


def remembering(tasks: Tasks) -> Callable[[int], Task]:
    """Tasks by their numbers, the last ones kept: each is wanted once for every answer, and once more to be scored."""
    return lru_cache(maxsize=KEPT)(tasks.__getitem__)


def framed(image: Image, frame_px: int) -> PilImage.Image:
    """The image as the production prompter sees it."""
    return PilImage.fromarray(image).resize((frame_px, frame_px), PilImage.Resampling.LANCZOS)


class Rows:
    """Turns numbers of tasks into rows for TRL: messages in the prompter's own template, the image, the number."""

    def __init__(self, task: Callable[[int], Task], template: Template, *, frame_px: int, digest: str) -> None:
        self._task, self._template, self._frame_px, self._digest = task, template, frame_px, digest

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        """Columns `prompt`, `image` and `number`."""
        found = [self._task(number) for number in batch["number"]]
        return {
            "prompt": [self._template.messages(task.question) for task in found],
            "image": [framed(task.target.image, self._frame_px) for task in found],
            "number": batch["number"],
        }

    def __getstate__(self) -> dict[str, str | int]:
        """What tells these rows from others; datasets hash it, and must not hash every tile."""
        return {"tasks": self._digest, "template": self._template.digest, "frame_px": self._frame_px}

    def __deepcopy__(self, memo: object) -> Self:
        return self


def task_rows(task: Callable[[int], Task], tasks: Tasks, template: Template, *, frame_px: int) -> datasets.Dataset:
    """A dataset whose rows are made when they are wanted."""
    rows = datasets.Dataset.from_dict({"number": list(range(len(tasks)))})
    rows.set_transform(Rows(task, template, frame_px=frame_px, digest=tasks.digest()))
    return rows


def _evenly(tasks: Tasks, n: int) -> list[Task]:
    """At most `n` of the tasks, evenly spread."""
    if not len(tasks):
        return []
    return [
        tasks[number] for number in sorted({round(at) for at in np.linspace(0, len(tasks) - 1, min(n, len(tasks)))})
    ]
