"""Gates, and the sample that tells what they miss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.worlds import GRID, Bench, Kept, World, all_blocks, job_of, make_world

import think2seg.engine.gates
import think2seg.engine.read
from think2seg import config
from think2seg.engine import Models, execute
from think2seg.grid import Block
from think2seg.imagery import BlockImagery, Quality
from think2seg.insight.audit import audits
from think2seg.plan import BlockJob, BlockState, WorkOrder
from think2seg.stac.scenes import Acquisition

BLOCK = Block(0, 1)
CORE, HALO = GRID.core_px, GRID.halo_px
BEFORE = "20100629-aircraft"


def run(bench: Bench, jobs: list[BlockJob], before: World | None = None, **gates: Any) -> dict[Block, dict[str, Any]]:
    """Execute jobs with gates; `before` is what the earlier acquisition shows."""

    def read_block(acquisition: Acquisition, block: Block, *rest: Any) -> BlockImagery:
        world = before if before is not None and acquisition.id == BEFORE else bench.world
        return world.read_block(acquisition, block, *rest)

    bench.set_world(bench.world)
    kept = Kept(bench.spec.targets[0].writer)
    spec = replace(bench.spec, targets=(replace(bench.spec.targets[0], writer=kept),), gates=config.Gates(**gates))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(think2seg.engine.read, "read_block", read_block)
        patch.setattr(think2seg.engine.gates, "read_block", read_block)
        order = WorkOrder(id="w", jobs=tuple(jobs))
        for receipt in execute(order, spec, Models(prompter=bench.prompter, segmenter=bench.segmenter)):
            kept.written[receipt.block]["receipt"] = receipt
    return kept.written


def after(block: Block) -> BlockJob:
    """A job that knows an earlier acquisition."""
    job = job_of(block)
    return replace(job, earlier=(replace(job.acquisition, id=BEFORE),))


def test_a_tile_that_is_mostly_hidden_is_gated(bench: Bench) -> None:
    bits = bench.world.window(bench.world.quality, BLOCK)[HALO:-HALO, HALO:-HALO]
    bits[: CORE - 4, :CORE] = Quality.CLOUD
    bits[: CORE - 4, CORE:] = Quality.NODATA
    bits[CORE:, :4] = Quality.CLOUD
    content = run(bench, [job_of(BLOCK)], cloud=0.8, nodata=0.8, audit=0.0)[BLOCK]
    assert content["tiles"] == {"gated": 2, "ok": 2}
    assert (content["quality"][CORE - 4 : CORE] == Quality.GATED).all()
    assert (content["mask"][:CORE] == 255).all()
    assert (content["mask"][CORE:, 4:] != 255).all()
    assert content["state"] is BlockState.DONE
    assert content["receipt"].audit == {"cloud gated": 1, "nodata gated": 1}


def test_what_is_audited_is_asked_and_counts_what_would_be_missed(bench: Bench) -> None:
    bits = bench.world.window(bench.world.quality, BLOCK)[HALO:-HALO, HALO:-HALO]
    bits[: CORE - 12, :] = Quality.CLOUD
    plain = bench.run([BLOCK])[BLOCK]
    content = run(bench, [job_of(BLOCK)], cloud=0.5, audit=1.0)[BLOCK]
    assert (content["mask"] == plain["mask"]).all()
    there = [(content["mask"][:CORE, side : side + CORE] == 1).any() for side in (0, CORE)]
    assert content["receipt"].audit == {"cloud gated": 2, "cloud asked": 2, "cloud missed": sum(there)}


def test_an_answer_that_cannot_be_read_tells_nothing_about_a_gate(bench: Bench) -> None:
    bits = bench.world.window(bench.world.quality, BLOCK)[HALO:-HALO, HALO:-HALO]
    bits[: CORE - 12, :] = Quality.CLOUD
    rambling = replace(bench, prompter=replace(bench.prompter, say=lambda _: "Well."))
    content = run(rambling, [job_of(BLOCK)], cloud=0.5, audit=1.0)[BLOCK]
    assert content["receipt"].audit == {"cloud gated": 2}
    asked: list[int] = []

    def say(tile: np.ndarray) -> str | None:
        asked.append(1)
        return "Well." if len(asked) <= 4 else None

    lately = replace(bench, prompter=replace(bench.prompter, say=say))
    content = run(lately, [after(BLOCK)], bench.world, unchanged=1.0, audit=1.0)[BLOCK]
    assert content["receipt"].audit.get("unchanged missed", 0) == 0


def test_what_is_drawn_under_cloud_is_not_missed(bench: Bench) -> None:
    bits = bench.world.window(bench.world.quality, BLOCK)[HALO:-HALO, HALO:-HALO]
    bits[: CORE - 12, :] = Quality.CLOUD
    bench.world.window(bench.world.present, BLOCK)[HALO:-HALO, HALO:-HALO][CORE - 12 : CORE] = False
    content = run(bench, [job_of(BLOCK)], cloud=0.5, audit=1.0)[BLOCK]
    assert not (content["mask"][:CORE] == 1).any()
    assert content["receipt"].audit == {"cloud gated": 2, "cloud asked": 2, "cloud missed": 0}


def test_unchanged_tiles_are_gated_and_audited_against_the_earlier_answer(bench: Bench) -> None:
    jobs = [after(block) for block in all_blocks()]
    same = run(bench, jobs, bench.world, unchanged=1.0, audit=0.0)
    assert all(content["state"] is BlockState.GATED for content in same.values())
    assert all((content["mask"] == 255).all() for content in same.values())
    asked = run(bench, jobs, bench.world, unchanged=1.0, audit=1.0)
    plain = bench.run()
    for block, content in asked.items():
        assert (content["mask"] == plain[block]["mask"]).all()
        assert len(content["traces"]) == 4, "answers about the earlier picture are not the block's"
        assert content["receipt"].audit == {"unchanged gated": 4, "unchanged asked": 4, "unchanged missed": 0}


def test_a_change_that_the_gate_overlooks_is_a_miss(bench: Bench) -> None:
    nothing = make_world(np.zeros_like(bench.world.present[::8, ::8]))
    content = run(bench, [after(BLOCK)], nothing, unchanged=255.0, audit=1.0)[BLOCK]
    assert content["receipt"].audit == {"unchanged gated": 4, "unchanged asked": 4, "unchanged missed": 4}
    seen = run(bench, [after(BLOCK)], nothing, unchanged=1.0, audit=0.0)[BLOCK]
    assert seen["tiles"] == {"ok": 4}


def test_an_unclear_earlier_picture_gates_nothing(bench: Bench) -> None:
    cloudy = World(present=bench.world.present, quality=np.full_like(bench.world.quality, Quality.CLOUD))
    content = run(bench, [after(BLOCK)], cloudy, unchanged=255.0, audit=0.0)[BLOCK]
    assert content["tiles"] == {"ok": 4}


def test_the_sample_is_drawn_by_lot_and_does_not_depend_on_the_order(bench: Bench) -> None:
    jobs = [after(block) for block in all_blocks()]
    one = run(bench, jobs, bench.world, unchanged=1.0, audit=0.4)
    other = run(bench, jobs[::-1], bench.world, unchanged=1.0, audit=0.4)
    sampled = [content["receipt"].audit.get("unchanged asked", 0) for _, content in sorted(one.items())]
    assert sampled == [content["receipt"].audit.get("unchanged asked", 0) for _, content in sorted(other.items())]
    assert 0 < sum(sampled) < 24
    (audit,) = audits(content["receipt"].audit for content in one.values())
    assert (audit.gated, audit.asked, audit.missed) == (24, sum(sampled), 0)
    assert audit.low == 0
    assert audit.high == pytest.approx(1 - 0.025 ** (1 / audit.asked))
    assert f"Of {audit.asked}" in audit.sentence()
