"""What others rely on in a cube: CF and GeoZarr, checked against the metadata as it is stored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pyproj import CRS
from pyproj.exceptions import CRSError

_HORIZONTAL = {"y": ("projection_y_coordinate", "latitude"), "x": ("projection_x_coordinate", "longitude")}
_GEOZARR = ("proj", "spatial")


def broken_conventions(root: Mapping[str, Any]) -> Iterator[str]:
    """Say, one sentence each, where a root document with consolidated metadata breaks CF 1.11 or GeoZarr.

    CF: names of the axes, time units, flags, the grid mapping and its agreement with the coordinates. GeoZarr: the
    conventions it declares, and its transform, box and CRS against CF's.
    """
    arrays = root["consolidated_metadata"]["metadata"]
    attributes = root["attributes"]
    if not str(attributes.get("Conventions", "")).startswith("CF-1."):
        yield "Conventions names no CF version."
    yield from _axes(arrays)
    yield from _flags(arrays)
    mapped = {name for name, array in arrays.items() if array["dimension_names"][-2:] == ["y", "x"]}
    for name in sorted(mapped):
        reference = arrays[name]["attributes"].get("grid_mapping")
        if reference not in arrays:
            yield f"grid_mapping of {name} names no variable."
    yield from _placing(arrays, attributes)


def _axes(arrays: Mapping[str, Any]) -> Iterator[str]:
    for axis, names in _HORIZONTAL.items():
        if arrays[axis]["attributes"].get("standard_name") not in names:
            yield f"standard_name of {axis} is not one of {', '.join(names)}."
    time = arrays["time"]["attributes"]
    if time.get("standard_name") != "time" or " since " not in str(time.get("units")) or "calendar" not in time:
        yield "time lacks its standard_name, units or calendar."


def _flags(arrays: Mapping[str, Any]) -> Iterator[str]:
    for name, array in arrays.items():
        attributes = array["attributes"]
        values = attributes.get("flag_values") or attributes.get("flag_masks")
        meanings = str(attributes.get("flag_meanings", "")).split()
        if (values or meanings) and len(values or ()) != len(meanings):
            yield f"flag_meanings of {name} do not match its flags."
        if "_FillValue" in attributes:
            yield f"{name} has a _FillValue: readers would turn it into floats."


def _placing(arrays: Mapping[str, Any], attributes: Mapping[str, Any]) -> Iterator[str]:
    declared = {one.get("name") for one in attributes.get("zarr_conventions", ())}
    if missing := set(_GEOZARR) - declared:
        yield f"zarr_conventions does not declare {', '.join(sorted(missing))}."
    mapping = arrays["spatial_ref"]["attributes"]
    try:
        cf = CRS.from_wkt(mapping.get("crs_wkt", ""))
        zarr = CRS.from_user_input(attributes.get("proj:code") or attributes.get("proj:wkt2") or "")
    except CRSError:
        yield "crs_wkt, proj:code or proj:wkt2 is no CRS."
        return
    if cf != zarr:
        yield "crs_wkt and proj:code name different CRSs."
    height, width = arrays["y"]["shape"][0], arrays["x"]["shape"][0]
    if list(attributes.get("spatial:shape", ())) != [height, width]:
        yield "spatial:shape is not the length of y and x."
    transform = attributes.get("spatial:transform", ())
    if not _agree(transform, _affine(str(mapping.get("GeoTransform", "")))):
        yield "spatial:transform and GeoTransform differ."
    elif not _agree(attributes.get("spatial:bbox", ()), _bbox(transform, height, width)):
        yield "spatial:bbox is not what the transform and the shape span."


def _affine(geotransform: str) -> list[float]:
    """GDAL's order to a, b, c, d, e, f."""
    try:
        c, a, b, f, d, e = (float(part) for part in geotransform.split())
    except ValueError:
        return []
    return [a, b, c, d, e, f]


def _bbox(transform: Sequence[float], height: int, width: int) -> list[float]:
    a, _, c, _, e, f = transform
    return [c, f + e * height, c + a * width, f]


def _agree(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) > 0 and all(
        math.isclose(p, q, rel_tol=1e-12) for p, q in zip(one, other, strict=True)
    )
