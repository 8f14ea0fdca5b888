"""World or model: what two versions of the prompter make of the same acquisitions, where one took over in a cube.

A shadow run leaves the later version's answers to acquisitions that the earlier one had answered in a cube beside. On
these nothing but the model differs, so that their difference is what a step in the curve owes to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from think2seg.cube import Entry, is_cube, open_cube, sibling_uri
from think2seg.grid import Grid
from think2seg.imagery import Quality
from think2seg.insight.records import Records, read_records, shown_entries
from think2seg.insight.units import percent


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlapStep:
    """One acquisition that both versions answered, on the pixels that both observed."""

    time: datetime
    acquisition: str
    before_m2: float
    after_m2: float
    both_m2: float
    """Found by the earlier version, by the later one, and by both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Two versions of the prompter on the same acquisitions."""

    before: str
    after: str
    """Digests of the weights."""
    uri: str
    """The cube that holds the later version's answers."""
    steps: tuple[OverlapStep, ...]

    @property
    def change(self) -> float | None:
        """What the later version finds more, as a share of what the earlier one finds; None where that is nothing."""
        before = sum(step.before_m2 for step in self.steps)
        return sum(step.after_m2 for step in self.steps) / before - 1 if before else None

    @property
    def agreement(self) -> float | None:
        """Intersection over union of their masks, all acquisitions together; None where both found nothing."""
        both = sum(step.both_m2 for step in self.steps)
        union = sum(step.before_m2 + step.after_m2 for step in self.steps) - both
        return both / union if union else None

    def sentence(self) -> str:
        """For people."""
        days = f"{len(self.steps)} acquisition{'' if len(self.steps) == 1 else 's'}"
        head = f"{self.after[:12]} beside {self.before[:12]}: on {days} that both answered,"
        if self.change is None or self.agreement is None:
            return f"{head} the earlier one found nothing to compare with."
        word = "more" if self.change >= 0 else "less"
        return (
            f"{head} it finds {percent(abs(self.change))} {word}, and their masks agree to {percent(self.agreement)} "
            "(intersection over union): a step of that size in the curve is the model, not the world."
        )

    def markdown(self) -> str:
        """The sentence and a table of the acquisitions."""
        rows = [
            f"| {step.time:%Y-%m-%d} | "
            + " | ".join(f"{area / 1e4:.2f}" for area in (step.before_m2, step.after_m2, step.both_m2))
            + " |"
            for step in self.steps
        ]
        head = [self.sentence(), "", "| date | before, ha | after, ha | both, ha |", "| --- | ---: | ---: | ---: |"]
        return "\n".join([*head, *rows])

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        steps = [asdict(step) | {"time": step.time.isoformat()} for step in self.steps]
        told = {"before": self.before, "after": self.after, "uri": self.uri}
        return {**told, "change": self.change, "agreement": self.agreement, "steps": steps}


def overlaps(cube: xr.Dataset, records: Records) -> tuple[Overlap, ...]:
    """What shadow runs tell about each version that took over from another one in an opened cube, in time order."""
    entries = sorted(shown_entries(cube, records), key=lambda entry: entry.published)
    found = []
    for before, after in pairwise(entries):
        if before.held.prompter != after.held.prompter:
            found.append(overlap(cube, records, before.held.prompter, after.held.prompter))
    return tuple(one for one in found if one is not None)


def shadow_overlap(uri: str | Path, version: str) -> Overlap | None:
    """Compare a cube's latest answers with the shadow run of a version; None where there is none.

    Raises
    ------
    CubeError, StoreError
        There is no cube at the URI, or it cannot be read.
    """
    cube = open_cube(uri)
    records = read_records(uri, cube)
    latest = max(shown_entries(cube, records), key=lambda entry: entry.published, default=None)
    return None if latest is None else overlap(cube, records, latest.held.prompter, version)


def overlap(cube: xr.Dataset, records: Records, before: str, after: str) -> Overlap | None:
    """Compare an opened cube with the shadow run of a version; None where there is none, or they share nothing.

    Parameters
    ----------
    before, after
        Digests of the version whose answers the cube holds, and of the one that answered beside.
    """
    uri = sibling_uri(records.store.uri, after)
    if not is_cube(uri):
        return None
    beside = open_cube(uri)
    theirs = {entry.held.acquisition: place for place, entry in enumerate(_entries(beside, uri))}
    steps = tuple(
        _step(cube.isel(time=place), beside.isel(time=theirs[entry.held.acquisition]), entry, records.grid)
        for place, entry in enumerate(shown_entries(cube, records))
        if entry.held.prompter == before and entry.held.acquisition in theirs
    )
    return Overlap(before=before, after=after, uri=uri, steps=steps) if steps else None


def _entries(cube: xr.Dataset, uri: str) -> Sequence[Entry]:
    return shown_entries(cube, read_records(uri, cube))


def _step(ours: xr.Dataset, theirs: xr.Dataset, entry: Entry, grid: Grid) -> OverlapStep:
    sums, pixel_m2 = np.zeros(3), grid.pixel_area_m2[:, 0]
    for top in range(0, grid.shape[0], grid.block_px):
        rows = slice(top, top + grid.block_px)
        masks = [one["mask"][rows].to_numpy() for one in (ours, theirs)]
        inside = (ours["quality"][rows].to_numpy() & Quality.OUTSIDE) == 0
        seen = inside & (masks[0] <= 1) & (masks[1] <= 1)
        first, second = (seen & (mask == 1) for mask in masks)
        sums += [found.sum(axis=1) @ pixel_m2[rows] for found in (first, second, first & second)]
    before_m2, after_m2, both_m2 = (float(value) for value in sums)
    return OverlapStep(
        time=entry.held.time, acquisition=entry.held.acquisition,
        before_m2=before_m2, after_m2=after_m2, both_m2=both_m2,
    )  # fmt: skip
