"""Small rasters on disk, and the scenes and archives that describe them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.warp import transform_bounds

from think2seg.config import Archive
from think2seg.stac.scenes import Acquisition, Scene


def write_raster(
    path: Path,
    values: npt.NDArray[Any],
    transform: Affine,
    crs: str,
    nodata: float | None = 0,
    mask: npt.NDArray[np.bool_] | None = None,
    **options: Any,
) -> Path:
    """Write (band, y, x) values as a COG."""
    profile = {"driver": "COG", "blocksize": 128, "compress": "deflate", "crs": crs, "transform": transform} | options
    count, height, width = values.shape
    with rasterio.open(
        path, "w", dtype=values.dtype, count=count, height=height, width=width, nodata=nodata, **profile
    ) as out:
        out.write(values)
        if mask is not None:
            out.write_mask(mask)
    return path


def scene_of(
    files: Mapping[str, Path | str],
    bounds_of: Path,
    *,
    name: str = "scene",
    when: datetime = datetime(2020, 7, 1, tzinfo=UTC),
    baseline: str = "",
    properties: Mapping[str, Any] | None = None,
    assets: Mapping[str, Mapping[str, Any]] | None = None,
) -> Scene:
    """A scene with one asset per entry of `files`; its grid is that of `bounds_of`."""
    with rasterio.open(bounds_of) as source:
        crs = f"EPSG:{source.crs.to_epsg()}"
        transform, shape = source.transform, source.shape
        bbox = transform_bounds(source.crs, "EPSG:4326", *source.bounds)
    item = {
        "id": name,
        "properties": {"proj:transform": list(transform)[:6], "proj:shape": shape} | dict(properties or {}),
        "assets": {key: {"href": str(href)} | dict((assets or {}).get(key, {})) for key, href in files.items()},
    }
    return Scene(
        id=name,
        collection="synthetic",
        datetime=when,
        platform="aircraft",
        orbit="",
        solar_day=when.date(),
        baseline=baseline,
        updated=None,
        bbox_wgs84=bbox,
        footprint="",
        crs=crs,
        cloud_cover=None,
        bands=frozenset(files),
        fingerprint=name,
        item=json.dumps(item),
    )


def acquisition_of(scenes: Sequence[Scene]) -> Acquisition:
    """One acquisition, its scenes in the given order."""
    return Acquisition(id="20200701-aircraft", time=min(scene.datetime for scene in scenes), scenes=tuple(scenes))


def archive_of(**fields: Any) -> Archive:
    """An archive of 8-bit RGB in one asset `image`, changed by `fields`."""
    document = {
        "archive": "synthetic",
        "collections": ["synthetic"],
        "bands": {name: {"asset": "image", "index": i + 1} for i, name in enumerate(("red", "green", "blue"))},
        "dtype": "uint8",
        "nodata": 0,
        "resolution": 5.0,
        "recipe": {"bands": ["red", "green", "blue"], "limits": [0, 255]},
        "tile_footprint_m": 960,
    }
    return Archive.model_validate(document | fields)
