"""What a user sees when pixels cannot be had."""

from __future__ import annotations

import contextlib
import logging
import pickle
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.vrt import WarpedVRT
from support.rasters import acquisition_of, archive_of, scene_of, write_raster

import think2seg.imagery.scene
from think2seg.errors import ImageryError
from think2seg.grid import Block, make_grid
from think2seg.imagery import BlockImagery, Quality, read_block
from think2seg.stac.scenes import Scene

CRS = "EPSG:26914"
REGION = shapely.box(-99.170, 47.015, -99.150, 47.025)
GRID = make_grid(REGION, CRS, 5.0, 64, 32, 8)
TOKEN = "sig=Abc%2Fsecret"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    values = np.random.default_rng(3).integers(1, 255, (3, 360, 420)).astype(np.uint8)
    return write_raster(tmp_path / "image.tif", values, Affine(5, 0, 486500, 0, -5, 5208500), CRS)


class Storage(BaseHTTPRequestHandler):
    """Serves one file with range requests, and what the tests make go wrong."""

    body: ClassVar[bytes] = b""
    answers: ClassVar[list[int]] = []
    seen: ClassVar[list[str]] = []
    claimed: ClassVar[int] = 0
    """Length that is stated instead of the true one: zeros follow for as long as anyone reads."""
    ranges: ClassVar[bool] = True
    served: ClassVar[int] = 0

    def do_GET(self) -> None:
        self.seen.append(self.path)
        if status := self.answers.pop(0) if self.answers else 0:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        total = self.claimed or len(self.body)
        if self.ranges and (wanted := self.headers.get("Range")):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            part = self.body[int(first) : int(last) + 1 if last else None]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{total}")
            length = len(part)
        else:
            part, length = self.body, total
            self.send_response(200)
            if self.ranges:
                self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        with contextlib.suppress(ConnectionError):
            self.wfile.write(part)
            for _ in range(len(part), length, 2**20):
                self.wfile.write(bytes(2**20))
                type(self).served += 2**20

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def storage(image: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "2")
    Storage.body, Storage.answers, Storage.seen = image.read_bytes(), [], []
    Storage.claimed, Storage.ranges, Storage.served = 0, True, 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Storage)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def read(scene: Scene) -> BlockImagery:
    return read_block(acquisition_of([scene]), Block(1, 1), GRID, archive_of(), REGION)


def test_missing_file(image: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match="No such file") as caught:
        read(scene_of({"image": tmp_path / "gone.tif"}, image, name="scene-7"))
    message = str(caught.value)
    assert "item scene-7, block 1,1" in message
    assert "gone.tif" in message
    assert "the file is gone" in message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message


