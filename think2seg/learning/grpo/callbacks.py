"""What goes on beside the steps: the log, looks at held-out questions, whole checkpoints, and when to stop."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from think2seg.errors import TrainingError
from think2seg.learning.grpo.tasks import STAGE
from think2seg.learning.run import Metrics, RunFolder
from think2seg.learning.settings import StopSettings

LOGGED = {
    "reward": "reward",
    "reward_spread": "reward_spread",
    "flat_questions": "flat_questions",
    "iou": "iou",
    "valid": "valid",
    "form": "form",
    "parse_rate": "parse_rate",
    "empty": "empty",
    "kl": "kl",
    "entropy": "entropy",
    "completions/mean_length": "length",
    "completions/clipped_ratio": "cut_off",
    "loss": "loss",
    "grad_norm": "gradient",
    "learning_rate": "rate",
    "step_time": "step_s",
}
"""TRL's names of figures → ours."""
WHOLE = "whole"
"""File that is put into a checkpoint once all of it is there."""

type Track = Callable[[int, Metrics], None]
"""Called with a step and its figures."""


class Log(TrainerCallback):  # type: ignore[misc]
    """Adds the figures of every step to the run's log, and to MLflow."""

    def __init__(self, run: RunFolder, track: Track, *, questions: int, seconds_before: float) -> None:
        """`questions`: those of one step; `seconds_before`: wall time of the parts of the run before this one."""
        self._run, self._track, self._questions = run, track, questions
        self._before, self._started = seconds_before, time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, resumed parts included."""
        return self._before + time.monotonic() - self._started

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """One line a step."""
        if state.is_world_process_zero and logs and "reward" in logs:
            figures = {ours: float(logs[name]) for name, ours in LOGGED.items() if logs.get(name) is not None}
            self.add(state.global_step, {name: float(f"{value:.6g}") for name, value in figures.items()})

    def add(self, step: int, figures: Metrics) -> None:
        """Log figures of a step."""
        self._run.append(
            {"stage": STAGE, "step": step, "images": step * self._questions, "seconds": round(self.seconds), **figures}
        )
        self._track(step, figures)

    def look(self, step: int, figures: Metrics) -> None:
        """Log a look at held-out questions."""
        rounded = {name: round(value, 4) for name, value in figures.items()}
        self._run.append({"stage": STAGE, "step": step, "seconds": round(self.seconds), "held_out": rounded})
        self._track(step, {f"validation {name}": value for name, value in figures.items()})


class Looks(TrainerCallback):  # type: ignore[misc]
    """Looks at held-out questions before the first step, every so many steps, and after the last."""

    def __init__(self, measure: Callable[[], Metrics], log: Log, *, every: int) -> None:
        self._measure, self._log, self._every = measure, log, every

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The look that all others are compared with."""
        if state.global_step == 0:
            self._look(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The looks on the way."""
        if state.global_step % self._every == 0 or state.global_step == state.max_steps:
            self._look(state)

    def _look(self, state: TrainerState) -> None:
        figures = self._measure()
        if state.is_world_process_zero:
            self._log.look(state.global_step, figures)


class Whole(TrainerCallback):  # type: ignore[misc]
    """Marks a checkpoint once all of it is written; one without the mark is never resumed from."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called after the last file."""
        if state.is_world_process_zero:
            (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / WHOLE).touch()


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; those that a kill left in part are removed."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        if (path / WHOLE).exists():
            whole.append(path)
        else:
            shutil.rmtree(path, ignore_errors=True)
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


class Stop(TrainerCallback):  # type: ignore[misc]
    """Ends a run that learns nothing or unlearns how to answer."""

    def __init__(self, limits: StopSettings) -> None:
        self._limits = limits
        self._recent: deque[dict[str, float]] = deque(maxlen=limits.patience)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Judge the last steps; raises TrainingError."""
        if not logs or "reward" not in logs:
            return
        self._recent.append(logs)
        if len(self._recent) == self._limits.patience and (found := self._trouble()):
            given, todo = found
            raise TrainingError(
                f"Stopped at step {state.global_step}: {given}",
                f"Judged over {self._limits.patience} steps; the limits are those of the section stop.",
                f"{todo} What was learnt until then is in {args.output_dir}; start over with --fresh.",
            )

    def _trouble(self) -> tuple[str, str] | None:
        """What is wrong and what to do, the surest first."""
        limits = self._limits
        if (kl := self._mean("kl")) > limits.kl:
            return (
                f"the divergence from the first weights has grown to {kl:.3g} nats a token (limit {limits.kl:g}).",
                "Lower update.rate or raise update.kl.",
            )
        if (rate := self._mean("parse_rate")) < limits.parse_rate:
            return (
                f"only {rate:.1%} of the answers can be read (limit {limits.parse_rate:.0%}).",
                "Lower update.rate or rollouts.temperature, or start from weights that know the format.",
            )
        if (empty := self._mean("empty")) > limits.empty:
            return (
                f"{empty:.1%} of the answers say that nothing is there (limit {limits.empty:.0%}).",
                "Lower data.absent or update.rate, or start from weights that find something.",
            )
        if (spread := self._mean("reward_spread")) <= limits.spread:
            return (
                f"all answers to a question earn the same (standard deviation {spread:.2g}, limit {limits.spread:g}), "
                "so there is nothing to learn from.",
                "Raise rollouts.temperature or rollouts.per_question, or ask harder questions.",
            )
        return None

    def _mean(self, name: str) -> float:
        """Mean of a figure over the last steps."""
        return sum(float(logs[name]) for logs in self._recent) / len(self._recent)
