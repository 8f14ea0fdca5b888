"""The registry: what a name means, what a promotion needs, and what is left by whoever dies in the middle of one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import shapely
import yaml
from filelock import FileLock
from support.registries import Death, aliases, copy_of, make_weights, mortal, verdict

from think2seg import config
from think2seg.errors import ConfigError, ModelError, SampleError
from think2seg.learning.card import CARD, Training, training_of
from think2seg.learning.gate import require_apart
from think2seg.learning.registry import (
    first_champion,
    known_verdict,
    note_verdict,
    promote,
    register,
    roll_back,
    settle,
    training_footprints,
)
from think2seg.learning.verdict import Limits
from think2seg.registry import Registry, Version, open_registry, pinned, prompter_weights, resolve, weights_digest

LOCAL = config.LocalPrompter(path="champion")
BESIDE = {"far away": shapely.box(10, 50, 10.1, 50.1)}
FIGURES = {"gIoU": 0.42, "gIoU, ponds 100 %": 0.25}
TRAINING = Training(
    data="d" * 32, config={"stage": {"steps": 4}}, metrics=FIGURES, base="Qwen/Qwen2.5-VL-3B", footprints=BESIDE
)


@pytest.fixture
def registry(registry_folder: Path) -> Registry:
    return open_registry()


def trained(registry: Registry, tmp_path: Path, name: str, *, passed: bool | None = True) -> Version:
    """A version that was registered and, unless `passed` is None, compared with the champion."""
    version = register(registry, make_weights(tmp_path / name, name), TRAINING)
    champion = registry.alias("champion")
    assert champion is not None
    if passed is not None:
        note_verdict(registry, version, verdict(version.digest, champion.digest, passed=passed))
    return registry.named(str(version.number))


def test_the_first_registration_makes_the_bundled_prompter_champion(registry: Registry, tmp_path: Path) -> None:
    version = trained(registry, tmp_path, "a", passed=None)
    assert aliases(registry) == {"champion": 1, "candidate": 2}
    assert registry.named("champion").digest == weights_digest(tmp_path / "bundled" / "prompter")
    assert (version.name, version.uri) == ("think2seg-prompter/2", "models:/think2seg-prompter/2")
    assert not version.promoted


def test_a_version_keeps_what_it_was_made_of(registry: Registry, tmp_path: Path) -> None:
    version = trained(registry, tmp_path, "a", passed=None)
    told = version.to_dict()
    assert told["digest"] == weights_digest(tmp_path / "a") == weights_digest(registry.folder_of(version))
    assert (told["data"], told["training"], told["metrics"]) == ("d" * 32, {"stage": {"steps": 4}}, FIGURES)
    assert registry.client.get_run(version.run_id).data.metrics == {"gIoU": 0.42, "gIoU: ponds 100 percent": 0.25}
    assert shapely.equals_exact(training_footprints(registry, version)["far away"], BESIDE["far away"], 1e-9)
    assert training_footprints(registry, registry.named("1")) == {}


def test_registered_weights_can_be_read_by_whom_their_description_can(registry: Registry, tmp_path: Path) -> None:
    folder = make_weights(tmp_path / "a", "a")
    for path in folder.glob("*.safetensors"):
        path.chmod(0o600)
    kept = registry.folder_of(register(registry, folder, TRAINING))
    assert {path.stat().st_mode for path in kept.glob("*.safetensors")} == {(kept / CARD).stat().st_mode}


def test_a_card_says_to_the_hub_and_to_people_what_it_is(registry: Registry, tmp_path: Path) -> None:
    folder = make_weights(tmp_path / "a", "a")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Told before\n\nBy hand.\n")
    version = register(registry, folder, TRAINING)
    _, front, text = (registry.folder_of(version) / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert (metadata["license"], metadata["base_model"]) == ("apache-2.0", "Qwen/Qwen2.5-VL-3B")
    (result,) = metadata["model-index"][0]["results"]
    assert result["metrics"] == [{"type": name, "name": name, "value": value} for name, value in FIGURES.items()]
    for part in (version.digest, "| gIoU | 0.42 |", '"steps": 4', "### Told before", "By hand."):
        assert part in text
    assert "license: mit" not in text


def test_the_same_weights_are_registered_once(registry: Registry, tmp_path: Path) -> None:
    first = trained(registry, tmp_path, "a", passed=None)
    make_weights(tmp_path / "again", "a")
    assert register(registry, tmp_path / "again", Training()) == first
    assert register(registry, tmp_path / "bundled" / "prompter", Training()).aliases == ("champion",)
    assert len(registry.versions()) == 2


def test_ground_is_added_to_weights_that_are_known(registry: Registry, tmp_path: Path) -> None:
    first = trained(registry, tmp_path, "a", passed=None)
    elsewhere = {"far away": shapely.box(20, 50, 20.1, 50.1), "near": shapely.box(0, 0, 1, 1)}
    assert register(registry, tmp_path / "a", Training(footprints=elsewhere)) == first
    found = training_footprints(registry, first)
    assert found.keys() == {"far away", "near"}
    assert all(found["far away"].intersects(place) for place in (BESIDE["far away"], elsewhere["far away"]))


def test_what_a_version_goes_back_to_has_seen_its_ground(registry: Registry, tmp_path: Path) -> None:
    parent = trained(registry, tmp_path, "a", passed=None)
    child = register(registry, make_weights(tmp_path / "b", "b"), Training(base=parent.digest))
    grandchild = register(registry, make_weights(tmp_path / "c", "c"), Training(base=child.digest))
    found = training_footprints(registry, grandchild)
    assert found.keys() == {f"far away of {parent.name}"}
    with pytest.raises(ConfigError, match="touch"):
        require_apart(found, BESIDE)


def test_names_of_versions(registry: Registry, tmp_path: Path) -> None:
    version = trained(registry, tmp_path, "a")
    for name in ("candidate", "2", "v2", "think2seg-prompter/2", version.uri, version.digest[:8]):
        assert registry.named(name) == version
    for name in ("previous", "3", "nonsense", "0" * 8):
        with pytest.raises(ModelError, match="1 champion, 2 candidate"):
            registry.named(name)


def test_promotion_and_roll_back_move_all_aliases(registry: Registry, tmp_path: Path) -> None:
    trained(registry, tmp_path, "a")
    move = promote(registry)
    assert aliases(registry) == {"champion": 2, "previous": 1}
    assert move.sentence().startswith("champion: think2seg-prompter/2; previous: think2seg-prompter/1 (better on 80")
    trained(registry, tmp_path, "b")
    promote(registry, "3")
    assert aliases(registry) == {"champion": 3, "previous": 2}
    roll_back(registry, because="it sees lakes in car parks")
    assert aliases(registry) == {"champion": 2, "previous": 3}
    assert registry.named("3").document("rolled_back")["because"] == "it sees lakes in car parks"
    assert registry.named("3").promoted
    roll_back(registry)
    assert aliases(registry) == {"champion": 3, "previous": 2}


def test_what_is_not_promoted(registry: Registry, tmp_path: Path) -> None:
    trained(registry, tmp_path, "a", passed=None)
    with pytest.raises(ConfigError, match="Nobody has compared think2seg-prompter/2"):
        promote(registry)
    trained(registry, tmp_path, "b", passed=False)
    with pytest.raises(ConfigError, match=r"refuses think2seg-prompter/3.\nMeasurably worse: gIoU 0.400 to 0.300"):
        promote(registry)
    with pytest.raises(ConfigError, match="champion already"):
        promote(registry, "champion")
    assert aliases(registry) == {"champion": 1, "candidate": 3}
    move = promote(registry, force="the old one cannot read the new camera")
    assert aliases(registry) == {"champion": 3, "previous": 1}
    assert registry.named("champion").document("moved")["because"] == "the old one cannot read the new camera"
    assert move.forced


def test_a_verdict_against_a_champion_of_the_past_does_not_count(registry: Registry, tmp_path: Path) -> None:
    trained(registry, tmp_path, "a")
    trained(registry, tmp_path, "b")
    promote(registry, "2")
    with pytest.raises(ConfigError, match=r"the champion is think2seg-prompter/2"):
        promote(registry, "3")


def test_a_verdict_under_an_older_rule_of_scoring_does_not_count(registry: Registry, tmp_path: Path) -> None:
    version, champion = trained(registry, tmp_path, "a"), registry.named("champion")
    note_verdict(registry, version, replace(verdict(version.digest, champion.digest), rule=1))
    version = registry.named("2")
    assert known_verdict(version, champion, frozen_set="f" * 32, segmenter="5" * 32, limits=Limits()) is None
    with pytest.raises(ConfigError, match="older rule of scoring"):
        promote(registry)


def test_a_verdict_is_known_again_only_for_the_same_comparison(registry: Registry, tmp_path: Path) -> None:
    version, champion = trained(registry, tmp_path, "a"), registry.named("champion")
    asked = {"frozen_set": "f" * 32, "segmenter": "5" * 32}
    known = known_verdict(version, champion, **asked, limits=Limits())
    assert known is not None
    assert known.passed
    assert known_verdict(version, version, **asked, limits=Limits()) is None
    assert known_verdict(version, champion, **(asked | {"frozen_set": "0" * 32}), limits=Limits()) is None
    assert known_verdict(version, champion, **asked, limits=Limits(margin=0.5)) is None


def test_changed_or_missing_files_are_neither_promoted_nor_used(registry: Registry, tmp_path: Path) -> None:
    version = trained(registry, tmp_path, "a")
    weights = registry.folder_of(version) / "model.safetensors"
    weights.write_text("somebody trained in place")
    with pytest.raises(ModelError, match="Registered weights never change"):
        promote(registry)
    with pytest.raises(ModelError, match="Registered weights never change"):
        resolve("prompter", "candidate")
    weights.unlink()
    (weights.parent / "think2seg.json").unlink()
    with pytest.raises(ModelError):
        promote(registry)
    assert aliases(registry) == {"champion": 1, "candidate": 2}


def test_there_is_nothing_to_roll_back_to_at_first(registry: Registry) -> None:
    with pytest.raises(ModelError, match="no previous version"):
        roll_back(registry)


@pytest.fixture
def prepared(registry: Registry, tmp_path: Path) -> Path:
    """Champion 2, previous 1, and a candidate 3 that passed."""
    trained(registry, tmp_path, "a")
    promote(registry)
    trained(registry, tmp_path, "b")
    assert registry.folder is not None
    return registry.folder


def opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("THINK2SEG_REGISTRY", str(folder))
    return open_registry()


@pytest.mark.parametrize("what", ["promote", "rollback"])
def test_a_move_that_dies_anywhere_is_finished_by_the_same_command(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    act = promote if what == "promote" else roll_back
    after = {"champion": 3, "previous": 2} if what == "promote" else {"champion": 1, "previous": 2, "candidate": 3}
    whole = mortal(opened(copy_of(prepared, tmp_path / "whole"), monkeypatch))
    act(whole)
    assert aliases(whole) == after
    deaths = range(1, whole.client.calls + 1)  # type: ignore[attr-defined]
    assert len(deaths) >= 6
    for death in deaths:
        registry = opened(copy_of(prepared, tmp_path / f"death-{death}"), monkeypatch)
        with pytest.raises(Death):
            act(mortal(registry, death))
        left = aliases(registry)
        assert left["champion"] in (2, after["champion"])
        assert prompter_weights(LOCAL).digest == registry.named("champion").digest
        act(registry)
        assert aliases(registry) == after, death
        assert settle(registry) is None


def test_whoever_comes_next_finishes_a_move(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A promotion that died is over before a roll-back begins; a later candidate is not promoted in its place."""
    for name, death in (("back", 4), ("next", 5)):
        registry = opened(copy_of(prepared, tmp_path / name), monkeypatch)
        with pytest.raises(Death):
            promote(mortal(registry, death))
        if name == "back":
            roll_back(registry)
            assert aliases(registry) == {"champion": 2, "previous": 3}
            continue
        trained(registry, tmp_path, "c", passed=None)
        with pytest.raises(ConfigError, match="Nobody has compared think2seg-prompter/4"):
            promote(registry)
        assert aliases(registry) == {"champion": 3, "previous": 2, "candidate": 4}