def test_truncated_file(image: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.tif"
    cut.write_bytes(image.read_bytes()[: image.stat().st_size // 3])
    with pytest.raises(ImageryError, match="item scene, block 1,1") as caught:
        read(scene_of({"image": cut}, image))
    assert "damaged" in caught.value.todo
    assert caught.value.__cause__ is not None


def test_file_that_is_html(image: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.tif"
    page.write_text("<html>please log in</html>")
    with pytest.raises(ImageryError, match="damaged or not a raster"):
        read(scene_of({"image": page}, image))


def test_band_that_the_file_has_not(image: Path) -> None:
    archive = archive_of(bands={name: {"asset": "image", "index": 5} for name in ("red", "green", "blue")})
    with pytest.raises(ImageryError, match="band 5 is asked for, the file has 3"):
        read_block(acquisition_of([scene_of({"image": image}, image)]), Block(1, 1), GRID, archive, REGION)


def test_asset_that_the_item_has_not(image: Path) -> None:
    with pytest.raises(ImageryError, match="no asset 'image'\nassets it has: thumbnail"):
        read(scene_of({"thumbnail": image}, image))


def test_file_without_georeference(image: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.png"
    pixels = np.ones((64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(plain)
    with pytest.warns(NotGeoreferencedWarning), pytest.raises(ImageryError, match="no coordinate reference system"):
        read(scene_of({"image": plain}, image))


@pytest.mark.parametrize(
    ("status", "advice"), [(404, "the file is gone"), (403, "a token expired"), (500, "did not answer")]
)
def test_signed_href_that_is_refused(
    storage: str,
    image: Path,
    status: int,
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(think2seg.imagery.scene, "patch_url", lambda archive: lambda href: f"{href}?{TOKEN}")
    Storage.answers = [status] * 100
    scene = scene_of({"image": f"{storage}/{status}.tif?session=1"}, image)
    with caplog.at_level(logging.DEBUG), pytest.raises(ImageryError) as caught:
        read(scene)
    message = str(caught.value)
    assert f"{storage}/{status}.tif: " in message
    assert advice in message
    assert TOKEN in Storage.seen[0]
    trace = "".join(traceback.format_exception(caught.value))
    output = capfd.readouterr()
    for text in (message, trace, repr(caught.value.__cause__), caplog.text, output.out, output.err):
        assert "secret" not in text
        assert "session=1" not in text


def test_file_in_another_projection_than_the_item_says(image: Path, tmp_path: Path) -> None:
    with rasterio.open(image) as source, WarpedVRT(source, crs="EPSG:4326", resampling=Resampling.nearest) as warped:
        elsewhere = write_raster(tmp_path / "degrees.tif", warped.read(), warped.transform, "EPSG:4326")
    honest = read(scene_of({"image": elsewhere}, elsewhere))
    lying = read(scene_of({"image": elsewhere}, image))
    assert (lying.rgb == honest.rgb).all()
    assert (lying.quality & Quality.NODATA == 0).any()


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({"tiled": True, "blockxsize": 512, "blockysize": 512}, "under this block"),
        ({"tiled": True, "blockxsize": 20_000, "blockysize": 20_000}, "its tiles"),
    ],
)
def test_file_far_too_large_for_its_ground_is_not_read(
    image: Path, tmp_path: Path, layout: dict[str, Any], said: str
) -> None:
    bomb, size = tmp_path / "bomb.tif", 20_000
    metres = 0.01 if "under" in said else 5.0
    left, top = GRID.transform * (64, 64)
    profile = {"driver": "GTiff", "sparse_ok": True, "count": 3, "dtype": "uint8", "compress": "deflate"}
    placed = {"width": size, "height": size, "crs": CRS, "transform": Affine(metres, 0, left, 0, -metres, top)}
    rasterio.open(bomb, "w", **profile, **placed, **layout).close()
    with pytest.raises(ImageryError, match=f"20000 × 20000 px .*{said}, at most 268435456 px"):
        read(scene_of({"image": bomb}, image))


def test_a_terabyte_that_is_only_claimed(storage: str, image: Path) -> None:
    Storage.claimed = 10**12
    remote = read(scene_of({"image": f"{storage}/huge.tif"}, image))
    assert (remote.rgb == read(scene_of({"image": image}, image)).rgb).all()


def test_a_terabyte_that_is_really_sent_is_left_unread(storage: str, image: Path) -> None:
    Storage.claimed, Storage.ranges = 10**12, False
    with pytest.raises(ImageryError, match=r"endless\.tif: .*(not recognized|Range downloading not supported)"):
        read(scene_of({"image": f"{storage}/endless.tif"}, image))
    assert Storage.served < 64 * 2**20


def test_reads_over_http_survive_a_hiccup(storage: str, image: Path) -> None:
    Storage.answers = [503]
    remote = read(scene_of({"image": f"{storage}/hiccup.tif"}, image))
    local = read(scene_of({"image": image}, image))
    assert (remote.rgb == local.rgb).all()
    assert (remote.quality & Quality.NODATA == 0).any()
    assert not any("aux" in path or "ovr" in path for path in Storage.seen)


def test_failed_read_can_be_repeated_in_the_same_process(storage: str, image: Path) -> None:
    scene = scene_of({"image": f"{storage}/later.tif"}, image)
    Storage.answers = [500] * 100
    with pytest.raises(ImageryError):
        read(scene)
    Storage.answers = []
    assert (read(scene).quality & Quality.NODATA == 0).any()
