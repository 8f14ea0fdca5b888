"""What odc-stac is told, what numbers mean, and how hrefs are signed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from support.stac_items import item

from think2seg.config import Archive, MetadataScaling, Sentinel2Scaling, load_archive
from think2seg.config.archive import HrefRules
from think2seg.errors import ImageryError
from think2seg.stac.hrefs import HrefGuard
from think2seg.stac.items import Item, scene_of
from think2seg.stac.loading import scale_offset, stac_cfg
from think2seg.stac.scenes import Scene
from think2seg.stac.signing import TokenSigner, patch_url

SENTINEL = load_archive("sentinel2-local").model_copy(
    update={"scaling": Sentinel2Scaling(applied_property="x:applied")}
)


def scene(archive: Archive, assets: dict[str, Any], when: str = "2022-06-01T10:00:00Z", **properties: Any) -> Scene:
    document = item("a", when, assets=assets, **properties)
    any_href = HrefGuard(catalog="https://here.example/", rules=HrefRules())
    return scene_of(Item(document, "https://here.example/a.json"), archive, any_href)


@pytest.mark.parametrize(
    ("when", "properties", "offset"),
    [
        ("2022-06-01T10:00:00Z", {"s2__processing_baseline": "04.00"}, -0.1),
        ("2018-06-01T10:00:00Z", {"s2__processing_baseline": "05.00"}, -0.1),
        ("2022-06-01T10:00:00Z", {"s2__processing_baseline": "03.01"}, 0.0),
        ("2022-06-01T10:00:00Z", {"s2__processing_baseline": "05.11", "x__applied": True}, 0.0),
        ("2022-06-01T10:00:00Z", {"s2__processing_baseline": "05.11", "x__applied": False}, -0.1),
        ("2022-01-24T23:59:59Z", {}, 0.0),
        ("2022-01-25T00:00:00Z", {}, -0.1),
    ],
)
def test_the_offset_of_newer_sentinel_2_baselines(when: str, properties: dict[str, Any], offset: float) -> None:
    one = scene(SENTINEL, {"red": {"href": "r.tif"}, "scl": {"href": "s.tif"}}, when, **properties)
    assert scale_offset(one, "red", SENTINEL) == pytest.approx((0.0001, offset))
    assert scale_offset(one, "scl", SENTINEL) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("asset", "expected"),
    [
        ({"raster:bands": [{"scale": 2.0, "offset": -1.0}]}, (2.0, -1.0)),
        ({"raster:bands": [{"scale": 2.0}]}, (2.0, -0.2)),
        ({"bands": [{"name": "red", "raster:scale": 3.0, "raster:offset": 1.0}]}, (3.0, 1.0)),
        ({"raster:scale": 4.0, "raster:offset": 2.0}, (4.0, 2.0)),
        ({"raster:scale": 4.0, "raster:offset": 2.0, "bands": [{"name": "red"}]}, (4.0, 2.0)),
        ({}, (0.5, -0.2)),
        ({"raster:bands": [{"scale": "two", "offset": None}]}, (0.5, -0.2)),
    ],
)
def test_scale_and_offset_of_every_way_to_write_them(asset: dict[str, Any], expected: tuple[float, float]) -> None:
    archive = SENTINEL.model_copy(update={"scaling": MetadataScaling(scale=0.5, offset=-0.2)})
    assert scale_offset(scene(archive, {"red": {"href": "r.tif", **asset}}), "red", archive) == pytest.approx(expected)


def test_every_band_of_a_shared_asset_has_its_own_scale() -> None:
    naip = load_archive("naip-local").model_copy(update={"scaling": MetadataScaling(scale=1, offset=0)})
    bands = [{"scale": float(n), "offset": 0.0} for n in range(1, 5)]
    one = scene(naip, {"image": {"href": "i.tif", "raster:bands": bands}})
    assert [scale_offset(one, band, naip)[0] for band in ("red", "green", "blue", "nir08")] == [1, 2, 3, 4]


def test_odc_stac_is_told_types_nodata_and_names() -> None:
    assert stac_cfg(load_archive("naip-local"))["*"] == {
        "assets": {"image.*": {"data_type": "uint8", "nodata": 0}},
        "aliases": {name: ("image", n) for n, name in enumerate(("red", "green", "blue", "nir08"), start=1)},
        "warnings": "ignore",
    }
    assert stac_cfg(load_archive("planetary-computer-landsat"))["*"]["assets"]["qa_pixel"] == {
        "data_type": "uint16",
        "nodata": 1,
    }


class TokenServer(BaseHTTPRequestHandler):
    lifetime = timedelta(hours=1)
    status = 200
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        expiry = (datetime.now(UTC) + self.lifetime).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = json.dumps({"token": f"sig=secret{len(self.asked)}", "msft:expiry": expiry}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def token_server(**how: Any) -> Iterator[tuple[str, list[str]]]:
    handler = type("Handler", (TokenServer,), {"asked": [], **how})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/token", handler.asked
        server.shutdown()


BLOB = "https://account.blob.core.windows.net/container/a/b.tif"


def test_one_token_serves_a_container(caplog: pytest.LogCaptureFixture) -> None:
    with token_server() as (url, asked), caplog.at_level(logging.DEBUG):
        sign = TokenSigner(url)
        assert sign(BLOB) == f"{BLOB}?sig=secret1"
        assert sign(f"{BLOB}?sig=old") == f"{BLOB}?sig=secret1"
        assert sign(BLOB.replace("/container/", "/other/")).endswith("?sig=secret2")
        assert asked == ["/token/account/container", "/token/account/other"]
    assert "secret" not in caplog.text
    assert "secret" not in repr(sign)


def test_a_token_is_renewed_before_it_expires() -> None:
    with token_server(lifetime=timedelta(minutes=1)) as (url, asked):
        sign = TokenSigner(url)
        assert sign(BLOB) != sign(BLOB)
        assert len(asked) == 2


@pytest.mark.parametrize(
    "href", ["https://elsewhere.example/x.tif", "/data/x.tif", "https://account.blob.core.windows.net/"]
)
def test_other_hrefs_are_left_alone(href: str) -> None:
    assert TokenSigner("http://127.0.0.1:9")(href) == href


def test_a_refused_token_is_told_without_secrets() -> None:
    with token_server(status=403) as (url, _), pytest.raises(ImageryError, match="No read token") as caught:
        TokenSigner(url)(BLOB)
    assert "secret" not in str(caught.value)


def test_archives_say_whether_they_sign() -> None:
    assert patch_url(load_archive("naip-local")) is None
    archive = load_archive("planetary-computer-naip")
    assert patch_url(archive) is patch_url(archive), "one signer, and so one set of tokens, per process"


def test_a_signed_href_of_a_catalog_is_not_kept() -> None:
    archive = load_archive("planetary-computer-naip")
    one = scene(archive, {"image": {"href": "https://naipeuwest.blob.core.windows.net/naip/x.tif?sig=secret"}})
    assert "secret" not in one.item
