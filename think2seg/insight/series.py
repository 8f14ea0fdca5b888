"""Area over time, and how much of the region each date really showed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from shapely.geometry.base import BaseGeometry

from think2seg.cube import open_cube
from think2seg.cube.receipts import NOT_ASKED
from think2seg.grid import Grid
from think2seg.imagery import Quality
from think2seg.insight.overlap import Overlap, overlaps
from think2seg.insight.records import Records, read_records, shown_entries
from think2seg.insight.windows import region_of, strips

COLUMNS = (
    "time",
    "acquisition",
    "revision",
    "area_m2",
    "area_low_m2",
    "area_high_m2",
    "observed_m2",
    "observed_fraction",
    "tiles",
    "prompter",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPoint:
    """What one acquisition says about the region."""

    time: datetime
    """UTC."""
    acquisition: str
    revision: int
    area_m2: float
    """Ground area of the pixels that answer the question."""
    observed_m2: float
    """Ground area of the pixels that were observed."""
    region_m2: float
    """Ground area of the region; the same for every point of a series."""
    tiles: int
    """Tiles of the acquisition that were asked."""
    prompter: str
    """Digest of the weights that answered."""

    @property
    def observed_fraction(self) -> float:
        """Observed share of the region, 0 to 1."""
        return self.observed_m2 / self.region_m2 if self.region_m2 else 0.0

    @property
    def area_low_m2(self) -> float:
        """Area if nothing unobserved answered the question."""
        return self.area_m2

    @property
    def area_high_m2(self) -> float:
        """Area if everything unobserved answered the question."""
        return self.area_m2 + self.region_m2 - self.observed_m2


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Area over time of one cube."""

    question: str
    title: str
    points: tuple[SeriesPoint, ...]
    """In time order, the latest revision of each acquisition."""
    overlaps: tuple[Overlap, ...] = ()
    """What versions of the prompter that took over make of acquisitions that those before had answered."""

    def to_frame(self) -> pd.DataFrame:
        """One row per acquisition, columns `COLUMNS`; areas in m², times in UTC."""
        rows = [[getattr(point, name) for name in COLUMNS] for point in self.points]
        return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"time": "datetime64[s, UTC]"})

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        rows = [{name: getattr(point, name) for name in COLUMNS} for point in self.points]
        return {
            "question": self.question,
            "title": self.title,
            "region_m2": self.points[0].region_m2 if self.points else None,
            "overlaps": [one.to_dict() for one in self.overlaps],
            "series": [row | {"time": row["time"].isoformat()} for row in rows],
        }

    def to_json(self, path: Path | None = None) -> str:
        """JSON text of `to_dict`, also written to `path` if there is one."""
        text = json.dumps(self.to_dict(), indent=1)
        if path is not None:
            path.write_text(text + "\n", encoding="utf-8")
        return text

    def to_csv(self, path: Path) -> None:
        """Write `to_frame` as CSV: times in ISO 8601, areas in m²."""
        frame = self.to_frame()
        frame["time"] = [point.time.strftime("%Y-%m-%dT%H:%M:%SZ") for point in self.points]
        frame.to_csv(path, index=False, float_format="%.6g")

    def plot(self, path: Path) -> None:
        """Draw the curve with its band into an image file; the name's ending decides the format."""
        from think2seg.insight.plots import plot_series

        plot_series(self, path)

    def render(self) -> str:
        """Table for people."""
        lines = [f"{'date':<12}{'area':>14}{'observed':>10}{'at most':>14}{'tiles':>8}  revision"]
        lines += [
            f"{point.time:%Y-%m-%d}  {point.area_m2 / 1e4:>11,.2f} ha{point.observed_fraction:>9.1%}"
            f"{point.area_high_m2 / 1e4:>12,.2f} ha{point.tiles:>8}  {point.revision}"
            for point in self.points
        ]
        return "\n".join([*lines, *(one.sentence() for one in self.overlaps)])


def series(uri: str | Path, region: BaseGeometry | None = None) -> Series:
    """Measure the latest revision of every acquisition of a cube.

    Parameters
    ----------
    uri
        The cube.
    region
        Part of the cube's region to measure, in WGS 84; default all of it.

    Raises
    ------
    CubeError, StoreError
        There is no cube at the URI, or it cannot be read; the region lies outside its grid.
    """
    cube = open_cube(uri)
    return measure(cube, read_records(uri, cube), region)


def measure(cube: xr.Dataset, records: Records, region: BaseGeometry | None = None) -> Series:
    """Measure the steps that an opened cube shows; see `series`. Memory holds one row of blocks at a time."""
    entries = shown_entries(cube, records)
    sums = _sums(cube, records.grid, region_of(entries), region)
    region_m2 = float(sums[:, 2].max(initial=0))
    points = [
        SeriesPoint(
            time=entry.held.time,
            acquisition=entry.held.acquisition,
            revision=entry.held.revision,
            area_m2=present_m2,
            observed_m2=observed_m2,
            region_m2=region_m2,
            tiles=sum(number for status, number in records.account(entry).tiles.items() if status not in NOT_ASKED),
            prompter=entry.held.prompter,
        )
        for entry, (present_m2, observed_m2, _) in zip(entries, sums.tolist(), strict=True)
    ]
    return Series(
        question=records.spec.question, title=records.spec.title, points=tuple(points), overlaps=overlaps(cube, records)
    )


def _sums(
    cube: xr.Dataset, grid: Grid, whole: BaseGeometry | None, part: BaseGeometry | None
) -> npt.NDArray[np.float64]:
    """(step, 3) float64, square metres present, observed and inside.

    Pixels count where their centre lies in both regions (WGS 84): that of the cube and the part of it to measure, None
    for all. Where that of the cube is not known, it is what each step has looked at.
    """
    sums = np.zeros((cube.sizes["time"], 3))
    pixel_m2 = grid.pixel_area_m2[:, 0]
    for rows, cols, inside in strips(grid, part, whole):
        for step, its in enumerate(sums):
            mask = cube["mask"][step, rows, cols].to_numpy()
            counted = inside
            if whole is None:
                counted = inside & ((cube["quality"][step, rows, cols].to_numpy() & Quality.OUTSIDE) == 0)
            pixels = (counted & (mask == 1), counted & (mask <= 1), counted)
            its += [chosen.sum(axis=1) @ pixel_m2[rows] for chosen in pixels]
    return sums
