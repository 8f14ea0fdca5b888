"""The engine with models that really look: small trained weights over a picture of lakes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.pictures import disc_mask, lake_tile
from support.worlds import GRID, Bench, Kept, job_of

from think2seg.config import LocalPrompter, SamSegmenter
from think2seg.config import Models as ModelsConfig
from think2seg.engine import Models, RunSpec, execute
from think2seg.grid import Block
from think2seg.imagery import BlockImagery
from think2seg.plan import WorkOrder

SIDE = GRID.block_px + 2 * GRID.halo_px
LAKES = {Block(0, 0): (36.0, 34.0, 16.0), Block(0, 1): (50.0, 46.0, 11.0), Block(1, 0): (-90.0, -90.0, 1.0)}


@pytest.fixture
def spec(bench: Bench, pair: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    def read_block(acquisition: object, block: Block, *_: object) -> BlockImagery:
        return BlockImagery(rgb=lake_tile(SIDE, LAKES[block]), quality=np.zeros((SIDE, SIDE), np.uint16))

    monkeypatch.setattr("think2seg.engine.read.read_block", read_block)
    monkeypatch.setenv("THINK2SEG_WEIGHTS", str(pair))
    return replace(bench.spec, targets=(replace(bench.spec.targets[0], question="water bodies"),))


def run(spec: RunSpec, blocks: list[Block], batch: int) -> dict[Block, dict[str, Any]]:
    config = ModelsConfig(
        prompter=LocalPrompter(batch=batch, dtype="float32", device="cpu"),
        segmenter=SamSegmenter(dtype="float32", device="cpu"),
    )
    models = Models.load(config, threads=1)
    writer = replace(spec.targets[0].writer, prompter=models.prompter.digest, segmenter=models.segmenter.digest)
    kept = Kept(writer)
    target = replace(spec.targets[0], writer=kept)
    execute(WorkOrder(id="w", jobs=tuple(job_of(block) for block in blocks)), replace(spec, targets=(target,)), models)
    return kept.written


def test_lakes_are_found_and_do_not_depend_on_the_batch(spec: RunSpec) -> None:
    blocks = list(LAKES)
    written = run(spec, blocks, 4)
    for block, lake in LAKES.items():
        found = written[block]["mask"] == 1
        truth = disc_mask(SIDE, lake)[GRID.halo_px : -GRID.halo_px, GRID.halo_px : -GRID.halo_px]
        assert (found & truth).any() or not truth.any()
    other = run(spec, blocks[::-1], 5)
    for block in blocks:
        for name in ("mask", "score", "quality"):
            assert (written[block][name] == other[block][name]).all()
        for row, same in zip(written[block]["instances"], other[block]["instances"], strict=True):
            assert row == same
