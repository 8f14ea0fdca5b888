"""Work orders: from imagery to arrays, rows and receipts."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from support.worlds import GRID, Bench, all_blocks, job_of, make_world

from think2seg.crs import project
from think2seg.engine import Models, execute
from think2seg.errors import ModelError
from think2seg.grid import Block
from think2seg.imagery import BLOCKING, Quality
from think2seg.plan import BlockState, WorkOrder

ARRAYS = ("mask", "score", "quality")
BLOCK = Block(0, 1)
HALO, CORE = GRID.halo_px, GRID.core_px
type Written = dict[Block, dict[str, Any]]


def truth(bench: Bench, block: Block) -> np.ndarray:
    return bench.world.inner(bench.world.present, block)


def same(first: Written, second: Written) -> bool:
    arrays = all((first[block][name] == second[block][name]).all() for block in first for name in ARRAYS)
    return arrays and rows(first) == rows(second)


def rows(written: Written) -> list[dict[str, Any]]:
    """All rows without the seconds, which alone may differ."""
    return [
        {key: value for key, value in row.items() if not key.startswith("seconds")}
        for block in written
        for table in ("traces", "instances")
        for row in written[block][table]
    ]


def test_every_block_is_what_was_seen(bench: Bench) -> None:
    written = bench.run()
    assert list(written) == list(all_blocks())
    for block, content in written.items():
        assert (content["mask"] == truth(bench, block)).all()
        assert (content["score"] == np.where(truth(bench, block), 127, 255)).all()
        assert not content["quality"].any()
        assert content["state"] is BlockState.DONE
        assert content["tiles"] == {"ok": 4}
        assert content["receipt"].present_px == truth(bench, block).sum()
        assert set(content["receipt"].seconds) == {"read", "prompt", "segment", "write"}


def test_tiles_of_several_blocks_share_batches(bench: Bench) -> None:
    calls: list[int] = []
    bench.run(batch=9, calls=calls)
    assert calls == [9, 9, 6]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(all_blocks()), st.integers(1, 30), st.integers(0, 12))
def test_nothing_depends_on_order_or_batches(bench: Bench, blocks: list[Block], batch: int, limit: int) -> None:
    assert same(bench.run(blocks, batch=batch, limit=limit), bench.run(batch=4, limit=limit))


def test_a_larger_region_leaves_answers_as_they_are(bench: Bench) -> None:
    west, south, east, north = bench.spec.region.bounds
    half = shapely.box(west, south, (west + east) / 2, north)
    inside = {block: GRID.region_mask(half, block) for block in all_blocks()}
    large = bench.run()
    for block, mask in inside.items():
        bench.world.window(bench.world.quality, block)[HALO:-HALO, HALO:-HALO][~mask] = Quality.OUTSIDE
    small = bench.run()
    for block, mask in inside.items():
        for name in ARRAYS:
            assert (small[block][name] == large[block][name])[mask].all()
        assert (small[block]["mask"] == 255)[~mask].all()


def test_tiles_without_an_observable_pixel_are_not_sent(bench: Bench) -> None:
    bits = bench.world.window(bench.world.quality, BLOCK)[HALO:-HALO, HALO:-HALO]
    bits[:CORE, :CORE] = Quality.CLOUD
    bits[:CORE, CORE:] = Quality.NODATA
    bits[CORE:, :CORE] = Quality.OUTSIDE
    bits[CORE:, CORE:] = Quality.SHADOW
    bits[CORE:, CORE:][3, 3] = Quality.SNOW
    asked: list[Any] = []
    content = bench.run([BLOCK], asked=asked)[BLOCK]
    assert len(asked) == 1
    assert content["tiles"] == {"cloud": 1, "nodata": 1, "ok": 1, "outside": 1}
    assert [row["tile_y"] for row in content["traces"]] == [BLOCK.row * GRID.block_px + CORE]
    assert np.count_nonzero(content["mask"] != 255) == 1
    assert (content["quality"] == bits).all()


@pytest.mark.parametrize(
    ("bits", "state", "word"),
    [
        (Quality.CLOUD, BlockState.CLOUD, "cloud"),
        (Quality.NODATA, BlockState.DONE, "nodata"),
        (Quality.OUTSIDE, BlockState.DONE, "outside"),
        (Quality.OUTSIDE | Quality.CLOUD, BlockState.DONE, "outside"),
    ],
)
def test_blocks_without_an_observable_pixel(bench: Bench, bits: Quality, state: BlockState, word: str) -> None:
    bench.world.quality[:] = bits
    asked: list[Any] = []
    content = bench.run([BLOCK], asked=asked)[BLOCK]
    assert not asked
    assert (content["state"], content["tiles"]) == (state, {word: 4})
    assert (content["mask"] == 255).all()
    assert content["receipt"].observed_px == 0


def test_a_block_that_cannot_be_read_fails_alone(bench: Bench) -> None:
    bench.world = replace(bench.world, broken=frozenset({BLOCK}))
    written = bench.run()
    content = written.pop(BLOCK)
    assert content["state"] is BlockState.FAILED
    assert (content["quality"] == Quality.FAILED).all()
    assert content["tiles"] == {"failed": 4}
    (failure,) = content["failures"]
    assert (failure.item, failure.block) == ("m_4709963_se_14_1_20140720", BLOCK)
    assert "ends early" in failure.message
    assert all(other["state"] is BlockState.DONE for other in written.values())


def test_truncated_tiles_are_asked_again_in_quarters(bench: Bench) -> None:
    """Nine squares at most in a quarter of 24 px, up to 36 in a tile of 48."""
    content = bench.run([BLOCK], limit=9)[BLOCK]
    assert (content["mask"] == truth(bench, BLOCK)).all()
    assert content["tiles"] == {"ok": 4}
    traces = [(row["tile"], row["part"], row["status"]) for row in content["traces"]]
    assert [part for _, part, _ in traces] == ["", "0", "1", "2", "3"] * 4
    assert {status for _, part, status in traces if part} == {"ok"}


def test_what_stays_truncated_is_drawn_and_the_rest_not_observed(bench: Bench) -> None:
    content = bench.run([BLOCK], limit=2)[BLOCK]
    mask, quality = content["mask"], content["quality"]
    assert content["tiles"]["truncated"] > 0
    assert (mask == 1).any()
    assert truth(bench, BLOCK)[mask == 1].all()
    assert not truth(bench, BLOCK)[mask == 0].any()
    assert ((quality == Quality.TRUNCATED) == (mask == 255)).all()
    assert content["state"] is BlockState.DONE


@pytest.mark.parametrize(
    ("text", "status", "bit"),
    [
        ("I see a red square.", "unparsable", Quality.UNPARSABLE),
        ("<think>never heard of it.</think> <answer>[]</answer>", "unknown concept", Quality.UNKNOWN_CONCEPT),
        ('<answer>[{"bbox_2d": [900, 900, 990, 990]}]</answer>', "unparsable", Quality.UNPARSABLE),
    ],
)
def test_what_is_not_answered_is_not_absent(bench: Bench, text: str, status: str, bit: Quality) -> None:
    first = bench.world.window(bench.world.present, BLOCK)[: GRID.tile_px, : GRID.tile_px]

    def say(tile: np.ndarray) -> str | None:
        return text if tile.shape[:2] == first.shape and (tile[..., 0] > 0).tolist() == first.tolist() else None

    content = bench.run([BLOCK], say=say)[BLOCK]
    assert content["tiles"] == {"ok": 3, status: 1}
    assert (content["quality"][:CORE, :CORE] == bit).all()
    assert (content["mask"][:CORE, :CORE] == 255).all()
    assert (content["mask"][CORE:] == truth(bench, BLOCK)[CORE:]).all()
    assert content["state"] is BlockState.DONE


def test_an_absence_is_an_answer(bench: Bench) -> None:
    bench.world = make_world(np.zeros_like(bench.world.present[::8, ::8]))
    content = bench.run([BLOCK])[BLOCK]
    assert not content["mask"].any()
    assert content["instances"] == []
    assert {row["presence"] for row in content["traces"]} == {0.0}


def test_polygons_cover_exactly_the_present_pixels(bench: Bench) -> None:
    bits = bench.world.quality
    bits[20:70, 90:130] = Quality.CLOUD
    for limit in (200, 9, 2):
        for block, content in bench.run(limit=limit).items():
            found = [project(row["geometry"], GRID.crs) for row in content["instances"] if row["geometry"] is not None]
            transform = GRID.block_geobox(block, halo=False).transform
            burnt = rasterize(found, out_shape=content["mask"].shape, transform=transform)
            assert (burnt == (content["mask"] == 1)).all()
            for row in content["instances"]:
                assert (row["geometry"] is None) == (row["area_px"] == 0)
                assert row["area_m2"] == pytest.approx(25 * row["area_px"])
                assert row["geometry"] is None or row["geometry"].is_valid
            if set(content["tiles"]) == {"ok"}:
                assert sum(row["area_px"] for row in content["instances"]) == (content["mask"] == 1).sum()


def test_rows_tell_prompts_in_pixels_of_the_cube_and_on_the_map(bench: Bench) -> None:
    block = Block(1, 2)
    content = bench.run([block])[block]
    transform = GRID.transform
    for row in content["instances"]:
        left, top, right, bottom = row["bbox_px"]
        y, x = round(top) + HALO, round(left) + HALO
        assert bench.world.present[y : y + 5, x : x + 5].all() or min(right - left, bottom - top) < 5
        west, south, east, north = row["bbox_map"]
        assert (west, north) == pytest.approx(transform @ (left, top))
        assert (east, south) == pytest.approx(transform @ (right, bottom))
        assert len(row["points_px"]) == len(row["points_map"]) == 2
    by_tile = Counter(row["tile"] for row in content["instances"])
    for row in content["traces"]:
        assert by_tile[row["tile"]] == row["instances"]
        assert row["prompt"] == "Find red squares"
        assert row["items"] == ["m_4709963_se_14_1_20140720"]


def test_traces_and_instances_are_in_tile_order(bench: Bench) -> None:
    content = bench.run(limit=9)[BLOCK]
    order = [(row["tile"], row["part"]) for row in content["traces"]]
    tiles = [tile.id for tile in GRID.tiles(BLOCK)]
    assert order == sorted(order, key=lambda key: (tiles.index(key[0]), key[1]))
    numbers = [(row["tile"], row["part"], row["number"]) for row in content["instances"]]
    assert numbers == sorted(numbers, key=lambda key: (tiles.index(key[0]), key[1], key[2]))


def test_masks_and_blocking_bits_agree_whatever_happens(bench: Bench) -> None:
    bench.world.quality[:] = np.random.default_rng(1).choice(
        [0, Quality.CLOUD, Quality.SNOW, Quality.NODATA], bench.world.quality.shape, p=[0.7, 0.1, 0.1, 0.1]
    )
    for limit in (1, 5, 200):
        for content in bench.run(limit=limit).values():
            assert ((content["mask"] == 255) == ((content["quality"] & BLOCKING) != 0)).all()
            assert ((content["score"] == 255) == (content["mask"] != 1)).all()


def test_an_empty_order_is_nothing(bench: Bench) -> None:
    assert (
        execute(WorkOrder(id="w", jobs=()), bench.spec, Models(prompter=bench.prompter, segmenter=bench.segmenter))
        == ()
    )


def test_other_weights_than_planned_are_refused(bench: Bench) -> None:
    models = Models(prompter=replace(bench.prompter, digest="another"), segmenter=bench.segmenter)
    with pytest.raises(ModelError, match="another"):
        execute(WorkOrder(id="w", jobs=(job_of(BLOCK),)), bench.spec, models)


def test_a_spec_travels_to_workers(bench: Bench) -> None:
    copy = pickle.loads(pickle.dumps(bench.spec))
    assert (copy.targets[0].question, copy.grid) == (bench.spec.targets[0].question, bench.spec.grid)
    assert copy.archive == bench.spec.archive
    assert copy.region.equals(bench.spec.region)


def test_errors_of_the_models_are_not_swallowed(bench: Bench) -> None:
    def say(tile: np.ndarray) -> str | None:
        raise ModelError("out of memory")

    with pytest.raises(ModelError, match="out of memory"):
        bench.run(say=say)
