"""One training run: its folder, log, checkpoints, and the loop over the steps of its stages."""

from __future__ import annotations

import json
import logging
import os
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout
from torch import nn
from torch.utils.data import DataLoader, Dataset

from think2seg.errors import ModelError
from think2seg.learning.optim import Optimisers, cosine_scale

type Metrics = dict[str, float]

logger = logging.getLogger(__name__)
LOG_EVERY = 25


class Stage(Protocol):
    """A schedule of steps over the modules of a run."""

    name: str
    steps: int
    images: int
    floor: float
    optimisers: Optimisers

    def batches(self, start: int) -> Iterator[Any]:
        """Batches from step `start` on; the batch of a step depends on nothing but the seed and the step."""

    def update(self, batch: Any, scale: float) -> Metrics:
        """Take one step at `scale` times the base rates."""

    def evaluate(self) -> Metrics:
        """A quick look at held-out scenes."""


class _Steps(Dataset[Any]):
    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make = make

    def __getitem__(self, step: int) -> Any:
        return self._make(step)


def prefetch(make: Callable[[int], Any], *, start: int, stop: int, workers: int) -> Iterator[Any]:
    """`make(start), …, make(stop - 1)` in order, made ahead in `workers` background processes."""
    ahead: dict[str, Any] = {"multiprocessing_context": "spawn", "prefetch_factor": 6} if workers else {}
    loader = DataLoader(_Steps(make), batch_size=None, sampler=range(start, stop), num_workers=workers, **ahead)
    return iter(loader)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """The files of one run: `checkpoint.pt`, `log.jsonl`, `record.json`, `curve.png`."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.path / "checkpoint.pt"

    @property
    def log(self) -> Path:
        """One JSON object a line."""
        return self.path / "log.jsonl"

    def append(self, entry: Mapping[str, object]) -> None:
        """Add one line to the log."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as stream:
            stream.write(json.dumps(entry) + "\n")
        logger.info("%s", entry)

    def entries(self) -> list[dict[str, Any]]:
        """Every line of the log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint so that a kill at any moment leaves the old or the new one whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        draft = self.checkpoint.with_suffix(".draft")
        with draft.open("wb") as stream:
            torch.save(dict(state), stream)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(self.checkpoint)

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, or None; ModelError when it cannot be read."""
        if not self.checkpoint.exists():
            return None
        if not zipfile.is_zipfile(self.checkpoint):
            raise ModelError(
                f"The checkpoint {self.checkpoint} cannot be read.",
                "A checkpoint is a whole file that `think2seg train` has written.",
                "Remove it and start afresh.",
            )
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
        return state

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other trainings out; a killed process keeps no lock. ModelError where one is at work in this folder."""
        if os.environ.get("RANK", "0") != "0":  # of the processes of one training, the main one holds the lock
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise ModelError(
                f"Another process trains the run {self.path}.",
                "One training writes to a run at a time.",
                "Wait for its end or stop it; or give another name.",
            ) from error
        try:
            yield
        finally:
            lock.release()

    def clear(self) -> None:
        """Forget an earlier run of the same name."""
        for path in (self.checkpoint, self.log, self.path / "tokenizer.json"):
            path.unlink(missing_ok=True)


class Trainer:
    """Runs stages one after another and resumes after a kill where the last checkpoint stood."""

    def __init__(
        self, folder: RunFolder, modules: Mapping[str, nn.Module], *, checkpoint_s: float, evaluate_s: float
    ) -> None:
        self._folder = folder
        self._modules = modules
        self._checkpoint_s = checkpoint_s
        self._evaluate_s = evaluate_s
        self._seconds_before = 0.0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, resumed parts included."""
        return self._seconds_before + time.monotonic() - self._started

    def fit(self, stages: Sequence[Stage], *, resume: bool) -> None:
        """Run `stages` to their ends, from the last checkpoint on if there is one to `resume`."""
        first, step = 0, 0
        if resume and (state := self._folder.load()):
            first, step = self._restore(state, stages)
        for stage in stages[first:]:
            self._run(stage, step)
            step = 0

    def _restore(self, state: Mapping[str, Any], stages: Sequence[Stage]) -> tuple[int, int]:
        names = [stage.name for stage in stages]
        if state["stage"] not in names:
            raise ModelError(
                f"The checkpoint in {self._folder.path} stands in stage {state['stage']!r}.",
                f"The stages of this run are {names}.",
                "Give the run another name, or start it afresh.",
            )
        for name, module in self._modules.items():
            module.load_state_dict(state["modules"][name])
        index = names.index(state["stage"])
        stages[index].optimisers.load_state_dict(state["optimisers"])
        torch.set_rng_state(state["rng"])
        self._seconds_before = state["seconds"]
        self._folder.append({"stage": state["stage"], "resumed": state["step"], "seconds": round(self.seconds)})
        return index, state["step"]

    def _checkpoint(self, stage: Stage, step: int) -> None:
        self._folder.save(
            {
                "stage": stage.name,
                "step": step,
                "seconds": self.seconds,
                "modules": {name: module.state_dict() for name, module in self._modules.items()},
                "optimisers": stage.optimisers.state_dict(),
                "rng": torch.get_rng_state(),
            }
        )

    def _run(self, stage: Stage, start: int) -> None:
        window: defaultdict[str, list[float]] = defaultdict(list)
        saved = evaluated = time.monotonic()
        for step, batch in enumerate(stage.batches(start), start=start):
            scale = cosine_scale(step, stage.steps, floor=stage.floor)
            for name, value in stage.update(batch, scale).items():
                window[name].append(value)
            done = step + 1
            if done % LOG_EVERY == 0 or done == stage.steps:
                self._log(stage, done, window)
                window.clear()
            if time.monotonic() - saved > self._checkpoint_s or done == stage.steps:
                self._checkpoint(stage, done)
                saved = time.monotonic()
            if time.monotonic() - evaluated > self._evaluate_s or done == stage.steps:
                self._evaluate(stage, done)
                evaluated = time.monotonic()

    def _log(self, stage: Stage, step: int, window: Mapping[str, list[float]]) -> None:
        means = {name: round(sum(values) / len(values), 4) for name, values in window.items()}
        self._folder.append(
            {"stage": stage.name, "step": step, "images": step * stage.images, "seconds": round(self.seconds), **means}
        )

    def _evaluate(self, stage: Stage, step: int) -> None:
        figures = {name: round(value, 4) for name, value in stage.evaluate().items()}
        self._folder.append({"stage": stage.name, "step": step, "seconds": round(self.seconds), "held_out": figures})
