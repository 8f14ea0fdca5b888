"""The ledger says the same however its files are put together, and whatever dies while they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.archive_run import BLOCKS, PROMPTER, SEGMENTER, SPEC, acquisition, contents, moment, run, scene

import think2seg.cube.ledger
from think2seg.cube import CubeStore, check_cube, open_cube, open_or_create, read_ledger
from think2seg.cube.ledger import FOLDER, Ledger, commit, compact
from think2seg.errors import CubeError

DAYS = [f"20{year:02d}-07-20" for year in range(10, 17)]
FILES = [f"{FOLDER}/{number:08d}.json" for number in range(1, 9)]


class Died(BaseException):
    """Stands for the death of the process just before a write."""


class DieBefore:
    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self, key: str) -> None:
        if self.left == 0:
            raise Died
        self.left -= 1


@pytest.fixture
def cube(tmp_path: Path) -> CubeStore:
    """Seven acquisitions, the last one revised: eight publications."""
    acquisitions = [acquisition(day) for day in DAYS]
    patch = scene("patch", moment(DAYS[-1]), BLOCKS[:1])
    run(tmp_path / "cube", acquisitions)
    run(tmp_path / "cube", [*acquisitions[:-1], acquisition(DAYS[-1], acquisitions[-1].scenes[0], patch)])
    return CubeStore(tmp_path / "cube")


@pytest.fixture
def small(cube: CubeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction after three publications, once the cube is there."""
    monkeypatch.setattr(think2seg.cube.ledger, "COMPACT_AFTER", 3)


def said(store: CubeStore) -> Ledger:
    """The ledger without how it is stored."""
    ledger = read_ledger(store)
    return Ledger(entries=ledger.entries, sequence=ledger.sequence)


def test_few_publications_stay_as_they_are(cube: CubeStore) -> None:
    ledger = read_ledger(cube)
    assert compact(cube, ledger) == ledger
    assert cube.list_keys(FOLDER) == FILES


@pytest.mark.usefixtures("small")
def test_many_publications_become_one_file(cube: CubeStore) -> None:
    before = said(cube)
    after = compact(cube, read_ledger(cube))
    assert cube.list_keys(FOLDER) == [f"{FOLDER}/00000001-00000008.jsonl"]
    assert said(cube) == before
    assert after == read_ledger(cube)
    assert (after.compacted, after.sequence) == (8, 8)


@pytest.mark.usefixtures("small")
def test_dying_before_any_write_of_a_compaction_changes_nothing(cube: CubeStore, tmp_path: Path) -> None:
    before = said(cube)
    for count in range(20):
        try:
            compact(CubeStore(cube.uri, DieBefore(count)), read_ledger(cube))
        except Died:
            assert said(cube) == before, f"after dying before write {count}"
        else:
            break
    assert 0 < count < 20
    assert cube.list_keys(FOLDER) == [f"{FOLDER}/00000001-00000008.jsonl"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("deaths", range(9))
def test_a_run_finishes_a_compaction_that_died(cube: CubeStore, deaths: int) -> None:
    with pytest.raises(Died):
        compact(CubeStore(cube.uri, DieBefore(deaths)), read_ledger(cube))
    run(cube.uri, [acquisition(day) for day in DAYS])
    assert read_ledger(cube).leftover == ()
    assert cube.list_keys(FOLDER) == [f"{FOLDER}/00000001-00000008.jsonl"]
    assert check_cube(cube.uri) == []


def test_a_cube_that_was_compacted_on_its_way_equals_one_that_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquisitions = [acquisition(day) for day in DAYS]
    monkeypatch.setattr(think2seg.cube.ledger, "COMPACT_AFTER", 3)
    run(tmp_path / "often", acquisitions)
    assert CubeStore(tmp_path / "often").list_keys(FOLDER) == [f"{FOLDER}/00000001-00000006.jsonl", FILES[6]]
    monkeypatch.setattr(think2seg.cube.ledger, "COMPACT_AFTER", 100)
    run(tmp_path / "never", acquisitions)
    assert contents(tmp_path / "often") == contents(tmp_path / "never")
    assert open_cube(tmp_path / "often").sizes["time"] == len(DAYS)


@pytest.mark.usefixtures("small")
def test_a_number_that_was_compacted_away_cannot_be_taken_again(cube: CubeStore) -> None:
    """A run that lost its lease long ago, and wakes up when its number's file is gone."""
    asleep = read_ledger(cube)
    asleep = Ledger(entries=asleep.entries[:4], sequence=4)
    compact(cube, read_ledger(cube))
    before = said(cube)
    assert commit(cube, asleep, [before.entries[4]], epoch=1) is None
    assert said(cube) == before
    assert compact(cube, read_ledger(cube)).leftover == ()
    assert cube.list_keys(FOLDER) == [f"{FOLDER}/00000001-00000008.jsonl"]


@pytest.mark.usefixtures("small")
def test_a_reader_begins_again_when_files_go_away_under_it(cube: CubeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before, ledger = said(cube), read_ledger(cube)
    get = CubeStore.get

    def get_late(store: CubeStore, key: str) -> bytes | None:
        if key == FILES[2]:
            monkeypatch.setattr(CubeStore, "get", get)
            compact(cube, ledger)
        return get(store, key)

    monkeypatch.setattr(CubeStore, "get", get_late)
    assert said(cube) == before


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("gone", ["a step", "a publication"])
def test_a_damaged_ledger_is_refused(cube: CubeStore, gone: str) -> None:
    compact(cube, read_ledger(cube))
    key = f"{FOLDER}/00000001-00000008.jsonl"
    lines = (cube.get(key) or b"").splitlines()
    if gone == "a step":
        cube.put(key, b"\n".join(lines[:3] + lines[4:]))
    else:
        cube.put(f"{FOLDER}/00000010.json", json.dumps({"sequence": 10, "epoch": 9, "steps": []}).encode())
    with pytest.raises(CubeError, match="breaks off"):
        read_ledger(cube)


def test_files_that_are_not_the_ledgers_are_passed_over(cube: CubeStore) -> None:
    before = said(cube)
    cube.put(f"{FOLDER}/.DS_Store", b"x")
    assert said(cube) == before


@pytest.mark.usefixtures("small")
def test_reading_takes_few_requests(cube: CubeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_or_create(cube.uri, SPEC, prompter=PROMPTER, segmenter=SEGMENTER)
    with opened.acquire_lease() as lease:
        opened.recover(lease)
    asked: list[str] = []
    get = CubeStore.get
    monkeypatch.setattr(CubeStore, "get", lambda store, key: asked.append(key) or get(store, key))  # type: ignore[func-returns-value]
    read_ledger(cube)
    assert len(asked) == 1
