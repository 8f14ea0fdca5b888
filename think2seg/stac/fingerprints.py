"""Fingerprints: what makes a scene a new or a changed one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from think2seg.config.digests import content_digest
from think2seg.stac.hrefs import is_url

_CHECKSUMS = ("file:checksum", "checksum:multihash", "etag", "e_tag", "s3:etag")


def scene_fingerprint(
    key: Mapping[str, str], assets: Mapping[str, Mapping[str, Any]], properties: Mapping[str, Any]
) -> str:
    """Hash a scene's acquisition key and baseline with the checksums or ETags of its assets.

    ``updated`` and hrefs are left out: a refreshed or moved item is not a new scene. A local file without a checksum
    counts with its size and its stated grid, so that a re-written file is noticed without reading it, and a copied
    folder (whose modification times differ) is not.

    Parameters
    ----------
    key
        Collection, solar day, platform, orbit, place and baseline.
    assets
        Assets of the bands that are read, by canonical key, with absolute hrefs.
    properties
        Properties of the item, for the grid that assets share.
    """
    return content_digest({**key, "assets": {name: _content(asset, properties) for name, asset in assets.items()}})


def _content(asset: Mapping[str, Any], properties: Mapping[str, Any]) -> Any:
    for name in _CHECKSUMS:
        if asset.get(name):
            return str(asset[name]).strip('"')
    if is_url(asset["href"]):
        return None
    path = Path(asset["href"])
    grid = {k: v for source in (properties, asset) for k, v in source.items() if k.startswith(("proj:", "raster:"))}
    return {"size": path.stat().st_size if path.is_file() else None, "grid": grid}
