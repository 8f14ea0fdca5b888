"""What a search asks for, and the sieve that holds every catalog to it."""

from __future__ import annotations

import operator as op
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from think2seg.config.intervals import Interval
from think2seg.config.monitor import Comparison
from think2seg.errors import CatalogError
from think2seg.stac.items import Item

FILTERS = ("malformed", "collection", "time", "region", "query", "hrefs")
"""Names of what may remove an item, in the order of application."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One search."""

    collections: tuple[str, ...]
    interval: Interval
    region: BaseGeometry
    """WGS 84; parts on both sides of the antimeridian where it crosses."""
    properties: Mapping[str, Mapping[Comparison, Any]]
    """Item property → comparison → value."""

    @property
    def boxes(self) -> tuple[tuple[float, float, float, float], ...]:
        """Boxes around the region, one for each side of the antimeridian."""
        west, _, east, _ = self.region.bounds
        parts = shapely.get_parts(self.region)
        sides = [[p for p in parts if p.centroid.x < 0], [p for p in parts if p.centroid.x >= 0]]
        groups = [side for side in sides if side] if east - west > 180 else [list(parts)]
        return tuple(shapely.union_all(group).bounds for group in groups)


@dataclass(slots=True)
class Sieve:
    """Keeps the items that a query asks for and counts what removed the others."""

    query: Query
    dropped: Counter[str] = field(default_factory=Counter)
    times: list[datetime] = field(default_factory=list)
    """Earliest and latest time seen among items of the collections."""
    bounds: tuple[float, float, float, float] | None = None
    """Union of the boxes of items of the collections and the time."""
    collections: Counter[str] = field(default_factory=Counter)
    """Collections seen."""
    refusals: list[CatalogError] = field(default_factory=list)
    """Why items were refused that could not be used at all."""

    def __post_init__(self) -> None:
        shapely.prepare(self.query.region)

    def keeps(self, item: Item) -> bool:
        """Tell whether `item` passes; the first filter that refuses it is counted."""
        for name, passes in self._filters():
            if not passes(item):
                self.dropped[name] += 1
                return False
        return True

    def refuse(self, name: str, error: CatalogError) -> None:
        """Count an item that could not be used."""
        self.dropped[name] += 1
        self.refusals.append(error)

    def _filters(self) -> Iterator[tuple[str, Callable[[Item], bool]]]:
        yield "collection", self._in_collection
        yield "time", self._in_time
        yield "region", self._in_region
        yield "query", self._as_asked

    def _in_collection(self, item: Item) -> bool:
        self.collections[item.collection] += 1
        return item.collection in self.query.collections

    def _in_time(self, item: Item) -> bool:
        self.times = [min([item.time, *self.times]), max([item.time, *self.times])]
        begin, end = self.query.interval
        return (begin is None or item.time >= begin) and (end is None or item.time <= end)

    def _in_region(self, item: Item) -> bool:
        west, south, east, north = item.footprint.bounds
        if self.bounds is None:
            self.bounds = (west, south, east, north)
        else:
            w, s, e, n = self.bounds
            self.bounds = (min(west, w), min(south, s), max(east, e), max(north, n))
        region = self.query.region
        return bool(region.intersects(item.footprint) and not region.touches(item.footprint))

    def _as_asked(self, item: Item) -> bool:
        return all(
            _holds(item.properties.get(name), operator, value)
            for name, comparisons in self.query.properties.items()
            for operator, value in comparisons.items()
        )


def _holds(found: Any, operator: Comparison, value: Any) -> bool:
    match operator:
        case "eq":
            return bool(found == value)
        case "neq":
            return bool(found != value)
        case "in":
            return bool(found in value)
    if not isinstance(found, int | float | str) or isinstance(found, str) != isinstance(value, str):
        return False
    compare: Callable[[Any, Any], bool] = {"lt": op.lt, "lte": op.le, "gt": op.gt, "gte": op.ge}[operator]
    return compare(found, value)
