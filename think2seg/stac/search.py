"""Search once per run: monitor + archive → acquisitions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import shapely

from think2seg.config.archive import Archive
from think2seg.config.intervals import Interval, format_interval
from think2seg.config.monitor import Monitor
from think2seg.errors import CatalogError, ConfigError, NothingFound
from think2seg.samples.archive import catalog_path
from think2seg.stac.acquisitions import group, resolve_reprocessings
from think2seg.stac.catalogs import Catalog, catalog_file, open_catalog, unknown_collections
from think2seg.stac.hrefs import HrefGuard, is_url, redacted
from think2seg.stac.items import Item, scene_of
from think2seg.stac.query import FILTERS, Query, Sieve
from think2seg.stac.scenes import Acquisition, Scene
from think2seg.stac.transport import PATIENT, Patience, Transport

SAMPLE = "sample:"
_NAMED = 3
_PROBED = 20
_WORLD = shapely.box(-180, -90, 180, 90)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a catalog holds for a monitor.

    Cloudy scenes and scenes that lack a band are part of it: the plan says so, line by line.
    """

    acquisitions: tuple[Acquisition, ...]
    """In time order."""
    interval: Interval
    """Time that was searched, UTC; what the cube holds outside it was not looked for."""
    notes: tuple[str, ...]
    """What a reader should know: looping pages, items left out and why."""
    dropped: Mapping[str, int]
    """Filter → number of items it removed."""


def search(
    monitor: Monitor,
    archive: Archive,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    patience: Patience = PATIENT,
) -> SearchResult:
    """Search the monitor's catalog.

    Parameters
    ----------
    monitor, archive
        What is looked for, and how its collection works.
    since, until
        Narrow the monitor's interval; a time without a zone is UTC.
    patience
        Retries and timeouts.

    Raises
    ------
    NothingFound
        If no item is left: the message says which filter removed the last one.
    CatalogError
        If the catalog cannot be searched, or none of its items can be used.
    ConfigError
        If the monitor names no catalog and the archive has no endpoint.
    """
    href = catalog_href(monitor, archive)
    guard = HrefGuard(catalog=href, rules=archive.hrefs)
    query = Query(
        collections=monitor.collections(archive),
        interval=_narrowed(monitor.source.interval, since, until),
        region=monitor.geometry,
        properties=monitor.source.query,
    )
    catalog = open_catalog(href, guard, Transport(patience))
    sieve = Sieve(query)
    notes: list[str] = []
    scenes = _scenes(catalog, sieve, archive, guard, notes)
    if not scenes:
        raise _nothing_left(catalog, sieve, href)
    kept, replaced = resolve_reprocessings(scenes)
    if replaced:
        sieve.dropped["superseded"] = len(replaced)
        notes.append(f"{_named([s.id for s in replaced])}: replaced by newer processings of the same acquisition.")
    return SearchResult(
        acquisitions=group(kept),
        interval=query.interval,
        notes=(*catalog.notes, *notes),
        dropped=MappingProxyType(dict(sieve.dropped)),
    )


def catalog_href(monitor: Monitor, archive: Archive) -> str:
    """URL or absolute path of the monitor's catalog.

    Raises
    ------
    ConfigError
        If neither the monitor nor the archive names one.
    """
    given = monitor.source.catalog or archive.endpoint
    if given is None:
        raise ConfigError(
            f"source.catalog is missing, and the archive {archive.archive!r} has no endpoint of its own.",
            "`sample:NAME`, a path, or the URL of a STAC API or static catalog.",
            "Add `catalog:` to the monitor's `source`.",
        )
    if given.startswith(SAMPLE):
        return str(catalog_file(catalog_path(given.removeprefix(SAMPLE))))
    return given if is_url(given) else str(catalog_file(Path(given)))


def _scenes(catalog: Catalog, sieve: Sieve, archive: Archive, guard: HrefGuard, notes: list[str]) -> list[Scene]:
    scenes: dict[tuple[str, str], Scene] = {}
    repeated: list[str] = []
    for found in catalog.items(sieve.query):
        step = "malformed"
        try:
            item = Item(found.document, found.base, found.collection)
            if (item.collection, item.id) in scenes:
                repeated.append(item.id)
            elif sieve.keeps(item):
                step = "hrefs"
                scenes[item.collection, item.id] = scene_of(item, archive, guard)
        except CatalogError as error:
            sieve.refuse(step, error)
    notes.extend(f"Left out: {error.given}" for error in sieve.refusals[:_NAMED])
    if len(sieve.refusals) > _NAMED:
        notes.append(f"Left out: {len(sieve.refusals) - _NAMED} more for the like of it.")
    if repeated:
        notes.append(f"{_named(repeated)}: listed more than once, used once.")
    return list(scenes.values())


def _narrowed(interval: Interval, since: datetime | None, until: datetime | None) -> Interval:
    begins = [t for t in (interval[0], since) if t is not None]
    ends = [t for t in (interval[1], until) if t is not None]
    return max(begins, default=None), min(ends, default=None)


def _named(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _nothing_left(catalog: Catalog, sieve: Sieve, href: str) -> CatalogError:
    """Say which filter removed the last item; an API, which filters itself, is asked again with fewer filters."""
    query = sieve.query
    names, where = ", ".join(query.collections), redacted(href)
    if not sieve.dropped:
        _probe(catalog, sieve, replace(query, region=_WORLD))
    if not sieve.dropped:
        _probe(catalog, sieve, replace(query, region=_WORLD, interval=(None, None)))
    if not sieve.times and (error := unknown_collections(query, catalog.collection_names(), href)) is not None:
        return error
    before = f"No item of {names} in {where} is left"
    match next((name for name in reversed(FILTERS) if sieve.dropped[name]), None):
        case "hrefs":
            return CatalogError(
                f"{before}, because their hrefs are refused. {sieve.refusals[-1].given}",
                sieve.refusals[-1].allowed,
                sieve.refusals[-1].todo,
            )
        case "query":
            return NothingFound(f"{before}: the last ones do not satisfy `source.query`.", "", "Relax that query.")
        case "region":
            return NothingFound(
                f"{before}: the last ones lie outside the region {_degrees(query.region.bounds)}.",
                f"Those seen cover {_degrees(sieve.bounds)} (west, south, east, north).",
                "Correct `region`, or choose another catalog.",
            )
        case "time":
            return NothingFound(
                f"{before}: the last ones lie outside the interval {format_interval(query.interval)}.",
                f"Those seen are of {sieve.times[0]:%Y-%m-%d} to {sieve.times[-1]:%Y-%m-%d}.",
                "Correct `source.datetime`.",
            )
        case "malformed":
            return CatalogError(
                f"{before}: {sieve.refusals[-1].given}", "STAC items with an id, a time and a footprint."
            )
    found = ", ".join(sorted(filter(None, sieve.collections))) or "none"
    return NothingFound(f"{before}.", f"Collections of the items it lists: {found}.", "Set `source.collections`.")


def _probe(catalog: Catalog, sieve: Sieve, wider: Query) -> None:
    """Pass a few items of a wider search through the sieve, for what it then says of them."""
    for found in islice(catalog.items(wider), _PROBED):
        with suppress(CatalogError):
            sieve.keeps(Item(found.document, found.base, found.collection))


def _degrees(bounds: tuple[float, float, float, float] | None) -> str:
    return "nothing" if bounds is None else f"({', '.join(f'{value:.4f}' for value in bounds)})"
