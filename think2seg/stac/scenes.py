"""Scenes and acquisitions: what a catalog says exists."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One STAC item, reduced to what planning and reading need."""

    id: str
    collection: str
    datetime: dt.datetime
    """Acquisition time, UTC."""
    platform: str
    orbit: str
    """Relative orbit, path/row or flight line; empty where the collection has none."""
    solar_day: dt.date
    """Local solar day at the scene's centre, or the UTC day where the archive's times are only dates."""
    place: str = ""
    """Granule within the acquisition (MGRS tile, path and row); empty where the collection has none."""
    baseline: str
    """Processing baseline; empty where the collection has none."""
    updated: dt.datetime | None
    bbox_wgs84: tuple[float, float, float, float]
    """(min_x, min_y, max_x, max_y) degrees."""
    footprint: str
    """GeoJSON geometry in WGS 84."""
    crs: str | None
    """CRS of the pixels, ``EPSG:…`` or WKT; None where the item does not say."""
    cloud_cover: float | None
    """Percent."""
    bands: frozenset[str]
    """Canonical names of the archive's bands that this item really has."""
    fingerprint: str
    """Hash of collection, acquisition key, baseline and checksums; not of `updated` or hrefs."""
    item: str
    """The STAC item as JSON with absolute, unsigned hrefs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """The scenes of one solar day, platform and orbit: one step of a cube's time axis."""

    id: str
    """Stable key, safe as a path segment: ``20200831-aircraft`` or ``20220103-sentinel-2a-r122``."""
    time: dt.datetime
    """Earliest scene time, UTC."""
    scenes: tuple[Scene, ...]
    """Mosaic order: the first scene wins where several cover a pixel."""

    @property
    def fingerprint(self) -> str:
        """Joint fingerprint of all scenes, order-independent."""
        from hashlib import sha256

        return sha256("\n".join(sorted(s.fingerprint for s in self.scenes)).encode()).hexdigest()[:32]
