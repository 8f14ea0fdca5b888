"""Searching a real STAC API over HTTP, also when it misbehaves."""

from __future__ import annotations

import time
from collections import deque

import pytest
from support.stac_api import HTML, Behaviour, Fault, stac_api
from support.stac_items import item, monitor

from think2seg.config import load_archive
from think2seg.config.archive import HrefRules
from think2seg.errors import CatalogError
from think2seg.stac.search import SearchResult, search
from think2seg.stac.transport import Patience

QUICK = Patience(retries=3, backoff_s=0.0, timeout_s=10)
ARCHIVE = load_archive("naip-local")
SERIES = [item(f"scene-{n:03d}", f"2020-{1 + n // 28:02d}-{1 + n % 28:02d}T10:00:00Z") for n in range(230)]


def ids(result: SearchResult) -> list[str]:
    return [scene.id for acquisition in result.acquisitions for scene in acquisition.scenes]


def names(items: list[dict[str, object]]) -> list[str]:
    return [str(document["id"]) for document in items]


@pytest.mark.parametrize("post", [True, False], ids=["POST", "GET"])
def test_every_page_is_read(post: bool) -> None:
    with stac_api(SERIES, behaviour=Behaviour(post=post, matched=3)) as api:
        result = search(monitor(api.url), ARCHIVE, patience=QUICK)
        assert ids(result) == names(SERIES)
        assert len(api.searches()) == 3
        assert {method for method, path, _ in api.behaviour.requests if path == "/search"} == {
            "POST" if post else "GET"
        }
    assert result.notes == ()
    assert result.dropped == {}


def test_interval_region_and_collection_reach_the_server() -> None:
    with stac_api(SERIES) as api:
        result = search(monitor(api.url, datetime="2020-03-01/2020-03-02"), ARCHIVE, patience=QUICK)
        (body,) = api.searches()
    assert [f"{a.time:%Y-%m-%d}" for a in result.acquisitions] == ["2020-03-01", "2020-03-02"]
    assert body["collections"] == ["naip"]
    assert body["bbox"] == [10.0, 50.0, 10.1, 50.1]
    assert body["datetime"] == "2020-03-01T00:00:00Z/2020-03-02T23:59:59.999999Z"
    assert body["limit"] == 100


def test_a_server_that_ignores_filters_is_filtered_here() -> None:
    strangers = [
        item("far", bbox=(0, 0, 1, 1)),
        item("beside", bbox=(10.1, 50.0, 10.2, 50.1)),
        item("old", "2019-12-31T23:59:59Z"),
        item("other", collection="other"),
    ]
    with stac_api([*SERIES[:3], *strangers], behaviour=Behaviour(ignore_filters=True)) as api:
        result = search(monitor(api.url), ARCHIVE, patience=QUICK)
    assert ids(result) == names(SERIES[:3])
    assert result.dropped == {"region": 2, "time": 1, "collection": 1}


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_passing_trouble_is_waited_out(status: int) -> None:
    faults = deque([Fault(status=status), Fault(status=status)])
    with stac_api(SERIES[:3], behaviour=Behaviour(faults=faults)) as api:
        assert ids(search(monitor(api.url), ARCHIVE, patience=QUICK)) == names(SERIES[:3])
        assert len(api.searches()) == 3


def test_retry_after_is_respected() -> None:
    faults = deque([Fault(status=429, headers=(("Retry-After", "1"),))])
    with stac_api(SERIES[:1], behaviour=Behaviour(faults=faults)) as api:
        begin = time.monotonic()
        search(monitor(api.url), ARCHIVE, patience=QUICK)
    assert time.monotonic() - begin >= 1


@pytest.mark.parametrize(("status", "advice"), [(503, "run again"), (403, "credentials"), (404, "source.catalog")])
def test_lasting_trouble_is_told(status: int, advice: str) -> None:
    faults = deque([Fault(status=status, body=HTML)] * 10)
    with stac_api(SERIES, behaviour=Behaviour(faults=faults)) as api, pytest.raises(CatalogError) as caught:
        search(monitor(api.url), ARCHIVE, patience=QUICK)
    assert f"HTTP {status}" in str(caught.value)
    assert advice in str(caught.value)
    assert caught.value.exit_code == 2


def test_pages_that_are_too_large_are_halved() -> None:
    with stac_api(SERIES, behaviour=Behaviour(largest_page=30)) as api:
        result = search(monitor(api.url), ARCHIVE, patience=QUICK)
        limits = [body["limit"] for body in api.searches()]
    assert ids(result) == names(SERIES)
    assert sorted(set(limits)) == [25, 50, 100]
    assert "25 items" in result.notes[-1]


def test_trouble_in_the_middle_loses_and_repeats_nothing() -> None:
    faults = deque[Fault]()
    behaviour = Behaviour(faults=faults)
    with stac_api(SERIES, behaviour=behaviour) as api:
        patient = Patience(retries=0, backoff_s=0, timeout_s=10)
        whole = search(monitor(api.url), ARCHIVE, patience=patient)
        behaviour.requests.clear()

        class SecondPage(deque[Fault]):
            def __bool__(self) -> bool:
                return len(self) > 0 and len(api.searches()) == 2

        behaviour.faults = SecondPage([Fault(status=504)])
        assert search(monitor(api.url), ARCHIVE, patience=patient).acquisitions == whole.acquisitions


@pytest.mark.parametrize("behaviour", [Behaviour(loop=True), Behaviour(repeat=True)], ids=["loop", "repeat"])
def test_looping_links_and_repeated_items_come_to_an_end(behaviour: Behaviour) -> None:
    with stac_api(SERIES, behaviour=behaviour) as api:
        result = search(monitor(api.url), ARCHIVE, patience=QUICK)
    assert ids(result) == names(SERIES)
    assert [note for note in result.notes if "loop" in note] == list(result.notes)
    assert bool(result.notes) == behaviour.loop


