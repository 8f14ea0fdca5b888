"""Draw a sample from a cube and lay it out for people: a GeoPackage, images, and a page to judge them on."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio.features import shapes
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from think2seg.config import Archive, Monitor
from think2seg.coordinator.redraw_plan import imagery_of, region_of
from think2seg.cube import CubeSpec, CubeStore, Ledger, open_cube, read_ledger
from think2seg.cube.layout import identity_digest
from think2seg.cube.store import shown
from think2seg.errors import CatalogError, ConfigError, ImageryError
from think2seg.grid import Block
from think2seg.imagery import Quality, cut_tiles, read_block
from think2seg.learning.review.manifest import (
    FORMAT,
    IMAGES,
    MANIFEST,
    MAPPED,
    MASKS,
    PACKAGE,
    PAGE,
    UNITS,
    Manifest,
    ReviewUnit,
    dump,
    tile_of,
    write_raster,
)
from think2seg.learning.review.page import render
from think2seg.learning.review.population import mapped_mask, read_population
from think2seg.learning.review.sampling import Drawn, SamplePlan, Unit, plan_sample
from think2seg.stac.scenes import Acquisition

type RGB = npt.NDArray[np.uint8]

_GONE = "The catalog no longer has the scenes."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Where the pixels of a cube come from."""

    cube: xr.Dataset
    spec: CubeSpec
    ledger: Ledger
    archive: Archive | None
    acquisitions: Mapping[str, Acquisition]
    why_not: str
    """Why there is no imagery at all; else empty."""


