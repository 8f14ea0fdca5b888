"""One block drawn again: the looks that a cube's tables remember, their prompts, and another segmenter."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from think2seg.cube import BlockWriter, CubeSpec, CubeStore, Entry, Failure, Ledger, Receipt, read_receipts
from think2seg.cube.layout import array_documents, open_array
from think2seg.cube.records import TRACE_FIELDS, decode, table_key
from think2seg.engine.looks import RGB, Look, Seen, look_at
from think2seg.engine.rows import instance_rows
from think2seg.engine.stitch import seam_sums, stitch, unread
from think2seg.grid import Block, Grid, Tile
from think2seg.imagery import BlockImagery, Quality
from think2seg.plan import BlockJob, BlockState
from think2seg.prompting import Answer, Reply
from think2seg.segmentation import Prompt, Segmenter

type Row = Mapping[str, Any]

_FROM_ANSWERS = np.uint16(Quality.TRUNCATED | Quality.UNPARSABLE | Quality.UNKNOWN_CONCEPT)
_TRACE_COLUMNS = [field.name for field in TRACE_FIELDS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What a cube keeps of one block."""

    traces: tuple[Row, ...]
    instances: Mapping[tuple[str, str], tuple[Row, ...]]
    """(tile, part) → rows of its instances, in the order they were named."""
    receipt: Receipt
    quality: npt.NDArray[np.uint16]
    """(block_px, block_px)."""

    @property
    def n_instances(self) -> int:
        """Objects to draw."""
        return sum(map(len, self.instances.values()))


class Memory:
    """The tables, receipts and quality bits of one published step of a cube."""

    def __init__(self, store: CubeStore, spec: CubeSpec, ledger: Ledger, entry: Entry) -> None:
        """Raises CubeError or StoreError when they cannot be read."""
        self._spec, self._entry = spec, entry
        self._traces, self._instances = (_rows_by_block(store, table, entry) for table in ("traces", "instances"))
        origins = {ledger.origin(entry, block).step for block in entry.held.states}
        receipts = {step: {one.block: one for one in read_receipts(store, step)} for step in sorted(origins)}
        self._receipts = {block: receipts[ledger.origin(entry, block).step].get(block) for block in entry.held.states}
        self._quality = open_array(store, "quality", array_documents(spec, ledger.labels)["quality"], read_only=True)

    def n_instances(self, block: Block) -> int:
        """Objects to draw in a block."""
        return len(self._instances.get(block, ()))

    def of(self, block: Block) -> Remembered:
        """What is kept of a block that was worked on."""
        instances: dict[tuple[str, str], list[Row]] = {}
        for row in sorted(self._instances.get(block, ()), key=lambda row: int(row["number"])):
            instances.setdefault((row["tile"], row["part"] or ""), []).append(row)
        receipt = self._receipts[block]
        assert receipt is not None
        side = self._spec.grid.block_px
        y, x = block.row * side, block.col * side
        return Remembered(
            traces=tuple(self._traces.get(block, ())),
            instances={key: tuple(rows) for key, rows in instances.items()},
            receipt=receipt,
            quality=np.asarray(self._quality[self._entry.step, y : y + side, x : x + side], dtype=np.uint16),
        )


