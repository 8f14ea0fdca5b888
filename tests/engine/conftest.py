"""The engine's workbench."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cubes import spec_of
from support.worlds import GRID, Bench, ByRule, Exact, World, make_world, region_wgs84

from think2seg.config import Models as ModelsConfig
from think2seg.config import load_archive
from think2seg.cube.cube import open_or_create
from think2seg.engine import RunSpec, Target


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Half of all cells hold a square; everything is observed."""
    prompter, segmenter = ByRule(), Exact()
    cube = open_or_create(
        tmp_path / "cube.zarr", spec_of(GRID), prompter=prompter.digest, segmenter=segmenter.digest, registered=True
    )
    spec = RunSpec(
        targets=(Target(question="red squares", writer=cube.writer(1)),),
        grid=GRID,
        region=region_wgs84(),
        archive=load_archive("naip-local"),
        models=ModelsConfig(),
    )

    def set_world(world: World) -> None:
        monkeypatch.setattr("think2seg.engine.read.read_block", world.read_block)

    return Bench(world=make_world(), spec=spec, prompter=prompter, segmenter=segmenter, set_world=set_world)
