"""STAC items as they come, checked and made plain; and scenes made of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import shapely
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError
from pyproj import CRS
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from think2seg.config.archive import Archive, Band, PropertyRule
from think2seg.crs import canonical_crs
from think2seg.errors import CatalogError, ConfigError
from think2seg.stac.fingerprints import scene_fingerprint
from think2seg.stac.footprints import Footprint, item_footprint
from think2seg.stac.hrefs import HrefGuard, redacted
from think2seg.stac.scenes import Scene


class RawAsset(BaseModel):
    """One asset of an item, with whatever else it says."""

    model_config = ConfigDict(extra="allow", frozen=True)
    href: str = Field(min_length=1)


class RawItem(BaseModel):
    """The fields of a STAC item that must make sense."""

    model_config = ConfigDict(extra="allow", frozen=True)
    id: str = Field(min_length=1, validation_alias=AliasChoices("id"))
    collection: str | None = None
    geometry: dict[str, Any] | None = None
    bbox: list[float] | None = None
    properties: dict[str, Any]
    assets: dict[str, Any]
    stac_version: str = "1.0.0"
    stac_extensions: list[str] = []


class Item:
    """A checked item: its identity, time and footprint, with the raw document at hand."""

    __slots__ = ("base", "collection", "footprint_of", "id", "properties", "raw", "time")

    def __init__(self, document: Mapping[str, Any], base: str, collection: str | None = None) -> None:
        """Check one item found at `base`.

        Raises
        ------
        CatalogError
            If it is no item, has no time, or has neither a usable geometry nor a bbox.
        """
        try:
            self.raw = RawItem.model_validate(document)
        except ValidationError as error:
            name = str(document.get("id", "without id"))
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise CatalogError(f"The item {name!r} is no STAC item: {where}: {first['msg']}.") from error
        self.base = base
        self.id = self.raw.id
        self.collection = self.raw.collection or collection or ""
        self.properties = self.raw.properties
        self.time = _time(self.id, self.properties)
        self.footprint_of: Footprint = item_footprint(self.id, self.raw.geometry, self.raw.bbox)

    @property
    def footprint(self) -> BaseGeometry:
        """Ground that the item covers, WGS 84."""
        return self.footprint_of.geometry

    @property
    def solar_day(self) -> date:
        """Local solar day at the item's centre longitude."""
        return (self.time + timedelta(hours=self.footprint_of.centre_lon / 15)).date()

    def day(self, rule: Literal["solar", "utc"]) -> date:
        """Day of the acquisition by the archive's rule."""
        return self.solar_day if rule == "solar" else self.time.date()


def scene_of(item: Item, archive: Archive, guard: HrefGuard) -> Scene:
    """Reduce an item to a scene of `archive`.

    Raises
    ------
    CatalogError
        If a band's href may not be read.
    """
    assets = _band_assets(item, archive, guard)
    rules = archive.acquisition
    day = item.day(rules.day)
    bands = frozenset(name for name, band in archive.bands.items() if _has_band(assets.get(band.asset), band))
    key = {
        "collection": item.collection,
        "day": day.isoformat(),
        "platform": _slug(_value(item, rules.platform)),
        "orbit": _value(item, rules.orbit),
        "place": _value(item, rules.place),
    }
    baseline = _value(item, rules.baseline)
    needed = {archive.bands[name].asset for name in archive.needed_bands}
    footprint, bbox = shapely.to_geojson(item.footprint), item.footprint.bounds
    return Scene(
        id=item.id,
        collection=item.collection,
        datetime=item.time,
        platform=key["platform"],
        orbit=key["orbit"],
        solar_day=day,
        place=key["place"],
        baseline=baseline,
        updated=_optional_time(item.properties.get("updated") or item.properties.get("created")),
        bbox_wgs84=bbox,
        footprint=footprint,
        crs=_crs(item, assets),
        cloud_cover=_number(item.properties.get("eo:cloud_cover")),
        bands=bands,
        fingerprint=scene_fingerprint(
            {**key, "place": key["place"] or item.id, "baseline": baseline},
            {name: asset for name, asset in assets.items() if name in needed},
            item.properties,
        ),
        item=_plain(item, assets, archive, footprint, bbox),
    )


def _band_assets(item: Item, archive: Archive, guard: HrefGuard) -> dict[str, dict[str, Any]]:
    """Assets of the archive's bands under their canonical keys, with absolute hrefs; missing ones left out."""
    found: dict[str, dict[str, Any]] = {}
    for band in archive.bands.values():
        for key in (band.asset, *band.aliases):
            raw = item.raw.assets.get(key)
            if band.asset in found or not isinstance(raw, dict) or not isinstance(raw.get("href"), str):
                continue
            href = guard.asset(raw["href"], item.base)
            found[band.asset] = {**raw, "href": href if archive.signing is None else redacted(href)}
    return found


