"""What a comparison of two prompters measures beside their answers."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from think2seg.learning import comparison
from think2seg.learning.datasets import Dataset
from think2seg.prompting import Prompter


@dataclass
class Clock:
    """Time that passes only where somebody says so."""

    now: float = 0.0

    def perf_counter(self) -> float:
        return self.now


def answering(clock: Clock, *, seconds: float, asked: list[int]) -> Prompter:
    """A prompter that takes `seconds` times the number of the image that it is asked about."""

    def ask(tiles: list[Any], question: str) -> None:
        number = int(tiles[0][0, 0, 0])
        asked.append(number)
        clock.now += seconds * number

    return cast(Prompter, SimpleNamespace(frame_px=1, ask=ask))


def numbered(n: int) -> Dataset:
    items = [
        SimpleNamespace(questions=("?",), pixels=lambda side, number=number: np.full((1, 1, 3), number, np.uint8))
        for number in range(1, n + 1)
    ]
    return cast(Dataset, SimpleNamespace(items=items))


def test_latency_is_a_mean_over_the_whole_set_without_what_comes_first(monkeypatch: pytest.MonkeyPatch):
    clock, first, second = Clock(), list[int](), list[int]()
    monkeypatch.setattr(comparison, "time", clock)
    prompters = [answering(clock, seconds=1.0, asked=first), answering(clock, seconds=1.5, asked=second)]
    found = comparison.timed(prompters, numbered(100), rounds=4)
    assert first == second == [1, 21, 41, 61, 81]
    assert found == pytest.approx([51.0, 76.5])


def test_an_image_that_cannot_be_read_is_not_timed(monkeypatch: pytest.MonkeyPatch):
    def broken(side: int) -> None:
        raise OSError("half a file")

    clock, asked, frozen = Clock(), list[int](), numbered(4)
    monkeypatch.setattr(comparison, "time", clock)
    monkeypatch.setattr(frozen.items[0], "pixels", broken)
    assert comparison.timed([answering(clock, seconds=1.0, asked=asked)], frozen) == [3.5]
    assert asked == [2, 3, 4]


def test_the_latency_of_a_single_image_is_its_own(monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    monkeypatch.setattr(comparison, "time", clock)
    assert comparison.timed([answering(clock, seconds=2.0, asked=[])], numbered(1)) == [2.0]
