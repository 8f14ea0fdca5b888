"""The retraining flow against a real Prefect API: what it does in which order, and what it leaves for people.

What takes an hour, the training and the asking of the frozen set, is played by two functions; the registry, the shadow
run, the archive run after the promotion, events and artifacts are real.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_URL, temporary_settings
from support.miniature import Archive, Miniature
from support.registries import aliases, copy_of, verdict
from support.reviews import sampled
from support.standins import Standins

import think2seg
from flows import retrain_prompter as retraining
from flows.import_review import import_review
from think2seg.cube import sibling_uri
from think2seg.errors import ConfigError, TrainingError
from think2seg.learning.registry import note_verdict, roll_back
from think2seg.registry import Registry, Version, open_registry

if TYPE_CHECKING:
    from .conftest import Orchestra

DAYS = ("2014-07-20", "2020-08-31")


@pytest.fixture(autouse=True)
def no_log_outlives_the_server() -> Iterator[None]:
    yield
    APILogHandler().flush()


@pytest.fixture
def registry(empty_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("THINK2SEG_REGISTRY", str(copy_of(empty_registry, tmp_path / "registry")))
    return open_registry()


@pytest.fixture
def retrain(
    orchestra: Orchestra, by_rule: Standins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Run the flow; `passes` is what the gate says. `told` of it: what each training was told."""
    told: list[list[str]] = []

    def run(*, passes: bool = True, **parameters: Any) -> Any:
        def train(name: str, config: str, overrides: Any) -> dict[str, Any]:
            told.append(list(overrides))
            export = tmp_path / "runs" / name / "prompter"
            if not export.exists():
                shutil.copytree(by_rule.folder / "prompter", export)
                (export / "weights.bin").write_text(name)
                (export.parent / "record.json").write_text('{"data": "d1", "base": "b1", "config": {"name": "a test"}}')
            return {"run": str(export.parent), "export": str(export)}

        def compare(registry: Registry, ours: Version, theirs: Version, *others: Any, **told: Any) -> Any:
            said = verdict(ours.digest, theirs.digest, passed=passes)
            note_verdict(registry, ours, said)
            return said

        monkeypatch.setattr(retraining, "train", train)
        monkeypatch.setattr(retraining, "compare_versions", compare)
        monkeypatch.setattr(retraining, "held_out_set", lambda out, scenes: None)
        with temporary_settings({PREFECT_API_URL: orchestra.env["PREFECT_API_URL"]}):
            return retraining.retrain_prompter(return_state=True, **parameters)

    run.told = told  # type: ignore[attr-defined]
    return run


def events(orchestra: Orchestra, name: str) -> list[Any]:
    wanted = {"filter": {"event": {"prefix": [name]}}, "limit": 5}
    return orchestra.until(lambda: orchestra.post("/events/filter", wanted)["events"], f"{name} did not come")


def test_what_passes_is_promoted_and_the_next_run_uses_it(
    orchestra: Orchestra, registry: Registry, retrain: Any, tmp_path: Path, scheduler: str
) -> None:
    world = Miniature(tmp_path, Archive.of(tmp_path / "archive", DAYS), scheduler)
    world.run()
    state = retrain(name="better", monitors=[str(world.file())], last=1)
    assert state.is_completed(), state.message
    assert state.message.startswith("champion: think2seg-prompter/2; previous: think2seg-prompter/1 (better on 80")
    assert aliases(registry) == {"champion": 2, "previous": 1}
    beside = think2seg.open_cube(sibling_uri(str(world.cube), registry.named("2").digest))
    assert beside.sizes["time"] == 1

    world.archive.put("2017-08-27")
    world.run()
    versions = [name.partition("+")[0] for name in think2seg.open_cube(world.cube)["model_version"].values.tolist()]
    assert versions == [registry.named(one).digest[:12] for one in ("1", "2", "1")]
    roll_back(registry)
    assert aliases(registry) == {"champion": 1, "previous": 2}

    (event,) = events(orchestra, "think2seg.model.promoted")
    assert event["payload"]["overlaps"][0]["agreement"] == 1.0
    artifacts = orchestra.post("/artifacts/filter", {"artifacts": {"type": {"any_": ["markdown"]}}})
    told = {artifact["key"]: artifact["data"] for artifact in artifacts}
    assert "The candidate may be promoted" in told["think2seg-verdict"]
    assert "on 1 acquisition that both answered" in next(text for key, text in told.items() if key.endswith("-shadow"))


