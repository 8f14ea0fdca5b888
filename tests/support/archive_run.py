"""A miniature archive and a run over it, with answers that depend on nothing but the pixels' own place and scene."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from think2seg.crs import transformer
from think2seg.cube import CubeSpec, Failure, Receipt, open_or_create, reusable
from think2seg.cube.store import CubeStore
from think2seg.grid import Block, Grid
from think2seg.imagery import BLOCKING, Quality
from think2seg.plan import BlockJob, BlockState, Plan, bundle, make_plan
from think2seg.stac.scenes import Acquisition, Scene

PROMPTER, SEGMENTER = "a" * 64, "b" * 64
GRID = Grid(
    crs="EPSG:26914", resolution=5.0, block_px=32, core_px=16, halo_px=4, row0=-32000, col0=3000, rows=2, cols=2
)
BLOCKS = tuple(Block(row, col) for row in range(GRID.rows) for col in range(GRID.cols))
SPEC = CubeSpec(
    question="water bodies",
    grid=GRID,
    source={"archive": "miniature", "collections": ["naip"]},
    recipe={"bands": ["red", "green", "blue"], "limits": [0, 255]},
    template="c" * 64,
    title="Water over time",
)
REGION_PX = GRID.shape[0] * GRID.shape[1]


def footprint(blocks: Collection[Block], grid: Grid = GRID) -> str:
    """GeoJSON (WGS 84) that covers the given blocks, a few pixels inside their outline."""
    side, transform, inset = grid.block_px * grid.resolution, grid.transform, 3 * grid.resolution
    shape = shapely.union_all([
        shapely.box(transform.c + col * side, transform.f - (row + 1) * side, transform.c + (col + 1) * side,
                    transform.f - row * side)
        for row, col in blocks
    ]).buffer(-inset)  # fmt: skip
    to_wgs84 = transformer(grid.crs, "EPSG:4326")
    return str(shapely.to_geojson(shapely.transform(shape, lambda xy: np.column_stack(to_wgs84.transform(*xy.T)))))


def scene(name: str, day: datetime, blocks: Collection[Block] = BLOCKS, version: str = "1", **values: Any) -> Scene:
    found = {
        "id": name, "collection": "naip", "datetime": day, "platform": "aircraft", "orbit": "",
        "solar_day": day.date(), "baseline": "", "updated": None, "bbox_wgs84": (0.0, 0.0, 1.0, 1.0),
        "footprint": footprint(blocks) if blocks else "", "crs": GRID.crs, "cloud_cover": None,
        "bands": frozenset({"red", "green", "blue"}), "fingerprint": f"{name}-{version}", "item": "{}",
    }  # fmt: skip
    return Scene(**(found | values))


def acquisition(day: str, *scenes: Scene) -> Acquisition:
    """One aircraft acquisition of a day such as ``2014-07-20``; by default one scene that covers all blocks."""
    moment = datetime.fromisoformat(day).replace(hour=17, tzinfo=UTC)
    chosen = scenes or (scene(f"item-{day}", moment),)
    return Acquisition(id=f"{moment:%Y%m%d}-aircraft", time=moment, scenes=chosen)


def moment(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(hour=17, tzinfo=UTC)


def plan_of(acquisitions: Sequence[Acquisition], held: Sequence[Any] = (), n_published: int = 0, **rules: Any) -> Plan:
    given: dict[str, Any] = {
        "required_bands": {"red", "green", "blue"},
        "prompter_digest": PROMPTER,
        "estimate": lambda acquisition, n_blocks: 1000 * n_blocks * len(acquisition.scenes),
    }
    blocks = rules.pop("blocks", BLOCKS)
    return make_plan(acquisitions, GRID, blocks, held, n_published=n_published, **(given | rules))


def run(
    uri: str | Path,
    acquisitions: Sequence[Acquisition],
    *,
    failing: Collection[tuple[str, Block]] = (),
    unparsable: Collection[tuple[str, Block]] = (),
    together: bool = False,
    before_write: Any = None,
    prompter: str = PROMPTER,
    registered: bool = False,
    **rules: Any,
) -> Plan:
    """Plan, write what is not written yet, publish step by step (or all at once); return the plan."""
    cube = open_or_create(
        uri, SPEC, prompter=prompter, segmenter=SEGMENTER, registered=registered, before_write=before_write
    )
    with cube.acquire_lease() as lease:
        cube.recover(lease)
        ledger = cube.ledger()
        plan = plan_of(acquisitions, ledger.held, len(ledger.entries), prompter_digest=prompter, **rules)
        left = reusable(cube.unpublished_receipts(), plan.work, prompter=prompter, segmenter=SEGMENTER)
        receipts = {(receipt.step, receipt.block): receipt for receipt in left}
        writer = cube.writer(len(ledger.entries) + len(plan.work), lease)
        for group in [plan.work] if together else [[line] for line in plan.work]:
            for order in bundle(group, 3):
                for job in order.jobs:
                    key = (job.acquisition.id, job.block)
                    if (job.step, job.block) not in receipts:
                        done = write(writer, job, failed=key in failing, unparsable=key in unparsable)
                        receipts[job.step, job.block] = done
            cube.publish(group, receipts.values(), lease, region_px=REGION_PX)
    return plan


def write(writer: Any, job: BlockJob, *, failed: bool = False, unparsable: bool = False) -> Receipt:
    """Write a block whose contents follow from its place, its acquisition's fingerprint and the weights alone."""
    seed = f"{job.acquisition.fingerprint} {tuple(job.block)} {writer.prompter}"
    random = np.random.default_rng(int.from_bytes(sha256(seed.encode()).digest()[:8]))
    shape = (GRID.block_px, GRID.block_px)
    quality = np.where(random.random(shape) < 0.1, int(Quality.CLOUD), 0).astype(np.uint16)
    quality[random.random(shape) < 0.1] |= int(Quality.SNOW)
    if failed:
        quality[:] = int(Quality.FAILED)
    if unparsable:
        quality[:16] |= int(Quality.UNPARSABLE)
    mask = np.where((quality & BLOCKING) != 0, 255, random.integers(0, 2, shape)).astype(np.uint8)
    tile = "r1c1"
    trace = {
        "tile": tile, "tile_y": 0, "tile_x": 0, "status": "ok", "question": SPEC.question, "answer": seed,
        "instances": 1, "prompter": writer.prompter, "segmenter": writer.segmenter,
    }  # fmt: skip
    instance = {
        "tile": tile, "number": 0, "score": 0.5, "bbox_px": [0, 0, 4, 4], "points_px": [[1, 1], [2, 2]],
        "geometry": shapely.box(-99.1, 47.0, -99.0, 47.1),
    }  # fmt: skip
    message = Failure(item=job.acquisition.scenes[0].id, block=job.block, reason="unreadable", message="TIFF is torn")
    return writer.write_block(
        job,
        mask=mask,
        score=np.where(mask == 1, 127, 255).astype(np.uint8),
        quality=quality,
        state=BlockState.FAILED if failed else BlockState.DONE,
        traces=[] if failed else [trace],
        instances=[] if failed else [instance],
        tiles={"failed": 4} if failed else {"ok": 3, "unparsable": 1} if unparsable else {"ok": 4},
        failures=[message] if failed else [],
    )


def contents(uri: str | Path) -> dict[str, Any]:
    """Every object of a cube but leases, without wall-clock times and durations: equal cubes have equal contents."""
    store = CubeStore(uri)
    held: dict[str, Any] = {"ledger": []}
    for key in store.list_keys():
        data = store.get(key) or b""
        if "/ledger/" in key:
            steps = map(json.loads, data.splitlines()) if key.endswith("l") else json.loads(data)["steps"]
            held["ledger"] += [_without(step, "published") for step in steps]
        elif "/receipts/" in key:
            held[key] = [_without(json.loads(line), "seconds") for line in data.splitlines()]
        elif "/lease/" not in key and not key.startswith("published/c/"):
            held[key] = data
    return held


def _without(document: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != name}


class KillBefore:
    """Ends this process, as SIGKILL does, just before the store's write number `count` (from 0)."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self, key: str) -> None:
        if "/heartbeat-" in key:
            return
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def run_and_die(uri: str, acquisitions: Sequence[Acquisition], count: int, rules: Mapping[str, Any]) -> None:
    run(uri, acquisitions, before_write=KillBefore(count), **rules)
