"""Parts of the reinforcement: its files, questions, reward, and when it stops."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from support.reviews import sampled
from support.standins import DarkSegmenter

pytest.importorskip("trl")

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionPatchEmbed,
    Qwen2_5_VisionTransformerPretrainedModel,
)

from think2seg.errors import ConfigError, ImageryError, ModelError, TrainingError
from think2seg.learning.datasets import Dataset, read_dataset
from think2seg.learning.grpo.callbacks import WHOLE, Stop, last_checkpoint
from think2seg.learning.grpo.model import DistinctImages, PatchProduct
from think2seg.learning.grpo.reward import MaskReward
from think2seg.learning.grpo.tasks import FolderTasks, Task, TaskSets, remembering, task_rows
from think2seg.learning.review import import_review
from think2seg.learning.rewards import Scorer, Target
from think2seg.learning.settings import GrpoSettings, ReinforcementData, StopSettings, load_settings
from think2seg.prompting import load_template
from think2seg.samples.archive import EMBEDDED
from think2seg.segmentation import Drawn, Prompt

SIDE = 64
RIGHT = '<think>A lake.</think> <answer>```json[{"bbox_2d": [16, 16, 48, 48]}]```</answer>'
HALF = RIGHT.replace("48]}", "32]}")
NOTHING = "<think>Nothing.</think> <answer>```json[]```</answer>"
RAMBLING = "I cannot say."
TINY, LARGE = Path("conf/training/tiny-grpo.yaml"), Path("conf/training/think2seg-rs-7b.yaml")


def lake(number: int) -> Task:
    """A dark square on bright ground."""
    image = np.full((SIDE, SIDE, 3), 180, np.uint8)
    truth = np.zeros((SIDE, SIDE), np.bool_)
    truth[16:48, 16:48] = True
    image[truth] = 20
    return Task(target=Target(item=f"made/{number}", image=image, truth=truth), question="lakes", source="made")


def called(reward: MaskReward, texts: Sequence[str], number: Sequence[int], step: int = 0) -> tuple[list[float], Any]:
    """Rewards as TRL asks for them, and what was logged beside them."""
    logged: dict[str, float] = {}
    earned = reward(
        prompts=[],
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        completion_ids=[],
        number=number,
        trainer_state=SimpleNamespace(global_step=step),
        log_metric=logged.__setitem__,
        log_extra=None,
    )
    return earned, logged


@pytest.fixture
def scorer() -> Scorer:
    return Scorer(DarkSegmenter(digest=""), frame_px=SIDE)


def test_the_training_files_are_valid() -> None:
    tiny, large = load_settings(TINY, ["shuffle_rewards=true"]), load_settings(LARGE)
    assert isinstance(tiny, GrpoSettings)
    assert isinstance(large, GrpoSettings)
    assert tiny.shuffle_rewards
    assert (large.rollouts.per_question, large.update.answers, large.update.passes, large.epochs) == (16, 16, 2, 5)
    assert large.update.kl == 0.001


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("epochs=2", "measured in steps"),
        ("steps=null", "measured in steps"),
        ("update.answers=12", "no multiple"),
        ("update.kl=0", "greater than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_settings(TINY, [override])


def test_the_bundled_imagery_has_a_name() -> None:
    tiny = load_settings(TINY)
    assert isinstance(tiny, GrpoSettings)
    assert tiny.data.folder == EMBEDDED
    assert tiny.data.sources == ("naip-wetlands", "carpathian-clearings")


def test_a_task_is_a_function_of_its_number() -> None:
    sets, again = (
        TaskSets.of(ReinforcementData(real_share=0), seed=3, frame_px=224, count=8, validation=3, held_out=3)
        for _ in range(2)
    )
    one, same, other = sets.train[5], again.train[5], sets.train[6]
    np.testing.assert_array_equal(one.target.image, same.target.image)
    np.testing.assert_array_equal(one.target.truth, same.target.truth)
    assert one.question == same.question
    assert not np.array_equal(one.target.image, other.target.image)
    assert sets.train.digest() == again.train.digest()
    assert {task.source for task in (*sets.validation, *sets.held_out)} == {"simulated"}
    assert not np.array_equal(sets.validation[0].target.image, sets.held_out[0].target.image)


@pytest.fixture
def earthreason(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for kind in ("images", "labels", "QAs"):
            (tmp_path / split / kind).mkdir(parents=True)
        for name in ("a", "b"):
            PilImage.new("RGB", (40, 30)).save(tmp_path / split / "images" / f"{name}.png")
            PilImage.new("L", (40, 30), 255).save(tmp_path / split / "labels" / f"{name}.png")
            about = {"questions": [f"{name} one", f"{name} two"]}
            (tmp_path / split / "QAs" / f"{name}.json").write_text(json.dumps(about))
    return tmp_path


def test_pixels_that_do_not_count_are_ignored(earthreason: Path) -> None:
    folder = earthreason / "train" / "ignored"
    folder.mkdir()
    western = np.broadcast_to(np.arange(40) < 20, (40, 40))
    PilImage.fromarray(western[:30].astype(np.uint8) * 255).save(folder / "a.png")
    tasks = FolderTasks(dataset=read_dataset("earthreason", earthreason, "train"), frame_px=40)
    doubtful, certain = tasks[0].target, tasks[2].target
    assert doubtful.ignore is not None
    np.testing.assert_array_equal(doubtful.ignore, western)
    assert certain.ignore is None


def test_every_question_of_a_dataset_is_asked(earthreason: Path) -> None:
    sets = TaskSets.of(
        ReinforcementData(earthreason=earthreason), seed=0, frame_px=56, count=0, validation=3, held_out=10
    )
    assert [sets.train[i].question for i in range(len(sets.train))] == ["a one", "a two", "b one", "b two"]
    assert sets.train[0].target.image.shape == (56, 56, 3)
    assert sets.train[0].target.truth.all()
    assert (len(sets.validation), len(sets.held_out)) == (3, 4)


def test_what_people_reviewed_is_learnt_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    review, store = sampled(tmp_path, monkeypatch), tmp_path / "samples"
    review.verdicts({unit.id: "accept" for unit in review.manifest.units})
    import_review(review.folder, store)
    data = ReinforcementData(real_share=0, reviewed=store, reviewed_share=0.5)
    sets = TaskSets.of(data, seed=0, frame_px=56, count=40, validation=2, held_out=50)
    learnt, seen = (read_dataset("reviewed", store, name).items for name in ("train", "held_out"))
    asked = [sets.train[number] for number in range(40)]
    assert 10 <= sum(task.source == "reviewed" for task in asked) <= 30
    assert {task.source for task in asked} == {"reviewed", "simulated"}
    names = {task.target.item for task in asked if task.source == "reviewed"}
    assert names <= {f"train/{item.id}" for item in learnt}
    again = TaskSets.of(data, seed=0, frame_px=56, count=40, validation=2, held_out=50)
    assert [again.train[number].target.item for number in range(40)] == [task.target.item for task in asked]
    assert again.train.digest() == sets.train.digest()
    assert sum(task.source == "reviewed" for task in sets.held_out) == len(seen) > 0
    assert sum(task.source == "simulated" for task in sets.held_out) > len(seen)


def test_a_dataset_with_nothing_to_look_at_is_judged_by_scenes(
    earthreason: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def with_nothing_in(empty: str) -> TaskSets:
        def read(kind: str, folder: Path, split: str) -> Dataset:
            found = read_dataset(kind, folder, split)
            return replace(found, items=()) if split == empty else found

        monkeypatch.setattr("think2seg.learning.grpo.tasks.read_dataset", read)
        data = ReinforcementData(earthreason=earthreason, absent=0)
        return TaskSets.of(data, seed=0, frame_px=56, count=0, validation=2, held_out=2)

    sets = with_nothing_in("val")
    assert [task.source for task in (*sets.validation, *sets.held_out)] == ["simulated"] * 4
    assert "holds nothing to look at in its split val" in caplog.text
    with pytest.raises(ConfigError, match="holds nothing to learn from"):
        with_nothing_in("train")


def test_an_image_that_cannot_be_read_is_never_replaced(earthreason: Path) -> None:
    (earthreason / "train" / "images" / "b.png").write_bytes(b"no image")
    tasks = FolderTasks(dataset=read_dataset("earthreason", earthreason, "train"), frame_px=56)
    with pytest.raises(ImageryError, match="b of earthreason"):
        tasks[2]


def test_rows_carry_the_prompters_own_template_and_frame(earthreason: Path) -> None:
    tasks = FolderTasks(dataset=read_dataset("earthreason", earthreason, "train"), frame_px=56)
    template = load_template("think2seg-rs")
    rows = task_rows(remembering(tasks), tasks, template, frame_px=28)
    row = rows[3]
    assert row["prompt"] == template.messages("b two")
    assert (row["image"].size, row["number"]) == ((28, 28), 3)
    assert len(rows) == 4


def test_masks_are_what_is_rewarded(scorer: Scorer) -> None:
    earned, logged = called(MaskReward(scorer, lake), [RIGHT, NOTHING, RAMBLING, HALF], [0, 0, 1, 1])
    assert earned == pytest.approx([4, 2, 0, 3])
    terms = {"iou": 0.375, "valid": 0.75, "form": 0.75, "parse_rate": 0.75, "empty": 0.25}
    assert logged == pytest.approx({**terms, "reward_spread": 1.25, "flat_questions": 0})


def test_answers_that_earn_alike_are_flat_whatever_other_questions_earn(scorer: Scorer) -> None:
    _, logged = called(MaskReward(scorer, lake), [RIGHT, RIGHT, RAMBLING, RAMBLING], [0, 0, 1, 1])
    assert (logged["reward_spread"], logged["flat_questions"]) == (0, 1)


def test_shuffled_rewards_stay_within_their_question_and_repeat(scorer: Scorer) -> None:
    texts, numbers = [RIGHT, RIGHT, NOTHING, HALF] * 2, [0] * 4 + [1] * 4
    control = MaskReward(scorer, lake, shuffle_seed=0)
    dealt = [called(control, texts, numbers, step)[0] for step in range(20)]
    assert all(sorted(one[:4]) == sorted(one[4:]) == pytest.approx([2, 3, 4, 4]) for one in dealt)
    assert dealt == [called(control, texts, numbers, step)[0] for step in range(20)]
    assert np.mean(dealt, axis=0) == pytest.approx(3.25, abs=0.6)


class BrokenSegmenter(DarkSegmenter):
    """Fails on whatever it is to draw."""

    def draw(self, tiles: Any, prompts: Sequence[Sequence[Prompt]]) -> list[list[Drawn]]:
        raise RuntimeError("no memory")


def test_a_failure_of_the_reward_names_item_and_answer() -> None:
    reward = MaskReward(Scorer(BrokenSegmenter(digest=""), frame_px=SIDE), lake)
    with pytest.raises(ModelError, match="no memory") as caught:
        called(reward, [RIGHT, NOTHING], [7, 7])
    assert "made/7" in str(caught.value)
    assert "A lake." in str(caught.value)


FINE = {"reward": 2.0, "kl": 0.01, "parse_rate": 1.0, "empty": 0.2, "reward_spread": 0.5}


@pytest.fixture
def stop(tmp_path: Path) -> Callable[..., None]:
    callback = Stop(StopSettings(patience=3))
    args, state, control = TrainingArguments(output_dir=str(tmp_path)), TrainerState(global_step=9), TrainerControl()

    def steps(count: int, **figures: float) -> None:
        for _ in range(count):
            callback.on_log(args, state, control, logs=FINE | figures)

    return steps


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        ({"kl": 4.0}, "divergence from the first weights has grown to 4 nats"),
        ({"parse_rate": 0.2}, "only 20.0% of the answers can be read"),
        ({"empty": 1.0}, "100.0% of the answers say that nothing is there"),
        ({"reward_spread": 0.0}, "all answers to a question earn the same"),
    ],
)
def test_a_run_that_goes_wrong_says_why_it_stops(stop: Any, figures: dict[str, float], told: str) -> None:
    with pytest.raises(TrainingError, match=told) as caught:
        stop(3, **figures)
    assert "Stopped at step 9" in str(caught.value)


def test_a_few_bad_steps_are_no_reason_to_stop(stop: Any) -> None:
    for _ in range(3):
        stop(2)
        stop(1, reward_spread=0.0, parse_rate=0.6, empty=1.0)


def test_checkpoints_that_a_kill_left_in_part_are_not_resumed_from(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for step in (9, 10, 11):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}" / WHOLE).touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-11").exists()


def test_patches_embedded_by_a_product_are_those_of_the_convolution() -> None:
    torch.manual_seed(0)
    embed = Qwen2_5_VisionPatchEmbed(patch_size=14, temporal_patch_size=2, in_channels=3, embed_dim=48)
    patches = torch.randn(8, 3 * 2 * 14 * 14)
    expected = embed(patches)
    embed.__class__ = PatchProduct
    torch.testing.assert_close(embed(patches), expected)


def tower_of_eyes(depth: int) -> Qwen2_5_VisionTransformerPretrainedModel:
    """A small vision tower with random weights."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 24}
    config = Qwen2_5_VLVisionConfig(depth=depth, fullatt_block_indexes=list(range(depth)), **sizes)
    return Qwen2_5_VisionTransformerPretrainedModel(config)


