"""How close the pipeline's reading and writing come to the libraries below it.

    python benchmarks/cube_io.py

Medians of alternating repetitions in one process: a block written by `BlockWriter` (checks, digests, rows, fence and
receipt included) against the same arrays written by zarr alone with the same codec; a block read by `read_block`
(scaled, stretched, judged) against `odc.stac.load` of the same bands on the same native grid. Then blocks read over
HTTP that answers 100 ms late, alone and behind a model; and one pixel's history over 1,000 steps. The last line is one
JSON object with two ratios, the library's time over ours: 1 is as fast as the library.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import rasterio
import shapely
from rasterio.transform import from_origin

from think2seg import open_cube
from think2seg.config import Models, load_archive
from think2seg.cube import Entry, Ledger, open_or_create
from think2seg.cube.layout import (
    DATA,
    NO_LABELS,
    CubeSpec,
    array_documents,
    chunk_key,
    encode_block,
    open_array,
)
from think2seg.cube.publish import _write_labels
from think2seg.cube.store import CubeStore
from think2seg.engine.read import read_ahead
from think2seg.engine.spec import RunSpec, Target
from think2seg.grid import Block, Grid
from think2seg.imagery import BLOCKING, Quality, read_block
from think2seg.plan import BlockJob, BlockState, HeldStep
from think2seg.stac.scenes import Acquisition, Scene

CRS, RESOLUTION, BLOCK_PX, LATENCY_S = "EPSG:32614", 10.0, 2048, 0.1
GRID = Grid(
    crs=CRS, resolution=RESOLUTION, block_px=BLOCK_PX, core_px=512, halo_px=16, row0=-250, col0=25, rows=1, cols=1
)
WRITE_GRID = Grid(
    crs=CRS, resolution=RESOLUTION, block_px=1024, core_px=64, halo_px=16, row0=-500, col0=50, rows=8, cols=8
)
ARCHIVE = load_archive("sentinel2-local")
REGION = shapely.box(*GRID.bbox_wgs84).buffer(1)
BANDS = ("red", "green", "blue", "scl")


def main() -> None:
    """Print a table, then the ratios as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write = compare_writes(folder, repeats)
        read = compare_reads(folder, repeats)
        alone, behind, model = hide_slow_storage(folder)
        history, one_map = pixel_history(folder)
    print(f"{'':<44}{'ours':>10}{'library':>10}{'ratio':>8}")
    print(_row("write a block of 1024² (zarr, same codec)", *write))
    print(_row(f"read a block of {BLOCK_PX}² + halo (odc-stac)", *read))
    print(f"4 blocks over HTTP that answers {LATENCY_S * 1000:.0f} ms late: read alone {alone:.2f} s; "
          f"model alone {model:.2f} s; reading behind the model {behind:.2f} s")  # fmt: skip
    print(f"a pixel's history over 1,000 steps {history:.2f} s; a map of one step {one_map * 1000:.1f} ms")
    ratios = {"write_vs_raw_zarr": round(write[1] / write[0], 3), "read_vs_odc_stac": round(read[1] / read[0], 3)}
    print(json.dumps({"ratios": ratios}))


def compare_writes(folder: Path, repeats: int) -> tuple[float, float]:
    """Seconds of one block through the writer, and of its three arrays through zarr."""
    spec = CubeSpec(question="water", grid=WRITE_GRID, source={}, recipe={}, template="")
    cube = open_or_create(folder / "cube.zarr", spec, prompter="a" * 32, segmenter="b" * 32)
    arrays = _answer(WRITE_GRID.block_px)
    store = CubeStore(folder / "raw.zarr", create=True)
    documents = array_documents(spec, NO_LABELS)
    for name in DATA:
        documents[name]["shape"][0] = repeats + 1
    raw = {name: open_array(store, name, documents[name]) for name in DATA}
    block, side = Block(3, 4), WRITE_GRID.block_px
    window = np.s_[block.row * side : (block.row + 1) * side, block.col * side : (block.col + 1) * side]
    acquisition = _acquisition("none")
    with cube.acquire_lease() as lease:
        writer = cube.writer(repeats + 1, lease)

        def ours(number: int) -> None:
            job = BlockJob(acquisition=acquisition, block=block, step=number, revision=0)
            writer.write_block(job, **arrays, state=BlockState.DONE)

        def library(number: int) -> None:
            for name in DATA:
                raw[name][(number, *window)] = arrays[name]

        return _alternating(ours, library, repeats)


