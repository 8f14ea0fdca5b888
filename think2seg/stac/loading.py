"""What odc-stac must be told about an archive, and what its numbers mean."""

from __future__ import annotations

import json
import re
from typing import Any

from think2seg.config.archive import Archive, FixedScaling, MetadataScaling, Sentinel2Scaling
from think2seg.stac.scenes import Scene


def stac_cfg(archive: Archive) -> dict[str, Any]:
    """Return the ``stac_cfg`` of `odc.stac.load`: pixel types, nodata and canonical band names of every asset.

    It holds for any collection, and for the items of scenes (`Scene.item`), whose assets have canonical keys.
    """
    indices: dict[str, int] = {}
    for band in archive.bands.values():
        indices[band.asset] = max(indices.get(band.asset, 1), band.index)
    assets = {}
    for band in archive.bands.values():
        name = band.asset if indices[band.asset] == 1 else f"{band.asset}.*"
        nodata = archive.nodata if band.nodata is None else band.nodata
        assets[name] = {"data_type": band.dtype or archive.dtype, "nodata": nodata}
    aliases = {name: (band.asset, band.index) for name, band in archive.bands.items()}
    return {"*": {"assets": assets, "aliases": aliases, "warnings": "ignore"}}


def scale_offset(scene: Scene, band: str, archive: Archive) -> tuple[float, float]:
    """Return (scale, offset) of one band of one scene: value = scale * digital number + offset."""
    rule = archive.scaling
    if archive.bands[band].role == "category":
        return 1.0, 0.0
    match rule:
        case FixedScaling():
            return rule.scale, rule.offset
        case MetadataScaling():
            said = _said(scene, band, archive)
            return said.get("scale", rule.scale), said.get("offset", rule.offset)
        case Sentinel2Scaling():
            return rule.scale, rule.scale * rule.offset if _carries_offset(scene, rule) else 0.0


def _said(scene: Scene, band: str, archive: Archive) -> dict[str, float]:
    """Scale and offset that the item states for one band."""
    where = archive.bands[band]
    bands = json.loads(scene.item)["assets"].get(where.asset, {}).get("raster:bands", [])
    own = bands[where.index - 1] if where.index <= len(bands) else {}
    return {key: float(own[key]) for key in ("scale", "offset") if key in own}


def _carries_offset(scene: Scene, rule: Sentinel2Scaling) -> bool:
    """Tell whether the digital numbers still hold the offset of newer baselines."""
    if rule.applied_property is not None:
        applied = json.loads(scene.item)["properties"].get(rule.applied_property)
        if applied is True:
            return False
    if scene.baseline:
        return _numbers(scene.baseline) >= _numbers(rule.since)
    return scene.datetime.date() >= rule.since_day


def _numbers(baseline: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", baseline))
