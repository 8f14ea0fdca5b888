"""Catalogs that lie: what is refused, what is handled, and that both come to an end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from support.stac_api import Behaviour, stac_api
from support.stac_items import item, monitor

import think2seg.stac.transport
from think2seg.config import load_archive
from think2seg.errors import CatalogError
from think2seg.stac.scenes import Scene
from think2seg.stac.search import SearchResult, search
from think2seg.stac.transport import Patience, Transport

QUICK = Patience(retries=0, backoff_s=0.0, timeout_s=0.5)
ARCHIVE = load_archive("naip-local")


def found(*documents: dict[str, Any], **how: Any) -> SearchResult:
    with stac_api(documents, behaviour=Behaviour(**how)) as api:
        return search(monitor(api.url), ARCHIVE, patience=Patience(retries=0, backoff_s=0, timeout_s=10))


def scenes(*documents: dict[str, Any], **how: Any) -> list[Scene]:
    return [scene for acquisition in found(*documents, **how).acquisitions for scene in acquisition.scenes]


def checked(checksum: str) -> dict[str, Any]:
    return {"image": {"href": "a.tif", "file:checksum": checksum}}


def test_an_item_overwritten_in_place_is_another_scene() -> None:
    (before,) = scenes(item("a", assets=checked("1220aa")))
    (after,) = scenes(item("a", assets=checked("1220bb")))
    assert before.id == after.id
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize("updated", ["2021-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "yesterday", 7])
def test_an_update_that_goes_backwards_bills_nothing_again(updated: Any) -> None:
    (before,) = scenes(item("a", assets=checked("1220aa"), updated="2020-07-01T00:00:00Z"))
    (after,) = scenes(item("a", assets=checked("1220aa"), updated=updated))
    assert before.fingerprint == after.fingerprint


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"proj__code": "EPSG:32767"}, "proj:code 'EPSG:32767', which is no CRS"),
        ({"proj__code": "EPSG:5773"}, "proj:code 'EPSG:5773', which is no CRS"),
        ({"proj__epsg": 10**12}, "proj:epsg '1000000000000', which is no CRS"),
        ({"proj__wkt2": "PROJCRS[]"}, "proj:wkt2 'PROJCRS[]', which is no CRS"),
        ({"datetime": "9999-12-31T23:59:59-10:00"}, "no datetime that makes sense"),
        ({"datetime": "0001-01-01T00:00:00Z"}, "no datetime that makes sense"),
    ],
)
def test_an_item_whose_place_or_time_makes_no_sense_is_left_out_alone(said: dict[str, Any], told: str) -> None:
    result = found(item("good"), item("bad") | {"properties": item("bad", **said)["properties"]}, ignore_filters=True)
    assert [scene.id for acquisition in result.acquisitions for scene in acquisition.scenes] == ["good"]
    assert any(note.startswith("Left out: The item 'bad' has ") and told in note for note in result.notes)


def test_an_update_beyond_the_calendar_is_none() -> None:
    assert scenes(item("a", updated="0001-01-01T00:00:00+01:00"))[0].updated is None


def test_one_id_on_two_pages_with_two_contents_is_used_once() -> None:
    first, again = item("a", assets=checked("1220aa")), item("a", assets=checked("1220bb"))
    others = [item(f"b{number}", f"2020-03-{1 + number % 28:02d}T10:00:00Z") for number in range(120)]
    kept = scenes(first, *others, again)
    assert [scene.id for scene in kept].count("a") == 1
    assert next(s for s in kept if s.id == "a").fingerprint == scenes(first)[0].fingerprint


@pytest.mark.parametrize("matched", [0, 1, -5, 10**12])
def test_a_wrong_number_of_matches_changes_nothing(matched: int) -> None:
    assert len(scenes(*(item(f"a{n}", f"2020-03-{n + 1:02d}T10:00:00Z") for n in range(5)), matched=matched)) == 5


def test_links_in_a_loop_with_repeated_items_end() -> None:
    many = [item(f"a{n}", f"2020-{1 + n // 28:02d}-{1 + n % 28:02d}T10:00:00Z") for n in range(205)]
    result = found(*many, loop=True)
    assert sum(len(acquisition.scenes) for acquisition in result.acquisitions) == 205
    assert any("loop" in note for note in result.notes)


def test_without_a_geometry_the_box_counts_and_without_both_the_item_is_left_out() -> None:
    with_box, with_nothing = item("box"), item("nothing")
    with_box["geometry"] = with_nothing["geometry"] = None
    del with_nothing["bbox"]
    result = found(item("good"), with_box, with_nothing, ignore_filters=True)
    assert sorted(s.id for a in result.acquisitions for s in a.scenes) == ["box", "good"]
    assert result.dropped["malformed"] == 1
    assert any("'nothing'" in note for note in result.notes)


@pytest.mark.parametrize(
    ("bbox", "kept"),
    [
        ([10.0, 50.1, 10.1, 50.0], True),
        ([50.0, 10.0, 50.1, 10.1], False),
        ([0, 95, 1, 96], False),
        ([10.0, 50.0], False),
        ([float("1e999"), 0, 1, 1], False),
    ],
    ids=["south above north", "latitude first", "beyond the pole", "too short", "infinite"],
)
def test_swapped_and_broken_boxes(bbox: list[float], kept: bool) -> None:
    from think2seg.stac.footprints import item_footprint

    region = monitor("none").geometry
    try:
        footprint = item_footprint("a", None, bbox).geometry
    except CatalogError:
        assert not kept
    else:
        assert bool(region.intersects(footprint)) == kept


@contextmanager
def liar(headers: dict[str, str], *, pieces: int, pause_s: float = 0.0) -> Iterator[str]:
    """A server whose only answer is `pieces` of 64 KiB under the given headers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for _ in range(pieces):
                    self.wfile.write(b" " * 65536)
                    time.sleep(pause_s)
            except OSError:
                return

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/catalog.json"
        server.shutdown()


def test_an_answer_of_a_terabyte_is_refused_before_it_is_read() -> None:
    with liar({"Content-Length": str(10**12)}, pieces=1) as url, pytest.raises(CatalogError, match="1,000,000,000,000"):
        Transport(QUICK).read(url)


def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(think2seg.stac.transport, "MAX_DOCUMENT_BYTES", 2**21)
    with liar({}, pieces=10_000) as url, pytest.raises(CatalogError, match="does not end"):
        Transport(QUICK).read(url)


def test_an_answer_that_trickles_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(think2seg.stac.transport, "_PIECE_BYTES", 2**16)
    with liar({}, pieces=10_000, pause_s=0.05) as url, pytest.raises(CatalogError, match="does not end"):
        Transport(Patience(retries=0, backoff_s=0, timeout_s=0.1)).read(url)
