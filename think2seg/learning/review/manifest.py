"""What a review folder is about: written once with the sample, and never edited by people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from odc.geo.geobox import GeoBox
from pydantic import TypeAdapter, ValidationError
from rasterio.errors import RasterioError
from shapely.geometry.base import BaseGeometry

from think2seg.errors import SampleError
from think2seg.grid import Block, Grid, Tile
from think2seg.learning.review.sampling import Stratum

FORMAT: Literal[1] = 1
MANIFEST, PACKAGE, PAGE, VERDICTS = "review.json", "review.gpkg", "review.html", "verdicts.json"
UNITS, MASKS = "units", "masks"
"""Layers of the GeoPackage."""
IMAGES, MAPPED = "images", "mapped"
"""Folders of GeoTIFFs: tiles with their halo, and what the cube says of their cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewUnit:
    """One unit of the sample."""

    id: str
    acquisition: str
    revision: int
    time: datetime
    tile: str
    row: int
    col: int
    """Upper-left pixel of the core in the cube."""
    stratum: int
    mapped_sha256: str
    """Of the file in `MAPPED`."""
    image_sha256: str | None
    """Of the file in `IMAGES`; None where the imagery could not be read."""
    no_image: str
    """Why there is no image; else empty."""
    scenes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A review folder."""

    format: Literal[1]
    cube: str
    """URI, without credentials."""
    identity: str
    """Digest of what the cube is about."""
    question: str
    licence: str
    """Attribution of the imagery."""
    source: str
    """Archive of the imagery."""
    grid_json: str
    seed: int
    drawn: datetime
    acquisitions: tuple[str, ...]
    """All that the population holds, in time order."""
    model_versions: tuple[str, ...]
    strata: tuple[Stratum, ...]
    units: tuple[ReviewUnit, ...]

    @cached_property
    def grid(self) -> Grid:
        """The cube's grid."""
        return Grid.from_json(self.grid_json)

    @cached_property
    def by_id(self) -> dict[str, ReviewUnit]:
        """Units by id."""
        return {unit.id: unit for unit in self.units}

    @property
    def population(self) -> int:
        """Units that the sample stands for."""
        return sum(stratum.size for stratum in self.strata)

    def geobox(self, unit: ReviewUnit, *, halo: bool = False) -> GeoBox:
        """Pixels of a unit's core, or of its whole tile."""
        return self.grid.tile_geobox(tile_of(self.grid, unit.row, unit.col, unit.tile), halo=halo)

    def footprint(self, unit: ReviewUnit) -> BaseGeometry:
        """Box around a unit's core in the cube's CRS."""
        box: BaseGeometry = shapely.box(*self.geobox(unit).extent.boundingbox)
        return box

    def mapped(self, folder: Path, unit: ReviewUnit) -> npt.NDArray[np.uint8]:
        """(core_px, core_px) uint8: 0 absent, 1 present, 255 not observed.

        Raises
        ------
        SampleError
            When the file is missing or was changed.
        """
        path = folder / MAPPED / f"{unit.id}.tif"
        if not path.is_file() or digest_of(path) != unit.mapped_sha256:
            raise SampleError(
                f"unit {unit.id}: {MAPPED}/{path.name} is missing or was changed",
                f"{MAPPED}/ says what the cube had; masks are redrawn in the layer {MASKS} of {PACKAGE}.",
                "Restore the file from the folder as it was drawn.",
            )
        values: npt.NDArray[np.uint8] = read_raster(path)[0]
        return values


_ADAPTER = TypeAdapter(Manifest)


def dump(manifest: Manifest) -> bytes:
    """A manifest as JSON."""
    return _ADAPTER.dump_json(manifest, indent=1)


def load(folder: Path) -> tuple[Manifest, str]:
    """The manifest of a review folder, and its digest.

    Raises
    ------
    SampleError
        When the folder has none, or another program wrote it.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
        return _ADAPTER.validate_json(text), sha256(text).hexdigest()
    except FileNotFoundError as error:
        raise SampleError(f"{path} is missing", "A folder that `think2seg review sample` wrote.") from error
    except (ValidationError, ValueError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(map(str, first["loc"]))
        raise SampleError(
            f"{path}: {where} {first['msg']}", "The file as `think2seg review sample` wrote it.", "Restore it."
        ) from error


def tile_of(grid: Grid, row: int, col: int, name: str) -> Tile:
    """The tile whose core begins at a pixel of the grid."""
    side = grid.block_px
    return Tile(id=name, block=Block(row // side, col // side), y=row % side, x=col % side)


def write_raster(path: Path, values: npt.NDArray[np.uint8], geobox: GeoBox) -> str:
    """Write (y, x) or (y, x, 3) uint8 as a GeoTIFF on `geobox`; returns the digest of the file."""
    bands = values[np.newaxis] if values.ndim == 2 else np.moveaxis(values, -1, 0)
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": "uint8", "count": len(bands), "compress": "deflate"}
    if len(bands) == 3:
        profile["photometric"] = "rgb"
    height, width = values.shape[:2]
    with rasterio.open(
        path, "w", height=height, width=width, crs=str(geobox.crs), transform=geobox.transform, **profile
    ) as target:
        target.write(bands)
    return digest_of(path)


def read_raster(path: Path) -> npt.NDArray[np.uint8]:
    """(bands, y, x) uint8 of a GeoTIFF. Raises SampleError when it cannot be read."""
    try:
        with rasterio.open(path) as source:
            values: npt.NDArray[np.uint8] = source.read()
            return values
    except RasterioError as error:
        raise SampleError(f"{path} cannot be read: {error}", "A GeoTIFF of 8 bits.", "Restore the file.") from error


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    return sha256(path.read_bytes()).hexdigest()