def test_a_registration_that_dies_anywhere_leaves_a_whole_version_or_none(
    empty_registry: Path, registry_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, death, died = make_weights(tmp_path / "a", "a"), 0, True
    while died:
        death, died = death + 1, False
        registry = opened(copy_of(empty_registry, tmp_path / f"death-{death}"), monkeypatch)
        try:
            register(mortal(registry, death), weights, TRAINING)
        except Death:
            died = True
        for version in registry.versions():
            assert registry.folder_of(version).is_dir()
        register(registry, weights, TRAINING)
        assert aliases(registry) == {"champion": 1, "candidate": 2}
        assert len(registry.versions()) == 2
    assert death > 10


KILLED = """
import os, signal
from think2seg.learning.registry import promote
from think2seg.registry import open_registry
registry = open_registry()
move = registry.client.set_registered_model_alias
def killed(model, alias, version):
    if alias == "champion":
        os.kill(os.getpid(), signal.SIGKILL)
    move(model, alias, version)
registry.client.set_registered_model_alias = killed
promote(registry)
"""


def test_a_killed_promotion_is_finished_by_the_same_command(prepared: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert killed.stderr == ""
    registry = open_registry()
    assert aliases(registry) == {"champion": 2, "previous": 2, "candidate": 3}
    promote(registry)
    assert aliases(registry) == {"champion": 3, "previous": 2}


def test_moves_wait_for_each_other(prepared: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("think2seg.learning.registry._PATIENCE_S", 0.1)
    with FileLock(prepared / "moves.lock"), pytest.raises(ModelError, match="Another process has been moving aliases"):
        promote(open_registry())
    assert aliases(registry) == {"champion": 2, "previous": 1, "candidate": 3}
    promote(registry)
    (prepared / "moves.lock").unlink(missing_ok=True)
    (prepared / "moves.lock").mkdir()
    with pytest.raises(ModelError, match="cannot be written"):
        roll_back(registry)


def test_monitors_name_versions(registry: Registry, tmp_path: Path) -> None:
    version = trained(registry, tmp_path, "a", passed=None)
    for path in ("candidate", "models:/think2seg-prompter/2"):
        found = prompter_weights(config.LocalPrompter(path=path))
        assert (found.version, found.promoted, found.digest) == ("think2seg-prompter/2", False, version.digest)
        assert found.path == registry.folder_of(version)
    champion = prompter_weights(LOCAL)
    assert (champion.version, champion.promoted) == ("think2seg-prompter/1", True)
    assert resolve("segmenter", "champion") == tmp_path / "bundled" / "segmenter"
    with pytest.raises(ModelError, match="means no version"):
        resolve("prompter", "previous")


def test_a_run_keeps_the_version_that_it_pinned(registry: Registry, tmp_path: Path) -> None:
    trained(registry, tmp_path, "a")
    models = pinned(config.Models(prompter=LOCAL))
    assert isinstance(models.prompter, config.LocalPrompter)
    assert models.prompter.path == "models:/think2seg-prompter/1"
    before = prompter_weights(models.prompter)
    promote(registry)
    assert prompter_weights(models.prompter) == before
    assert prompter_weights(LOCAL).version == "think2seg-prompter/2"
    folder = config.Models(prompter=config.LocalPrompter(path=str(tmp_path / "a")))
    assert pinned(folder) == folder


def test_the_bundled_pair_needs_no_mlflow(registry_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(ModelError, match="make setup"):
        resolve("prompter", "champion")
    (registry_folder / "registry.db").unlink()
    for path in ("champion", "bundled"):
        assert resolve("prompter", path).name == "prompter"
    assert pinned(config.Models()).prompter == config.LocalPrompter(path="bundled")
    with pytest.raises(ModelError, match="there is no registry yet"):
        resolve("prompter", "candidate")


@pytest.mark.parametrize("where", ["sqlite:///a.db", "https://me:secret@example.org", "ftp://example.org"])
def test_a_place_that_is_none_is_refused_without_its_password(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINK2SEG_REGISTRY", where)
    with pytest.raises(ModelError, match="no place for a registry") as refused:
        resolve("prompter", "champion")
    assert "secret" not in str(refused.value)


def test_what_a_training_run_recorded(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    record.write_text(json.dumps({"data": "d" * 64, "config": {"name": "tiny"}}))
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"held_out": {"g iou": 0.1}}\n{"held_out": {"g iou": 0.4}}\n')
    told = training_of(record, base="", licence="mit", footprints={})
    assert (told.data, told.config, told.metrics) == ("d" * 64, {"name": "tiny"}, {"g iou": 0.4})
    assert told.licence == "mit"
    record.write_text(json.dumps({"data": "", "base": "b" * 32, "config": {"licence": "cc-by-4.0"}}))
    assert training_of(record, base="", footprints={}).licence == "cc-by-4.0"
    assert training_of(record, footprints={}).base == "b" * 32
    assert training_of(record, base="owner/name", footprints={}).base == "owner/name"
    record.write_text(json.dumps({"data": "", "config": {"data": {"reviewed": str(tmp_path / "gone")}}}))
    with pytest.raises(SampleError, match="no reviewed samples"):
        training_of(record, footprints={})
    record.write_text("{}")
    with pytest.raises(ConfigError, match="no record of a training"):
        training_of(record, base="", licence="mit", footprints={})


def test_the_first_champion_may_be_made_by_hand(registry: Registry) -> None:
    assert first_champion(registry) == first_champion(registry)
    assert aliases(registry) == {"champion": 1}
