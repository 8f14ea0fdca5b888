"""Regions: the ground a monitor looks at, in WGS 84."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import shapely
from pydantic import AfterValidator, Field, ValidationError
from shapely.geometry.base import BaseGeometry

from think2seg.config.documents import Part
from think2seg.errors import ConfigError

type Bbox = tuple[float, float, float, float]


def _bbox(bbox: Bbox) -> Bbox:
    west, south, east, north = bbox
    if not (-180 <= west <= 180 and -180 <= east <= 180):
        raise ValueError("longitudes go from -180 to 180: [west, south, east, north] in degrees")
    if not -90 <= south < north <= 90:
        raise ValueError("latitudes go from -90 to 90 and south is below north: [west, south, east, north] in degrees")
    if west == east:
        raise ValueError("west and east are the same")
    return bbox


def bbox_geometry(bbox: Bbox) -> BaseGeometry:
    """Polygon of a WGS 84 box; two parts where west > east, that is, across the antimeridian."""
    west, south, east, north = bbox
    sides = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    union: BaseGeometry = shapely.union_all([shapely.box(left, south, right, north) for left, right in sides])
    return union


class BboxRegion(Part):
    """A box of longitudes and latitudes; west > east crosses the antimeridian."""

    kind: Literal["bbox"]
    bbox: Annotated[Bbox, AfterValidator(_bbox)]
    """west, south, east, north in degrees."""

    def shape(self) -> BaseGeometry:
        """Return the region in WGS 84."""
        return bbox_geometry(self.bbox)


class GeojsonRegion(Part):
    """Polygons of a GeoJSON file."""

    kind: Literal["geojson"]
    path: str
    """Relative to the current directory."""

    def shape(self) -> BaseGeometry:
        """Return the union of the file's polygons in WGS 84.

        Raises
        ------
        ConfigError
            If the file cannot be read or holds no polygon.
        """
        try:
            data = json.loads(Path(self.path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"region.path = {self.path!r} cannot be read: {error}", "A GeoJSON file of polygons in WGS 84."
            ) from error
        try:
            return _polygons(data)
        except ValueError as error:
            raise ConfigError(f"region.path = {self.path!r}: {error}", "GeoJSON polygons in WGS 84.") from error


def _geometry(value: dict[str, Any]) -> dict[str, Any]:
    _polygons(value)
    return value


class GeometryRegion(Part):
    """A GeoJSON geometry, feature or feature collection written into the monitor."""

    kind: Literal["geometry"]
    geometry: Annotated[dict[str, Any], AfterValidator(_geometry)]

    def shape(self) -> BaseGeometry:
        """Return the region in WGS 84."""
        return _polygons(self.geometry)


type Region = Annotated[BboxRegion | GeojsonRegion | GeometryRegion, Field(discriminator="kind")]


def region_named(text: str) -> BaseGeometry:
    """The WGS 84 region that a word on a command line names: ``west,south,east,north`` or a GeoJSON file.

    Raises
    ------
    ConfigError
        It is neither, or no region with an area.
    """
    parts = text.split(",")
    try:
        if len(parts) == 1 or Path(text).exists():
            return GeojsonRegion(kind="geojson", path=text).shape()
        return BboxRegion.model_validate({"kind": "bbox", "bbox": [float(part) for part in parts]}).shape()
    except (ConfigError, ValueError) as error:
        cause = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise ConfigError(
            f"The region {text!r} makes no sense: {cause}",
            "west,south,east,north in degrees, or the path of a GeoJSON file of polygons in WGS 84.",
        ) from error


def _polygons(data: Any) -> BaseGeometry:
    """Union of the polygons in GeoJSON `data`, made valid; raises ValueError where there is none."""
    parts = shapely.get_parts(shapely.from_geojson(json.dumps(data), on_invalid="ignore"))
    areas = [shapely.make_valid(part) for part in parts if part.geom_type in ("Polygon", "MultiPolygon")]
    union: BaseGeometry = shapely.union_all(areas)
    if union.is_empty or union.area == 0:
        raise ValueError("no GeoJSON polygon with an area")
    west, south, east, north = union.bounds
    if west < -180 or east > 180 or south < -90 or north > 90:
        raise ValueError(f"coordinates {union.bounds} are not degrees of longitude and latitude")
    return union