def compare_reads(folder: Path, repeats: int) -> tuple[float, float]:
    """Seconds of one block through the pipeline, and of its bands through odc-stac."""
    _write_scene(folder)
    acquisition = _acquisition(str(folder))

    def ours(number: int) -> None:
        read_block(acquisition, Block(0, 0), GRID, ARCHIVE, REGION)

    def library(number: int) -> None:
        _plain_load(str(folder))

    return _alternating(ours, library, repeats)


def hide_slow_storage(folder: Path, blocks: int = 4) -> tuple[float, float, float]:
    """Seconds of several blocks read through HTTP that answers late.

    Alone, one after another; ahead of a model that takes as long as two such reads; and that model without reading.
    """
    spec = CubeSpec(question="water", grid=GRID, source={}, recipe={}, template="")
    cube = open_or_create(folder / "slow.zarr", spec, prompter="a" * 32, segmenter="b" * 32)
    with slow_server(folder) as url:
        acquisition = _acquisition(url)
        run = RunSpec(
            targets=(Target(question="water", writer=cube.writer(blocks)),),
            grid=GRID, region=REGION, archive=ARCHIVE, models=Models(),
        )  # fmt: skip
        (scene,) = acquisition.scenes
        several = [replace(acquisition, scenes=(replace(scene, fingerprint=str(number)),)) for number in range(blocks)]
        jobs = [
            BlockJob(acquisition=one, block=Block(0, 0), step=number, revision=0) for number, one in enumerate(several)
        ]
        alone = _seconds(lambda: [read_block(acquisition, Block(0, 0), GRID, ARCHIVE, REGION) for _ in jobs])
        model_s = 2 * alone / blocks
        behind = _seconds(lambda: [time.sleep(model_s) for _ in read_ahead(jobs, run)])
    return alone, behind, model_s * blocks


@contextmanager
def slow_server(folder: Path) -> Iterator[str]:
    """Serve a folder, ranges included, every answer `LATENCY_S` late."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            time.sleep(LATENCY_S)
            file = folder / Path(self.path).name
            data = file.read_bytes() if file.is_file() else b""
            first, last = 0, len(data) - 1
            if asked := self.headers.get("Range"):
                begin, _, end = asked.removeprefix("bytes=").partition("-")
                first, last = int(begin), min(int(end or last), last)
            self.send_response(404 if not data else 206 if asked else 200)
            self.send_header("Accept-Ranges", "bytes")
            if asked and data:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.send_header("Content-Length", str(last - first + 1))
            self.end_headers()
            if body:
                self.wfile.write(data[first : last + 1])

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def pixel_history(folder: Path, steps: int = 1000) -> tuple[float, float]:
    """Seconds that one pixel's values take over many steps of 1024² blocks, through `open_cube`; and of one map."""
    grid = replace(WRITE_GRID, rows=1, cols=1)
    spec = CubeSpec(question="water", grid=grid, source={}, recipe={}, template="")
    cube = open_or_create(folder / "long.zarr", spec, prompter="a" * 32, segmenter="b" * 32)
    documents, arrays = array_documents(spec, NO_LABELS), _answer(grid.block_px)
    chunks = {name: encode_block(documents[name], arrays[name]) for name in DATA}
    entries = []
    for step in range(steps):
        moment = datetime(1990, 1, 1, 17, tzinfo=UTC) + timedelta(days=step)
        held = HeldStep(
            step=step, acquisition=f"{moment:%Y%m%d}-aircraft", revision=0, time=moment, scenes={}, prompter="a" * 32,
            states={Block(0, 0): BlockState.DONE}, attempts={},
        )  # fmt: skip
        entries.append(Entry(
            held=held, segmenter="b" * 32, published=moment, base=None, copied=frozenset(), region="",
            region_px=1, observed_px=1,
        ))  # fmt: skip
        for name in DATA:
            cube.store.put(chunk_key(name, step, 0, 0), chunks[name])
    with cube.acquire_lease() as lease:
        _write_labels(cube.store, spec, Ledger(entries=tuple(entries)), lease)
    shown = open_cube(cube.uri)
    history = _seconds(lambda: shown["mask"].isel(y=500, x=500).to_numpy())
    return history, _seconds(lambda: shown["mask"].isel(time=500).to_numpy())


