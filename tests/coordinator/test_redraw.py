"""An archive drawn again from its stored prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.checkpoints import published_sam2
from support.miniature import DAYS, Archive, Miniature, assert_equal_cubes, pixels
from support.standins import DarkSegmenter, Standins

import think2seg.coordinator.redraw
import think2seg.prompting.local
from think2seg.config import Sam2Segmenter, SamSegmenter
from think2seg.coordinator import Progress, plan_redraw, run_archive, run_redraw
from think2seg.cube import check_cube, open_cube, read_instances, read_traces
from think2seg.errors import ConfigError, CubeError
from think2seg.insight import explain
from think2seg.registry import segmenter_named, weights_digest

OLD, MIDDLE, NEW = DAYS


@pytest.fixture
def drawers(by_rule: Standins, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Redraws load segmenters by rule; the digests of those that were loaded."""
    loads: list[str] = []

    def load(config: object, path: Path, *, digest: str) -> DarkSegmenter:
        loads.append(digest)
        return DarkSegmenter(digest=digest)

    monkeypatch.setattr(think2seg.coordinator.redraw, "load_segmenter", load)
    return loads


@pytest.fixture
def other(tmp_path: Path) -> SamSegmenter:
    """Another segmenter, as far as digests go."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"others")
    return SamSegmenter(path=str(folder))


def files(cube: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in cube.rglob("*") if path.is_file() and "lease" not in path.parts}


def test_the_same_segmenter_draws_the_same_masks(world: Miniature, drawers: list[str]) -> None:
    world.run()
    seen: list[Progress] = []
    plan = plan_redraw(world.cube, SamSegmenter(), monitor=world.monitor())
    assert not Path(plan.into).exists(), "planning writes nothing"
    summary = run_redraw(plan, on_progress=seen.append)
    assert summary.acquisitions == {"done": 3, "skipped": 0, "failed": 0}
    assert (summary.exit_code, summary.blocks) == (0, 12)
    assert summary.instances == sum(plan.instances.values()) > 12
    assert (seen[-1].blocks_done, seen[-1].blocks_total) == (12, 12)
    assert Path(summary.into).parent == world.cube.parent
    assert_equal_cubes(summary.into, world.cube)
    assert check_cube(summary.into) == []

    again = run_redraw(plan_redraw(world.cube, SamSegmenter(), monitor=world.monitor()))
    assert again.acquisitions == {"done": 0, "skipped": 3, "failed": 0}
    assert "Nothing to do" in again.sentence()
    assert len(drawers) == 1, "nothing is loaded for nothing"


def test_tiles_asked_about_in_several_views_are_drawn_by_their_vote(world: Miniature, drawers: list[str]) -> None:
    world.run(tile={"views": 4})
    assert {"", "v2", "v5", "v7"} == set(read_traces(world.cube)["part"])
    objects = read_instances(world.cube)
    one = objects[objects["area_px"] > 0].iloc[0]
    answer = explain(world.cube, one["acquisition"], *one.geometry.representative_point().coords[0]).answer
    assert answer is not None
    assert answer.views == 4
    summary = run_redraw(plan_redraw(world.cube, SamSegmenter(), monitor=world.monitor(tile={"views": 4})))
    assert_equal_cubes(summary.into, world.cube)
    assert check_cube(summary.into) == []
    with pytest.raises(CubeError, match="tiling"):
        world.run()


def test_another_segmenter_gets_a_cube_of_its_own(
    world: Miniature, drawers: list[str], other: SamSegmenter, by_rule: Standins
) -> None:
    world.run()
    loads = list(by_rule.loads)
    before = files(world.cube)
    summary = run_redraw(plan_redraw(world.cube, other, monitor=world.monitor()))
    assert by_rule.loads == loads, "no prompter was loaded, let alone asked"
    digest = weights_digest(Path(other.path))
    assert (summary.segmenter, drawers) == (digest, [digest])
    traces = read_traces(summary.into)
    assert set(traces["segmenter"]) == {digest}
    assert set(traces["prompter"]) == set(read_traces(world.cube)["prompter"])
    assert files(world.cube) == before
    with pytest.raises(CubeError, match="Another segmenter"):
        plan_redraw(world.cube, SamSegmenter(), into=summary.into, monitor=world.monitor())
    with pytest.raises(ConfigError, match="is the cube itself"):
        plan_redraw(world.cube, other, into=world.cube, monitor=world.monitor())


def test_later_answers_follow_as_revisions(world: Miniature, drawers: list[str]) -> None:
    world.archive.remove(NEW)
    world.run()
    first = run_redraw(plan_redraw(world.cube, SamSegmenter(), monitor=world.monitor()))
    assert first.acquisitions["done"] == 2
    world.archive.put(NEW)
    world.archive.put(OLD, name="second", cols=1)
    world.run(allow_changes=True)
    plan = plan_redraw(world.cube, SamSegmenter(), monitor=world.monitor())
    assert {line.id[:8]: (line.reason.value, line.revision) for line in plan.lines} == {
        "20100629": ("changed", 1),
        "20140720": ("done", 0),
        "20200831": ("new", 0),
    }
    run_redraw(plan)
    latest, ours = open_cube(world.cube), open_cube(first.into)
    for name in ("mask", "score", "quality"):
        np.testing.assert_array_equal(ours[name].values, latest[name].values)
    assert check_cube(first.into) == []


def test_a_revision_that_is_published_during_a_redraw_is_drawn_by_the_next(
    world: Miniature, drawers: list[str]
) -> None:
    early = {"budget": {"tiles": 3}, "source": {"datetime": f"{OLD}/{OLD}"}}
    world.run(**early)
    plan = plan_redraw(world.cube, SamSegmenter(), monitor=world.monitor())
    world.run(**early)
    assert run_redraw(plan).blocks == 3
    again = plan_redraw(world.cube, SamSegmenter(), monitor=world.monitor())
    assert [(line.reason.value, len(line.blocks)) for line in again.lines] == [("changed", 4)]
    world.archive.put(OLD, name="second", cols=1)
    world.run(allow_changes=True, **early)
    into = run_redraw(again).into
    last = plan_redraw(world.cube, SamSegmenter(), monitor=world.monitor())
    assert [(line.reason.value, len(line.blocks)) for line in last.lines] == [("changed", 4)]
    run_redraw(last)
    np.testing.assert_array_equal(open_cube(into)["mask"].values, open_cube(world.cube)["mask"].values)
    assert plan_redraw(world.cube, SamSegmenter(), monitor=world.monitor()).work == ()


def test_pixels_that_are_gone_or_others_are_left_alone(world: Miniature, drawers: list[str]) -> None:
    world.run()
    world.archive.remove(OLD)
    world.archive.put(NEW, name="scene", version="2", values=np.full_like(pixels(NEW), 99))
    plan = plan_redraw(world.cube, SamSegmenter(), monitor=world.monitor())
    assert {line.id[:8]: line.reason.value for line in plan.lines} == {
        "20100629": "gone",
        "20140720": "new",
        "20200831": "changed",
    }
    summary = run_redraw(plan)
    assert summary.acquisitions == {"done": 1, "skipped": 0, "failed": 2}
    assert summary.exit_code == 3


def test_imagery_that_cannot_be_read_fails_its_blocks_and_is_tried_again(world: Miniature, drawers: list[str]) -> None:
    world.run()
    image = world.archive.image(NEW)
    good = image.read_bytes()
    image.write_bytes(good[: len(good) // 3])
    summary = run_redraw(plan_redraw(world.cube, SamSegmenter(), monitor=world.monitor()))
    assert summary.acquisitions == {"done": 2, "skipped": 0, "failed": 1}
    assert summary.failures[0]["reason"] == "unreadable"
    assert check_cube(summary.into) == []
    image.write_bytes(good)
    again = run_redraw(plan_redraw(world.cube, SamSegmenter(), monitor=world.monitor()))
    assert again.acquisitions == {"done": 1, "skipped": 2, "failed": 0}
    for name in ("mask", "score", "quality"):
        np.testing.assert_array_equal(open_cube(again.into)[name].values, open_cube(world.cube)[name].values)


@dataclass
class Fragile(DarkSegmenter):
    """Breaks down after some blocks."""

    left: int = 5

    def draw(self, tiles: Any, prompts: Sequence[Any]) -> list[list[Any]]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return DarkSegmenter.draw(self, tiles, prompts)


def test_a_redraw_that_was_stopped_goes_on(
    world: Miniature, drawers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run()
    load = think2seg.coordinator.redraw.load_segmenter
    monkeypatch.setattr(think2seg.coordinator.redraw, "load_segmenter", lambda *a, digest: Fragile(digest=digest))
    plan = plan_redraw(world.cube, SamSegmenter(), monitor=world.monitor())
    with pytest.raises(KeyboardInterrupt):
        run_redraw(plan)
    monkeypatch.setattr(think2seg.coordinator.redraw, "load_segmenter", load)
    run_redraw(plan_redraw(world.cube, SamSegmenter(), monitor=world.monitor()))
    assert_equal_cubes(plan.into, world.cube)


def test_a_cube_does_not_know_where_its_imagery_lies(world: Miniature, drawers: list[str]) -> None:
    world.run()
    with pytest.raises(ConfigError, match="--monitor"):
        plan_redraw(world.cube, SamSegmenter())
    with pytest.raises(CubeError, match="no cube"):
        plan_redraw(world.folder / "none.zarr", SamSegmenter())


@pytest.fixture
def real(tmp_path: Path, scheduler: str, pair: Path, monkeypatch: pytest.MonkeyPatch) -> Miniature:
    """One date and the bundled pair."""
    monkeypatch.setenv("THINK2SEG_WEIGHTS", str(pair))
    torch.set_num_threads(1)
    return Miniature(tmp_path, Archive.of(tmp_path / "archive", (MIDDLE,)), scheduler)


def test_real_models_bit_for_bit_and_without_a_prompter(real: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    run_archive(real.monitor())

    def ask(*_: object) -> None:
        pytest.fail("a prompter was asked")

    monkeypatch.setattr(think2seg.prompting.local.LocalPrompter, "ask", ask)
    monkeypatch.setattr(think2seg.prompting.local.LocalPrompter, "__init__", ask)
    same = run_redraw(plan_redraw(real.cube, SamSegmenter(dtype="float32", device="cpu"), monitor=real.monitor()))
    assert same.instances > 0
    assert_equal_cubes(same.into, real.cube)

    sam2 = Sam2Segmenter(kind="sam2", path=str(published_sam2(real.folder / "sam2")), device="cpu")
    other = run_redraw(plan_redraw(real.cube, sam2, monitor=real.monitor()))
    assert other.instances == same.instances
    assert check_cube(other.into) == []
    assert not np.array_equal(open_cube(other.into)["mask"].values, open_cube(real.cube)["mask"].values)


def test_a_name_tells_its_kind(tmp_path: Path, by_rule: Standins) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "sam2_video"}))
    assert segmenter_named(str(folder)).kind == segmenter_named("sam2:a/b").kind == "sam2"
    assert segmenter_named("bundled").kind == segmenter_named(f"sam:{folder}").kind == "sam"
