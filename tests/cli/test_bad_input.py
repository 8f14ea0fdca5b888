"""Bad input: what the user sees, the exit code, and that the cube is still right."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from support.miniature import Miniature, assert_equal_cubes, pixels

from think2seg import cluster
from think2seg.cube import check_cube, open_cube

type Think2Seg = Callable[..., Any]
DAY = "2014-07-20"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and "lease" not in path.parts}


def refused(outcome: Any, code: int, *parts: str) -> None:
    """The command failed as it should: an exit code, three parts of a message, and nothing on stdout."""
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert outcome.err.startswith("Error: ")
    assert "Traceback" not in outcome.err
    for part in parts:
        assert part in outcome.err


def test_an_unknown_field(world: Miniature, think2seg: Think2Seg) -> None:
    file = world.file()
    file.write_text(file.read_text().replace("question:", "questoin:"))
    refused(think2seg("run", file), 2, "monitor.yaml, line 2: questoin", "is not a field", "Did you mean 'question'?")
    refused(think2seg("plan", world.file(), "--set", "cube.block=64"), 2, "--set cube.block=64", "block_px")
    refused(think2seg("run", world.folder / "none.yaml"), 2, "none.yaml cannot be read")


def test_an_error_is_one_json_document_too(world: Miniature, think2seg: Think2Seg) -> None:
    outcome = think2seg("run", world.file(), "--set", "cube.block_px=7", "--json")
    assert outcome.code == 2
    assert outcome.document["error"] == "ConfigError"
    assert outcome.document["exit_code"] == 2
    assert "cube.block_px = 7" in outcome.document["given"]
    assert "Traceback" not in outcome.err


def test_a_region_outside_the_catalog(world: Miniature, think2seg: Think2Seg) -> None:
    file = world.file(region={"kind": "bbox", "bbox": [10.0, 50.0, 10.1, 50.1], "geometry": None})
    file.write_text(file.read_text().replace("  geometry: null\n", ""))
    refused(think2seg("run", file), 2, "lie outside the region (10.0000, 50.0000", "Those seen cover (-99.", "Correct")
    assert not world.cube.exists()


def test_no_item_in_the_interval(world: Miniature, think2seg: Think2Seg) -> None:
    outcome = think2seg("run", world.file(), "--set", "source.datetime=1990-01-01/1999-12-31")
    refused(outcome, 2, "lie outside the interval 1990-01-01", "2014-07-20 to 2020-08-31", "source.datetime")


def test_an_item_that_lacks_a_band(world: Miniature, think2seg: Think2Seg) -> None:
    world.archive.put(DAY, pixels(DAY)[:2])
    outcome = think2seg("run", world.file(), "--json")
    assert outcome.code == 0
    assert outcome.document["reasons"] == {"missing bands": 1, "new": 1}
    assert f"scene-{DAY} has no blue" in think2seg("plan", world.file()).out
    assert check_cube(world.cube) == []


def test_a_truncated_image(world: Miniature, think2seg: Think2Seg) -> None:
    image = world.archive.image(DAY)
    image.write_bytes(image.read_bytes()[:4000])
    outcome = think2seg("run", world.file())
    assert outcome.code == 3
    assert f"unreadable: item scene-{DAY}, block" in outcome.err
    assert str(image) in outcome.err
    assert "the file is damaged or not a raster" in outcome.err
    assert "1 acquisition done" in outcome.out
    assert "1 in part" in outcome.out
    assert check_cube(world.cube) == []
    assert (open_cube(world.cube)["mask"][1].values != 255).all()


def test_ground_without_data(world: Miniature, think2seg: Think2Seg) -> None:
    world.archive.put(DAY, np.zeros_like(pixels(DAY)))
    outcome = think2seg("run", world.file(), "--json")
    assert outcome.code == 0
    assert outcome.document["acquisitions"]["done"] == 2
    assert open_cube(world.cube)["observed_fraction"].values.tolist() == [0, 1]
    assert check_cube(world.cube) == []


def test_a_catalog_that_is_html(world: Miniature, think2seg: Think2Seg) -> None:
    world.archive.catalog.write_text("<!doctype html><title>Sign in</title>")
    refused(think2seg("run", world.file()), 2, "is an HTML page", "login page")
    assert not world.cube.exists()


@pytest.mark.parametrize("kind", ["files", "zarr"])
def test_something_else_at_the_uri(world: Miniature, think2seg: Think2Seg, kind: str) -> None:
    if kind == "zarr":
        zarr.create_group(world.cube).create_array("temperature", shape=(4,), dtype="f4")[:] = 1
    else:
        world.cube.mkdir()
        (world.cube / "thesis.txt").write_text("the only copy")
    before = contents(world.cube)
    for verb in ("plan", "run"):
        refused(think2seg(verb, world.file()), 2, "that think2seg did not make", "Set another cube.uri")
    refused(think2seg("check", world.cube), 2, "did not make")
    assert contents(world.cube) == before


def test_a_cube_on_another_grid(world: Miniature, think2seg: Think2Seg) -> None:
    world.run()
    before = contents(world.cube)
    outcome = think2seg("run", world.file(), "--set", "grid.resolution=10")
    refused(outcome, 2, "grid.resolution: the cube has 5.0, asked for is 10.0", "another cube.uri")
    outcome = think2seg("run", world.file(), "--set", "question=roads")
    refused(outcome, 2, "question: the cube has 'water bodies', asked for is 'roads'")
    assert contents(world.cube) == before
    assert check_cube(world.cube) == []


def test_no_cube_where_one_is_read(world: Miniature, think2seg: Think2Seg) -> None:
    for words in (("check",), ("series",), ("events",), ("explain", "--time", DAY, "--lon", 0, "--lat", 0)):
        verb, *options = words
        refused(think2seg(verb, world.cube, *options), 2, f"There is no cube at {world.cube}")
    assert not world.cube.exists()


def test_questions_that_a_cube_cannot_answer(world: Miniature, think2seg: Think2Seg, tmp_path: Path) -> None:
    world.run()
    place = ("--lon", -99.17, "--lat", 47.03)
    refused(think2seg("explain", world.cube, "--time", "2015-01-01", *place), 2, "no acquisition on 2015-01-01", DAY)
    refused(think2seg("explain", world.cube, "--time", "yesterday", *place), 2, "yesterday")
    refused(think2seg("explain", world.cube, "--time", DAY, "--lon", 10, "--lat", 50), 2, "inside the grid")
    refused(think2seg("series", world.cube, "--csv", tmp_path / "none" / "a.csv"), 3, "none", "Check that path")
    for name in ("a.gpkg", "a.parquet"):
        refused(think2seg("events", world.cube, "--to", tmp_path / "none" / name), 3, "none", "Check that path")


def test_a_damaged_cube_is_found_out(world: Miniature, think2seg: Think2Seg) -> None:
    world.run()
    (world.cube / "mask" / "c" / "0" / "0" / "1").unlink()
    outcome = think2seg("check", world.cube)
    assert outcome.code == 3
    assert "error: " in outcome.out
    assert think2seg("check", world.cube, "--json").document["exit_code"] == 3


def test_no_scheduler_and_no_gpu(world: Miniature, think2seg: Think2Seg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_CONNECT_S", 0.3)
    refused(think2seg("run", world.file(), "--dask-scheduler", "tcp://127.0.0.1:1"), 3, "No Dask scheduler answers at")
    refused(think2seg("run", world.file(), "--dask-scheduler", "here"), 2, "cluster.scheduler = 'here'", "tcp://host")
    refused(think2seg("run", world.file(), "--set", "cluster.gpus=true"), 3, "offers the resource GPU")
    assert think2seg("run", world.file()).code == 0


def test_weights_that_are_not_there(world: Miniature, think2seg: Think2Seg) -> None:
    outcome = think2seg("run", world.file(), "--set", "models.prompter.path=out/none")
    refused(outcome, 2, "out/none", "models.prompter.path")
    assert not world.cube.exists()


def test_two_runs_at_once(world: Miniature, think2seg: Think2Seg) -> None:
    from think2seg.coordinator import ArchiveRun, find

    with ArchiveRun(find(world.monitor())):
        refused(think2seg("run", world.file()), 3, "Another run is writing to", "Wait for it to end")
        status = think2seg("status", world.file())
        assert (status.code, "being written by process" in status.out) == (0, True)


def test_ctrl_c(world: Miniature, think2seg: Think2Seg, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = cluster.Cluster.run

    def interrupted(self: cluster.Cluster, *given: Any) -> Iterator[Any]:
        yield next(honest(self, *given))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cluster.Cluster, "run", interrupted)
        outcome = think2seg("run", world.file(cluster={"in_flight": 1}), "--json")
    assert outcome.code == 130
    assert outcome.out == ""
    assert "Stopped. Finished blocks are kept" in outcome.err
    again = think2seg("run", world.file(), "--json")
    assert (again.code, again.document["blocks"]["reused"] > 0) == (0, True)


def test_a_place_that_cannot_hold_a_cube(world: Miniature, think2seg: Think2Seg) -> None:
    (world.folder / "file").write_text("in the way")
    outcome = think2seg("run", world.file(world.folder / "file" / "cube.zarr"))
    refused(outcome, 3, "Cannot open", "file/cube.zarr")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount, or mount anew, a small file system with the given options."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        again = ["-o", f"remount,{options}"] if mounted else ["-o", options, "-t", "tmpfs"]
        done = subprocess.run(["mount", *again, "tmpfs", str(place)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
        mounted = True
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk(world: Miniature, think2seg: Think2Seg, disk: Callable[[str], Path]) -> None:
    cube = disk("size=320k") / "cube.zarr"
    refused(think2seg("run", world.file(cube)), 3, "Cannot write", "Free some space", "finished blocks are kept")
    disk("size=8m")
    assert think2seg("run", world.file(cube)).code == 0
    assert check_cube(cube) == []
    world.run(world.folder / "roomy.zarr")
    assert_equal_cubes(cube, world.folder / "roomy.zarr")


def test_a_read_only_disk(world: Miniature, think2seg: Think2Seg, disk: Callable[[str], Path]) -> None:
    cube = disk("size=8m") / "cube.zarr"
    world.run(cube, budget={"tiles": 4})
    before = contents(cube)
    disk("ro")
    refused(think2seg("run", world.file(cube)), 3, "Cannot ", "Make the place writable")
    assert think2seg("status", world.file(cube)).code == 0
    assert think2seg("check", cube).code == 0
    assert contents(cube) == before
    disk("rw")
    assert think2seg("run", world.file(cube)).code == 0
