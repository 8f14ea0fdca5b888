"""Looks at held-out questions: greedily on the way, and old against new weights at the end."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.grpo_trainer import GRPOTrainer

from think2seg.config import LocalPrompter
from think2seg.learning.evaluate import ask_with
from think2seg.learning.gate import paired_interval
from think2seg.learning.grpo.tasks import Task, framed
from think2seg.learning.rewards import Scorer
from think2seg.learning.run import Metrics
from think2seg.learning.verdict import Figure
from think2seg.prompting import Ask, Prompter, Template, answers_of, load_prompter
from think2seg.registry import weights_digest
from think2seg.segmentation import Segmenter

AT_ONCE = 16
"""Questions that are asked and drawn together."""


class Validation:
    """Mask gIoU of the model in training, answering greedily; shared among the processes of a training."""

    def __init__(
        self, trainer: GRPOTrainer, tasks: Sequence[Task], scorer: Scorer, template: Template, *, frame_px: int
    ) -> None:
        self._trainer, self._scorer, self._template, self._frame_px = trainer, scorer, template, frame_px
        share = slice(trainer.accelerator.process_index, None, trainer.accelerator.num_processes)
        self._tasks = list(tasks)[share]

    def __call__(self) -> Metrics:
        """``<source> gIoU`` and ``parse rate``; NaN where there is nothing to average."""
        trainer = self._trainer
        with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
            was_training = model.training
            model.eval()
            found = self._outcomes(model)
            model.train(was_training)
        gathered: list[tuple[str, float, float]] = gather_object(found)
        figures = {
            f"{source} gIoU": _mean([iou for name, iou, _ in gathered if name == source])
            for source in sorted({name for name, _, _ in gathered})
        }
        return {**figures, "parse rate": _mean([parsed for _, _, parsed in gathered])}

    def _outcomes(self, model: Any) -> list[tuple[str, float, float]]:
        """Source, IoU and readability of every answer."""
        tokens = self._trainer.args.max_completion_length
        ask = ask_with(model, self._trainer.processing_class, self._template, max_new_tokens=tokens)
        found = []
        for part in batched(self._tasks, AT_ONCE):
            frames = [np.asarray(framed(task.target.image, self._frame_px)) for task in part]
            texts = ask(frames, [task.question for task in part])
            scored = self._scorer.score([task.target for task in part], [[text] for text in texts])
            for task, text, (reward,) in zip(part, texts, scored, strict=True):
                readable = float(self._scorer.parse(text).status != "unparsable")
                found.append((task.source, reward.iou, readable))
        return found


def compare_folders(
    before: Path, after: Path, tasks: Sequence[Task], segmenter: Segmenter, *, template: str | None
) -> list[Figure]:
    """Mask gIoU of two weights folders, loaded and asked as in production, with 95 % paired bootstrap intervals.

    One figure over all `tasks`, and one for each of their sources where there are several.
    """
    ious = []
    for folder in (before, after):
        config = LocalPrompter(path=str(folder), template=template)
        prompter = load_prompter(config, folder, digest=weights_digest(folder))
        ious.append(answered_ious(prompter, tasks, segmenter))
        del prompter
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    sources = np.array([task.source for task in tasks])
    figures = [_figure("gIoU", *ious)]
    if len(names := sorted(set(sources.tolist()))) > 1:
        figures += [_figure(f"gIoU, {name}", *(values[sources == name] for values in ious)) for name in names]
    return figures


def answered_ious(prompter: Prompter, tasks: Sequence[Task], segmenter: Segmenter) -> npt.NDArray[np.float64]:
    """(n,) IoU of a production prompter's answers; 1 for a right *nothing here*."""
    scorer = Scorer(segmenter, frame_px=prompter.frame_px, unknown_reasoning=prompter.unknown_reasoning)
    questions = sorted({task.question for task in tasks})
    numbers = {question: number for number, question in enumerate(questions)}
    asks = (Ask(tile=task.target.image, questions=(numbers[task.question],)) for task in tasks)
    ious = np.full(len(tasks), np.nan)
    for part in batched(answers_of(prompter, asks, questions), AT_ONCE):
        scored = scorer.score([tasks[one.ask].target for one in part], [[one.reply.text] for one in part])
        for one, (reward,) in zip(part, scored, strict=True):
            ious[one.ask] = reward.iou
    return ious


def _figure(name: str, before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> Figure:
    difference, low, high = paired_interval(after - before, np.ones(len(after)))
    return Figure(
        name=name,
        champion=float(before.mean()),
        candidate=float(after.mean()),
        difference=difference,
        low=low,
        high=high,
        n=len(after),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
