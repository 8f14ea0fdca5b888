"""`think2seg review`: from a cube to a folder, from the folder to the store, and into the cube's report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cubes import build_cube
from support.reviews import Review, lakes, pretend_imagery, spec

from think2seg.learning.review.manifest import load
from think2seg.publish import write_report

type Think2Seg = Callable[..., Any]


@pytest.fixture
def cube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pretend_imagery(monkeypatch)
    build_cube(tmp_path / "lake.zarr", lakes(), spec())
    return tmp_path / "lake.zarr"


def test_there_and_back(cube: Path, think2seg: Think2Seg, tmp_path: Path) -> None:
    folder, store, page = tmp_path / "review", tmp_path / "samples", tmp_path / "lake.html"
    write_report(cube, page, quicklook=lambda name: None)
    assert "Reviewed on" not in page.read_text()
    drawn = think2seg("review", "sample", cube, "--n", 24, "--out", folder, "--seed", 3, "--json").document
    assert (drawn["units"], drawn["without_image"]) == (24, 0)
    assert sum(stratum["size"] for stratum in drawn["strata"]) == drawn["population"]
    manifest, _ = load(folder)
    Review(cube, folder, manifest).verdicts({unit.id: "accept" for unit in manifest.units})
    done = think2seg("review", "import", folder, "--store", store, "--json").document
    assert done["accepted"] == 24
    assert done["added"] == done["train"] + done["held_out"] > 0
    assert done["figures"]["agreement"]["value"] == 1
    write_report(cube, page, quicklook=lambda name: None)
    assert "People judged 24 of 24 units that were drawn at random" in page.read_text()
    again = think2seg("review", "import", folder, "--store", store)
    assert again.code == 0
    assert "after Olofsson et al. (2014)" in again.out
    assert "samples: 0 added" in again.out
    assert "no sample of" in again.err


def test_folder_and_strata_are_told_to_people(cube: Path, think2seg: Think2Seg, tmp_path: Path) -> None:
    said = think2seg("review", "sample", cube, "--n", 12, "--out", tmp_path / "review", "--no-images")
    assert "present" in said.out
    assert f"judge: {tmp_path / 'review' / 'review.html'}" in said.out
    assert "12 of 12 units have no image" in said.err


def test_what_cannot_be_used_ends_with_2(cube: Path, think2seg: Think2Seg, tmp_path: Path) -> None:
    refused = think2seg("review", "import", tmp_path)
    assert refused.code == 2
    assert "review.json is missing" in refused.err
    assert think2seg("review", "sample", cube, "--n", 1, "--out", tmp_path / "a").code == 2