def draw_again(
    job: BlockJob, kept: Remembered, imagery: BlockImagery | None, *, segmenter: Segmenter, writer: BlockWriter
) -> Receipt:
    """Write a block with the masks that `segmenter` draws from the prompts that were kept.

    Why a pixel could not be observed is taken from the cube; only what the answers covered is found anew.

    Parameters
    ----------
    imagery
        May be None where there is nothing to draw.
    """
    grid = writer.spec.grid
    started = time.perf_counter()
    looks = _looks(job.block, kept.traces, imagery, grid)
    answers = [
        _answer(row, look, kept.instances, job.block, grid) for row, look in zip(kept.traces, looks, strict=True)
    ]
    drawn = segmenter.draw([look.rgb for look in looks], [answer.instances for answer in answers])
    spent = time.perf_counter() - started
    seen = [
        Seen(
            look=look,
            reply=_reply(row),
            answer=answer,
            drawn=instances,
            seconds_prompt=0.0,
            seconds_segment=spent / len(looks),
        )
        for row, look, answer, instances in zip(kept.traces, looks, answers, drawn, strict=True)
    ]
    stitched = stitch(kept.quality & ~_FROM_ANSWERS, seen)
    seam = kept.receipt.seam if imagery is None else seam_sums(grid, stitched.mask, imagery.quality, seen)
    changed = {"segmenter": segmenter.digest, "seconds_prompt": 0.0, "seconds_segment": spent / max(1, len(looks))}
    return writer.write_block(
        job,
        mask=stitched.mask,
        score=stitched.score,
        quality=stitched.quality,
        state=kept.receipt.state,
        traces=[{name: row[name] for name in _TRACE_COLUMNS} | changed for row in kept.traces],
        instances=instance_rows(job, seen, stitched.mask == 1, grid=grid),
        tiles=kept.receipt.tiles,
        seconds={"read": 0.0, "prompt": 0.0, "segment": spent},
        failures=kept.receipt.failures,
        seam=seam,
        audit=kept.receipt.audit,
    )


def write_unreadable(job: BlockJob, kept: Remembered, message: str, *, writer: BlockWriter) -> Receipt:
    """Write a block whose imagery can no longer be read as failed."""
    stitched = unread(kept.quality & np.uint16(Quality.OUTSIDE))
    return writer.write_block(
        job,
        mask=stitched.mask,
        score=stitched.score,
        quality=stitched.quality,
        state=BlockState.FAILED,
        tiles={"failed": len(writer.spec.grid.tiles(job.block))},
        failures=(Failure(item="", block=job.block, reason="unreadable", message=message),),
    )


def _rows_by_block(store: CubeStore, table: str, entry: Entry) -> dict[Block, list[Row]]:
    data = store.get(table_key(table, entry.held.acquisition, entry.held.revision))
    found: dict[Block, list[Row]] = {}
    for row in decode(table, data).to_pylist() if data is not None else []:
        found.setdefault(Block(row["block_row"], row["block_col"]), []).append(row)
    return found


def _looks(block: Block, traces: Sequence[Row], imagery: BlockImagery | None, grid: Grid) -> list[Look]:
    """The look behind every trace."""
    tiles = {tile.id: tile for tile in grid.tiles(block)}
    wholes = {row["tile"]: look_at(tiles[row["tile"]], _rgb(tiles[row["tile"]], imagery, grid), grid) for row in traces}
    return [wholes[row["tile"]].again(row["part"] or "") for row in traces]


def _rgb(tile: Tile, imagery: BlockImagery | None, grid: Grid) -> RGB:
    side = grid.tile_px
    if imagery is None:
        return np.broadcast_to(np.uint8(0), (side, side, 3))
    return imagery.rgb[tile.y : tile.y + side, tile.x : tile.x + side]


def _answer(
    row: Row, look: Look, instances: Mapping[tuple[str, str], tuple[Row, ...]], block: Block, grid: Grid
) -> Answer:
    """The answer of a trace, its instances in pixels of the look."""
    dx, dy = -(block.col * grid.block_px + look.x), -(block.row * grid.block_px + look.y)
    rows = instances.get((row["tile"], row["part"] or ""), ())
    return Answer(
        status=row["status"],
        reasoning=row["reasoning"] or "",
        instances=tuple(_prompt(one).placed(dx=dx, dy=dy) for one in rows),
    )


def _prompt(row: Row) -> Prompt:
    """The prompt of an instance, in pixels of the cube."""
    box = row["bbox_px"]
    return Prompt(
        bbox=None if box is None else (box[0], box[1], box[2], box[3]),
        points=tuple((x, y) for x, y in row["points_px"] or ()),
        negative_points=tuple((x, y) for x, y in row["negative_points_px"] or ()),
    )


def _reply(row: Row) -> Reply:
    return Reply(
        text=row["answer"] or "", finish=row["finish"] or "stop", tokens=row["tokens"] or 0, presence=row["presence"]
    )
