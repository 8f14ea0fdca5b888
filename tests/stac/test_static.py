"""Static catalogs: walked, filtered and kept inside their own root."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from support.stac_items import item, monitor, write_catalog

from think2seg.config import load_archive, load_monitor
from think2seg.errors import CatalogError, ConfigError
from think2seg.stac.search import catalog_href, search

ARCHIVE = load_archive("naip-local")
ITEMS = [
    item("june", "2020-06-01T10:00:00Z", href="june.tif", eo__cloud_cover=90),
    item("july", "2020-07-01T10:00:00Z", href="july.tif", eo__cloud_cover=1),
    item("past", "2019-07-01T10:00:00Z", href="past.tif"),
    item("far", "2020-07-01T10:00:00Z", href="far.tif", bbox=(0, 0, 1, 1)),
    item("other", "2020-07-01T10:00:00Z", href="other.tif", collection="other"),
]


def scene_ids(catalog: str | Path, **source: object) -> list[str]:
    return [s.id for a in search(monitor(catalog, **source), ARCHIVE).acquisitions for s in a.scenes]


def test_a_tree_is_walked_and_filtered(tmp_path: Path) -> None:
    result = search(monitor(write_catalog(tmp_path, ITEMS)), ARCHIVE)
    assert [a.id for a in result.acquisitions] == ["20200601", "20200701"]
    assert result.dropped == {"time": 1, "region": 1}
    (scene,) = result.acquisitions[0].scenes
    assert scene.cloud_cover == 90, "clouds are the plan's business"
    assert json.loads(scene.item)["assets"]["image"]["href"] == str(tmp_path / "naip" / "june.tif")


def test_a_folder_a_collection_an_item_collection_and_an_item_are_catalogs_too(tmp_path: Path) -> None:
    write_catalog(tmp_path, ITEMS)
    (tmp_path / "all.json").write_text(json.dumps({"type": "FeatureCollection", "features": ITEMS}))
    for name in ("", "naip/collection.json", "all.json"):
        assert scene_ids(tmp_path / name) == ["june", "july"]
    assert scene_ids(tmp_path / "naip" / "june.json") == ["june"]


def test_a_query_on_properties(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path, ITEMS)
    assert scene_ids(catalog, query={"eo:cloud_cover": {"lte": 50}}) == ["july"]
    assert scene_ids(catalog, query={"eo:cloud_cover": {"gt": 50, "lt": 95}}) == ["june"]
    assert scene_ids(catalog, query={"eo:cloud_cover": {"in": [1, 2]}}) == ["july"]
    assert scene_ids(catalog, query={"platform": {"neq": "x"}}) == ["june", "july"]


def test_a_tree_over_http(tmp_path: Path) -> None:
    write_catalog(tmp_path, ITEMS)
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/catalog.json"
        (june, _) = search(monitor(url), ARCHIVE).acquisitions
        server.shutdown()
    assert f'"href":"{url.removesuffix("catalog.json")}naip/june.tif"' in june.scenes[0].item


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


def test_trees_that_bite_their_tail_end(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path, ITEMS[:1])
    document = json.loads(catalog.read_text())
    document["links"].append({"rel": "child", "href": "./catalog.json"})
    catalog.write_text(json.dumps(document))
    assert scene_ids(catalog) == ["june"]


@pytest.mark.parametrize("href", ["../outside.json", "/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:9/x.json"])
def test_links_that_lead_out_of_the_root_are_refused(tmp_path: Path, href: str) -> None:
    (tmp_path / "outside.json").write_text(json.dumps(item("outside")))
    catalog = write_catalog(tmp_path / "in", ITEMS[:1])
    document = json.loads(catalog.read_text())
    document["links"].append({"rel": "item", "href": href})
    catalog.write_text(json.dumps(document))
    with pytest.raises(CatalogError, match="outside its own root"):
        scene_ids(catalog)


@pytest.mark.parametrize("href", ["../../outside.tif", "/etc/passwd", "/vsicurl/http://x/y.tif", "http://host/x.tif"])
def test_assets_outside_the_root_are_left_out(tmp_path: Path, href: str) -> None:
    catalog = write_catalog(tmp_path / "in", [item("bad", href=href), ITEMS[0]])
    result = search(monitor(catalog), ARCHIVE)
    assert [s.id for a in result.acquisitions for s in a.scenes] == ["june"]
    assert result.dropped["hrefs"] == 1


def test_a_link_to_the_outside_by_symlink_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "secret.tif").write_bytes(b"secret")
    catalog = write_catalog(tmp_path / "in", [item("bad", href="link.tif"), ITEMS[0]])
    (tmp_path / "in" / "naip" / "link.tif").symlink_to(tmp_path / "secret.tif")
    assert search(monitor(catalog), ARCHIVE).dropped["hrefs"] == 1


def test_items_that_make_no_sense_are_left_out_and_told(tmp_path: Path) -> None:
    bare = item("bare")
    bare["geometry"] = None
    undated = item("undated")
    undated["properties"] = {"datetime": None}
    nowhere = {**item("nowhere"), "geometry": None, "bbox": None}
    broken = {**item("broken"), "assets": "none"}
    ranged = item("ranged")
    ranged["properties"] = {"datetime": None, "start_datetime": "2020-06-02T10:00:00Z"}
    swapped = {**item("swapped"), "geometry": None, "bbox": [10.0, 50.1, 10.1, 50.0]}
    catalog = write_catalog(tmp_path, [bare, undated, nowhere, broken, ranged, swapped])
    (tmp_path / "naip" / "nowhere.json").write_text(json.dumps(nowhere))
    result = search(monitor(catalog), ARCHIVE)
    assert sorted(s.id for a in result.acquisitions for s in a.scenes) == ["bare", "ranged", "swapped"]
    assert result.dropped == {"malformed": 3}
    assert any("'undated' has no datetime" in note for note in result.notes)


def test_an_item_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path, ITEMS[:2])
    (tmp_path / "naip" / "july.json").unlink()
    result = search(monitor(catalog), ARCHIVE)
    assert [a.id for a in result.acquisitions] == ["20200601"]
    assert "july.json" in result.notes[0]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"datetime": "1999-01-01/1999-12-31"}, "Those seen are of 2019-07-01 to 2020-07-01"),
        ({"bbox": (-60, 0, -59, 1)}, "Those seen cover (0.0000, 0.0000, 10.1000, 50.1000)"),
        ({"collections": ["nape"]}, "Did you mean 'naip'?"),
        ({"query": {"eo:cloud_cover": {"gt": 99}}}, "`source.query`"),
    ],
)
def test_an_empty_search_names_the_filter_that_removed_the_last_item(
    tmp_path: Path, source: dict[str, object], said: str
) -> None:
    with pytest.raises(CatalogError) as caught:
        search(monitor(write_catalog(tmp_path, ITEMS), **source), ARCHIVE)
    assert said in str(caught.value)


def test_a_catalog_that_is_no_catalog_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="cannot be read"):
        scene_ids(tmp_path / "missing.json")
    (tmp_path / "page.json").write_text("<html></html>")
    with pytest.raises(CatalogError, match="an HTML page"):
        scene_ids(tmp_path / "page.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(CatalogError, match="no STAC catalog"):
        scene_ids(tmp_path / "other.json")


def test_a_monitor_without_a_catalog_needs_an_endpoint() -> None:
    pathless = monitor("x").model_copy(update={"source": monitor("x").source.model_copy(update={"catalog": None})})
    with pytest.raises(ConfigError, match=r"source\.catalog is missing"):
        catalog_href(pathless, ARCHIVE)
    earth_search = load_archive("earth-search-sentinel-2")
    assert catalog_href(pathless, earth_search) == earth_search.endpoint


def test_since_and_until_narrow_the_interval(tmp_path: Path) -> None:
    one = monitor(write_catalog(tmp_path, ITEMS))
    begin, end = one.source.interval
    assert begin is not None
    assert end is not None
    middle = datetime(2020, 6, 15, tzinfo=UTC)
    assert [a.id for a in search(one, ARCHIVE, since=middle).acquisitions] == ["20200701"]
    result = search(one, ARCHIVE, until=middle)
    assert [a.id for a in result.acquisitions] == ["20200601"]
    assert result.interval == (begin, middle)


@pytest.mark.parametrize(("name", "count"), [("nd-wetlands", 10), ("carpathian-clearings", 23)])
def test_the_embedded_samples_are_catalogs_like_any_other(name: str, count: int) -> None:
    one = load_monitor(name)
    archive = load_archive(one.source.archive)
    result = search(one, archive)
    scenes = [scene for acquisition in result.acquisitions for scene in acquisition.scenes]
    assert len(result.acquisitions) == len(scenes) == count
    assert all(scene.bands == set(archive.bands) for scene in scenes)
    assert {scene.crs for scene in scenes} == {one.grid.crs}
    assert result.notes == ()
    assert len({scene.fingerprint for scene in scenes}) == count
