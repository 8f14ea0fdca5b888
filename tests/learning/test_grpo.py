"""Reinforcement from a training file to a weights folder, on the small pair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from support.reinforcement import training_file

pytest.importorskip("trl")

from think2seg.config import LocalPrompter
from think2seg.errors import ConfigError, ModelError, TrainingError
from think2seg.learning.began import begin
from think2seg.learning.grpo.callbacks import WHOLE
from think2seg.learning.rewards import Scorer
from think2seg.learning.run import RunFolder
from think2seg.learning.train import export, train
from think2seg.prompting import load_prompter
from think2seg.registry import open_registry, weights_digest


def weights(folder: Path) -> dict[str, Any]:
    return dict(load_file(folder / "model.safetensors"))


def moved(before: Path, after: Path) -> bool:
    """Whether any weight differs; fails where the two hold different ones."""
    one, other = weights(before), weights(after)
    assert one.keys() == other.keys()
    assert all(one[name].dtype == other[name].dtype for name in one)
    return any(not one[name].equal(other[name]) for name in one)


def test_a_reinforcement_leaves_a_prompter_a_record_and_its_figures(
    pair: Path, tmp_path: Path, empty_registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.registries import copy_of

    monkeypatch.setenv("THINK2SEG_REGISTRY", str(copy_of(empty_registry, tmp_path / "registry")))
    result = train(training_file(tmp_path, pair, track=True))
    assert moved(pair / "prompter", result.export)
    assert result.digest == weights_digest(result.export)
    assert (result.export / "config.json").read_bytes() == (pair / "prompter" / "config.json").read_bytes()
    prompter = load_prompter(LocalPrompter(path=str(result.export)), result.export, digest=result.digest)
    (reply,) = prompter.ask([np.full((224, 224, 3), 90, np.uint8)], "lakes")
    assert reply.text

    record = json.loads((result.run / "record.json").read_text())
    assert (record["digest"], record["base"]) == (result.digest, weights_digest(pair / "prompter"))
    assert record["compared"][0]["n"] == 3
    assert record["computed_in"] in ("float32", "bfloat16")
    assert (result.run / "curve.png").stat().st_size > 0
    card = (result.export / "README.md").read_text()
    assert "Before and after reinforcement" in card
    assert result.digest in card

    steps = [entry for entry in RunFolder(path=result.run).entries() if "reward" in entry]
    assert [entry["step"] for entry in steps] == [1, 2]
    assert {"reward", "reward_spread", "kl", "length", "parse_rate", "iou"} <= steps[0].keys()
    client = open_registry().client
    experiment = client.get_experiment_by_name("think2seg-training")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.data.params["update.rate"]) == ("FINISHED", "0.001")
    assert [one.step for one in client.get_metric_history(run.info.run_id, "reward")] == [1, 2]
    assert [one.step for one in client.get_metric_history(run.info.run_id, "validation simulated gIoU")] == [0, 2]


def test_adapters_are_merged_into_the_exported_weights(pair: Path, tmp_path: Path) -> None:
    lora = {"rank": 4, "alpha": 8}
    result = train(
        training_file(tmp_path, pair, steps=1, lora=lora, gradient_checkpointing=True, update={"rate": 0.05})
    )
    assert moved(pair / "prompter", result.export)


def test_a_failure_of_the_reward_ends_the_run(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ModelError("made/1: the segmenter failed")

    monkeypatch.setattr(Scorer, "_draw", fail)
    with pytest.raises(ModelError, match="made/1"):
        train(training_file(tmp_path, pair))
    assert not (tmp_path / "few").exists()


def test_a_run_that_stops_exports_nothing(pair: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="all answers to a question earn the same"):
        train(training_file(tmp_path, pair, stop={"patience": 1, "spread": 9.0, "parse_rate": 0.0, "empty": 1.0}))
    assert not (tmp_path / "few").exists()


def test_a_run_of_the_same_name_goes_on_only_with_what_it_was_begun_with(pair: Path, tmp_path: Path) -> None:
    conf, run = training_file(tmp_path, pair), RunFolder(path=tmp_path / "runs" / "few")
    (run.path / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (run.path / "checkpoints" / "checkpoint-1" / WHOLE).touch()
    with pytest.raises(ConfigError, match="begun with nobody says what"):
        train(conf)
    begin(run, {"kind": "grpo", "update.rate": 0.5, "prompter": "p" * 32}, resumes=False)
    with pytest.raises(ConfigError, match=r"prompter: 'pppp(.|\n)*update.rate: 0.5 then, 0.001 now(.|\n)*another name"):
        train(conf)


def test_nothing_is_exported_from_the_middle(pair: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="when it ends"):
        export(training_file(tmp_path, pair))
