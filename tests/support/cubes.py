"""Small cubes with known contents, written through the real writer and publication."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.features import shapes
from shapely.geometry import shape

from think2seg.crs import transformer
from think2seg.cube.cube import open_or_create
from think2seg.cube.layout import CubeSpec
from think2seg.cube.receipts import Failure
from think2seg.grid import Block, Grid, Tile
from think2seg.imagery import BLOCKING, Quality
from think2seg.plan import BlockJob, BlockState, PlanLine, Reason
from think2seg.stac.scenes import Acquisition, Scene

PROMPTER, SEGMENTER = "9f2c41d07be8a3569f2c41d07be8a356", "5b81e0c2d94f7a165b81e0c2d94f7a16"
GRID = Grid(
    crs="EPSG:32614", resolution=5.0, block_px=64, core_px=32, halo_px=8, row0=-16300, col0=1520, rows=2, cols=3
)
REASONING = "A dark, smooth patch with a soft shore: open water."


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One acquisition, or a revision of one."""

    time: datetime
    present: npt.NDArray[np.bool_]
    """(y, x) bool over the whole grid; where `quality` blocks it does not count."""
    quality: npt.NDArray[np.uint16]
    blocks: Sequence[Block] | None = None
    """Blocks to write; the others are copied from the revision before. None: all."""
    failures: Mapping[Block, str] = field(default_factory=dict)
    """Block → message; such blocks are written as failed."""
    revision: int = 0
    scenes: Sequence[str] = ()
    reasoning: str = REASONING
    platform: str = "aircraft"

    @property
    def id(self) -> str:
        return f"{self.time:%Y%m%d}-{self.platform}"


def spec_of(grid: Grid = GRID, question: str = "water bodies", title: str = "", attribution: str = "") -> CubeSpec:
    return CubeSpec(
        question=question, grid=grid, source={"archive": "made-up", "collections": ["naip"]},
        recipe={"bands": ["red", "green", "blue"], "limits": [0, 255]}, template="0123abcd",
        title=title, attribution=attribution,
    )  # fmt: skip


def build_cube(
    uri: Path | str,
    steps: Sequence[Step],
    spec: CubeSpec | None = None,
    prompters: Sequence[str] = (),
    region: str = "",
    first: int = 0,
) -> list[PlanLine]:
    """Write and publish steps one by one; `prompters` names the weights of each. Returns the plan lines.

    first: how many steps the cube has already. region: WGS 84, WKT, as the ledger keeps it; empty as in cubes of old.
    """
    spec, lines = spec or spec_of(), []
    for number, step in enumerate(steps, first):
        prompter = prompters[number - first] if prompters else PROMPTER
        cube = open_or_create(uri, spec, prompter=prompter, segmenter=SEGMENTER, registered=True)
        with cube.acquire_lease() as lease:
            line = _line(spec.grid, number, step)
            writer = cube.writer(number + 1, lease)
            receipts = [_write(writer, spec.grid, line, block, step) for block in line.blocks]
            region_px = int(np.count_nonzero((step.quality & Quality.OUTSIDE) == 0))
            cube.publish([line], receipts, lease, region_px=region_px, region=region)
        lines.append(line)
    return lines


def disc(grid: Grid, y: float, x: float, radius: float) -> npt.NDArray[np.bool_]:
    rows, cols = np.mgrid[: grid.shape[0], : grid.shape[1]]
    return np.asarray((rows - y) ** 2 + (cols - x) ** 2 <= radius**2)


def clear(grid: Grid, margin: int = 0) -> npt.NDArray[np.uint16]:
    """Quality of a cloudless step whose region ends `margin` pixels inside the grid."""
    quality = np.full(grid.shape, int(Quality.OUTSIDE), np.uint16)
    quality[margin : grid.shape[0] - margin, margin : grid.shape[1] - margin] = 0
    return quality


def three_dates(grid: Grid = GRID) -> list[Step]:
    """A lake that grows; a cloud on the second date; one failed block on the third, mended by a revision."""
    clouded = clear(grid, 8)
    clouded[disc(grid, 40, 150, 30)] = int(Quality.CLOUD)
    broken = Step(
        time=datetime(2020, 8, 31, 17, tzinfo=UTC), present=disc(grid, 64, 80, 40), quality=clear(grid, 8),
        failures={Block(0, 1): "cannot read the red band: TIFF directory is broken", Block(1, 2): "asset is gone: 404"},
    )  # fmt: skip
    mended = Step(time=broken.time, present=broken.present, quality=broken.quality, blocks=[Block(0, 1)], revision=1)
    return [
        Step(time=datetime(2009, 8, 18, 17, tzinfo=UTC), present=disc(grid, 64, 80, 20), quality=clear(grid, 8)),
        Step(time=datetime(2014, 7, 20, 17, tzinfo=UTC), present=disc(grid, 64, 80, 30), quality=clouded),
        broken,
        mended,
    ]


