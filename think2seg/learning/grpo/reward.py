"""The reward as TRL calls it: answers of many questions at once, scored by their masks alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from think2seg.learning.grpo.tasks import Task
from think2seg.learning.rewards import Scorer
from think2seg.learning.tiny.source import batch_generator

FLAT = 1e-6
"""Standard deviation of the rewards of a question from which nothing is learnt."""


class MaskReward:
    """Scores all answers of a step together; each image is encoded once, however many answers there are to it.

    What `Scorer.score` raises, it raises: no answer earns 0 because something failed.
    """

    __name__ = "mask"

    def __init__(self, scorer: Scorer, task: Callable[[int], Task], *, shuffle_seed: int | None = None) -> None:
        """`shuffle_seed`: deal the rewards of a question out at random among its answers; None for the true ones."""
        self._scorer, self._task, self._shuffle_seed = scorer, task, shuffle_seed

    def __call__(
        self,
        *,
        completions: Sequence[Sequence[dict[str, str]]],
        number: Sequence[int],
        trainer_state: Any,
        log_metric: Callable[[str, float], None],
        **_: object,
    ) -> list[float]:
        """Reward of every answer, 0 to 4; logs its terms, how far those of a question lie apart, and what was read.

        The spread is logged here, for TRL's is that of all answers of a step, however alike those of a question are.

        Parameters
        ----------
        completions
            One conversation of one turn for each answer.
        number
            Number of the task that it answers.
        """
        texts = [turns[0]["content"] for turns in completions]
        groups: dict[int, list[int]] = {}
        for index, task in enumerate(number):
            groups.setdefault(task, []).append(index)
        scored = self._scorer.score(
            [self._task(task).target for task in groups], [[texts[i] for i in group] for group in groups.values()]
        )
        flat = [reward for group in scored for reward in group]
        for term in ("iou", "valid", "form"):
            log_metric(term, float(np.mean([getattr(reward, term) for reward in flat])))
        spreads = [float(np.std([reward.total for reward in group])) for group in scored]
        log_metric("reward_spread", float(np.mean(spreads)))
        log_metric("flat_questions", float(np.mean([spread < FLAT for spread in spreads])))
        answers = [self._scorer.parse(text) for text in texts]
        log_metric("parse_rate", float(np.mean([answer.status != "unparsable" for answer in answers])))
        log_metric("empty", float(np.mean([answer.status == "ok" and not answer.instances for answer in answers])))
        earned = [0.0] * len(texts)
        for group, rewards in zip(groups.values(), scored, strict=True):
            for index, total in zip(group, self._dealt([reward.total for reward in rewards], trainer_state, group[0]),
                                    strict=True):  # fmt: skip
                earned[index] = total
        return earned

    def _dealt(self, totals: list[float], trainer_state: Any, first: int) -> list[float]:
        if self._shuffle_seed is None:
            return totals
        rng = batch_generator(self._shuffle_seed, f"shuffle {first}", int(trainer_state.global_step))
        return [totals[index] for index in rng.permutation(len(totals))]
