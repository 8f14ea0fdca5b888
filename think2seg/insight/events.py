"""When and where the answer changed for good: a change counts once several observations in a row agree on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.ndimage import find_objects, label, maximum, minimum
from shapely.geometry.base import BaseGeometry

from think2seg.crs import outline_wgs84
from think2seg.cube import Entry, open_cube
from think2seg.errors import CubeError
from think2seg.grid import Grid
from think2seg.insight.records import read_records, shown_entries
from think2seg.insight.windows import strips

if TYPE_CHECKING:
    import geopandas as gpd

COLUMNS = (
    "kind", "after", "first_seen", "confirmed", "acquisition", "area_m2", "model_changed", "lon", "lat", "geometry",
)  # fmt: skip
_KINDS = ("vanished", "appeared")
_DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf"}
_SHOWN = 20
_UNKNOWN = 255

type _Steps = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Changes of one cube's answer, in time order."""

    question: str
    confirm: int
    """Observations in a row that a pixel's state takes."""
    frame: gpd.GeoDataFrame
    """One row per patch of pixels (neighbours, corners included) that changed alike; geometry in WGS 84.

    ``kind``: ``appeared`` or ``vanished``; ``after``, ``first_seen``, ``confirmed``: UTC; between the first two all of
    its pixels changed (``after`` is where the last sight of what was before is oldest), and by the third the change is
    confirmed for all of them. ``acquisition``: that of ``first_seen``; ``area_m2``: ground area;
    ``model_changed``: other weights answered before than after, so that it may be the model that changed;
    ``lon``, ``lat``: a point within, for `think2seg explain`.
    """

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; without the outlines."""
        rows = self.frame.drop(columns="geometry").to_dict("records")
        times = ("after", "first_seen", "confirmed")
        return {
            "question": self.question,
            "confirm": self.confirm,
            "events": [row | {name: row[name].isoformat() for name in times} for row in rows],
        }

    def to_file(self, path: Path) -> None:
        """Write `frame`: GeoParquet, GeoPackage, GeoJSON or FlatGeobuf, as the name ends.

        Raises
        ------
        CubeError
            If the name ends otherwise.
        OSError
            If the file cannot be written.
        """
        from pyogrio.errors import DataSourceError

        if path.suffix == ".parquet":
            self.frame.to_parquet(path)
        elif path.suffix in _DRIVERS:
            try:
                self.frame.to_file(path, driver=_DRIVERS[path.suffix])
            except DataSourceError as error:
                raise OSError(f"{path} cannot be written: {error}") from error
        else:
            endings = ", ".join((".parquet", *_DRIVERS))
            raise CubeError(f"{path}: what format is that?", f"Names that end in {endings}.", "Choose another name.")

    def render(self) -> str:
        """Table for people: the largest."""
        if self.frame.empty:
            return f"No change that {self.confirm} observations in a row agree on."
        largest = self.frame.nlargest(_SHOWN, "area_m2").sort_values("first_seen")
        lines = [f"{'':<10}{'after':<12}{'first seen':<12}{'confirmed':<12}{'area':>13}{'lon':>13}{'lat':>11}"]
        lines += [
            f"{row.kind:<10}{row.after:%Y-%m-%d}  {row.first_seen:%Y-%m-%d}  {row.confirmed:%Y-%m-%d}  "
            f"{row.area_m2 / 1e4:>8,.2f} ha{row.lon:>13.5f}{row.lat:>11.5f}"
            f"{'  other weights before: may be the model' if row.model_changed else ''}"
            for row in largest.itertuples()
        ]
        sums = self.frame.groupby("kind")["area_m2"].agg(["size", "sum"])
        told = [f"{kind}: {row['size']:.0f}, {row['sum'] / 1e4:,.2f} ha" for kind, row in sums.iterrows()]
        shown = f"the {_SHOWN} largest are shown; " if len(self.frame) > _SHOWN else ""
        return "\n".join([*lines, shown + "; ".join(told)])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Changes:
    """Confirmed changes of single pixels; all arrays (change,)."""

    row: _Steps
    col: _Steps
    present: npt.NDArray[np.bool_]
    """The state changed to."""
    after: _Steps
    first_seen: _Steps
    confirmed: _Steps
    """Steps; see `Events.frame`."""


def events(
    uri: str | Path, *, confirm: int = 2, min_area_m2: float = 0.0, region: BaseGeometry | None = None
) -> Events:
    """Find where the answer changed between the latest revisions of a cube's acquisitions.

    A pixel's state is what its last `confirm` observations in a row said; it changes when as many say otherwise. Cloud
    and other unobserved pixels neither confirm nor contradict.

    Parameters
    ----------
    uri
        The cube.
    confirm
        Observations in a row that agree, 1 or more. 1 takes every flicker for a change.
    min_area_m2
        Patches of less ground area are left out (the minimum mapping unit).
    region
        Part of the cube's region to look at, in WGS 84; default all of it.

    Raises
    ------
    CubeError, StoreError
        There is no cube at the URI, or it cannot be read; the region lies outside its grid; `confirm` is less than 1.
    """
    if confirm < 1:
        raise CubeError(f"confirm={confirm}", "One observation or more.", "2 is what is usual.")
    cube = open_cube(uri)
    records = read_records(uri, cube)
    entries = shown_entries(cube, records)
    found = list(_pixel_changes(cube, records.grid, region, confirm))
    rows = [row for part in _alike(found) for row in _patches(part, records.grid, entries, min_area_m2)]
    return Events(question=records.spec.question, confirm=confirm, frame=_frame(rows))


def changes(masks: Iterator[npt.NDArray[np.uint8]], confirm: int) -> Iterator[Changes]:
    """Confirmed changes in a sequence of masks (y, x) of 0, 1 and 255 not observed, as soon as they are confirmed."""
    for step, mask in enumerate(masks):
        if step == 0:
            state, last = np.full(mask.shape, _UNKNOWN, np.uint8), np.full(mask.shape, _UNKNOWN, np.uint8)
            run, since, seen, before = (np.full(mask.shape, -1, np.int32) for _ in range(4))
        observed = mask <= 1
        turned = observed & (mask != last)
        before[turned], since[turned], run[turned] = seen[turned], step, 0
        run[observed] += 1
        last[observed], seen[observed] = mask[observed], step
        settled = observed & (run >= confirm) & (state != last)
        row, col = np.nonzero(settled & (state != _UNKNOWN))
        yield Changes(
            row=row.astype(np.int32), col=col.astype(np.int32), present=last[row, col] == 1,
            after=before[row, col], first_seen=since[row, col], confirmed=np.full(len(row), step, np.int32),
        )  # fmt: skip
        state[settled] = last[settled]


def _pixel_changes(cube: xr.Dataset, grid: Grid, region: BaseGeometry | None, confirm: int) -> Iterator[Changes]:
    """Changes of all pixels, in the frame of the grid; memory holds one row of blocks at a time."""
    for rows, cols, inside in strips(grid, region):
        masks = (
            np.where(inside, cube["mask"][step, rows, cols].to_numpy(), _UNKNOWN) for step in range(cube.sizes["time"])
        )
        for one in changes(masks, confirm):
            yield replace(one, row=one.row + rows.start, col=one.col + cols.start)


def _alike(found: list[Changes]) -> Iterator[Changes]:
    """The same changes, divided by kind and by the step that they were first seen at."""
    if not found:
        return
    names = Changes.__dataclass_fields__
    every = {name: np.concatenate([getattr(one, name) for one in found]) for name in names}
    for step in np.unique(every["first_seen"]):
        for present in (True, False):
            chosen = (every["first_seen"] == step) & (every["present"] == present)
            if chosen.any():
                yield Changes(**{name: values[chosen] for name, values in every.items()})


def _patches(part: Changes, grid: Grid, entries: tuple[Entry, ...], min_area_m2: float) -> Iterator[dict[str, Any]]:
    """One row per patch of neighbouring pixels that changed alike; columns as in `COLUMNS`."""
    top, left = int(part.row.min()), int(part.col.min())
    row, col = part.row - top, part.col - left
    changed = np.zeros((row.max() + 1, col.max() + 1), np.bool_)
    changed[row, col] = True
    numbers, n_patches = label(changed, structure=np.ones((3, 3)))
    its, every = numbers[row, col], np.arange(1, n_patches + 1)
    area_m2 = np.bincount(its, grid.pixel_area_m2[part.row, 0])[1:]
    after, confirmed = minimum(part.after, its, every).astype(int), maximum(part.confirmed, its, every).astype(int)
    entry, prompters = entries[int(part.first_seen[0])], np.asarray([entry.held.prompter for entry in entries])
    others = np.bincount(its, prompters[part.after] != entry.held.prompter)[1:] > 0
    windows = find_objects(numbers)
    for patch in np.flatnonzero(area_m2 >= min_area_m2).tolist():
        down, right = windows[patch]
        corner = grid.transform * grid.transform.translation(left + right.start, top + down.start)
        outline = outline_wgs84(numbers[down, right] == patch + 1, corner, grid.crs)
        point = outline.representative_point()
        yield {
            "kind": _KINDS[int(part.present[0])],
            "after": entries[after[patch]].held.time,
            "first_seen": entry.held.time,
            "confirmed": entries[confirmed[patch]].held.time,
            "acquisition": entry.held.acquisition,
            "area_m2": float(area_m2[patch]),
            "model_changed": bool(others[patch]),
            "lon": point.x,
            "lat": point.y,
            "geometry": outline,
        }


def _frame(rows: list[dict[str, Any]]) -> gpd.GeoDataFrame:
    import geopandas as gpd

    frame = gpd.GeoDataFrame(rows, columns=list(COLUMNS), geometry="geometry", crs="EPSG:4326")
    times = dict.fromkeys(("after", "first_seen", "confirmed"), "datetime64[ms, UTC]")
    return frame.astype(times | {"area_m2": float, "model_changed": bool, "lon": float, "lat": float})
