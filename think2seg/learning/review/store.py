"""Reviewed samples on disk: append-only, open formats, never half-written.

::

    STORE/images/<sample>.tif    RGB, georeferenced
    STORE/masks/<sample>.tif     0 absent, 255 present
    STORE/index/*.parquet        GeoParquet, one row per sample; a later row of the same unit replaces an earlier one,
                                 and withdraws it where its split is empty
    STORE/splits/*.json          what ground is held out, per cube

A sample's name is the digest of its contents, so that writing one again changes nothing. The index is written last.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from think2seg.errors import SampleError
from think2seg.learning.review.manifest import write_raster
from think2seg.learning.review.splits import Footprint, too_close
from think2seg.samples.labelled import Image, Mask, Split

IMAGES, MASKS, INDEX = "images", "masks", "index"
_WITHDRAWN = ""
type Unit = tuple[str, str]
"""Digest of a cube's identity, and a unit of its reviews."""
COLUMNS = (
    "sample",
    "cube",
    "unit",
    "question",
    "present",
    "observed",
    "split",
    "source",
    "licence",
    "crs",
    "gsd_m",
    "footprint",
    "redrawn",
    "geometry",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """A question about a tile, with the mask that a reviewer stands for."""

    image: Image
    """(y, x, 3) uint8 sRGB."""
    mask: Mask
    """(y, x) bool."""
    observed: float
    """Share of the tile that was observed; elsewhere `mask` is False."""
    question: str
    footprint: tuple[float, float, float, float]
    """(min_x, min_y, max_x, max_y) in `crs`."""
    crs: str
    gsd_m: float
    cube: str
    """Digest of the cube's identity."""
    unit: str
    split: Split
    redrawn: bool
    source: str
    licence: str

    @property
    def ground(self) -> Footprint:
        """Where it lies."""
        return Footprint(box=shapely.box(*self.footprint), crs=self.crs)

    @property
    def id(self) -> str:
        """Digest of its contents."""
        told = f"{self.question}\0{self.crs}\0{self.footprint}\0{self.split}\0{self.image.shape}".encode()
        return sha256(told + self.image.tobytes() + np.packbits(self.mask).tobytes()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What became of samples."""

    added: int
    known: int
    """Were there already."""
    withdrawn: int
    """Are shown no more."""
    digest: str
    """Of all that the store holds now."""


def problems(samples: Sequence[Sample], held: gpd.GeoDataFrame, withdrawn: Collection[Unit] = ()) -> list[str]:
    """What is wrong with samples, each with its row; `held` is the store's index, without those to be `withdrawn`."""
    found: list[str] = []
    seen: set[Unit] = set()
    for row, one in enumerate(samples):
        found += [f"sample {row} (unit {one.unit}): {reason}" for reason in _faults(one)]
        if (one.cube, one.unit) in seen:
            found.append(f"sample {row} (unit {one.unit}): the unit is there twice")
        seen.add((one.cube, one.unit))
    return found or _split_problems(samples, held[~_of(held, {*seen, *withdrawn})])


def _faults(one: Sample) -> Iterator[str]:
    if one.mask.shape != one.image.shape[:2]:
        sizes = (" × ".join(map(str, shape)) for shape in (one.mask.shape, one.image.shape[:2]))
        yield "a mask of {} pixels on an image of {}".format(*sizes)
    if not one.crs:
        yield "no coordinate reference system"


def _of(index: gpd.GeoDataFrame, units: Collection[Unit]) -> npt.NDArray[np.bool_]:
    """Which rows of an index are of these units."""
    return np.array([key in units for key in zip(index["cube"], index["unit"], strict=True)], np.bool_)


def _split_problems(samples: Sequence[Sample], kept: gpd.GeoDataFrame) -> list[str]:
    sides: dict[str, list[tuple[str, Footprint]]] = {"train": [], "held_out": []}
    for row, one in enumerate(samples):
        sides[one.split].append((f"sample {row} (unit {one.unit})", one.ground))
    for name in sides:
        for one in kept[kept["split"] == name].itertuples():
            there = Footprint(box=shapely.box(*one.footprint), crs=str(one.crs))
            sides[name].append((f"unit {one.unit} in the store", there))
    train, test = sides["train"], sides["held_out"]
    return [
        f"{train[i][0]} for training is less than one tile away from {test[j][0]}, which is held out"
        for i, j in too_close([ground for _, ground in train], [ground for _, ground in test])
    ]


def add(store: Path, samples: Sequence[Sample], withdrawn: Collection[Unit] = ()) -> Added:
    """Add samples to a store and withdraw those of other units, all or none; what it holds already is left alone.

    Raises
    ------
    SampleError
        A mask of another size, no CRS, a unit twice, or a training sample less than one tile away from a held-out one.
    """
    held = read_index(store)
    refuse(problems(samples, held, withdrawn), "")
    latest = dict(zip(zip(held["cube"], held["unit"], strict=True), held["sample"], strict=True))
    new = [one for one in samples if latest.get((one.cube, one.unit)) != one.id]
    for name in (IMAGES, MASKS, INDEX):
        (store / name).mkdir(parents=True, exist_ok=True)
    for one in new:
        height, width = one.mask.shape
        left, bottom, right, top = one.footprint
        transform = Affine((right - left) / width, 0, left, 0, (bottom - top) / height, top)
        geobox = GeoBox((height, width), transform, one.crs)
        mask = one.mask.astype(np.uint8) * np.uint8(255)
        for name, values in ((IMAGES, one.image), (MASKS, mask)):
            work = store / name / f".{one.id}.{os.getpid()}.partial.tif"
            write_raster(work, values, geobox)
            os.replace(work, store / name / f"{one.id}.tif")
    gone = held[_of(held, withdrawn)].assign(split=_WITHDRAWN)
    rows = [*map(_row, new), *gone.to_dict("records")]
    if rows:
        _append(store, rows)
    return Added(added=len(new), known=len(samples) - len(new), withdrawn=len(gone), digest=digest_of(store))


def refuse(found: Sequence[str], folder: str) -> None:
    """Raise SampleError when anything is wrong, with every row and reason."""
    if not found:
        return
    shown = [*found[:20], *([f"and {len(found) - 20} more"] if len(found) > 20 else [])]
    raise SampleError(
        "\n".join([f"{len(found)} rows cannot be used{f' ({folder})' if folder else ''}; nothing was added:", *shown]),
        "",
        "Correct them and import again.",
    )


def read_index(store: Path) -> gpd.GeoDataFrame:
    """The latest row of every unit that is not withdrawn, in order of units; columns `COLUMNS`, geometry in WGS 84.

    Raises
    ------
    SampleError
        When a file of the index cannot be read.
    """
    parts = []
    for path in sorted((store / INDEX).glob("*.parquet")):
        try:
            parts.append(gpd.read_parquet(path))
        except (OSError, ValueError) as error:
            raise SampleError(f"{path} cannot be read: {error}", "A GeoParquet file.", "Restore it.") from error
    if not parts:
        return gpd.GeoDataFrame({name: [] for name in COLUMNS}, geometry="geometry", crs="EPSG:4326")
    rows = pd.concat(parts, ignore_index=True).drop_duplicates(["cube", "unit"], keep="last")
    return rows[rows["split"] != _WITHDRAWN].sort_values(["cube", "unit"], ignore_index=True)


def training_ground(store: Path) -> dict[str, BaseGeometry]:
    """Name of a sample → footprint (WGS 84) of all that are learnt from.

    Raises SampleError when there is no store, and as `read_index`.
    """
    if not (store / INDEX).is_dir():
        raise SampleError(
            f"There are no reviewed samples in {store}.",
            "What was learnt from is kept, so that no model is judged on its ground.",
            "Put the store back, or go to the folder that its path is told from.",
        )
    index = read_index(store)
    learnt = index[index["split"] == "train"]
    return dict(zip(learnt["sample"].astype(str), learnt.geometry, strict=True))


def digest_of(store: Path) -> str:
    """Digest of the samples that a store shows and of their splits."""
    index = read_index(store)
    rows = [f"{one.cube} {one.unit} {one.sample} {one.split}" for one in index.itertuples()]
    return sha256("\n".join(rows).encode()).hexdigest()


def _append(store: Path, rows: Sequence[Mapping[Any, object]]) -> None:
    frame = gpd.GeoDataFrame(rows, columns=list(COLUMNS), geometry="geometry", crs="EPSG:4326")
    folder = store / INDEX
    number = 1 + max((int(path.name[:8]) for path in folder.glob("*.parquet")), default=0)
    digest = sha256("\n".join(f"{row['sample']}{row['split']}" for row in rows).encode()).hexdigest()[:12]
    work = folder / f".{os.getpid()}.partial"
    frame.to_parquet(work, compression="zstd")
    os.replace(work, folder / f"{number:08d}-{digest}.parquet")


def _row(one: Sample) -> dict[str, object]:
    return {
        "sample": one.id, "cube": one.cube, "unit": one.unit, "question": one.question,
        "present": bool(one.mask.any()), "observed": one.observed, "split": one.split, "source": one.source,
        "licence": one.licence, "crs": one.crs, "gsd_m": one.gsd_m, "footprint": one.footprint,
        "redrawn": one.redrawn, "geometry": one.ground.wgs84,
    }  # fmt: skip
