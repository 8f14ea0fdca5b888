"""Every kind of failure once, and dead runs on top: the short form of ``benchmarks/crash_matrix.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.crash_cases import World
from support.crash_matrix import run_matrix
from support.troubles import TROUBLES


@pytest.mark.timeout(900)
def test_whatever_is_killed_the_cube_ends_as_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    results = run_matrix(tmp_path, kills=12, seed=7, told=lambda result: None)
    assert sum(result.kills for result in results) >= 12
    assert {result.kind for result in results} == set(TROUBLES)
    assert sum(result.troubles for result in results) > 0
    assert [(result.kind, result.differences, result.losses) for result in results if result.differences] == []
    assert [(result.kind, result.losses) for result in results if result.losses] == []


def test_the_matrix_sees_what_is_different(tmp_path: Path) -> None:
    case = World.build(tmp_path).case("damaged")
    case.finish()
    assert case.differences() == ()
    assert case.losses == []
    chunk, folder = case.cube / "mask/c/1/0/0", case.cube / "_records/ledger"
    chunk.write_bytes(chunk.read_bytes()[::-1])
    max(folder.iterdir()).unlink()
    assert case.differences() == ("ledger", "mask/c/1/0/0")
