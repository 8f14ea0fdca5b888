"""A run's work in groups: what one Prefect task run does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from think2seg.plan import PlanLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Consecutive acquisitions of one zone, done together: one Prefect task run."""

    name: str
    lines: Mapping[int, tuple[PlanLine, ...]]
    """Position in `RunPlan.cubes` → lines. Several cubes hold answers to several questions about the same tiles."""


def divided(cubes: Mapping[int, Sequence[PlanLine]], blocks_per_group: int) -> Iterator[Group]:
    """Groups of the work of one zone's cubes; the lines of one acquisition stay together."""
    work = sorted(((line.time, line.id, number, line) for number, lines in cubes.items() for line in lines),
                  key=lambda entry: entry[:3])  # fmt: skip
    group: list[tuple[int, PlanLine]] = []
    for _, alike in groupby(work, key=lambda entry: entry[:2]):
        group += [(number, line) for *_, number, line in alike]
        if sum(len(line.blocks) for _, line in group) >= blocks_per_group:
            yield _group(group)
            group = []
    if group:
        yield _group(group)


def _group(entries: Sequence[tuple[int, PlanLine]]) -> Group:
    cubes = dict.fromkeys(number for number, _ in entries)
    lines = {cube: tuple(line for number, line in entries if number == cube) for cube in cubes}
    return Group(name=_name_of([line for _, line in entries]), lines=lines)


def _name_of(lines: Sequence[PlanLine]) -> str:
    first, last = lines[0], lines[-1]
    days = f"{first.time:%Y-%m-%d}" + (f" to {last.time:%Y-%m-%d}" if last.id != first.id else "")
    return f"{days} ({sum(len(line.blocks) for line in lines)} blocks)"
