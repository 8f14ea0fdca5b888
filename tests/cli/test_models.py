"""`think2seg models`: what it prints for people and as JSON, and what it refuses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.registries import aliases, make_weights, verdict
from support.standins import TEMPLATE, DarkPrompter, DarkSegmenter

from think2seg.learning import comparison
from think2seg.learning.comparison import compare, held_out_set
from think2seg.learning.datasets import Dataset, dataset_digest, read_dataset
from think2seg.learning.registry import note_verdict
from think2seg.learning.verdict import Limits
from think2seg.prompting import load_template
from think2seg.registry import open_registry

type Think2Seg = Callable[..., Any]


@pytest.fixture
def candidate(registry_folder: Path, think2seg: Think2Seg, tmp_path: Path) -> Any:
    """The document of the version that was registered."""
    return think2seg("models", "register", make_weights(tmp_path / "a", "a"), "--json").document


def test_nothing_is_registered_at_first(think2seg: Think2Seg) -> None:
    assert "champion means the bundled pair" in think2seg("models", "list").out
    assert think2seg("models", "list", "--json").document == {"registry": None, "versions": []}
    for verb in ("show", "promote", "rollback"):
        outcome = think2seg("models", verb)
        assert outcome.code == 2
        assert "think2seg models register FOLDER" in outcome.err


def test_a_registered_version_is_not_calibrated(candidate: Any, think2seg: Think2Seg, tmp_path: Path) -> None:
    for name in ("champion", "candidate"):
        outcome = think2seg("evaluate", "--prompter", name, "--calibrate", "--out", tmp_path / "out")
        assert outcome.code == 2
        assert "Registered weights never change" in outcome.err
    assert not (tmp_path / "out").exists()


def test_from_registered_to_champion_and_back(candidate: Any, think2seg: Think2Seg) -> None:
    assert (candidate["version"], candidate["aliases"]) == (2, ["candidate"])
    refused = think2seg("models", "promote", "--json")
    assert (refused.code, refused.document["given"]) == (
        2,
        "Nobody has compared think2seg-prompter/2 with the champion.",
    )
    registry = open_registry()
    version, champion = registry.named("candidate"), registry.named("champion")
    note_verdict(registry, version, verdict(version.digest, champion.digest, passed=False))
    assert "FAILED" in think2seg("models", "show", "candidate").out
    assert "refused: gain (against" in think2seg("models", "list").out
    assert think2seg("models", "promote").code == 2
    note_verdict(registry, version, verdict(version.digest, champion.digest))
    assert think2seg("models", "promote").out.startswith(
        "champion: think2seg-prompter/2; previous: think2seg-prompter/1"
    )
    assert think2seg("models", "rollback", "--because", "a test", "--json").document["champion"] == 1
    assert aliases(registry) == {"champion": 1, "previous": 2}
    rows = think2seg("models", "list", "--json").document["versions"]
    assert [row["aliases"] for row in rows] == [["champion"], ["previous"]]
    shown = think2seg("models", "show", "previous", "--json").document
    assert shown["rolled_back"]["because"] == "a test"
    assert shown["digest"] == version.digest


def test_force_is_kept(candidate: Any, think2seg: Think2Seg) -> None:
    assert think2seg("models", "promote", "--force", "no time").code == 0
    assert "no time" in think2seg("models", "show").out


def test_nothing_is_said_on_the_side(candidate: Any, think2seg: Think2Seg) -> None:
    assert think2seg("models", "list").err == ""


def frozen_set(folder: Path) -> Dataset:
    """40 images; in half of them a dark square is what is asked for, in the others nothing is."""
    for kind in ("images", "labels", "QAs"):
        (folder / "val" / kind).mkdir(parents=True)
    for number in range(40):
        image, truth = np.full((96, 96, 3), 200, np.uint8), np.zeros((96, 96), np.uint8)
        if number % 2:
            image[20:60, 20:60], truth[20:60, 20:60] = 30, 255
        Image.fromarray(image).save(folder / "val" / "images" / f"{number:02d}.png")
        Image.fromarray(truth).save(folder / "val" / "labels" / f"{number:02d}.png")
        (folder / "val" / "QAs" / f"{number:02d}.json").write_text(json.dumps({"questions": ["dark ground"]}))
    return read_dataset("earthreason", folder, "val")


class HalfBlind(DarkPrompter):
    """Names half of what is there."""

    def _item(self, box: tuple[slice, slice], side: int) -> dict[str, Any]:
        top, left = box
        return super()._item((slice(top.start, (top.start + top.stop) // 2), left), side)


def models(tmp_path: Path) -> SimpleNamespace:
    path = tmp_path / "template.yaml"
    path.write_text(TEMPLATE)
    template = load_template(str(path))
    return SimpleNamespace(
        good=DarkPrompter(digest="a" * 32, template=template),
        blind=HalfBlind(digest="b" * 32, template=template),
        pen=DarkSegmenter(digest="5" * 32),
    )


LIMITS = Limits(latency_ratio=1e9, resamples=500)


def test_a_comparison_judges_and_is_not_asked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, frozen, out = models(tmp_path), frozen_set(tmp_path / "set"), tmp_path / "out"
    memory = {"memory_bytes": (1, 1), "limits": LIMITS}
    worse = compare(pair.blind, pair.good, pair.pen, frozen, out, **memory)
    assert not worse.passed
    assert "Measurably worse: gIoU 1.000 to 0.750" in worse.reasons[0]
    assert (out / "verdict.md").read_text().startswith("# The candidate is refused")
    monkeypatch.setattr(comparison, "timed", lambda prompters, frozen: [1.0, 1.0])
    monkeypatch.setattr(DarkPrompter, "ask", lambda *_: pytest.fail("asked again"))
    better = compare(pair.good, pair.blind, pair.pen, frozen, out, **memory)
    assert better.passed, better.reasons
    assert json.loads((out / "verdict.json").read_text())["passed"]
    assert better.frozen_set == dataset_digest(frozen)


def test_the_command_keeps_its_verdict(
    candidate: Any, think2seg: Think2Seg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, asked = models(tmp_path), []
    monkeypatch.setattr(
        "think2seg.learning.comparison.load_pair",
        lambda path, pen: (asked.append(path), (pair.good if path.endswith("2") else pair.blind, pair.pen))[1],
    )
    frozen_set(tmp_path / "set")
    registry = open_registry()
    pair.good.digest, pair.blind.digest = registry.named("2").digest, registry.named("1").digest
    pair.pen.digest = "5" * 32
    words = ("models", "compare", "candidate", "champion", tmp_path / "set", "--dataset", "earthreason")
    document = think2seg(*words, "--out", tmp_path / "out", "--json").document
    assert document["figures"][0]["difference"] == pytest.approx(0.25)
    assert asked == ["models:/think2seg-prompter/2", "models:/think2seg-prompter/1"]
    assert registry.named("2").document("verdict") == document
    (tmp_path / "set" / "val").rename(tmp_path / "set" / "train")
    frozen_set(tmp_path / "set")
    again = think2seg(*words, "--training", tmp_path / "set", "--out", tmp_path / "out", "--json").document
    (learnt,) = (figure for figure in again["figures"] if figure["name"] == "gIoU on training images")
    assert (learnt["n"], learnt["difference"]) == (40, pytest.approx(0.25))


def test_ground_that_both_have_seen_is_refused(registry_folder: Path, think2seg: Think2Seg, tmp_path: Path) -> None:
    square = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]]}
    features = [{"type": "Feature", "properties": {"name": "site-7"}, "geometry": square}]
    file = tmp_path / "sites.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    frozen_set(tmp_path / "set")
    think2seg("models", "register", make_weights(tmp_path / "a", "a"), "--footprints", file)
    words = ("models", "compare", "candidate", "champion", tmp_path / "set", "--dataset", "earthreason")
    outcome = think2seg(*words, "--footprints", file, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "site-7 (gate) and site-7 (train)" in outcome.err


def test_the_gates_own_set_is_scenes_and_held_out_tiles(tmp_path: Path) -> None:
    frozen = held_out_set(tmp_path, 8)
    sources = Counter(item.id.rpartition("-")[0] for item in frozen.items)
    assert sources["simulated"] == 8
    assert sources["naip-wetlands"] + sources["carpathian-clearings"] == 8
    assert all(item.category for item in frozen.items)
    assert any(ignored.any() for item in frozen.items if (ignored := item.ignored(64)) is not None)
    assert dataset_digest(held_out_set(tmp_path, 8)) == dataset_digest(frozen)
