"""Several questions about the same tiles, and gates, in whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.miniature import DAYS, Miniature, assert_equal_cubes
from support.standins import Standins

import think2seg.engine.read
from think2seg.cube import check_cube, open_cube, read_traces
from think2seg.errors import ConfigError
from think2seg.imagery import Quality
from think2seg.plan import BlockState

QUESTIONS = ["dark ground", "water"]


def asking(folder: Path, *questions: str, **sections: Any) -> dict[str, Any]:
    """Sections of a monitor with several questions, its cubes in `folder`."""
    return {"cube": {"uri": f"{folder}/{{question}}.zarr"}, "question": None, "questions": list(questions)} | sections


def count_reads(patch: pytest.MonkeyPatch) -> list[object]:
    reads: list[object] = []
    before = think2seg.engine.read.read_block

    def counted(acquisition: Any, block: Any, *rest: Any) -> Any:
        reads.append((acquisition.id, block))
        return before(acquisition, block, *rest)

    patch.setattr(think2seg.engine.read, "read_block", counted)
    return reads


def test_each_question_has_the_cube_that_it_would_have_alone(
    world: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = count_reads(monkeypatch)
    summary = world.run(**asking(tmp_path, *QUESTIONS))
    cubes = [str(tmp_path / "dark-ground.zarr"), str(tmp_path / "water.zarr")]
    assert list(summary.cubes) == cubes
    assert summary.exit_code == 0
    assert summary.blocks["done"] == 24
    assert len(reads) == len(set(reads)) == 12, "each block is read once for both"
    for question, cube in zip(QUESTIONS, cubes, strict=True):
        world.run(tmp_path / "alone.zarr" / question.split()[0], question=question)
        assert_equal_cubes(cube, tmp_path / "alone.zarr" / question.split()[0])
        assert set(read_traces(cube)["question"]) == {question}
        assert check_cube(cube) == []


@pytest.mark.parametrize("source", [{}, {"lookback_days": 30}], ids=["all", "look-back"])
def test_a_question_that_is_added_later_catches_up_alone(
    world: Miniature, tmp_path: Path, source: dict[str, int]
) -> None:
    world.run(**asking(tmp_path, QUESTIONS[0], source=source))
    summary = world.run(**asking(tmp_path, *QUESTIONS, source=source))
    assert summary.blocks["done"] == 12
    assert len(open_cube(tmp_path / "dark-ground.zarr", revisions="all")["time"]) == 3
    assert len(open_cube(tmp_path / "water.zarr")["time"]) == 3


def test_what_probes_find_is_counted_beside_what_they_found_before(world: Miniature, tmp_path: Path) -> None:
    sections = asking(tmp_path, *QUESTIONS, probes=[QUESTIONS[1]])
    plain, probing = world.monitor(**asking(tmp_path, *QUESTIONS)), world.monitor(**sections)
    assert plain.hash == probing.hash, "a probe may be named at any time"
    first = world.run(**sections)
    assert first.probes["blocks"] == 12
    assert first.probes["false_alarms"] > 0
    assert (first.probes["blocks_before"], first.probes["false_alarms_before"]) == (0, 0)
    assert not first.has_more_false_alarms
    again = world.run(**sections)
    assert again.probes == {
        "blocks_before": 12, "false_alarms_before": first.probes["false_alarms"], "blocks": 0, "false_alarms": 0
    }  # fmt: skip
    assert world.run(**asking(tmp_path, *QUESTIONS)).probes == {}


def test_questions_that_a_uri_cannot_tell_apart_are_refused(world: Miniature, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="share one cube"):
        world.run(**asking(tmp_path, "open water", "open, water?"))


def test_what_a_gate_skips_is_gated_and_never_absent(world: Miniature, by_rule: Standins) -> None:
    summary = world.run(gates={"unchanged": 255.0, "audit": 0.0})
    cube = open_cube(world.cube)
    assert summary.tiles == {"done": 4, "cloud": 0, "failed": 0, "gated": 8}
    first, *later = range(len(DAYS))
    assert (cube["mask"].values[first] != 255).all()
    assert (cube["mask"].values[later] == 255).all()
    assert (cube["quality"].values[later] == int(Quality.GATED)).all()
    assert (cube["state"].values[later] == list(BlockState).index(BlockState.GATED)).all()
    assert np.unique(cube["observed_fraction"].values[later]).tolist() == [0.0]
    assert check_cube(world.cube) == []
    again = world.run(gates={"unchanged": 255.0, "audit": 0.0})
    assert again.acquisitions["done"] == 0
