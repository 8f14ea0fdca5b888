"""STAC items and monitors for tests, made from a few words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import shapely

from think2seg.config import Monitor
from think2seg.config.documents import Document, validate

REGION = (10.0, 50.0, 10.1, 50.1)


def item(
    name: str,
    when: str = "2020-06-01T10:00:00Z",
    *,
    bbox: Sequence[float] = REGION,
    collection: str = "naip",
    href: str = "none.tif",
    assets: dict[str, Any] | None = None,
    **properties: Any,
) -> dict[str, Any]:
    """A STAC item; keywords are properties, with ``__`` for the colon (``eo__cloud_cover``)."""
    bands = [{"name": band} for band in ("red", "green", "blue", "nir08")]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"],
        "id": name,
        "collection": collection,
        "geometry": json.loads(shapely.to_geojson(shapely.box(*bbox))),
        "bbox": list(bbox),
        "properties": {"datetime": when, **{key.replace("__", ":"): value for key, value in properties.items()}},
        "links": [],
        "assets": assets if assets is not None else {"image": {"href": href, "eo:bands": bands}},
    }


def monitor(catalog: str | Path, **source: Any) -> Monitor:
    """A monitor of `REGION` over a catalog; keywords are fields of its source, and ``bbox``."""
    region = {"kind": "bbox", "bbox": list(source.pop("bbox", REGION))}
    data = {
        "monitor": "test",
        "question": "water",
        "region": region,
        "source": {"archive": "naip-local", "catalog": str(catalog), "datetime": "2020-01-01/2020-12-31", **source},
        "cube": {"uri": "cube.zarr"},
    }
    return validate(Document(source="test.yaml", data=data), Monitor)


def write_catalog(folder: Path, items: Sequence[dict[str, Any]]) -> Path:
    """Write a static catalog: root, one collection per name, one file per item."""
    collections: dict[str, list[str]] = {}
    for document in items:
        collections.setdefault(document["collection"], []).append(document["id"])
        path = folder / document["collection"] / f"{document['id']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
    for name, members in collections.items():
        links = [{"rel": "item", "href": f"./{member}.json"} for member in members]
        links.append({"rel": "root", "href": "../catalog.json"})
        _write(folder / name / "collection.json", {"type": "Collection", "id": name, "links": links})
    children = [{"rel": "child", "href": f"./{name}/collection.json"} for name in collections]
    return _write(folder / "catalog.json", {"type": "Catalog", "id": "test", "links": children})


def _write(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"stac_version": "1.0.0", "description": "test", **document}))
    return path