def test_an_image_seen_once_for_all_its_answers_gives_the_values_and_gradients_of_its_copies() -> None:
    tower = tower_of_eyes(depth=2)
    patches = torch.randn(2, 16, 3 * 2 * 14 * 14)[[0, 1, 0, 0, 1]].flatten(0, 1)
    grid = torch.tensor([[1, 4, 4]] * 5)

    def seen() -> list[torch.Tensor]:
        tower.zero_grad()
        found = tower(patches, grid_thw=grid).pooler_output
        (found * torch.linspace(0, 1, len(found))[:, None]).sum().backward()
        return [found.detach(), *(weight.grad.clone() for weight in tower.parameters())]

    expected = seen()
    tower.__class__ = DistinctImages
    torch.testing.assert_close(seen(), expected, rtol=1e-4, atol=1e-6)


def test_images_of_several_sizes_are_seen_as_they_come() -> None:
    tower = tower_of_eyes(depth=1)
    patches, grid = torch.randn(16 + 8, 3 * 2 * 14 * 14), torch.tensor([[1, 4, 4], [1, 2, 4]])
    expected = tower(patches, grid_thw=grid).pooler_output
    tower.__class__ = DistinctImages
    torch.testing.assert_close(tower(patches, grid_thw=grid).pooler_output, expected)
