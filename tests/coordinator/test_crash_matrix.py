"""Every kind of failure once, and dead runs on top: the short form of ``benchmarks/crash_matrix.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
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
