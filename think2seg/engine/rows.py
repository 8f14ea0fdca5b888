"""Rows for the tables beside the cube: one trace per answer, one instance per object named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine

from think2seg.crs import outline_wgs84
from think2seg.engine.looks import Claim, Seen, Window, claims, in_order
from think2seg.grid import Block, Grid
from think2seg.plan import BlockJob
from think2seg.prompting import Prompter
from think2seg.prompting.views import iou
from think2seg.segmentation import Segmenter

type Row = dict[str, Any]
type Area = npt.NDArray[np.bool_]


def trace_rows(
    job: BlockJob, seen: Iterable[Seen], *, grid: Grid, question: str, prompter: Prompter, segmenter: Segmenter
) -> list[Row]:
    """One row per answer about a block, in tile order; columns as in `think2seg.cube.records`."""
    items = [scene.id for scene in job.acquisition.scenes]
    top, left = job.block.row * grid.block_px, job.block.col * grid.block_px
    return [
        {
            "tile": one.look.tile.id,
            "part": one.look.part,
            "tile_y": top + one.look.core.y,
            "tile_x": left + one.look.core.x,
            "status": one.answer.status,
            "question": question,
            "prompt": prompter.template.fill(question),
            "answer": one.reply.text,
            "reasoning": one.answer.reasoning,
            "finish": one.reply.finish,
            "tokens": one.reply.tokens,
            "presence": one.reply.presence,
            "instances": len(one.answer.instances),
            "template": prompter.template.digest,
            "prompter": prompter.digest,
            "segmenter": segmenter.digest,
            "items": items,
            "seconds_prompt": one.seconds_prompt,
            "seconds_segment": one.seconds_segment,
        }
        for one in in_order(seen)
    ]


def instance_rows(job: BlockJob, seen: Iterable[Seen], present: Area, *, grid: Grid) -> list[Row]:
    """One row per instance named in a block, in tile order; columns as in `think2seg.cube.records`.

    `present` (block_px, block_px) is where the block's mask is 1. An instance owns the pixels that its look claims:
    the polygons of a block cover exactly the present pixels, and its area is theirs. Of several looks at the same
    pixels the one that agrees best with the mask owns them, others what it lacks. An instance that owns none has no
    polygon: it was drawn in the halo alone, or another look's stands for it.
    """
    seen = in_order(seen)
    owned = _owned(seen, present)
    return [
        {
            "tile": one.look.tile.id,
            "part": one.look.part,
            "number": number,
            "score": drawn.score,
            **_outline(owned[id(one), number], one.look.core, job.block, grid),
            **_prompted(one, number, job.block, grid),
        }
        for one in seen
        for number, drawn in enumerate(one.drawn)
    ]


def _owned(seen: list[Seen], present: Area) -> dict[tuple[int, int], Area]:
    """Pixels that each instance owns in the core of its look, by the identity of the look and its number."""
    owned = {
        (id(one), number): np.zeros((one.look.core.height, one.look.core.width), dtype=np.bool_)
        for one in seen
        for number in range(len(one.drawn))
    }
    for claim in claims(seen):
        free = present[claim.window.slices].copy()
        for one in _closest_first(claim, free):
            within = claim.window.moved(-one.look.core.y, -one.look.core.x).slices
            for number, drawn in enumerate(one.drawn):
                owned[id(one), number][within] = one.look.cut(drawn.mask, claim.window) & free
            free &= ~one.look.cut(one.union, claim.window)
    return owned


def _closest_first(claim: Claim, present: Area) -> list[Seen]:
    """The looks of a claim, those first whose instances cover what is present best (IoU)."""
    return sorted(claim.seen, key=lambda one: iou(one.look.cut(one.union, claim.window), present), reverse=True)


def _outline(owned: Area, core: Window, block: Block, grid: Grid) -> Row:
    """Area and polygon (WGS 84) of the pixels that an instance owns in `core`."""
    pixels = int(np.count_nonzero(owned))
    if not pixels:
        return {"area_px": 0, "area_m2": 0.0, "geometry": None}
    top = block.row * grid.block_px + core.y
    areas = _row_areas_m2(grid)[top : top + core.height]
    transform = grid.block_geobox(block, halo=False).transform
    return {
        "area_px": pixels,
        "area_m2": float((np.count_nonzero(owned, axis=1) * areas).sum()),
        "geometry": outline_wgs84(owned, transform @ Affine.translation(core.x, core.y), grid.crs),
    }


def _prompted(seen: Seen, number: int, block: Block, grid: Grid) -> Row:
    """Box and points of an instance in pixels of the cube and in map units."""
    top, left = block.row * grid.block_px + seen.look.y, block.col * grid.block_px + seen.look.x
    prompt = seen.answer.instances[number].placed(dx=left, dy=top)
    corners = [] if prompt.bbox is None else [prompt.bbox[:2], prompt.bbox[2:]]
    box_map = list(_on_map(corners, grid))
    return {
        "bbox_px": None if prompt.bbox is None else list(prompt.bbox),
        "points_px": [list(point) for point in prompt.points],
        "negative_points_px": [list(point) for point in prompt.negative_points],
        "bbox_map": [box_map[0][0], box_map[1][1], box_map[1][0], box_map[0][1]] if box_map else None,
        "points_map": list(_on_map(prompt.points, grid)),
    }


def _on_map(points: Iterable[tuple[float, float]], grid: Grid) -> Iterator[list[float]]:
    transform = _transform(grid)
    for x, y in points:
        map_x, map_y = transform @ (x, y)
        yield [map_x, map_y]


@lru_cache(maxsize=8)
def _transform(grid: Grid) -> Any:
    return grid.transform


@lru_cache(maxsize=8)
def _row_areas_m2(grid: Grid) -> npt.NDArray[np.float64]:
    """(height,) ground area of a pixel in each row of the cube."""
    return grid.pixel_area_m2[:, 0]