def _has_band(asset: Mapping[str, Any] | None, band: Band) -> bool:
    if asset is None:
        return False
    counts = [len(v) for k in ("bands", "eo:bands", "raster:bands") if isinstance(v := asset.get(k), list) and v]
    return band.index <= max(counts, default=band.index)


def _plain(
    item: Item, assets: Mapping[str, Mapping[str, Any]], archive: Archive, footprint: str, bbox: Sequence[float]
) -> str:
    """Write the item with the archive's bands only: what workers read and explanations show."""
    document = {
        "type": "Feature",
        "stac_version": item.raw.stac_version,
        "stac_extensions": item.raw.stac_extensions,
        "id": item.id,
        "collection": item.collection,
        "geometry": json.loads(footprint),
        "bbox": list(bbox),
        "properties": {**item.properties, "datetime": item.time.isoformat().replace("+00:00", "Z")},
        "links": [],
        "assets": {name: _plain_asset(name, asset, archive) for name, asset in sorted(assets.items())},
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _plain_asset(name: str, asset: Mapping[str, Any], archive: Archive) -> dict[str, Any]:
    """Keep href, grid and checksums; write ``raster:bands`` anew with the archive's pixel type and nodata."""
    kept = {k: v for k, v in asset.items() if k in ("href", "type", "roles") or k.startswith(("proj:", "file:"))}
    bands = {band.index: band for band in archive.bands.values() if band.asset == name}
    said = _raster_bands(asset)
    raster = []
    for index in range(1, max(bands, default=1) + 1):
        band = bands.get(index) or next(iter(bands.values()))
        own = said[index - 1] if index <= len(said) else {}
        scaling = {key: own[key] for key in ("scale", "offset") if _number(own.get(key)) is not None}
        nodata = archive.nodata if band.nodata is None else band.nodata
        raster.append({"data_type": band.dtype or archive.dtype, "nodata": nodata, **scaling})
    return {**kept, "raster:bands": raster}


def _raster_bands(asset: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Per-band metadata of raster extension 1 (``raster:bands``), or of 2 (``bands``, or on the asset itself)."""
    for key, prefix in (("raster:bands", ""), ("bands", "raster:")):
        bands = asset.get(key)
        if isinstance(bands, list) and bands:
            shared = {name: asset[f"raster:{name}"] for name in ("scale", "offset") if f"raster:{name}" in asset}
            return [
                {**shared, **{n: b[prefix + n] for n in ("scale", "offset") if isinstance(b, dict) and prefix + n in b}}
                for b in bands
            ]
    return [{name: asset[f"raster:{name}"] for name in ("scale", "offset") if f"raster:{name}" in asset}]


def _crs(item: Item, assets: Mapping[str, Mapping[str, Any]]) -> str | None:
    for source in (item.properties, *assets.values()):
        for key in ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson"):
            if said := source.get(key):
                try:
                    return _named_crs(key, said)
                except (CRSError, ConfigError) as error:
                    told = f"{str(said)[:80]!r}, which is no CRS to read pixels in"
                    raise CatalogError(f"The item {item.id!r} has the {key} {told}.") from error
    return None


def _named_crs(key: str, said: Any) -> str:
    """``EPSG:…`` or WKT of what an item says; CRSError or ConfigError where it names no CRS with horizontal axes."""
    if key in ("proj:wkt2", "proj:projjson"):
        said = CRS.from_user_input(said).to_wkt()
    name = f"EPSG:{said}" if key == "proj:epsg" else str(said)
    canonical_crs(name)
    return name.upper() if key == "proj:code" else name


def _value(item: Item, rules: tuple[PropertyRule, ...]) -> str:
    for rule in rules:
        found = item.id if rule.property == "id" else item.properties.get(rule.property)
        if found is None or isinstance(found, dict | list):
            continue
        match = re.search(rule.pattern, str(found))
        if match and match.group(1):
            return str(match.group(1))
    return ""


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _time(name: str, properties: Mapping[str, Any]) -> datetime:
    for key in ("datetime", "start_datetime"):
        if (time := _optional_time(properties.get(key))) is not None:
            return time
    raise CatalogError(f"The item {name!r} has no datetime that makes sense.")


def _optional_time(value: Any) -> datetime | None:
    """A time in UTC; None where it cannot be read, or lies in the first or last year: hours are added to it."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    if not datetime.min.year < time.year < datetime.max.year:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
