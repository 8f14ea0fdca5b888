"""How long the stages of an engine work, and how much of the time a model computes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class Timings:
    """Seconds by stage (read, prompt, segment, write), and wall time during which a model computes. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._seconds: Counter[str] = Counter()
        self._busy_s = 0.0
        self._computing = 0
        self._since = 0.0

    @property
    def busy_s(self) -> float:
        """Wall seconds during which the prompter, the segmenter or both were at work."""
        with self._lock:
            return self._busy_s + (time.perf_counter() - self._since if self._computing else 0.0)

    def seconds(self, stage: str) -> float:
        """Wall seconds that a stage has worked so far."""
        with self._lock:
            return self._seconds[stage]

    @contextmanager
    def working(self, stage: str) -> Iterator[None]:
        """Count a piece of work that no model is in."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._add(stage, time.perf_counter() - started)

    @contextmanager
    def computing(self, stage: str) -> Iterator[None]:
        """Count a piece of a model's work."""
        started = self._change(1)
        try:
            yield
        finally:
            self._add(stage, self._change(-1) - started)

    @contextmanager
    def waiting(self, stage: str) -> Iterator[None]:
        """Leave out time within `computing` during which the model waits for its input."""
        started = self._change(-1)
        try:
            yield
        finally:
            self._add(stage, started - self._change(1))

    def _add(self, stage: str, seconds: float) -> None:
        with self._lock:
            self._seconds[stage] += seconds  # type: ignore[assignment]  # counters hold floats as well

    def _change(self, by: int) -> float:
        """Note that a model begins or ceases to compute; the time of it."""
        with self._lock:
            now = time.perf_counter()
            if self._computing:
                self._busy_s += now - self._since
            self._computing += by
            self._since = now
            return now
