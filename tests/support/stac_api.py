"""A real STAC API (stac-fastapi on uvicorn) in a thread, over items in memory, with faults on request."""

from __future__ import annotations

import copy
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import attr
import shapely
import uvicorn
from fastapi import FastAPI, Request, Response
from stac_fastapi.api.app import StacApi
from stac_fastapi.api.models import create_get_request_model, create_post_request_model
from stac_fastapi.extensions.pagination import TokenPaginationExtension
from stac_fastapi.types.config import ApiSettings
from stac_fastapi.types.core import BaseCoreClient
from stac_fastapi.types.requests import get_base_url
from starlette.staticfiles import StaticFiles

HTML = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One answer that goes wrong; each is given once, in order."""

    status: int = 503
    headers: tuple[tuple[str, str], ...] = ()
    body: str = "out of order"
    path: str = "/search"


@dataclass(slots=True, kw_only=True)
class Behaviour:
    """How the API misbehaves; may be changed while it runs."""

    faults: deque[Fault] = field(default_factory=deque)
    largest_page: int | None = None
    """Searches with a larger limit are answered with 504."""
    loop: bool = False
    """The last page's next link leads back to the first."""
    repeat: bool = False
    """Every page begins with the last item of the page before."""
    endless: bool = False
    """Next links with ever new tokens lead to the last page."""
    ignore_filters: bool = False
    matched: int | None = None
    """Lie told as numberMatched."""
    post: bool = True
    """Offer POST searches."""
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    """(method, path, JSON body or query) of every request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningApi:
    url: str
    behaviour: Behaviour

    def searches(self) -> list[Any]:
        return [body for _, path, body in self.behaviour.requests if path == "/search"]


@contextmanager
def stac_api(
    items: Iterable[dict[str, Any]], *, assets: Path | None = None, behaviour: Behaviour | None = None
) -> Iterator[RunningApi]:
    """Serve `items`, and the files below `assets` at ``/assets``; hrefs of items are served as they are."""
    behaviour = behaviour or Behaviour()
    app = _app(list(items), behaviour, assets)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield RunningApi(url=f"http://127.0.0.1:{listener.getsockname()[1]}", behaviour=behaviour)
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


def catalog_items(catalog: Path, *, assets: str = "/assets/") -> list[dict[str, Any]]:
    """Items of a local static catalog, with hrefs that a `stac_api` of its folder serves."""
    items = []
    for path in sorted(catalog.parent.rglob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.get("type") != "Feature":
            continue
        for asset in document["assets"].values():
            asset["href"] = assets + str((path.parent / asset["href"]).resolve().relative_to(catalog.parent.resolve()))
        items.append({**document, "links": []})
    return items


@attr.s(auto_attribs=True)
class _MemoryClient(BaseCoreClient):
    items: list[dict[str, Any]] = attr.Factory(list)
    behaviour: Behaviour = attr.Factory(Behaviour)

    def post_search(self, search_request: Any, **kwargs: Any) -> Any:
        return self._page(
            kwargs["request"],
            collections=search_request.collections,
            bbox=search_request.bbox,
            interval=(search_request.start_date, search_request.end_date),
            limit=search_request.limit or 10,
            token=search_request.token,
        )

    def get_search(self, collections: Any = None, bbox: Any = None, datetime: Any = None, **kwargs: Any) -> Any:
        interval = datetime if isinstance(datetime, tuple) else _interval(datetime)
        return self._page(
            kwargs["request"],
            collections=collections,
            bbox=bbox,
            interval=interval,
            limit=kwargs.get("limit") or 10,
            token=kwargs.get("token"),
        )

    def _page(self, request: Request, *, collections: Any, bbox: Any, interval: Any, limit: int, token: Any) -> Any:
        how = self.behaviour
        matches = [i for i in self.items if how.ignore_filters or _matches(i, collections, bbox, interval)]
        start = min(int((token or "0").split(".")[0]), max(len(matches) - 1, 0))
        page = copy.deepcopy(matches[start : start + limit])
        following = start + limit - (1 if how.repeat else 0)
        base = get_base_url(request)
        for item in page:
            for asset in item["assets"].values():
                if asset["href"].startswith("/assets/"):
                    asset["href"] = base.rstrip("/") + asset["href"]
        links = []
        if start + limit < len(matches):
            links = [self._next(request, base, str(following))]
        elif how.loop:
            links = [self._next(request, base, "0")]
        elif how.endless:
            links = [self._next(request, base, f"{start}.{time.monotonic_ns()}")]
        matched = {} if how.matched is None else {"numberMatched": how.matched}
        return {"type": "FeatureCollection", "features": page, "links": links, **matched}

    def _next(self, request: Request, base: str, token: str) -> dict[str, Any]:
        href = f"{base.rstrip('/')}/search"
        if request.method == "POST":
            return {"rel": "next", "href": href, "method": "POST", "merge": True, "body": {"token": token}}
        return {"rel": "next", "href": str(request.url.include_query_params(token=token)), "method": "GET"}

    def get_item(self, item_id: str, collection_id: str, **kwargs: Any) -> Any:
        return next(i for i in self.items if (i["id"], i["collection"]) == (item_id, collection_id))

    def all_collections(self, **kwargs: Any) -> Any:
        names = sorted({item["collection"] for item in self.items})
        return {"collections": [self.get_collection(name) for name in names], "links": []}

    def get_collection(self, collection_id: str, **kwargs: Any) -> Any:
        extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
        return {
            "type": "Collection",
            "id": collection_id,
            "stac_version": "1.1.0",
            "description": collection_id,
            "license": "other",
            "extent": extent,
            "links": [],
        }

    def item_collection(self, collection_id: str, **kwargs: Any) -> Any:
        members = [i for i in self.items if i["collection"] == collection_id]
        return {"type": "FeatureCollection", "features": members, "links": []}


def _app(items: list[dict[str, Any]], behaviour: Behaviour, assets: Path | None) -> FastAPI:
    extensions = [TokenPaginationExtension()]
    api = StacApi(
        settings=ApiSettings(),
        client=_MemoryClient(extensions=extensions, items=items, behaviour=behaviour),
        extensions=extensions,
        middlewares=[],
        search_get_request_model=create_get_request_model(extensions),
        search_post_request_model=create_post_request_model(extensions),
    )
    if assets is not None:
        api.app.mount("/assets", StaticFiles(directory=assets), name="assets")
    api.app.middleware("http")(_misbehave(behaviour))
    return api.app


def _misbehave(behaviour: Behaviour) -> Any:
    async def middleware(request: Request, call_next: Any) -> Response:
        body = await request.body()
        asked = json.loads(body) if body else dict(request.query_params)
        behaviour.requests.append((request.method, request.url.path, asked))
        if behaviour.faults and behaviour.faults[0].path == request.url.path:
            fault = behaviour.faults.popleft()
            return Response(fault.body, status_code=fault.status, headers=dict(fault.headers))
        too_large = behaviour.largest_page is not None and int(asked.get("limit", 0)) > behaviour.largest_page
        if request.url.path == "/search" and too_large:
            return Response("upstream timed out", status_code=504)
        response = await call_next(request)
        if request.url.path == "/" and not behaviour.post:
            page = json.loads(b"".join([chunk async for chunk in response.body_iterator]))
            page["links"] = [link for link in page["links"] if link.get("method") != "POST"]
            return Response(json.dumps(page), media_type="application/json")
        return response

    return middleware


def _interval(text: str | None) -> tuple[datetime | None, datetime | None]:
    if text is None:
        return None, None
    sides = [None if side in ("", "..") else datetime.fromisoformat(side) for side in text.split("/")]
    return sides[0], sides[-1]


def _matches(item: dict[str, Any], collections: Any, bbox: Sequence[float] | None, interval: Any) -> bool:
    if collections and item["collection"] not in collections:
        return False
    moment = datetime.fromisoformat(item["properties"]["datetime"])
    begin, end = interval
    if (begin is not None and moment < begin) or (end is not None and moment > end):
        return False
    return bbox is None or shapely.from_geojson(json.dumps(item["geometry"])).intersects(shapely.box(*bbox))
