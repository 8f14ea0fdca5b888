"""Runs and the registry: a promotion is followed by the next run, never by one in progress."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.miniature import Archive, Miniature
from support.registries import copy_of
from support.standins import Standins

import think2seg
from think2seg.coordinator import ArchiveRun, find
from think2seg.errors import CubeError
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
