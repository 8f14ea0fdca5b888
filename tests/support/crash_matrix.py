"""Everything that can be killed, killed, and the cube compared with that of a run that nobody disturbed.

A **case** is one trouble on a fresh copy of a small cube. Three acquisitions wait for it: a late one, one with a
changed scene whose other block is copied forward, a new one. After the trouble the run is repeated until it is done.

A **difference** is an object (chunk of an array, coordinate or label, metadata document, ledger, receipt, table of
traces or instances) that the cube has and the undisturbed one has not, or the other way round, or that differs in
anything but durations and times of publication; the undisturbed cube passes `check_cube`. A **loss** is an object of a
step that readers saw and that is gone or changed afterwards, or a block that had its receipt and was done again.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.crash_cases import World
from support.troubles import TROUBLES


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one case."""

    kind: str
    kills: int
    troubles: int
    """What else happened: refusals of the store, stops, leases left, clocks set."""
    runs: int
    """Runs that it took from the trouble to the end."""
    differences: tuple[str, ...]
    losses: tuple[str, ...]
    seconds: float


def cases(kills: int) -> list[str]:
    """Kinds of failure in turn, each by its share, until there are enough; every kind once at least."""
    kinds = [kind for kind, (share, _) in TROUBLES.items() for _ in range(share)]
    random.Random(len(kinds)).shuffle(kinds)
    return [*TROUBLES, *(kinds * (kills // len(kinds) + 1))]


def run_matrix(folder: Path, *, kills: int, seed: int, told: Callable[[Result], None]) -> list[Result]:
    """Do cases until that many kills have happened and every kind of failure has had its turn."""
    world, results = World.build(folder), list[Result]()
    for number, kind in enumerate(cases(2 * kills)):
        if number >= len(TROUBLES) and sum(result.kills for result in results) >= kills:
            break
        case, started = world.case(f"case-{number}", seed + number), time.monotonic()
        TROUBLES[kind][1](case)
        if not case.runs:
            case.finish()
        result = Result(
            kind=kind, kills=case.kills, troubles=case.troubles, runs=case.runs,
            differences=case.differences(), losses=tuple(case.losses), seconds=time.monotonic() - started,
        )  # fmt: skip
        results.append(result)
        told(result)
        if not (result.differences or result.losses):
            shutil.rmtree(case.folder)
    return results
