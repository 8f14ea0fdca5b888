"""A made-up world, read, asked about and drawn by rule, so that what the engine should write is known exactly."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage

from think2seg.crs import transformer
from think2seg.engine import Models, RunSpec, execute
from think2seg.errors import ImageryError
from think2seg.grid import Block, Grid
from think2seg.imagery import BlockImagery
from think2seg.plan import BlockJob, WorkOrder
from think2seg.prompting import Reply, Template
from think2seg.segmentation import Drawn, Prompt
from think2seg.stac.scenes import Acquisition, Scene

GRID = Grid(
    crs="EPSG:32614", resolution=5.0, block_px=64, core_px=32, halo_px=8, row0=-16300, col0=1520, rows=2, cols=3
)
CELL = 8
"""Every object is a square of 5 px in a cell of 8 px, so that no two touch and boxes tell them apart."""
FRAME = 96


@dataclass
class World:
    """Where things are on the grid of `GRID`, its halo included, and what is wrong with the pixels."""

    present: npt.NDArray[np.bool_]
    """(height + 2 halo, width + 2 halo) bool."""
    quality: npt.NDArray[np.uint16]
    broken: frozenset[Block] = frozenset()

    def inner(self, array: npt.NDArray[Any], block: Block) -> npt.NDArray[Any]:
        """The part of `array` that is a block without its halo."""
        return self.window(array, block)[GRID.halo_px : -GRID.halo_px, GRID.halo_px : -GRID.halo_px]

    def window(self, array: npt.NDArray[Any], block: Block) -> npt.NDArray[Any]:
        side = GRID.block_px + 2 * GRID.halo_px
        return array[block.row * GRID.block_px :, block.col * GRID.block_px :][:side, :side]

    def read_block(self, acquisition: Acquisition, block: Block, grid: Grid, *_: object) -> BlockImagery:
        if block in self.broken:
            raise ImageryError(f"item {acquisition.scenes[0].id}: the file ends early", "", "Read it again.")
        rgb = np.zeros((*self.window(self.present, block).shape, 3), np.uint8)
        rgb[..., 0] = 255 * self.window(self.present, block)
        return BlockImagery(rgb=rgb, quality=self.window(self.quality, block).copy())


def make_world(cells: npt.NDArray[np.bool_] | None = None, seed: int = 0) -> World:
    """Squares in the cells where `cells` is true; by default in half of them."""
    shape = (GRID.shape[0] + 2 * GRID.halo_px, GRID.shape[1] + 2 * GRID.halo_px)
    if cells is None:
        cells = np.random.default_rng(seed).random((shape[0] // CELL, shape[1] // CELL)) < 0.5
    square = np.zeros((CELL, CELL), np.bool_)
    square[2:7, 2:7] = True
    return World(present=np.kron(cells, square).astype(np.bool_), quality=np.zeros(shape, np.uint16))


@dataclass
class ByRule:
    """A prompter that sees the red channel and names every square with its box and two points."""

    batch: int = 4
    limit: int = 200
    """Objects after which an answer breaks off."""
    asked: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    digest: str = "9f2c41d07be8a3569f2c41d07be8a356"
    frame_px: int = FRAME
    footprint_m: tuple[float, float] | None = None
    unknown_reasoning: str | None = "Never heard of it."
    template: Template = field(default_factory=lambda: Template(name="rule", system="s", user="Find {question}"))
    say: Callable[[npt.NDArray[np.uint8]], str | None] = lambda tile: None
    """What to answer instead; None for nothing special."""

    def ask(self, tiles: Sequence[npt.NDArray[np.uint8]], question: str) -> list[Reply]:
        self.asked += tiles
        self.calls.append(len(tiles))
        return [self._reply(tile) for tile in tiles]

    def _reply(self, tile: npt.NDArray[np.uint8]) -> Reply:
        said = self.say(tile)
        if said is not None:
            return Reply(text=said, finish="stop", tokens=3, presence=None)
        labels, count = ndimage.label(tile[..., 0])
        items = [self._item(ys, xs, len(tile)) for ys, xs in ndimage.find_objects(labels)]
        whole = count <= self.limit
        text = f"<think>I see {count}.</think> <answer>```json[{', '.join(items[: self.limit])}"
        return Reply(
            text=f"{text}]```</answer>" if whole else f'{text}, {{"bbox',
            finish="stop" if whole else "length",
            tokens=len(text),
            presence=1.0 if count else 0.0,
        )

    def _item(self, ys: slice, xs: slice, side: int) -> str:
        scale = self.frame_px / side
        box = [xs.start * scale, ys.start * scale, xs.stop * scale, ys.stop * scale]
        middle = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]
        return json.dumps({"bbox_2d": box, "positive_points": [middle, middle]})


@dataclass
class Exact:
    """A segmenter that draws the red pixels inside the box."""

    digest: str = "5b81e0c2d94f7a165b81e0c2d94f7a16"
    image_px: int = 64
    score: float = 0.5

    def draw(self, tiles: Sequence[npt.NDArray[np.uint8]], prompts: Sequence[Sequence[Prompt]]) -> list[list[Drawn]]:
        return [[self._drawn(tile, prompt) for prompt in row] for tile, row in zip(tiles, prompts, strict=True)]

    def _drawn(self, tile: npt.NDArray[np.uint8], prompt: Prompt) -> Drawn:
        assert prompt.bbox is not None
        left, top, right, bottom = (round(value) for value in prompt.bbox)
        mask = np.zeros(tile.shape[:2], np.bool_)
        mask[top:bottom, left:right] = tile[top:bottom, left:right, 0] > 0
        return Drawn(mask=mask, score=self.score)


@dataclass
class Kept:
    """A writer that keeps what it writes."""

    inner: Any
    written: dict[Block, dict[str, Any]] = field(default_factory=dict)

    @property
    def prompter(self) -> str:
        return self.inner.prompter

    @property
    def segmenter(self) -> str:
        return self.inner.segmenter

    def write_block(self, job: BlockJob, **content: Any) -> Any:
        self.written[job.block] = content
        return self.inner.write_block(job, **content)


@dataclass
class Bench:
    """Runs work orders over a world."""

    world: World
    spec: RunSpec
    prompter: ByRule
    segmenter: Exact
    set_world: Callable[[World], None]

    def run(self, blocks: Sequence[Block] | None = None, **changes: Any) -> dict[Block, dict[str, Any]]:
        """Execute one order over `blocks` (default all) and return what was written, receipts under ``receipt``."""
        self.set_world(self.world)
        order = WorkOrder(id="w", jobs=tuple(job_of(block) for block in blocks or all_blocks()))
        kept = Kept(self.spec.targets[0].writer)
        models = Models(prompter=replace(self.prompter, **changes), segmenter=self.segmenter)
        receipts = execute(order, replace(self.spec, targets=(replace(self.spec.targets[0], writer=kept),)), models)
        for receipt in receipts:
            kept.written[receipt.block]["receipt"] = receipt
        return dict(sorted(kept.written.items()))


def all_blocks() -> tuple[Block, ...]:
    return tuple(Block(row, col) for row in range(GRID.rows) for col in range(GRID.cols))


def job_of(block: Block) -> BlockJob:
    when = datetime(2014, 7, 20, 17, tzinfo=UTC)
    scene = Scene(
        id="m_4709963_se_14_1_20140720", collection="naip", datetime=when, platform="aircraft", orbit="",
        solar_day=date(2014, 7, 20), baseline="", updated=None, bbox_wgs84=(-99.2, 47.0, -99.1, 47.1),
        footprint="{}", crs=GRID.crs, cloud_cover=None, bands=frozenset({"red", "green", "blue"}),
        fingerprint="f", item="{}",
    )  # fmt: skip
    return BlockJob(
        acquisition=Acquisition(id="20140720-aircraft", time=when, scenes=(scene,)), block=block, step=0, revision=0
    )


def region_wgs84() -> shapely.Geometry:
    west, south, east, north = GRID.geobox.extent.boundingbox
    corners = transformer(GRID.crs, "EPSG:4326").transform_bounds(west - 900, south - 900, east + 900, north + 900)
    return shapely.box(*corners)
