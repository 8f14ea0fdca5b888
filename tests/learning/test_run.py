"""Training runs: settings, schedule, checkpoints, and resuming exactly where a run was killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from think2seg.errors import ConfigError, ModelError
from think2seg.learning.began import begin, beginning
from think2seg.learning.curve import draw_curve
from think2seg.learning.optim import Optimisers, Rates, cosine_scale
from think2seg.learning.run import Metrics, RunFolder, Trainer, prefetch
from think2seg.learning.settings import PrompterSettings, SegmenterSettings, load_settings
from think2seg.learning.tiny import prompter_recipe
from think2seg.learning.tiny.prompter_recipe import run_vocabulary
from think2seg.learning.train import train
from think2seg.prompting.template import load_template


class Regression:
    """A stage that fits a line to batches that depend on their step alone."""

    images, floor = 4, 0.1

    def __init__(self, model: nn.Module, *, name: str = "first", steps: int = 12, killed_at: int | None = None) -> None:
        self.name, self.steps, self._killed_at, self._model = name, steps, killed_at, model
        self.optimisers = Optimisers([model], Rates(), is_matrix=lambda _, p: p.ndim == 2, bfloat16=False)

    def batches(self, start: int) -> Iterator[int]:
        return prefetch(int, start=start, stop=self.steps, workers=0)

    def update(self, batch: int, scale: float) -> Metrics:
        if batch == self._killed_at:
            raise KeyboardInterrupt
        inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(batch))
        loss = (self._model(inputs) - inputs.sum(1, keepdim=True)).pow(2).mean()
        return {"loss": loss.item(), "gradient": self.optimisers.update(loss, scale)}

    def evaluate(self) -> Metrics:
        return {"error": 1.0}


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def trainer(path: Path, model: nn.Module) -> Trainer:
    return Trainer(RunFolder(path=path), {"model": model}, checkpoint_s=0, evaluate_s=1e9)


def test_a_killed_run_resumes_to_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, cut = linear(), linear()
    trainer(tmp_path / "whole", whole).fit([Regression(whole), Regression(whole, name="second")], resume=True)
    for killed in (7, None):
        stages = [Regression(cut, killed_at=None), Regression(cut, name="second", killed_at=killed)]
        run = trainer(tmp_path / "cut", cut)
        if killed is None:
            run.fit(stages, resume=True)
        else:
            with pytest.raises(KeyboardInterrupt):
                run.fit(stages, resume=True)
            cut = linear()
    torch.testing.assert_close(cut.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    model = linear()
    trainer(tmp_path, model).fit([Regression(model, name="old")], resume=True)
    with pytest.raises(ModelError, match="old"):
        trainer(tmp_path, model).fit([Regression(model, name="new")], resume=True)
    trainer(tmp_path, model).fit([Regression(model, name="new")], resume=False)


def test_a_run_goes_on_only_with_what_it_was_begun_with(tmp_path: Path) -> None:
    conf, folder = Path("conf/training/tiny-sam.yaml"), RunFolder(path=tmp_path)
    given = ["data.real_share=0", f"export={tmp_path / 'weights'}", f"runs={tmp_path.parent}", f"name={tmp_path.name}"]
    begin(folder, beginning(load_settings(conf, [*given, "stage.steps=3"]), start=None, data="d"), resumes=False)
    folder.checkpoint.touch()
    with pytest.raises(ConfigError, match=r"data: 'd' then(.|\n)*stage.steps: 3 then, 5 now"):
        train(conf, overrides=[*given, "stage.steps=5"])


def test_places_and_looks_may_change_on_the_way(tmp_path: Path) -> None:
    conf, folder = Path("conf/training/tiny-sam.yaml"), RunFolder(path=tmp_path)
    begin(folder, beginning(load_settings(conf), data="d"), resumes=False)
    moved = load_settings(conf, ["export=elsewhere", "evaluate_s=1", "threads=1", "data.folder=imagery"])
    begin(folder, beginning(moved, data="d"), resumes=True)


def test_two_trainings_never_share_a_folder(tmp_path: Path) -> None:
    conf = Path("conf/training/tiny-sam.yaml")
    with (
        RunFolder(path=tmp_path).alone(),
        pytest.raises(ModelError, match="Another process trains the run"),
    ):
        train(conf, overrides=[f"runs={tmp_path.parent}", f"name={tmp_path.name}"])
    with RunFolder(path=tmp_path).alone():
        pass


def test_an_unreadable_checkpoint_is_told(tmp_path: Path) -> None:
    folder = RunFolder(path=tmp_path)
    folder.checkpoint.write_bytes(b"half a file")
    with pytest.raises(ModelError, match="cannot be read"):
        folder.load()


def test_logs_become_a_curve(tmp_path: Path) -> None:
    model, folder = linear(), RunFolder(path=tmp_path)
    trainer(tmp_path, model).fit([Regression(model, steps=60)], resume=True)
    entries = folder.entries()
    assert [entry["step"] for entry in entries if "loss" in entry] == [25, 50, 60]
    assert entries[-1]["held_out"] == {"error": 1.0}
    draw_curve(entries, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 0


def test_rates_rise_then_fall_to_the_floor() -> None:
    scales = [cosine_scale(step, 1000, warm_steps=50, floor=0.05) for step in range(1001)]
    assert scales[0] == pytest.approx(0.02, rel=0.01)
    assert max(scales) == pytest.approx(1, abs=0.01)
    assert scales[-1] == pytest.approx(0.05)


def test_the_training_files_are_valid() -> None:
    assert isinstance(load_settings(Path("conf/training/tiny-sam.yaml"), ["stage.steps=3"]), SegmenterSettings)
    settings = load_settings(Path("conf/training/tiny-prompter.yaml"), ["answers.rates.muon=0.1"])
    assert isinstance(settings, PrompterSettings)
    assert settings.answers.rates.muon == 0.1


@pytest.mark.parametrize("override", ["stage.stepz=3", "stage.steps=none", "stage.steps"])
def test_bad_overrides_are_refused(override: str) -> None:
    with pytest.raises(ConfigError):
        load_settings(Path("conf/training/tiny-sam.yaml"), [override])


def test_a_missing_training_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "none.yaml")


def test_a_run_keeps_the_vocabulary_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = load_template("tiny")
    begun = run_vocabulary(tmp_path / "run" / "tokenizer.json", template)
    monkeypatch.setattr(prompter_recipe, "corpus", lambda _: ["entirely", "other", "words"])
    assert run_vocabulary(tmp_path / "run" / "tokenizer.json", template).encode("lakes") == begun.encode("lakes")