def _line(grid: Grid, number: int, step: Step) -> PlanLine:
    acquisition = Acquisition(id=step.id, time=step.time, scenes=tuple(_scenes(step)))
    every = tuple(Block(row, col) for row in range(grid.rows) for col in range(grid.cols))
    blocks = tuple(sorted(step.blocks)) if step.blocks is not None else every
    return PlanLine(
        id=step.id, time=step.time, reason=Reason.NEW if step.revision == 0 else Reason.RETRY, acquisition=acquisition,
        blocks=blocks, tiles=4 * len(blocks), bytes_to_read=0, step=number, revision=step.revision, note="",
    )  # fmt: skip


def _scenes(step: Step) -> Iterator[Scene]:
    for name in step.scenes or (f"m_4709963_se_14_1_{step.time:%Y%m%d}",):
        yield Scene(
            id=name, collection="naip", datetime=step.time, platform="aircraft", orbit="",
            solar_day=step.time.date(), baseline="", updated=None, bbox_wgs84=(-99.2, 47.0, -99.1, 47.1),
            footprint="{}", crs=GRID.crs, cloud_cover=None, bands=frozenset({"red", "green", "blue"}),
            fingerprint=f"{name}-{step.revision}", item="{}",
        )  # fmt: skip


def _write(writer: Any, grid: Grid, line: PlanLine, block: Block, step: Step) -> Any:
    assert line.acquisition is not None
    assert line.step is not None
    side = grid.block_px
    window = np.s_[block.row * side : (block.row + 1) * side, block.col * side : (block.col + 1) * side]
    quality, present = step.quality[window].copy(), step.present[window]
    message = step.failures.get(block)
    if message:
        quality[(quality & Quality.OUTSIDE) == 0] |= int(Quality.FAILED)
    blocked = (quality & BLOCKING) != 0
    mask = np.where(blocked, 255, present).astype(np.uint8)
    traces, instances = ([], []) if message else _rows(grid, block, mask, step)
    item = line.acquisition.scenes[0].id
    return writer.write_block(
        BlockJob(acquisition=line.acquisition, block=block, step=line.step, revision=line.revision),
        mask=mask,
        score=np.where(mask == 1, 200, 255).astype(np.uint8),
        quality=quality,
        state=BlockState.FAILED if message else BlockState.DONE,
        traces=traces,
        instances=instances,
        tiles={"failed": len(grid.tiles(block))} if message else {"ok": len(traces)},
        seconds={"read": 0.5, "prompt": 2.0, "segment": 1.0},
        failures=[Failure(item=item, block=block, reason="unreadable", message=message)] if message else (),
    )


def _rows(
    grid: Grid, block: Block, mask: npt.NDArray[np.uint8], step: Step
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    traces, instances = [], []
    for tile in grid.tiles(block):
        core = mask[tile.y : tile.y + grid.core_px, tile.x : tile.x + grid.core_px]
        found = list(_objects(grid, tile, core == 1))
        y, x = block.row * grid.block_px + tile.y, block.col * grid.block_px + tile.x
        boxes = ", ".join(f'{{"bbox_2d": {[round(v) for v in one["bbox_px"]]}}}' for one in found)
        traces.append({
            "tile": tile.id, "part": "", "tile_y": y, "tile_x": x, "status": "ok", "question": "water bodies",
            "prompt": "Find every instance of: water bodies", "reasoning": step.reasoning,
            "answer": f"<think>{step.reasoning}</think> <answer>[{boxes}]</answer>", "finish": "stop", "tokens": 42,
            "presence": 0.9 if found else 0.1, "instances": len(found), "template": "0123abcd", "prompter": PROMPTER,
            "segmenter": SEGMENTER, "items": list(step.scenes) or [f"m_4709963_se_14_1_{step.time:%Y%m%d}"],
        })  # fmt: skip
        instances.extend(found)
    return traces, instances


def _objects(grid: Grid, tile: Tile, core: npt.NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    to_wgs84 = transformer(grid.crs, "EPSG:4326")
    transform = grid.tile_geobox(tile, halo=False).transform
    for number, (outline, _) in enumerate(shapes(core.astype(np.uint8), mask=core, transform=transform)):
        polygon = shape(outline)
        left, top = ~grid.transform * (polygon.bounds[0], polygon.bounds[3])
        right, bottom = ~grid.transform * (polygon.bounds[2], polygon.bounds[1])
        inner = polygon.representative_point()
        col, row = ~grid.transform * (inner.x, inner.y)
        yield {
            "tile": tile.id, "part": "", "number": number, "score": 0.8,
            "area_px": round(polygon.area / grid.resolution**2), "area_m2": polygon.area,
            "bbox_px": [left, top, right, bottom], "points_px": [[col, row], [col, row]],
            "bbox_map": list(polygon.bounds), "points_map": [[inner.x, inner.y], [inner.x, inner.y]],
            "geometry": shapely.transform(polygon, lambda xy: np.column_stack(to_wgs84.transform(*xy.T))),
        }  # fmt: skip
