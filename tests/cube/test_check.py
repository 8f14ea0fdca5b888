"""Damage of every kind is found out, and said with where it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.archive_run import BLOCKS, acquisition, moment, plan_of, run, scene, write

from think2seg.cube import check_cube, missing_scenes, open_cube, open_or_create, repair_cube
from think2seg.cube.conventions import broken_conventions
from think2seg.errors import CubeError
from think2seg.plan import bundle

DAY = "2014-07-20"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sound") / "cube.zarr"
    for version in ("1", "2"):
        patch = scene("patch", moment(DAY), BLOCKS[:1], version=version)
        run(place, [acquisition(DAY, scene("item", moment(DAY)), patch)])
    return place


@pytest.fixture
def cube(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "cube.zarr"))


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.unlink()
    path.write_bytes(data)


def edit(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "flipped byte in a header": (lambda c: flip(c / "mask/c/0/0/0", 5), "mask/c/0/0/0", "error"),
    "flipped byte in the data": (lambda c: flip(c / "mask/c/0/0/1", -9), "mask/c/0/0/1", "error"),
    "flipped byte in a copy": (lambda c: flip(c / "score/c/1/1/1", -9), "score/c/1/1/1", "error"),
    "deleted chunk": (lambda c: (c / "quality/c/1/0/0").unlink(), "quality/c/1/0/0", "error"),
    "chunk of another block": (
        lambda c: shutil.copy(c / "mask/c/0/0/0", shutil.move(c / "mask/c/0/0/1", c / "x") and c / "mask/c/0/0/1"),
        "mask/c/0/0/1",
        "error",
    ),
    "foreign chunk": (lambda c: shutil.copytree(c / "mask/c/0/0", c / "mask/c/0/7"), "mask/c/0/7/0", "error"),
    "changed state": (lambda c: shutil.copy(c / "mask/c/0/0/0", c / "state/c/1/0/0"), "state, step 1", "error"),
    "changed label": (lambda c: flip(c / "revision/c/0", -2), "revision", "error"),
    "changed metadata": (
        lambda c: edit(c / "mask/zarr.json", lambda d: d.update(fill_value=0)), "mask/zarr.json", "error",
    ),
    "broken metadata": (lambda c: (c / "mask/zarr.json").write_text("{"), "mask/zarr.json", "error"),
    "lost metadata": (lambda c: (c / "x/zarr.json").unlink(), "x/zarr.json", "error"),
    "lost ledger": (lambda c: (c / "_records/ledger/00000001.json").unlink(), "_records/ledger", "error"),
    "lost receipts": (lambda c: (c / "_records/receipts/000000.jsonl").unlink(), "has no receipt", "error"),
    "lost table": (
        lambda c: (c / f"_records/traces/acquisition={DAY.replace('-', '')}-aircraft/revision=1.parquet").unlink(),
        "revision=1.parquet",
        "error",
    ),
    "stray table": (
        lambda c: (c / "_records/traces/acquisition=x").mkdir() or (c / "_records/traces/acquisition=x/a").touch(),
        "_records/traces/acquisition=x/a",
        "warning",
    ),
    "stray file": (lambda c: (c / "mask/c/0/.DS_Store").write_text("x"), "mask/c/0/.DS_Store", "warning"),
    "stray rows": (
        lambda c: (c / "_records/staging").mkdir(exist_ok=True) or (c / "_records/staging/.DS_Store").touch(),
        "_records/staging/.DS_Store",
        "warning",
    ),
    "stray object": (lambda c: (c / "notes.txt").write_text("x"), "notes.txt", "warning"),
    "leftover chunk": (lambda c: shutil.copytree(c / "mask/c/0", c / "mask/c/2"), "mask/c/2/0/0", "info"),
    "unfinished file": (
        lambda c: (c / "mask/c/0/0/7.partial").write_bytes(b"x"), "mask/c/0/0/7.partial", "info",
    ),
    "broken conventions": (
        lambda c: edit(c / "zarr.json", lambda d: d["attributes"].update({"spatial:bbox": [0, 0, 1, 1]})),  # type: ignore[attr-defined]
        "zarr.json",
        "error",
    ),
    "leftover rows": (
        lambda c: (c / "_records/staging/000000").mkdir(parents=True) or (c / "_records/staging/000000/a").touch(),
        "_records/staging/000000/a",
        "info",
    ),
}  # fmt: skip


def test_a_sound_cube_has_no_findings(sound: Path) -> None:
    assert check_cube(sound) == []


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found(cube: Path, kind: str) -> None:
    harm, where, severity = DAMAGE[kind]
    harm(cube)
    findings = check_cube(cube)
    found = [finding for finding in findings if where in finding.render()]
    assert found, [finding.render() for finding in findings]
    assert {finding.severity for finding in found} == {severity}
    assert all(finding.todo for finding in findings)
    json.dumps([finding.to_dict() for finding in findings])


def test_an_interrupted_publication_is_a_warning_that_the_next_run_resolves(cube: Path, tmp_path: Path) -> None:
    root = (cube / "zarr.json").read_bytes()
    days = [acquisition(DAY, scene("item", moment(DAY)), scene("patch", moment(DAY), BLOCKS[:1], version="2"))]
    run(cube, [*days, acquisition("2020-08-31")])
    (cube / "zarr.json").unlink()
    (cube / "zarr.json").write_bytes(root)
    assert [(finding.severity, finding.where) for finding in check_cube(cube)] == [("warning", "zarr.json")]
    run(cube, [*days, acquisition("2020-08-31")])
    assert check_cube(cube) == []


def test_finished_blocks_that_wait_are_mentioned(cube: Path) -> None:
    from support.archive_run import PROMPTER, SEGMENTER, SPEC

    opened = open_or_create(cube, SPEC, prompter=PROMPTER, segmenter=SEGMENTER)
    ledger = opened.ledger()
    plan = plan_of([acquisition("2020-08-31")], ledger.held, len(ledger.entries))
    write(opened.writer(3), bundle(plan.work, 1)[0].jobs[0])
    assert [finding.render()[:60] for finding in check_cube(cube)] == [
        "info: _records/receipts: 1 finished blocks wait for publication"[:60]
    ]


def test_unfinished_files_are_swept_on_demand_and_nothing_else_is(cube: Path) -> None:
    (cube / "mask/c/0/0/7.partial").write_bytes(b"x")
    (cube / "notes.txt").write_text("mine")
    findings = check_cube(cube)
    assert repair_cube(cube, findings) == ["mask/c/0/0/7.partial"]
    assert [finding.where for finding in check_cube(cube)] == ["notes.txt"]


def test_scenes_that_left_the_catalog_are_named(cube: Path) -> None:
    assert missing_scenes(cube, {"item-1", "patch-2"}) == []
    assert ["patch" in finding.message for finding in missing_scenes(cube, {"item-1", "patch-3"})] == [True]


def test_every_convention_is_looked_at(cube: Path) -> None:
    root = json.loads((cube / "zarr.json").read_text())
    assert list(broken_conventions(root)) == []
    arrays = root["consolidated_metadata"]["metadata"]
    root["attributes"] |= {"Conventions": "none", "zarr_conventions": [], "proj:code": "EPSG:4326"}
    root["attributes"] |= {"spatial:shape": [1, 1], "spatial:transform": [1, 0, 0, 0, -1, 0]}
    arrays["mask"]["attributes"] |= {"grid_mapping": "nothing", "flag_meanings": "one two", "_FillValue": 255}
    arrays["y"]["attributes"]["standard_name"] = "row"
    del arrays["time"]["attributes"]["calendar"]
    assert len(list(broken_conventions(root))) == 10


def test_cf_xarray_understands_a_cube(cube: Path) -> None:
    import cf_xarray  # noqa: F401

    dataset = open_cube(cube)
    assert dict(dataset.cf.axes) == {"T": ["time"], "Y": ["y"], "X": ["x"]}
    assert dataset["mask"].cf.grid_mapping_names == {"transverse_mercator": ["spatial_ref"]}
    assert int((dataset["mask"].cf == "present").sum()) == int((dataset["mask"] == 1).sum())


def test_no_cube(tmp_path: Path) -> None:
    with pytest.raises(CubeError, match="no cube"):
        check_cube(tmp_path / "none")
