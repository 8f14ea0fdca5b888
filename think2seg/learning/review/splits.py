"""Which ground is held out: chosen once per cube, written once, hashed, and never moved.

A quarter of a cube, a strip along one of its ends, is held out of training. Samples inside it are `held_out`; those
with at least one tile between them and every such strip are `train`; what lies between belongs to neither.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import shapely
from shapely.geometry.base import BaseGeometry

from think2seg.crs import project, to_wgs84
from think2seg.errors import SampleError
from think2seg.grid import Grid
from think2seg.samples.labelled import Split

FOLDER = "splits"
_SHARE = 4
"""One part in so many is held out."""
_SLACK = 0.02
"""Of a tile: what curved edges and rounding may make of two footprints that touch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Ground of one sample."""

    box: BaseGeometry
    """In `crs`."""
    crs: str

    @property
    def wgs84(self) -> BaseGeometry:
        """The same in degrees."""
        return to_wgs84(self.box, self.crs)

    @property
    def side(self) -> float:
        """Side of the tile in CRS units."""
        left, _, right, _ = self.box.bounds
        return float(right - left)


def propose(grid: Grid, key: str) -> BaseGeometry | None:
    """The strip (in the grid's CRS) to hold out of a cube; which end it lies at follows from `key`.

    None where the cube has too few tiles across to leave anything for training.
    """
    tiles = [size // grid.core_px for size in grid.shape]
    across = max(tiles)
    if across < _SHARE:
        return None
    depth = round(across / _SHARE) * grid.core_px * grid.resolution
    left, bottom, right, top = grid.geobox.extent.boundingbox
    first = int(sha256(key.encode()).hexdigest(), 16) % 2 == 0
    if tiles[1] == across:
        left, right = (left, left + depth) if first else (right - depth, right)
    else:
        bottom, top = (top - depth, top) if first else (bottom, bottom + depth)
    strip: BaseGeometry = shapely.box(left, bottom, right, top)
    return strip


def split_of(footprint: Footprint, held_out: Sequence[BaseGeometry]) -> Split | None:
    """Where a sample belongs, given the areas (WGS 84) that are held out; None for the buffer between."""
    slack = _SLACK * footprint.side
    away = True
    for area in held_out:
        near = project(area, footprint.crs)
        if near.buffer(slack).covers(footprint.box):
            return "held_out"
        away &= near.distance(footprint.box) >= footprint.side - slack
    return "train" if away else None


def too_close(train: Sequence[Footprint], held_out: Sequence[Footprint]) -> Iterator[tuple[int, int]]:
    """Positions of training and held-out footprints with less than one tile between them."""
    for index, one in enumerate(train):
        for other, held in enumerate(held_out):
            box = held.box if held.crs == one.crs else project(held.wgs84, one.crs)
            if box.distance(one.box) < max(one.side, held.side if held.crs == one.crs else 0) * (1 - _SLACK):
                yield index, other


def read_held_out(store: Path) -> dict[str, BaseGeometry]:
    """Cube → area (WGS 84) that is held out of it.

    Raises
    ------
    SampleError
        When a file was changed after it was written.
    """
    found: dict[str, BaseGeometry] = {}
    for path in sorted((store / FOLDER).glob("*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            area, told = document["held_out"], document["sha256"]
        except (ValueError, LookupError, TypeError) as error:
            raise _changed(path) from error
        if _digest(area) != told:
            raise _changed(path)
        found[path.stem] = shapely.from_geojson(json.dumps(area))
    return found


def freeze(store: Path, cube: str, area: BaseGeometry) -> None:
    """Write the area (WGS 84) that is held out of a cube; an earlier one stays as it is."""
    folder = store / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    plain = json.loads(shapely.to_geojson(area))
    text = json.dumps({"cube": cube, "held_out": plain, "sha256": _digest(plain)}, indent=1) + "\n"
    work = folder / f".{os.getpid()}.partial"
    work.write_text(text, encoding="utf-8")
    try:
        os.link(work, folder / f"{cube[:16]}.json")
    except FileExistsError:
        return
    finally:
        work.unlink()


def _digest(area: object) -> str:
    return sha256(json.dumps(area, sort_keys=True).encode()).hexdigest()


def _changed(path: Path) -> SampleError:
    return SampleError(
        f"{path} was changed after it was written.",
        "What is held out is chosen once: moving it would let training see what it is measured on.",
        "Restore the file, or begin another store.",
    )
