"""Catalogs: STAC APIs, searched page by page, and static trees, walked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pystac_client.item_search import ItemSearch

from think2seg.config.documents import nearest
from think2seg.config.intervals import format_interval
from think2seg.errors import CatalogError
from think2seg.stac.hrefs import HrefGuard, absolute, is_url, redacted
from think2seg.stac.query import Query
from think2seg.stac.transport import HttpError, Transport

PAGE_ITEMS = 100
SMALLEST_PAGE = 10
MAX_PAGES = 10_000
MAX_IDLE_PAGES = 20
MAX_DOCUMENTS = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One item document as a catalog gave it."""

    document: dict[str, Any]
    base: str
    """Where relative hrefs start from."""
    collection: str | None = None
    """Collection it was found in, for items that do not say."""


class Catalog(Protocol):
    """Something that can be searched."""

    notes: list[str]
    """What a reader should know about the last search."""

    def items(self, query: Query) -> Iterator[Found]:
        """Yield candidates; a catalog may yield more than `query` asks for, and an item twice."""
        ...

    def collection_names(self) -> tuple[str, ...]:
        """Names of the collections it holds, as far as it says."""
        ...


def open_catalog(href: str, guard: HrefGuard, transport: Transport) -> Catalog:
    """Open the catalog at `href`: an API if its root offers a search, else a static catalog.

    Raises
    ------
    CatalogError
        If it cannot be read, or is neither.
    """
    root = transport.read(href)
    if root.get("type") not in ("Catalog", "Collection", "FeatureCollection", "Feature") and "links" not in root:
        raise CatalogError(
            f"The document at {redacted(href)} is no STAC catalog: its type is {root.get('type')!r}.",
            "A STAC API, or a static catalog, collection or item collection.",
            "Check `source.catalog`.",
        )
    searches = [link for link in _links(root) if link.get("rel") == "search"]
    if is_url(href) and searches and _is_api(root):
        return ApiCatalog(href, root, searches, guard, transport)
    return StaticCatalog(href, root, guard, transport)


class ApiCatalog:
    """A STAC API with item search."""

    def __init__(
        self, href: str, root: dict[str, Any], searches: list[dict[str, Any]], guard: HrefGuard, transport: Transport
    ) -> None:
        self.notes: list[str] = []
        self._root, self._href, self._guard, self._transport = root, href, guard, transport
        by_method = {str(link.get("method", "GET")).upper(): str(link["href"]) for link in searches}
        self._method = "POST" if "POST" in by_method else "GET"
        self._search = guard.document(by_method[self._method], href)

    def items(self, query: Query) -> Iterator[Found]:
        """Yield the items of every page, halving the pages when the gateway gives up on them."""
        yielded: set[tuple[str, str]] = set()
        for box in query.boxes:
            limit = PAGE_ITEMS
            while True:
                try:
                    for found in self._pages(query, box, limit):
                        key = (str(found.document.get("collection")), str(found.document.get("id")))
                        if key not in yielded:
                            yielded.add(key)
                            yield found
                    break
                except HttpError as error:
                    if error.status not in (502, 504) or limit <= SMALLEST_PAGE:
                        raise
                    limit //= 2
                    self.notes.append(f"The catalog gave up on large pages (HTTP {error.status}): {limit} items each.")

    def collection_names(self) -> tuple[str, ...]:
        """Names on the first page of ``/collections``."""
        data = next((link for link in _links(self._root) if link.get("rel") == "data"), None)
        if data is None:
            return ()
        page = self._transport.read(self._guard.document(str(data["href"]), self._href))
        return tuple(sorted(str(c["id"]) for c in page.get("collections", []) if isinstance(c, dict) and "id" in c))

    def _pages(self, query: Query, box: tuple[float, ...], limit: int) -> Iterator[Found]:
        request = _Request(self._search, self._method, self._parameters(query, box, limit))
        seen_requests: set[str] = set()
        seen_ids: set[tuple[str, str]] = set()
        idle = 0
        for number in range(1, MAX_PAGES + 1):
            seen_requests.add(request.key)
            page = self._transport.read(
                request.href, method=request.method, parameters=request.parameters, headers=request.headers
            )
            found = self._features(page, request.href, number)
            ids = {(str(f.document.get("collection")), str(f.document.get("id"))) for f in found}
            idle = idle + 1 if ids <= seen_ids else 0
            seen_ids |= ids
            yield from found
            following = self._next(page, request)
            if following is None:
                return
            if following.key in seen_requests:
                self.notes.append(f"The catalog's next links loop after {number} pages; all pages seen were used.")
                return
            if idle >= MAX_IDLE_PAGES:
                raise CatalogError(
                    f"The catalog at {redacted(self._search)} sent {idle} pages in a row without a new item.",
                    "Pages that come to an end.",
                    "Report it to the catalog's provider; a smaller region or interval may avoid it.",
                )
            request = following
        raise CatalogError(
            f"The search at {redacted(self._search)} has more than {MAX_PAGES} pages.",
            f"At most {MAX_PAGES} pages.",
            "Make the region or `source.datetime` smaller.",
        )

    def _parameters(self, query: Query, box: tuple[float, ...], limit: int) -> dict[str, Any]:
        bounded = query.interval != (None, None)
        search = ItemSearch(
            self._search,
            method=self._method,
            limit=limit,
            collections=list(query.collections),
            bbox=list(box),
            datetime=format_interval(query.interval) if bounded else None,
        )
        return dict(search.get_parameters())

    def _features(self, page: dict[str, Any], href: str, number: int) -> list[Found]:
        features = page.get("features")
        if not isinstance(features, list):
            raise CatalogError(
                f"Page {number} of the search at {redacted(href)} holds no list of features"
                f" (type {page.get('type')!r}).",
                "A GeoJSON feature collection of STAC items.",
                "Check that `source.catalog` is the root of a STAC API.",
            )
        documents = [feature for feature in features if isinstance(feature, dict)]
        return [Found(document=document, base=_self_href(document, href)) for document in documents]

    def _next(self, page: dict[str, Any], request: _Request) -> _Request | None:
        link = next((link for link in _links(page) if link.get("rel") == "next"), None)
        if link is None:
            return None
        method = str(link.get("method", "GET")).upper()
        body, headers = link.get("body"), link.get("headers")
        merged = {**(request.parameters if link.get("merge") else {}), **(body if isinstance(body, dict) else {})}
        return _Request(
            self._guard.document(str(link["href"]), request.href),
            method,
            merged if method == "POST" else {},
            {str(k): str(v) for k, v in headers.items()} if isinstance(headers, dict) else None,
        )