def test_endless_pages_are_refused() -> None:
    with stac_api(SERIES[:5], behaviour=Behaviour(endless=True)) as api, pytest.raises(CatalogError, match="in a row"):
        search(monitor(api.url), ARCHIVE, patience=QUICK)


@pytest.mark.parametrize(
    ("body", "said"),
    [(HTML, "is an HTML page"), ("{", "is not JSON"), ("[]", "list"), ('{"type": "Nonsense"}', "no list of features")],
)
def test_a_page_that_is_garbage_is_told(body: str, said: str) -> None:
    faults = deque([Fault(status=200, body=body)])
    with stac_api(SERIES, behaviour=Behaviour(faults=faults)) as api, pytest.raises(CatalogError, match=said):
        search(monitor(api.url), ARCHIVE, patience=QUICK)


def test_a_catalog_that_is_html_is_told() -> None:
    faults = deque([Fault(status=200, body=HTML, path="/")])
    with stac_api(SERIES, behaviour=Behaviour(faults=faults)) as api, pytest.raises(CatalogError) as caught:
        search(monitor(api.url), ARCHIVE, patience=QUICK)
    assert "an HTML page" in str(caught.value)
    assert "login page" in str(caught.value)


def test_a_catalog_that_cannot_be_reached_is_told() -> None:
    with pytest.raises(CatalogError, match="cannot be reached"):
        search(monitor("http://127.0.0.1:9/v1"), ARCHIVE, patience=Patience(retries=0, backoff_s=0, timeout_s=2))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"datetime": "1999-01-01/1999-12-31"}, ["outside the interval 1999", "2020-01-01 to"]),
        ({"bbox": (-60, 0, -59, 1)}, ["outside the region (-60.0", "(10.0000, 50.0000"]),
        ({"collections": ["naop"]}, ["no collection naop", "Did you mean 'naip'?"]),
        ({"query": {"gsd": {"lt": 1}}}, ["`source.query`"]),
    ],
)
def test_an_empty_search_names_the_filter_that_removed_the_last_item(
    source: dict[str, object], said: list[str]
) -> None:
    with stac_api(SERIES) as api, pytest.raises(CatalogError) as caught:
        search(monitor(api.url, **source), ARCHIVE, patience=QUICK)
    for part in said:
        assert part in str(caught.value)


def test_a_region_across_the_antimeridian_is_searched_on_both_sides() -> None:
    west, east = item("west", bbox=(179.2, -17, 179.9, -16)), item("east", bbox=(-179.9, -17, -179.2, -16))
    across = item("across", bbox=(179.5, -17, 180.5, -16))
    elsewhere = item("elsewhere", bbox=(0, -17, 1, -16))
    with stac_api([west, east, across, elsewhere]) as api:
        result = search(monitor(api.url, bbox=(179, -18, -179, -15)), ARCHIVE, patience=QUICK)
        boxes = [body["bbox"] for body in api.searches()]
    assert sorted(boxes) == [[-180.0, -18.0, -179.0, -15.0], [179.0, -18.0, 180.0, -15.0]]
    assert sorted(ids(result)) == ["across", "east", "west"]


def test_hostile_links_of_a_page_are_not_followed() -> None:
    page = '{"type": "FeatureCollection", "features": [], "links": [{"rel": "next", "href": "file:///etc/passwd"}]}'
    behaviour = Behaviour(faults=deque([Fault(status=200, body=page)]))
    with stac_api(SERIES, behaviour=behaviour) as api, pytest.raises(CatalogError, match="outside its own root"):
        search(monitor(api.url), ARCHIVE, patience=QUICK)


def test_hostile_items_are_left_out_and_told() -> None:
    hrefs = {
        "file": "file:///etc/passwd",
        "bucket": "s3://bucket/secret.tif",
        "metadata": "http://169.254.169.254/latest/meta-data?token=secret",
        "driver": "GTIFF_DIR://1:/etc/passwd",
    }
    bad = [item(name, href=href) for name, href in hrefs.items()]
    with stac_api([item("good"), item("path", href="/etc/passwd"), *bad]) as api:
        result = search(monitor(api.url), ARCHIVE, patience=QUICK)
        ((good, path),) = [acquisition.scenes for acquisition in result.acquisitions]
        assert f'"href":"{api.url}/etc/passwd"' in path.item, "a path of a web page is a path of its host"
    assert good.id == "good"
    assert result.dropped == {"hrefs": 4}
    assert any("169.254.169.254" in note for note in result.notes)
    assert not any("secret\x27" in note or "token" in note for note in result.notes)


def test_a_catalog_of_nothing_but_hostile_items_is_refused() -> None:
    bad = item("bad", href="https://else.where/x.tif")
    archive = ARCHIVE.model_copy(update={"hrefs": HrefRules(roots=("https://here.example/",))})
    with stac_api([bad]) as api, pytest.raises(CatalogError) as caught:
        search(monitor(api.url), archive, patience=QUICK)
    assert "https://else.where/x.tif" in str(caught.value)
    assert "https://here.example/" in str(caught.value)


def test_assets_beside_the_api_are_allowed() -> None:
    with stac_api([item("one", href="/assets/a/b.tif")]) as api:
        (acquisition,) = search(monitor(api.url), ARCHIVE, patience=QUICK).acquisitions
    assert f'"href":"{api.url}/assets/a/b.tif"' in acquisition.scenes[0].item
