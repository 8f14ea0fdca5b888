"""Footprints of items: on both sides of the antimeridian, and in spite of odd geometries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from think2seg.config.regions import bbox_geometry
from think2seg.errors import CatalogError


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Ground that a scene covers."""

    geometry: BaseGeometry
    """WGS 84, longitudes within ±180; two parts where it crosses the antimeridian."""
    centre_lon: float
    """Longitude of the centre, degrees within ±180."""


def item_footprint(name: str, geometry: dict[str, Any] | None, bbox: Sequence[float] | None) -> Footprint:
    """Make the footprint of the item `name` from its geometry, else from its bbox.

    A polygon more than 180° wide, or with longitudes beyond ±180, is taken to cross the antimeridian, and so is a bbox
    whose west is east of its east; one that goes all around the globe stays as it is. A bbox whose south is north of
    its north is turned round.

    Raises
    ------
    CatalogError
        If neither is usable.
    """
    shape = _polygon(geometry)
    if shape is None:
        shape = _box(bbox)
    if shape is not None:
        return _split(shape)
    raise CatalogError(f"The item {name!r} has neither a usable geometry nor a usable bbox.")


def _polygon(geometry: dict[str, Any] | None) -> BaseGeometry | None:
    if geometry is None:
        return None
    shape: BaseGeometry | None = shapely.force_2d(shapely.from_geojson(json.dumps(geometry), on_invalid="ignore"))
    if shape is not None and shape.geom_type == "Polygon" and not shape.is_empty and shape.is_valid:
        return shape
    areas = [
        shapely.make_valid(part) for part in shapely.get_parts(shape) if part.geom_type in ("Polygon", "MultiPolygon")
    ]
    union: BaseGeometry = shapely.union_all(areas)
    return None if union.is_empty or not all(map(isfinite, union.bounds)) else union


def _box(bbox: Sequence[float] | None) -> BaseGeometry | None:
    if bbox is None or len(bbox) not in (4, 6) or not all(map(isfinite, bbox)):
        return None
    half = len(bbox) // 2
    west, east = bbox[0], bbox[half]
    south, north = sorted((bbox[1], bbox[half + 1]))
    if west == east or south == north or not -90 <= south <= north <= 90:
        return None
    return bbox_geometry((west, south, east, north))


def _split(shape: BaseGeometry) -> Footprint:
    """Bring longitudes within ±180; shapes that cross the antimeridian become two parts."""
    west, _, east, _ = shape.bounds
    if west >= -180 and east <= 180 and east - west <= 180:
        return Footprint(geometry=shape, centre_lon=float(shape.centroid.x))
    if east - west > 180:
        turned = shapely.transform(shape, lambda xy: np.where(xy < (0, -91), np.add(xy, (360, 0)), xy))
        if 0 < turned.bounds[2] - turned.bounds[0] < 180:
            shape = turned
    centre = (shape.centroid.x + 180) % 360 - 180
    parts = [
        shapely.transform(part, lambda xy, turn=turn: np.subtract(xy, (360.0 * turn, 0.0)))
        for turn in (-1, 0, 1)
        if not (part := shape.intersection(shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90))).is_empty
    ]
    areas = [p for part in parts for p in shapely.get_parts(part) if p.area > 0]
    return Footprint(geometry=shapely.union_all(areas) if areas else shape, centre_lon=float(centre))