def draw_sample(
    uri: str | Path, out: Path, *, n: int = 40, seed: int = 0, monitor: Monitor | None = None, images: bool = True
) -> Manifest:
    """Draw a stratified random sample of a cube's answers and write a review folder.

    Parameters
    ----------
    uri
        The cube.
    out
        Folder to write; missing or empty.
    n
        Units to draw; all where there are fewer.
    seed
        The same cube, `n` and seed give the same sample.
    monitor
        The monitor that filled the cube, where its archive or catalog is not one that ships.
    images
        Without them nothing is searched and read; people then judge by imagery of their own.

    Raises
    ------
    ConfigError
        `out` holds something, the cube shows nothing, or the imagery's catalog is not known.
    CubeError, StoreError
        There is no cube at `uri`, or it cannot be read.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            f"--out {out} holds something already.",
            "A missing or empty folder: verdicts are never overwritten.",
            "Choose another one, or remove it.",
        )
    cube = open_cube(uri)
    spec = CubeSpec.from_json(json.dumps(cube.attrs["think2seg"]))
    source = _source(uri, cube, spec, monitor, images)
    plan = plan_sample(read_population(uri, spec.grid), n, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        manifest = _write(work, str(uri), source, plan)
        work.chmod(0o755)
        if out.exists():
            out.rmdir()
        work.rename(out)
    except BaseException:
        shutil.rmtree(work)
        raise
    return manifest


def _source(uri: str | Path, cube: xr.Dataset, spec: CubeSpec, monitor: Monitor | None, images: bool) -> _Source:
    ledger, why_not, archive, found = read_ledger(CubeStore(uri)), "", None, dict[str, Acquisition]()
    if not images:
        why_not = "Images were not asked for."
    else:
        try:
            archive, catalog = imagery_of(spec, ledger, monitor)
            found = dict(catalog)
        except CatalogError as error:
            why_not = f"The catalog cannot be searched: {error.given}"
    return _Source(cube=cube, spec=spec, ledger=ledger, archive=archive, acquisitions=found, why_not=why_not)


def _write(folder: Path, uri: str, source: _Source, plan: SamplePlan) -> Manifest:
    spec, cube = source.spec, source.cube
    (folder / IMAGES).mkdir()
    (folder / MAPPED).mkdir()
    pictures = dict(_pictures(source, [one.unit for one in plan.units]))
    units = tuple(_write_unit(folder, source, one, pictures[one.unit.id]) for one in plan.units)
    manifest = Manifest(
        format=FORMAT,
        cube=shown(uri),
        identity=identity_digest(spec.identity),
        question=spec.question,
        licence=spec.attribution,
        source=str(spec.source["archive"]),
        grid_json=spec.grid.to_json(),
        seed=plan.seed,
        drawn=datetime.now(UTC),
        acquisitions=tuple(cube["acquisition"].to_numpy().tolist()),
        model_versions=tuple(dict.fromkeys(cube["model_version"].to_numpy().tolist())),
        strata=plan.strata,
        units=units,
    )
    masks = {unit.id: manifest.mapped(folder, unit) for unit in units}
    _write_layers(folder / PACKAGE, manifest, masks)
    tiles = {unit.id: pictures[unit.id] for unit in units}
    (folder / MANIFEST).write_bytes(dump(manifest))
    (folder / PAGE).write_text(render(manifest, masks, tiles), encoding="utf-8")
    return manifest


def _write_unit(folder: Path, source: _Source, drawn: Drawn, picture: RGB | str) -> ReviewUnit:
    unit, grid = drawn.unit, source.spec.grid
    tile = tile_of(grid, unit.row, unit.col, unit.tile)
    entry = source.ledger.latest[unit.acquisition]
    image = None
    if not isinstance(picture, str):
        image = write_raster(folder / IMAGES / f"{unit.id}.tif", picture, grid.tile_geobox(tile))
    mapped = write_raster(
        folder / MAPPED / f"{unit.id}.tif", mapped_mask(source.cube, grid, unit), grid.tile_geobox(tile, halo=False)
    )
    return ReviewUnit(
        id=unit.id,
        acquisition=unit.acquisition,
        revision=unit.revision,
        time=entry.held.time,
        tile=unit.tile,
        row=unit.row,
        col=unit.col,
        stratum=drawn.stratum,
        mapped_sha256=mapped,
        image_sha256=image,
        no_image=picture if isinstance(picture, str) else "",
        scenes=tuple(entry.held.scenes),
    )


def _pictures(source: _Source, units: Sequence[Unit]) -> Iterator[tuple[str, RGB | str]]:
    """Unit → (tile_px, tile_px, 3) uint8 of its tile with the halo, or why there is none; each block is read once."""
    grid = source.spec.grid
    wanted: dict[tuple[str, int, int], list[Unit]] = {}
    for unit in units:
        key = (unit.acquisition, unit.row // grid.block_px, unit.col // grid.block_px)
        wanted.setdefault(key, []).append(unit)
    for (acquisition, row, col), those in sorted(wanted.items()):
        read = _block_pictures(source, acquisition, Block(row, col))
        for unit in those:
            yield unit.id, read if isinstance(read, str) else read[unit.tile]


def _block_pictures(source: _Source, name: str, block: Block) -> Mapping[str, RGB | str] | str:
    """Tile → its picture, or why there is none; or why there are none of the whole block."""
    entry = source.ledger.latest[name]
    found = source.acquisitions.get(name)
    if source.archive is None or found is None:
        return source.why_not or _GONE
    wanted = set(entry.held.scenes.values())
    scenes = tuple(scene for scene in found.scenes if scene.fingerprint in wanted)
    if {scene.fingerprint for scene in scenes} != wanted:
        return "The catalog has other pixels now than the models saw."
    acquisition = Acquisition(id=found.id, time=found.time, scenes=scenes)
    try:
        imagery = read_block(acquisition, block, source.spec.grid, source.archive, region_of(entry, source.spec))
    except ImageryError as error:
        return f"The scenes cannot be read: {error.given}"
    return {
        tile.id: "The scenes show nothing here." if (quality & np.uint16(Quality.NODATA)).all() else rgb
        for tile, rgb, quality in cut_tiles(imagery, source.spec.grid, block)
    }


def _write_layers(path: Path, manifest: Manifest, masks: Mapping[str, npt.NDArray[np.uint8]]) -> None:
    crs = manifest.grid.crs
    units = [
        {
            "unit": unit.id,
            "time": unit.time.isoformat(),
            "question": manifest.question,
            "stratum": manifest.strata[unit.stratum].name,
            "weight": manifest.strata[unit.stratum].weight,
            "image": unit.no_image or f"{IMAGES}/{unit.id}.tif",
            "verdict": None,
            "comment": None,
            "split": None,
            "geometry": manifest.footprint(unit),
        }
        for unit in manifest.units
    ]
    polygons = [
        {"unit": unit.id, "time": unit.time.isoformat(), "question": manifest.question, "geometry": polygon}
        for unit in manifest.units
        for polygon in outlines(masks[unit.id] == 1, manifest.geobox(unit))
    ]
    columns = ["unit", "time", "question", "geometry"]
    for layer, rows, names in ((UNITS, units, list(units[0])), (MASKS, polygons, columns)):
        frame = gpd.GeoDataFrame(rows, columns=names, geometry="geometry", crs=crs)
        frame.to_file(path, layer=layer, driver="GPKG", geometry_type="MultiPolygon", promote_to_multi=True)


def outlines(mask: npt.NDArray[np.bool_], geobox: GeoBox) -> list[BaseGeometry]:
    """Polygons along the pixel edges of a (y, x) bool mask, in the CRS of `geobox`."""
    found = shapes(mask.astype(np.uint8), mask=mask, transform=geobox.transform)
    return [shape(outline) for outline, _ in found]
