"""Scale bar and north arrow of a map picture."""

from __future__ import annotations

from dataclasses import dataclass
from math import atan2, degrees, floor, log10

from pyproj import CRS, Geod, Transformer

from think2seg.insight.units import metres


@dataclass(frozen=True, slots=True, kw_only=True)
class Furniture:
    """What a reader needs to measure and to orient a map."""

    bar_percent: float
    """Length of the scale bar in percent of the picture's width."""
    bar_text: str
    north_deg: float
    """Turn of the north arrow, clockwise from straight up."""
    centre_lon: float
    centre_lat: float


def furniture(crs: str, bounds: tuple[float, float, float, float]) -> Furniture:
    """Measure a map picture at its centre.

    Parameters
    ----------
    crs
        CRS of the picture, anything pyproj reads.
    bounds
        (min_x, min_y, max_x, max_y) in CRS units.
    """
    left, bottom, right, top = bounds
    x, y = (left + right) / 2, (bottom + top) / 2
    to_wgs84 = Transformer.from_crs(CRS.from_user_input(crs), "EPSG:4326", always_xy=True)
    lons, lats = to_wgs84.transform([left, right, x, x], [y, y, y, y + (top - bottom) / 100])
    geod = Geod(ellps="WGS84")
    _, _, width_m = geod.inv(lons[0], lats[0], lons[1], lats[1])
    _, _, east_m = geod.inv(lons[2], lats[3], lons[3], lats[3])
    _, _, north_m = geod.inv(lons[3], lats[2], lons[3], lats[3])
    eastward = east_m if lons[3] >= lons[2] else -east_m
    northward = north_m if lats[3] >= lats[2] else -north_m
    bar_m = round_length(width_m / 5)
    return Furniture(
        bar_percent=round(100 * bar_m / width_m, 2),
        bar_text=metres(bar_m),
        north_deg=round(-degrees(atan2(eastward, northward)), 1),
        centre_lon=lons[2],
        centre_lat=lats[2],
    )


def round_length(length_m: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above `length_m`."""
    power = 10.0 ** floor(log10(length_m))
    return max(power * m for m in (1, 2, 5) if power * m <= length_m * 1.0001)