class StaticCatalog:
    """A tree of JSON documents: catalogs, collections, items and item collections."""

    def __init__(self, href: str, root: dict[str, Any], guard: HrefGuard, transport: Transport) -> None:
        self.notes: list[str] = []
        self._href, self._root, self._guard, self._transport = href, root, guard, transport
        self._collections: set[str] = set()

    def items(self, query: Query) -> Iterator[Found]:
        """Walk the tree depth first; collections that are not asked for are not opened further than their children."""
        self._collections = set()
        visited = {self._href}
        todo: list[tuple[dict[str, Any] | None, str, str | None]] = [(self._root, self._href, None)]
        while todo:
            document, href, collection = todo.pop()
            if document is None:
                document = self._read(href)
            if document is None:
                continue
            if document.get("type") in ("Feature", "FeatureCollection"):
                yield from _members(document, href, collection)
                continue
            if document.get("type") == "Collection":
                collection = str(document.get("id"))
                self._collections.add(collection)
            wanted = collection is None or collection in query.collections
            for link in reversed(_links(document)):
                if link.get("rel") not in (("child", "item") if wanted else ("child",)):
                    continue
                target = self._guard.document(str(link["href"]), href)
                if target not in visited:
                    visited.add(target)
                    todo.append((None, target, collection))
            if len(visited) > MAX_DOCUMENTS:
                raise CatalogError(
                    f"The static catalog at {redacted(self._href)} has more than {MAX_DOCUMENTS} documents.",
                    f"At most {MAX_DOCUMENTS} documents.",
                    "Name a collection of it in `source.catalog`, or search through an API.",
                )

    def collection_names(self) -> tuple[str, ...]:
        """Names of the collections met on the last walk."""
        return tuple(sorted(self._collections))

    def _read(self, href: str) -> dict[str, Any] | None:
        try:
            return self._transport.read(href)
        except CatalogError as error:
            self.notes.append(f"Left out, because it cannot be read: {error.given}")
            return None


@dataclass(frozen=True, slots=True)
class _Request:
    href: str
    method: str
    parameters: dict[str, Any]
    headers: dict[str, str] | None = None

    @property
    def key(self) -> str:
        return json.dumps([self.href, self.method, self.parameters, self.headers], sort_keys=True)


def unknown_collections(query: Query, names: tuple[str, ...], catalog: str) -> CatalogError | None:
    """Return the error of a query that asks for no collection of the catalog, if that is so."""
    if not names or set(query.collections) & set(names):
        return None
    wanted = ", ".join(query.collections)
    return CatalogError(
        f"The catalog at {redacted(catalog)} has no collection {wanted}.",
        f"Its collections: {', '.join(names[:20])}{' …' if len(names) > 20 else ''}.",
        nearest(query.collections[0], names) or "Set `source.collections`.",
    )


def catalog_file(path: Path) -> Path:
    """Return the document of a local catalog given by file or folder."""
    return (path / "catalog.json" if path.is_dir() else path).resolve()


def _is_api(root: dict[str, Any]) -> bool:
    return isinstance(root.get("conformsTo"), list)


def _links(document: dict[str, Any]) -> list[dict[str, Any]]:
    links = document.get("links")
    if not isinstance(links, list):
        return []
    return [link for link in links if isinstance(link, dict) and isinstance(link.get("href"), str)]


def _self_href(document: dict[str, Any], page: str) -> str:
    own = next((link["href"] for link in _links(document) if link.get("rel") == "self"), page)
    return absolute(str(own), page)


def _members(document: dict[str, Any], href: str, collection: str | None) -> Iterator[Found]:
    features = document.get("features") if document.get("type") == "FeatureCollection" else [document]
    for feature in features if isinstance(features, list) else []:
        if isinstance(feature, dict):
            yield Found(document=feature, base=href, collection=collection)
