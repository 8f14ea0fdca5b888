"""What a CRS says: names, units, validity, and how a region looks in it."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import shapely
import shapely.geometry
from affine import Affine
from pyproj import CRS, Proj, Transformer
from pyproj.exceptions import CRSError
from rasterio.features import shapes
from shapely.geometry.base import BaseGeometry

from think2seg.errors import ConfigError

_SEGMENT_DEG = 0.01
"""Region edges are densified to this before they are projected."""
_VALIDITY_MARGIN_DEG = 3.0
"""How far outside a CRS's area of use a region may lie: half a UTM zone."""
_PLANAR_TOLERANCE = 0.01
"""A projection whose areas are off by less than this counts as planar: UTM does, Mercator does not."""


@lru_cache(maxsize=64)
def canonical_crs(crs: str) -> str:
    """``EPSG:…`` where the authority knows an equal CRS, else WKT.

    Raises
    ------
    ConfigError
        When it is no CRS, or one without two horizontal axes.
    """
    try:
        parsed = CRS.from_user_input(crs)
    except CRSError as error:
        raise ConfigError(f"crs {crs[:120]!r}", "a code such as EPSG:32614, WKT, or auto") from error
    if not (parsed.is_projected or parsed.is_geographic):
        raise ConfigError(f"crs {parsed.name!r}", "a projected or geographic CRS")
    code = parsed.to_epsg()
    if code is not None and CRS.from_epsg(code).equals(parsed, ignore_axis_order=True):
        return f"EPSG:{code}"
    return parsed.to_wkt()


@lru_cache(maxsize=64)
def parse_crs(crs: str) -> CRS:
    """The parsed CRS; cached."""
    return CRS.from_user_input(crs)


@lru_cache(maxsize=64)
def transformer(source: str, target: str) -> Transformer:
    """Coordinate transformer from `source` to `target`, always x before y; cached."""
    return Transformer.from_crs(source, target, always_xy=True)


def project(region: BaseGeometry, crs: str) -> BaseGeometry:
    """`region` from WGS 84 to `crs`, its edges densified so that straight degrees become the right curves."""
    return _projected(shapely.to_wkb(region), crs)


def to_wgs84(shape: BaseGeometry, crs: str) -> BaseGeometry:
    """A shape in degrees, its edges densified."""
    left, bottom, right, top = shape.bounds
    dense = shapely.segmentize(shape, max(right - left, top - bottom) / 32)
    forward = transformer(crs, "EPSG:4326")
    turned: BaseGeometry = shapely.transform(dense, lambda xy: np.column_stack(forward.transform(*xy.T)))
    return turned


def outline_wgs84(area: npt.NDArray[np.bool_], transform: Affine, crs: str) -> BaseGeometry:
    """Outline in WGS 84 of the true pixels of `area` (y, x) along pixel edges, holes included."""
    found = shapes(area.astype(np.uint8), mask=area, connectivity=4, transform=transform)
    parts = [shapely.geometry.shape(outline) for outline, _ in found]
    outline = parts[0] if len(parts) == 1 else shapely.geometry.MultiPolygon(parts)
    to_wgs84 = transformer(crs, "EPSG:4326")
    wgs84: BaseGeometry = shapely.transform(outline, lambda xy: np.stack(to_wgs84.transform(*xy.T), axis=1))
    return wgs84


def widened(bbox_wgs84: tuple[float, float, float, float], margin_deg: float) -> BaseGeometry:
    """A WGS 84 box with a margin, in two parts where it crosses the antimeridian; west > east where the box does."""
    west, south, east, north = bbox_wgs84
    width = min(360.0, east - west + (360 if west > east else 0) + 2 * margin_deg)
    turns = shapely.box(
        west - margin_deg + np.array([-360, 0, 360]), south - margin_deg,
        west - margin_deg + np.array([-360, 0, 360]) + width, north + margin_deg,
    )  # fmt: skip
    whole: BaseGeometry = shapely.union_all(turns).intersection(shapely.box(-180, -90, 180, 90))
    return whole


def slug(crs: str) -> str:
    """Short name for paths: ``utm14n`` for WGS 84 / UTM, else ``epsg3035``, else a digest of the WKT."""
    if not crs.startswith("EPSG:"):
        return f"crs-{sha256(crs.encode()).hexdigest()[:8]}"
    code = int(crs.removeprefix("EPSG:"))
    zone = parse_crs(crs).utm_zone
    return f"utm{zone.lower()}" if zone and code // 100 in (326, 327) else f"epsg{code}"


