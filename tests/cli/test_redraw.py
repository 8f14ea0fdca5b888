"""``think2seg redraw``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.miniature import Miniature
from support.standins import DarkSegmenter

import think2seg.coordinator.redraw
from think2seg.cube import open_cube


@pytest.fixture(autouse=True)
def _by_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        think2seg.coordinator.redraw, "load_segmenter", lambda config, path, *, digest: DarkSegmenter(digest=digest)
    )


def test_redraw_says_what_it_would_do_and_does_it(think2seg: Any, world: Miniature) -> None:
    world.run()
    words = ("redraw", world.cube, "--segmenter", "bundled", "--monitor", world.file(), "--json")
    plan = think2seg(*words, "--dry-run")
    assert plan.code == 0
    assert (plan.document["blocks"], plan.document["reasons"]) == (8, {"new": 2})
    assert not Path(plan.document["into"]).exists()

    done = think2seg(*words)
    assert (done.code, done.document["exit_code"]) == (0, 0)
    assert done.document["acquisitions"] == {"done": 2, "skipped": 0, "failed": 0}
    assert done.document["instances"] == plan.document["instances"]
    assert open_cube(done.document["into"]).sizes["time"] == 2

    again = think2seg(*words[:-1])
    assert again.code == 0
    assert "Nothing to do" in again.out


def test_a_redraw_that_makes_no_sense_is_refused(think2seg: Any, world: Miniature) -> None:
    world.run()
    for words, said in (
        (("--segmenter", "no/such/weights"), "models.segmenter.path"),
        (("--segmenter", "bundled"), "--monitor"),
        (("--segmenter", "bundled", "--monitor", world.file(), "--into", world.cube), "is the cube itself"),
    ):
        outcome = think2seg("redraw", world.cube, *words)
        assert outcome.code == 2
        assert said in outcome.err
    assert think2seg("redraw", world.folder / "none", "--segmenter", "bundled").code == 2
