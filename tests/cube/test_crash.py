"""Die before every single write of a run, run again, and get the cube of an uninterrupted run.

The run under test has all there is: a late acquisition with a failing block, a changed scene whose other blocks are
copied forward, and a new acquisition that the budget cuts. Every write to the store goes through one door, so dying
before each of them covers every pair of steps of the protocol.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.archive_run import BLOCKS, GRID, acquisition, contents, moment, run, scene

from think2seg.cube import check_cube, open_cube

type Die = Callable[..., int]

LATE, OLD, NEW = "2009-08-18", "2014-07-20", "2020-08-31"
SHARES = 8
"""Tests that the deaths are divided into."""
RULES: dict[str, Any] = {
    "failing": {("20090818-aircraft", BLOCKS[1])},
    "budget_tiles": 3 * (GRID.block_px // GRID.core_px) ** 2,
    "together": True,
}


def patched(version: str) -> Any:
    patch = scene(f"patch-{OLD}", moment(OLD), BLOCKS[:1], version=version)
    return acquisition(OLD, scene(f"item-{OLD}", moment(OLD)), patch)


BEFORE = [patched("1")]
AFTER = [
    acquisition(LATE, scene("late", moment(LATE), BLOCKS[1:2])),
    patched("2"),
    acquisition(NEW, scene("new", moment(NEW), BLOCKS[2:])),
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("prepared") / "cube.zarr"
    run(place, BEFORE)
    return place


@pytest.fixture(scope="module")
def uninterrupted(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What one whole run leaves, and what a second one makes of it (a retry, and the blocks that were over budget)."""
    place = tmp_path_factory.mktemp("whole") / "cube.zarr"
    shutil.copytree(prepared, place)
    run(place, AFTER, **RULES)
    once = contents(place)
    run(place, AFTER, **RULES)
    twice = contents(place)
    assert [len(held["ledger"]) for held in (once, twice)] == [4, 6]
    assert check_cube(place) == []
    return once, twice


@pytest.fixture(scope="module")
def visible(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Any]]:
    """What readers see before and after the run: number of acquisitions → masks."""
    place = tmp_path_factory.mktemp("after") / "cube.zarr"
    shutil.copytree(prepared, place)
    run(place, AFTER, **RULES)
    return {cube.sizes["time"]: cube["mask"].values.tolist() for cube in (open_cube(prepared), open_cube(place))}


@pytest.fixture(scope="module")
def n_writes(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    place = tmp_path_factory.mktemp("count") / "cube.zarr"
    shutil.copytree(prepared, place)
    seen: list[str] = []
    run(place, AFTER, before_write=lambda key: seen.append(key) if "/heartbeat-" not in key else None, **RULES)
    assert len(seen) > 60
    return len(seen)


@pytest.mark.parametrize("share", range(SHARES))
def test_dying_before_any_write_loses_nothing(
    share: int, die: Die, prepared: Path, uninterrupted: Any, visible: Any, n_writes: int, tmp_path: Path
) -> None:
    for count in range(share, n_writes, SHARES):
        place = tmp_path / f"{count}.zarr"
        shutil.copytree(prepared, place)
        assert die(str(place), AFTER, count, RULES) == -signal.SIGKILL
        decided = (place / "_records/ledger/00000002.json").exists()
        seen = open_cube(place)
        assert seen["mask"].values.tolist() == visible[seen.sizes["time"]]
        assert decided or seen.sizes["time"] == 1
        run(place, AFTER, **RULES)
        assert contents(place) == uninterrupted[decided], f"after dying before write {count}"
        shutil.rmtree(place)


def test_dying_before_any_write_of_creation_loses_nothing(die: Die, tmp_path: Path) -> None:
    run(tmp_path / "whole", BEFORE)
    whole = contents(tmp_path / "whole")
    for count in range(0, 24, 3):
        place = tmp_path / str(count)
        assert die(str(place), BEFORE, count, {}) == -signal.SIGKILL
        run(place, BEFORE)
        assert contents(place) == whole, f"after dying before write {count}"


def test_dying_again_and_again_ends_in_the_same_cube(die: Die, prepared: Path, tmp_path: Path) -> None:
    whole, place = tmp_path / "whole.zarr", tmp_path / "cube.zarr"
    for copy in (whole, place):
        shutil.copytree(prepared, copy)
    run(whole, AFTER)
    deaths = 0
    while die(str(place), AFTER, 9 + 5 * deaths, {}) == -signal.SIGKILL:
        deaths += 1
        assert deaths < 100
    assert deaths > 3
    assert contents(place) == contents(whole)


def test_a_receipt_never_vouches_for_bytes_of_another_plan(die: Die, tmp_path: Path) -> None:
    """A step that a killed run gave to one acquisition goes to another, dies half-way, and goes back to the first."""
    place, whole = tmp_path / "cube", tmp_path / "whole"
    first, earlier = [acquisition(OLD)], [acquisition(LATE)]
    run(whole, first)
    die(str(place), first, 44, {})
    for count in range(1, 12, 2):
        die(str(place), earlier, count, {})
        die(str(place), first, 3, {})
    run(place, first)
    assert contents(place) == contents(whole)
    assert check_cube(place) == []