def _plain_load(root: str) -> None:
    import odc.stac
    import pystac

    item = pystac.Item.from_dict(json.loads(_scene(root).item))
    cfg = {"*": {"assets": {"*": {"data_type": "uint16", "nodata": 0}, "scl": {"data_type": "uint8", "nodata": 0}}}}
    geobox = GRID.block_geobox(Block(0, 0))
    pool = 4 if "://" in root else None
    odc.stac.load([item], bands=list(BANDS), geobox=geobox, stac_cfg=cfg, pool=pool, fail_on_error=True)


def _alternating(ours: Callable[[int], None], library: Callable[[int], None], repeats: int) -> tuple[float, float]:
    """Median seconds of both, after one run each that does not count; which goes first alternates."""
    ours(0), library(0)
    spent: dict[Callable[[int], None], list[float]] = {ours: [], library: []}
    for number in range(1, repeats + 1):
        for one in (ours, library) if number % 2 else (library, ours):
            spent[one].append(_seconds(partial(one, number)))
    return statistics.median(spent[ours]), statistics.median(spent[library])


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _row(what: str, ours: float, library: float) -> str:
    return f"{what:<44}{ours * 1000:>7.1f} ms{library * 1000:>7.1f} ms{library / ours:>8.2f}"


def _answer(side: int) -> dict[str, Any]:
    """Mask, score and quality like those of a lake district: smooth shapes, some cloud."""
    from scipy import ndimage

    random = np.random.default_rng(0)
    field = ndimage.gaussian_filter(random.standard_normal((side, side)), 24)
    cloud = ndimage.gaussian_filter(random.standard_normal((side, side)), 60)
    quality = np.where(cloud > np.quantile(cloud, 0.85), int(Quality.CLOUD), 0).astype(np.uint16)
    present = field > np.quantile(field, 0.9)
    mask = np.where((quality & BLOCKING) != 0, 255, present).astype(np.uint8)
    labels = ndimage.label(mask == 1)[0]
    return {"mask": mask, "score": np.where(mask == 1, 150 + labels % 100, 255).astype(np.uint8), "quality": quality}


def _write_scene(folder: Path) -> None:
    """One Sentinel-2-like scene: tiled, deflated, 16 bits, on the grid's own lattice."""
    from scipy import ndimage

    side = BLOCK_PX + 512
    origin = GRID.transform * (-256, -256)
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": 1, "crs": CRS, "nodata": 0, "tiled": True,
        "transform": from_origin(*origin, RESOLUTION, RESOLUTION), "blockxsize": 512, "blockysize": 512,
        "compress": "deflate", "predictor": 2,
    }  # fmt: skip
    random = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(random.standard_normal((side, side)), 8)
    for number, band in enumerate(BANDS):
        if band == "scl":
            pixels = np.where(smooth > np.quantile(smooth, 0.9), 9, 4).astype(np.uint8)
        else:
            noise = random.normal(0, 20, (side, side))
            pixels = np.clip(1000 + 200 * number + 40_000 * smooth + noise, 1, 10_000).astype(np.uint16)
        with rasterio.open(folder / f"{band}.tif", "w", dtype=pixels.dtype, **profile) as file:
            file.write(pixels, 1)


def _scene(root: str) -> Scene:
    moment = datetime(2022, 6, 1, 17, tzinfo=UTC)
    bbox = GRID.bbox_wgs84
    footprint = shapely.to_geojson(shapely.box(*bbox))
    transform = GRID.transform
    origin = transform * (-256, -256)
    shared = {
        "proj:transform": [RESOLUTION, 0, origin[0], 0, -RESOLUTION, origin[1]],
        "proj:shape": [BLOCK_PX + 512] * 2,
    }
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "scene", "collection": "sentinel-2-l2a",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"],
        "geometry": json.loads(footprint), "bbox": list(bbox), "links": [],
        "properties": {"datetime": "2022-06-01T17:00:00Z", "proj:epsg": 32614},
        "assets": {band: {"href": f"{root}/{band}.tif", "type": "image/tiff", **shared} for band in BANDS},
    }  # fmt: skip
    return Scene(
        id="scene", collection="sentinel-2-l2a", datetime=moment, platform="sentinel-2a", orbit="122",
        solar_day=moment.date(), baseline="", updated=None, bbox_wgs84=bbox, footprint=footprint, crs=CRS,
        cloud_cover=None, bands=frozenset(BANDS), fingerprint="1", item=json.dumps(item),
    )  # fmt: skip


def _acquisition(root: str) -> Acquisition:
    scene = _scene(root)
    return Acquisition(id="20220601-sentinel-2a", time=scene.datetime, scenes=(scene,))


if __name__ == "__main__":
    main()