def check_region(region: BaseGeometry, crs: str) -> None:
    """Refuse a region (WGS 84) that is empty, not in degrees, or outside the area where `crs` is valid.

    Raises
    ------
    ConfigError
        With both extents.
    """
    if region.is_empty or region.area == 0:
        raise ConfigError("region is empty", "a polygon, or several, with an area", "check region in the monitor")
    west, south, east, north = region.bounds
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        raise ConfigError(
            f"region reaches from {west:g}, {south:g} to {east:g}, {north:g}",
            "WGS 84 degrees: longitude -180 to 180, latitude -90 to 90",
        )
    known = parse_crs(crs)
    if known.is_geographic and west == -180 and east == 180 and east - west > _width(region):
        raise ConfigError(
            f"region crosses the antimeridian, and {crs} is cut there",
            "a projected CRS",
            "set grid.crs to auto: each side gets its own UTM grid",
        )
    area = known.area_of_use
    if area is not None and not _inside(region, (area.west, area.south, area.east, area.north)):
        raise ConfigError(
            f"region {west:g}, {south:g}, {east:g}, {north:g} is outside the validity of {crs}",
            f"longitude {area.west:g} to {area.east:g}, latitude {area.south:g} to {area.north:g}",
            "set grid.crs to auto, or to a CRS made for this region",
        )


def metres_per_unit(
    crs: str, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Ground metres per CRS unit along y and along x at positions (x, y) of `crs`.

    Geographic: radii of curvature of the ellipsoid. Projected: the unit, divided by the projection's own linear scale
    where its areas are off by more than `_PLANAR_TOLERANCE` anywhere.
    """
    known = parse_crs(crs)
    if known.is_geographic:
        ellipsoid = known.ellipsoid or CRS("EPSG:4326").ellipsoid
        assert ellipsoid is not None
        a, b = ellipsoid.semi_major_metre, ellipsoid.semi_minor_metre
        e2 = 1 - (b / a) ** 2
        latitude = np.clip(np.radians(y), -np.pi / 2, np.pi / 2)
        root = np.sqrt(1 - e2 * np.sin(latitude) ** 2)
        radian = np.pi / 180
        return radian * a * (1 - e2) / root**3, radian * a * np.cos(latitude) / root
    unit = np.full(y.shape, unit_m(crs))
    lon, lat = Transformer.from_crs(known, known.geodetic_crs or "EPSG:4326", always_xy=True).transform(x, y)
    areal = np.asarray(Proj(known).get_factors(lon, lat).areal_scale)
    if np.all(np.abs(areal - 1) < _PLANAR_TOLERANCE):
        return unit, unit
    return unit / np.sqrt(areal), unit / np.sqrt(areal)


def unit_m(crs: str) -> float:
    """Metres per unit of a projected CRS; 0 for a geographic one, whose unit has no fixed length."""
    known = parse_crs(crs)
    return 0.0 if known.is_geographic else float(known.axis_info[0].unit_conversion_factor)


def _inside(region: BaseGeometry, area: tuple[float, float, float, float]) -> bool:
    """Whether each part of `region` lies in `area` or close to it; `area` may cross the antimeridian."""
    area_west, area_south, area_east, area_north = area
    span, margin = (area_east - area_west) % 360 or 360.0, _VALIDITY_MARGIN_DEG
    west, south, east, north = shapely.bounds(shapely.get_parts(region)).T
    offset = (west - area_west + margin) % 360
    fits_x = (span + 2 * margin >= 360) | (offset + (east - west) <= span + 2 * margin)
    return bool(np.all(fits_x & (south >= area_south - margin) & (north <= area_north + margin)))


def _width(region: BaseGeometry) -> float:
    """Summed widths of the region's parts in degrees."""
    bounds = shapely.bounds(shapely.get_parts(region))
    return float(np.sum(bounds[:, 2] - bounds[:, 0]))


@lru_cache(maxsize=16)
def _projected(wkb: bytes, crs: str) -> BaseGeometry:
    region = shapely.segmentize(shapely.from_wkb(wkb), _SEGMENT_DEG)
    forward = transformer("EPSG:4326", crs)
    moved: BaseGeometry = shapely.transform(region, lambda lonlat: np.column_stack(forward.transform(*lonlat.T)))
    if not np.all(np.isfinite(shapely.get_coordinates(moved))):
        west, south, east, north = region.bounds
        raise ConfigError(
            f"region {west:g}, {south:g}, {east:g}, {north:g} has no place in {crs}",
            "a region inside the CRS's area of use",
            "set grid.crs to auto, or to a CRS made for this region",
        )
    return moved
