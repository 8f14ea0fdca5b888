"""Footprints of samples: which ground a training or a gate has seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import geopandas
import pyogrio.errors
from shapely.geometry.base import BaseGeometry

from think2seg.errors import ConfigError

_NAMES = ("name", "id", "site")


def read_footprints(path: Path) -> dict[str, BaseGeometry]:
    """Footprints in WGS 84 by the name of their sample, from any vector file with a CRS.

    The name is the column ``name``, ``id`` or ``site``, else the number of the row. Raises ConfigError for a file that
    cannot be read or says no CRS.
    """
    try:
        table = geopandas.read_file(path)
    except (pyogrio.errors.DataSourceError, OSError) as error:
        raise ConfigError(
            f"The footprints {path} cannot be read: {error}", "A vector file, such as GeoJSON or GeoPackage.", ""
        ) from error
    if table.crs is None:
        raise ConfigError(f"The footprints {path} say no CRS.", "Footprints lie on the ground.", "Add the CRS.")
    column = next((name for name in _NAMES if name in table.columns), None)
    names = table[column].astype(str) if column else table.index.astype(str)
    return dict(zip(names, table.to_crs("EPSG:4326").geometry, strict=True))


def write_footprints(path: Path, footprints: Mapping[str, BaseGeometry]) -> None:
    """Write footprints (WGS 84) as GeoJSON."""
    table = geopandas.GeoDataFrame({"name": list(footprints)}, geometry=list(footprints.values()), crs="EPSG:4326")
    path.write_text(table.to_json(), encoding="utf-8")
