"""Runs of a monitor, one after another, over an archive that changes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.miniature import DAYS, Miniature, area, assert_equal_cubes, pixels
from support.standins import Standins

from think2seg.coordinator import Progress, cube_status, run_archive
from think2seg.cube import check_cube, open_cube, read_instances, read_traces
from think2seg.errors import CatalogError, CubeError
from think2seg.grid import Block
from think2seg.imagery import Quality
from think2seg.plan import Reason

OLD, MIDDLE, NEW = DAYS
NO_WORKERS = "tcp://127.0.0.1:1"
"""A scheduler that does not answer: a run that needs no workers does not ask for it."""


def in_region(cols: float = 2, rows: float = 2) -> dict[str, object]:
    return {"kind": "geometry", "geometry": area(cols, rows)}


def files(cube: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in cube.rglob("*") if path.is_file() and "lease" not in path.parts}


def test_the_first_run_does_everything_and_the_second_nothing(world: Miniature, by_rule: Standins) -> None:
    seen: list[Progress] = []
    summary = run_archive(world.monitor(), on_progress=seen.append)
    assert summary.acquisitions == {"done": 3, "skipped": 0, "failed": 0}
    assert summary.blocks == {"done": 12, "cloud": 0, "failed": 0, "reused": 0}
    assert summary.tiles == {"done": 12, "cloud": 0, "failed": 0, "gated": 0}
    assert summary.exit_code == 0
    assert summary.square_km == pytest.approx(12 * 0.64**2, rel=1e-3)
    assert {"read", "prompt", "segment", "write", "search", "total"} == summary.seconds.keys()
    assert (seen[0].blocks_done, seen[-1].blocks_done, seen[-1].blocks_total) == (0, 12, 12)
    assert sorted(by_rule.loads) == ["prompter"] * 2 + ["segmenter"] * 2, "once per worker"

    cube = open_cube(world.cube)
    assert [str(t)[:10] for t in cube["time"].values] == list(DAYS)
    assert set(np.unique(cube["mask"])) == {0, 1}
    assert len(read_traces(world.cube)) == 12
    assert len(read_instances(world.cube)) > 12
    assert check_cube(world.cube) == []

    before = files(world.cube)
    again = world.run(cluster={"scheduler": NO_WORKERS})
    assert again.acquisitions == {"done": 0, "skipped": 3, "failed": 0}
    assert again.exit_code == 0
    assert "Nothing to do" in again.sentence()
    assert files(world.cube) == before


def test_a_region_grown_by_one_tile_keeps_every_answer_and_adds_its_own(world: Miniature) -> None:
    """Blocks of 256 px: the new column of tiles lies in blocks that are done."""
    world.run(cube={"block_px": 256, "uri": str(world.cube)}, region=in_region(cols=1))
    before = open_cube(world.cube).load()
    grown = world.run(cube={"block_px": 256, "uri": str(world.cube)}, region=in_region(cols=2))
    assert grown.reasons == {"retry": 3}
    after = open_cube(world.cube).load()
    answered = before["mask"].values != 255
    assert answered.sum() == 3 * 2 * 128**2
    for name in ("mask", "score", "quality"):
        np.testing.assert_array_equal(after[name].values[answered], before[name].values[answered])
    assert (after["mask"].values != 255).sum() == 2 * answered.sum()
    assert after["revision"].values.tolist() == [1, 1, 1]
    assert after["observed_fraction"].values.tolist() == [1, 1, 1]
    assert check_cube(world.cube) == []

    world.run(cube={"block_px": 256, "uri": str(world.folder / "fresh.zarr")}, region=in_region(cols=2))
    fresh = open_cube(world.folder / "fresh.zarr")
    np.testing.assert_array_equal(after["mask"].values, fresh["mask"].values)
    for cols in (2, 1.5, 1):
        plan = world.plan(cube={"block_px": 256, "uri": str(world.cube)}, region=in_region(cols=cols))
        assert {line.reason for line in plan.values()} == {Reason.DONE}, "a region that shrinks asks for nothing"


def test_a_region_grown_beyond_the_grid_is_refused_and_answers_the_same_in_a_cube_of_its_own(world: Miniature) -> None:
    world.run()
    with pytest.raises(CubeError, match=r"grid\.cols: the cube has 2, asked for is 3") as caught:
        world.run(region=in_region(cols=3))
    assert "another cube.uri" in caught.value.todo
    world.run(world.folder / "larger.zarr", region=in_region(cols=3))
    small, large = open_cube(world.cube), open_cube(world.folder / "larger.zarr")
    shared = large.sel(x=small["x"], y=small["y"])
    for name in ("mask", "score", "quality"):
        np.testing.assert_array_equal(shared[name], small[name])
    assert large.sizes["x"] == 3 * 128


def test_a_changed_scene_is_done_again_where_it_lies_as_a_new_revision(world: Miniature) -> None:
    world.archive.put(OLD, name="a-patch", cols=1)
    world.run()
    before = open_cube(world.cube).load()
    world.archive.put(OLD, pixels(OLD)[:, ::-1], name="a-patch", cols=1)

    line = world.plan()[OLD]
    assert (line.reason, line.blocks, line.revision) == (Reason.CHANGED, (Block(0, 0), Block(1, 0)), 1)
    assert world.run().reasons == {"changed": 1, "done": 2}
    after = open_cube(world.cube).load()
    assert after["revision"].values.tolist() == [1, 0, 0]
    assert (after["mask"][0, :, :128] != before["mask"][0, :, :128]).any()
    np.testing.assert_array_equal(after["mask"][0, :, 128:], before["mask"][0, :, 128:])
    np.testing.assert_array_equal(after["mask"][1:], before["mask"][1:])
    history = open_cube(world.cube, revisions="all")
    assert history["revision"].values.tolist() == [0, 1, 0, 0]
    np.testing.assert_array_equal(history["mask"][0], before["mask"][0])
    assert check_cube(world.cube) == []
    assert world.run().acquisitions["done"] == 0


def test_a_re_processed_archive_is_done_again_only_when_allowed(world: Miniature) -> None:
    world.run()
    for day in (OLD, MIDDLE):
        world.archive.put(day, pixels(day)[:, ::-1])
    before = files(world.cube)
    with pytest.raises(CatalogError, match="2 of 3 scenes that are done have changed") as caught:
        world.run()
    assert "--allow-changes" in caught.value.todo
    assert files(world.cube) == before
    assert world.run(allow_changes=True).reasons == {"changed": 2, "done": 1}


def test_a_late_acquisition_lands_where_it_belongs(world: Miniature) -> None:
    world.archive.remove(MIDDLE)
    world.run()
    world.archive.put(MIDDLE)
    assert world.plan()[MIDDLE].reason is Reason.LATE
    world.run()
    cube = open_cube(world.cube)
    assert [str(t)[:10] for t in cube["time"].values] == list(DAYS)
    steps = [entry["steps"][0]["time"][:10] for entry in ledger(world.cube)]
    assert steps == [OLD, NEW, MIDDLE], "published steps stay where they are"


def ledger(cube: Path) -> list[dict[str, list[dict[str, str]]]]:
    return [json.loads(path.read_text()) for path in sorted((cube / "_records" / "ledger").iterdir())]


def test_a_budget_cuts_visibly_and_the_next_run_goes_on(world: Miniature) -> None:
    first = world.run(budget={"tiles": 6})
    assert first.blocks["done"] == 6
    assert first.reasons == {"new": 2, "over budget": 1}
    assert first.exit_code == 0
    cut = open_cube(world.cube)
    assert cut["observed_fraction"].values.tolist() == [1, 0.5]
    left_over = (cut["quality"][1].values & Quality.OVER_BUDGET) != 0
    assert left_over.sum() == 2 * 128**2
    assert (cut["mask"][1].values[left_over] == 255).all()
    assert cube_status(world.monitor())[0].blocks == {"done": 6, "pending": 2}

    assert world.run(budget={"tiles": 6}).reasons == {"done": 1, "retry": 1, "new": 1}
    whole = open_cube(world.cube)
    assert check_cube(world.cube) == []
    world.run(world.folder / "unlimited.zarr")
    unlimited = open_cube(world.folder / "unlimited.zarr")
    for name in ("mask", "score", "quality"):
        np.testing.assert_array_equal(whole[name], unlimited[name])
    assert world.run(budget={"tiles": 6}).acquisitions["done"] == 0


def test_another_question_or_other_weights_never_mix_into_a_cube(world: Miniature, by_rule: Standins) -> None:
    world.run()
    before = files(world.cube)
    with pytest.raises(CubeError, match="question: the cube has 'water bodies', asked for is 'roads'") as caught:
        world.run(question="roads")
    assert "another cube.uri" in caught.value.todo
    by_rule.retrain()
    with pytest.raises(CubeError, match="Other weights wrote to the cube") as caught:
        world.run()
    assert "promote the new ones" in caught.value.todo
    assert files(world.cube) == before
    world.run(world.folder / "other.zarr")


def test_a_damaged_image_costs_its_blocks_only_and_is_left_alone_after_three_tries(world: Miniature) -> None:
    image = world.archive.image(MIDDLE)
    whole = image.read_bytes()
    image.write_bytes(whole[:4000])
    first = world.run()
    assert first.acquisitions == {"done": 2, "skipped": 0, "failed": 1}
    assert first.exit_code == 3
    assert first.failures
    for failure in first.failures:
        assert failure["item"] == f"scene-{MIDDLE}"
        assert failure["reason"] == "unreadable"
        assert str(world.archive.image(MIDDLE)) in failure["message"]
    failed = first.blocks["failed"]
    cube = open_cube(world.cube)
    assert ((cube["quality"][1].values & Quality.FAILED) != 0).sum() == failed * 128**2
    assert check_cube(world.cube) == []

    assert world.run().reasons == {"done": 2, "retry": 1}
    assert world.run().exit_code == 3
    assert world.plan()[MIDDLE].reason is Reason.QUARANTINED
    left_alone = world.run()
    assert left_alone.exit_code == 0
    assert "blocks of 1 acquisition failed 3 times: --retry-quarantined" in left_alone.sentence()
    asked_for = world.run(retry_quarantined=True)
    assert (asked_for.reasons, asked_for.blocks["failed"]) == ({"done": 2, "retry": 1}, failed)
    assert world.plan()[MIDDLE].reason is Reason.QUARANTINED, "a fourth failure is no new beginning"

    world.archive.put(MIDDLE, pixels(MIDDLE).copy())
    image.write_bytes(whole + b"\0")
    world.archive.put(MIDDLE, pixels(MIDDLE)[:, :, ::-1])
    assert world.run().reasons == {"done": 2, "changed": 1}
    assert (open_cube(world.cube)["mask"].values != 255).all()


def test_a_failed_block_is_mended_by_the_next_run(world: Miniature) -> None:
    image = world.archive.image(MIDDLE)
    whole = image.read_bytes()
    image.write_bytes(whole[:4000])
    failed = world.run().blocks["failed"]
    image.write_bytes(whole)
    mended = world.run()
    assert (mended.exit_code, mended.blocks["done"]) == (0, failed)
    world.run(world.folder / "untroubled.zarr")
    for name in ("mask", "score", "quality"):
        np.testing.assert_array_equal(open_cube(world.cube)[name], open_cube(world.folder / "untroubled.zarr")[name])


def test_ground_without_data_is_not_observed_and_no_failure(world: Miniature) -> None:
    values = pixels(MIDDLE).copy()
    values[:, 32:160, 32:160] = 0
    world.archive.put(MIDDLE, values)
    summary = world.run()
    assert (summary.exit_code, summary.blocks["done"]) == (0, 12)
    assert summary.tiles["done"] == 11, "nothing is asked of a tile without imagery"
    cube = open_cube(world.cube)
    block = cube.isel(time=1, y=slice(128), x=slice(128))
    assert (block["mask"] == 255).all()
    assert (block["quality"] == Quality.NODATA).all()
    assert cube["observed_fraction"].values.tolist() == [1, 0.75, 1]


def test_a_scene_that_lacks_a_band_is_named_and_passed_over(world: Miniature) -> None:
    world.archive.put(MIDDLE, pixels(MIDDLE)[:2])
    line = world.plan()[MIDDLE]
    assert line.reason is Reason.MISSING_BANDS
    assert f"scene-{MIDDLE} has no blue" in line.note
    summary = world.run()
    assert (summary.exit_code, summary.acquisitions) == (0, {"done": 2, "skipped": 1, "failed": 0})
    assert open_cube(world.cube).sizes["time"] == 2


def test_blocks_do_not_depend_on_how_they_are_bundled(world: Miniature) -> None:
    world.run(cluster={"order_blocks": 1})
    world.run(world.folder / "other.zarr", cluster={"order_blocks": 5})
    assert_equal_cubes(world.cube, world.folder / "other.zarr")
