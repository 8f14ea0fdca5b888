"""Runs and the registry: a promotion is followed by the next run, never by one in progress."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pytest
from support.miniature import Archive, Miniature
from support.registries import copy_of
from support.standins import Standins

import think2seg
from think2seg.coordinator import ArchiveRun, find, run_archive, run_shadow
from think2seg.cube import check_cube, read_traces, sibling_uri
from think2seg.errors import ConfigError, CubeError
from think2seg.insight import series
from think2seg.insight.overlap import shadow_overlap
from think2seg.learning.card import Training
from think2seg.learning.registry import promote, register, roll_back
from think2seg.registry import Registry, open_registry

DAYS = ("2014-07-20", "2020-08-31")


@pytest.fixture
def registry(empty_registry: Path, tmp_path: Path, by_rule: Standins, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("THINK2SEG_REGISTRY", str(copy_of(empty_registry, tmp_path / "registry")))
    registry = open_registry()
    better = Path(shutil.copytree(by_rule.folder / "prompter", tmp_path / "better"))
    (better / "weights.bin").write_text("better")
    register(registry, better, Training())
    return registry


def versions(world: Miniature) -> list[str]:
    return [name.partition("+")[0] for name in think2seg.open_cube(world.cube)["model_version"].values.tolist()]


def test_the_next_run_uses_what_was_promoted_and_what_was_rolled_back(
    registry: Registry, tmp_path: Path, scheduler: str
) -> None:
    first, second = (registry.named(name).digest[:12] for name in ("1", "2"))
    for number, expected in enumerate(([first], [first, second], [first, second, first])):
        days = ("2014-07-20", "2017-08-27", "2020-08-31")[: number + 1]
        world = Miniature(tmp_path, Archive.of(tmp_path / f"archive-{number}", days), scheduler)
        world.run()
        assert versions(world) == expected
        promote(registry, force="a test") if number == 0 else roll_back(registry)


def test_a_run_in_progress_keeps_its_version(registry: Registry, tmp_path: Path, scheduler: str) -> None:
    world = Miniature(tmp_path, Archive.of(tmp_path / "archive", DAYS), scheduler)
    first = registry.named("champion").digest[:12]
    found = find(world.monitor())
    promote(registry, force="in the middle of a run")
    with ArchiveRun(found) as run:
        for group in run.groups():
            run.execute(group)
    assert versions(world) == [first, first]


def test_a_version_that_was_never_promoted_may_not_append(registry: Registry, tmp_path: Path, scheduler: str) -> None:
    world = Miniature(tmp_path, Archive.of(tmp_path / "archive", DAYS), scheduler)
    world.run()
    with pytest.raises(CubeError, match="registered promotion"):
        world.run(models={"prompter": {"path": "candidate"}})


def test_a_shadow_run_writes_beside_the_cube_and_tells_world_from_model(
    registry: Registry, tmp_path: Path, scheduler: str
) -> None:
    world = Miniature(tmp_path, Archive.of(tmp_path / "archive", DAYS), scheduler)
    world.run()
    before = contents(world.cube)
    candidate = registry.named("candidate")
    summary = run_shadow(world.monitor(), candidate, last=1)
    (uri,) = summary.cubes
    assert uri == sibling_uri(str(world.cube), candidate.digest)
    assert contents(world.cube) == before
    assert think2seg.open_cube(uri)["time"].dt.strftime("%Y-%m-%d").values.tolist() == ["2020-08-31"]
    assert run_shadow(world.monitor(), candidate, last=1).acquisitions["done"] == 0

    alike = shadow_overlap(world.cube, candidate.digest)
    assert alike is not None
    assert (alike.change, alike.agreement) == (0.0, 1.0), "both versions answer by the same rule"
    assert series(world.cube).overlaps == ()
    promote(registry, force="a test")
    world.archive.put("2017-08-27")
    world.run()
    (overlap,) = series(world.cube).overlaps
    assert (overlap.before, overlap.after) == (registry.named("1").digest, candidate.digest)
    assert "is the model, not the world" in series(world.cube).render()


def test_a_shadow_run_needs_a_cube(registry: Registry, tmp_path: Path, scheduler: str) -> None:
    world = Miniature(tmp_path, Archive.of(tmp_path / "archive", DAYS), scheduler)
    with pytest.raises(ConfigError, match="show nothing yet"):
        run_shadow(world.monitor(), registry.named("candidate"))


def test_a_backfill_answers_anew_what_others_answered(registry: Registry, tmp_path: Path, scheduler: str) -> None:
    world = Miniature(tmp_path, Archive.of(tmp_path / "archive", DAYS), scheduler)
    world.run()
    first, second = (registry.named(name).digest[:12] for name in ("1", "2"))
    assert run_archive(world.monitor(), backfill=True).acquisitions["done"] == 0
    promote(registry, force="a test")
    assert run_archive(world.monitor(), since=date(2018, 1, 1), backfill=True).acquisitions["done"] == 1
    assert versions(world) == [first, second]
    assert think2seg.open_cube(world.cube)["revision"].values.tolist() == [0, 1]
    assert run_archive(world.monitor(), backfill=True).reasons == {"backfill": 1, "done": 1}
    assert versions(world) == [second, second]
    assert check_cube(world.cube) == []


def test_a_backfill_answers_anew_what_a_revision_has_copied(registry: Registry, tmp_path: Path, scheduler: str) -> None:
    archive = Archive.of(tmp_path / "archive", DAYS[:1])
    world = Miniature(tmp_path, archive, scheduler)
    world.run()
    promote(registry, force="a test")
    archive.put(DAYS[0], name="other", cols=1)
    assert world.run().reasons == {"changed": 1}
    summary = run_archive(world.monitor(), backfill=True)
    assert (summary.reasons, summary.blocks["done"]) == ({"backfill": 1}, 2)
    assert set(read_traces(world.cube)["prompter"]) == {registry.named("2").digest}
    assert run_archive(world.monitor(), backfill=True).reasons == {"done": 1}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and "lease" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
