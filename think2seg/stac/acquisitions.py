"""Scenes → acquisitions: re-processings resolved, and one solar day, platform and orbit put together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import shapely
from shapely.geometry.base import BaseGeometry

from think2seg.stac.scenes import Acquisition, Scene

_COVERED = 0.98
"""Share of a scene's footprint that newer ones of its place must cover to replace it."""


def resolve_reprocessings(scenes: Iterable[Scene]) -> tuple[list[Scene], list[Scene]]:
    """Split `scenes` into those to use and those that newer processings of the same acquisition and place replace.

    The newest baseline wins, then the latest `updated`. Parts of one granule that cover different ground (Sentinel-2
    tiles cut at a data strip's end) are not re-processings of each other and are all kept.
    """
    places: dict[tuple[str, ...], list[Scene]] = defaultdict(list)
    kept: list[Scene] = []
    replaced: list[Scene] = []
    for scene in scenes:
        places[(*_key(scene), scene.collection, scene.place or f"item {scene.id}")].append(scene)
    for candidates in places.values():
        covered: list[BaseGeometry] = []
        for scene in sorted(candidates, key=_newest_first):
            shape = shapely.from_geojson(scene.footprint)
            left = shape.difference(shapely.union_all(covered)).area if covered else shape.area
            if covered and left <= (1 - _COVERED) * shape.area:
                replaced.append(scene)
            else:
                covered.append(shape)
                kept.append(scene)
    return kept, replaced


def group(scenes: Iterable[Scene]) -> tuple[Acquisition, ...]:
    """Put scenes of one solar day, platform and orbit together; in time order, each with its mosaic order fixed."""
    groups: dict[tuple[str, str, str], list[Scene]] = defaultdict(list)
    for scene in scenes:
        groups[_key(scene)].append(scene)
    acquisitions = [
        Acquisition(id=_id(members[0]), time=min(s.datetime for s in members), scenes=_mosaic(members))
        for members in groups.values()
    ]
    return tuple(sorted(acquisitions, key=lambda a: (a.time, a.id)))


def _key(scene: Scene) -> tuple[str, str, str]:
    return scene.solar_day.isoformat(), scene.platform, scene.orbit


def _newest_first(scene: Scene) -> tuple[tuple[int, ...], float, str]:
    baseline = tuple(-int(number) for number in re.findall(r"\d+", scene.baseline)) or (1,)
    updated = scene.updated or datetime.min.replace(tzinfo=UTC)
    return baseline, -updated.timestamp() if updated.year > 1 else 0.0, scene.id


def _mosaic(scenes: Sequence[Scene]) -> tuple[Scene, ...]:
    ordered = sorted(scenes, key=lambda s: (s.datetime, s.id))
    return tuple(sorted(ordered, key=lambda s: _newest_first(s)[0]))


def _id(scene: Scene) -> str:
    orbit = f"r{int(scene.orbit):03d}" if scene.orbit.isdigit() else re.sub(r"[^a-z0-9]+", "-", scene.orbit.lower())
    return "-".join(part for part in (f"{scene.solar_day:%Y%m%d}", scene.platform, orbit.strip("-")) if part)