def test_what_the_gate_refuses_is_not_promoted(orchestra: Orchestra, registry: Registry, retrain: Any) -> None:
    state = retrain(name="worse", passes=False, samples="out/samples", overrides=["seed=7"])
    assert state.is_completed()
    assert [told[1:] for told in retrain.told] == [["data.reviewed=out/samples", "seed=7"]]
    assert state.message == "think2seg-prompter/2 is refused. Measurably worse: gIoU 0.400 to 0.300."
    assert aliases(registry) == {"champion": 1, "candidate": 2}
    assert registry.named("2").document("base") == "b1"
    (event,) = events(orchestra, "think2seg.model.refused")
    assert event["payload"]["reasons"] == ["Measurably worse: gIoU 0.400 to 0.300."]


def test_a_review_that_brings_labels_is_told(
    orchestra: Orchestra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    review, store = sampled(tmp_path, monkeypatch), str(tmp_path / "samples")
    review.verdicts({unit.id: "accept" for unit in review.manifest.units})
    with temporary_settings({PREFECT_API_URL: orchestra.env["PREFECT_API_URL"]}):
        first, second = (import_review(str(review.folder), store, return_state=True) for _ in range(2))
    assert first.message.endswith("added, 0 were known already, 0 withdrawn.")
    assert second.message.startswith("0 samples added")
    (event,) = events(orchestra, "think2seg.labels.reviewed")
    assert event["payload"]["added"] == event["payload"]["train"] + event["payload"]["held_out"]
    assert event["payload"]["accepted"] == len(review.manifest.units)


def test_a_person_may_decline(registry: Registry, retrain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def decide(**told: Any) -> Any:
        asked.append(told)
        return retraining.Approval(promote=False, because="it sees lakes in car parks")

    monkeypatch.setattr(retraining, "pause_flow_run", decide)
    state = retrain(name="doubtful", approve=True)
    assert asked[0]["wait_for_input"] is retraining.Approval
    assert "was not approved: it sees lakes in car parks" in state.message
    assert aliases(registry) == {"champion": 1, "candidate": 2}


def test_each_retraining_asks_questions_of_its_own(registry: Registry, retrain: Any) -> None:
    for name in ("monday", "tuesday", "monday"):
        retrain(name=name, passes=False)
    monday, tuesday, again = (told[0] for told in retrain.told)
    assert monday.startswith("seed=")
    assert monday == again
    assert monday != tuesday


def test_a_name_is_no_path(registry: Registry, retrain: Any) -> None:
    with pytest.raises(ConfigError, match="it names a folder"):
        retrain(name="../elsewhere").result()


def test_a_training_ends_with_its_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = tmp_path / "endless"
    endless.write_text("#!/bin/sh\necho $$ >&2\nexec sleep 600\n")
    endless.chmod(0o755)
    told: list[str] = []

    def cancel(line: str) -> None:
        told.append(line)
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "executable", str(endless))
    monkeypatch.setattr(retraining, "get_run_logger", lambda: SimpleNamespace(info=cancel))
    with pytest.raises(KeyboardInterrupt):
        retraining.train.fn("cancelled", "nothing.yaml", [])
    with pytest.raises(ProcessLookupError):
        os.kill(int(told[0]), 0)


def test_a_training_that_fails_tells_why(orchestra: Orchestra, registry: Registry, tmp_path: Path) -> None:
    with (
        temporary_settings({PREFECT_API_URL: orchestra.env["PREFECT_API_URL"]}),
        pytest.raises(TrainingError, match=r"exit code 2.\n(.|\n)*nothing.yaml"),
    ):
        retraining.retrain_prompter(config=str(tmp_path / "nothing.yaml"), name="nothing")
