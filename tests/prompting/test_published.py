"""The published weights drop in: their folder as it lies on the hub, through the unchanged path."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from suites.prompter import QUESTION, PrompterSuite
from support.checkpoints import published_model, published_prompter
from support.pictures import lake_tile

from think2seg.config import LocalPrompter as LocalConfig
from think2seg.errors import ModelError
from think2seg.prompting import load_prompter, parse_answer
from think2seg.prompting.folder import read_description
from think2seg.prompting.local import LocalPrompter
from think2seg.registry import prompter_weights

HUB_ID = "RicardoString/Think2Seg-RS-3B"
REVISION = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "added_tokens.json",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return published_prompter(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def published(folder: Path) -> LocalPrompter:
    config = LocalConfig(path=str(folder), batch=2, max_new_tokens=6, device="cpu")
    weights = prompter_weights(config)
    prompter = load_prompter(config, weights.path, digest=weights.digest)
    assert isinstance(prompter, LocalPrompter)
    return prompter


class TestPublishedLayout(PrompterSuite):
    finds_lakes = False

    @pytest.fixture
    def prompter(self, published: LocalPrompter) -> LocalPrompter:
        return published


def test_the_folder_is_laid_out_as_published(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "qwen2_5_vl"
    assert "text_config" not in config
    with safe_open(folder / "model-00001-of-00002.safetensors", "pt") as shard:
        assert any(name.startswith("model.layers.") for name in shard.keys())  # noqa: SIM118  # it is no mapping


def test_every_weight_arrives(published: LocalPrompter) -> None:
    held = published._model.state_dict()
    assert held["lm_head.weight"].data_ptr() == held["model.language_model.embed_tokens.weight"].data_ptr()
    for name, value in published_model().state_dict().items():
        assert torch.equal(held[name], value), name


def test_the_frame_is_the_papers(published: LocalPrompter, folder: Path) -> None:
    assert read_description(folder).max_new_tokens == 2048
    assert published.frame_px == 840
    assert published.template.name == "think2seg-rs"
    assert published.footprint_m is None
    assert published.unknown_reasoning is None


def test_the_model_sees_840_pixels_resized_by_lanczos_and_nothing_else(published: LocalPrompter) -> None:
    tile = lake_tile(192)
    text = published._processor.apply_chat_template(published.template.messages("ships"), add_generation_prompt=True)
    inputs = published._processor(text=[text], images=[Image.fromarray(published._frame(tile))], return_tensors="pt")
    assert int((inputs["input_ids"] == published._model.config.image_token_id).sum()) == (840 // 28) ** 2
    assert inputs["image_grid_thw"].tolist() == [[1, 60, 60]]
    expected = np.asarray(Image.fromarray(tile).resize((840, 840), Image.Resampling.LANCZOS), np.float32) / 255
    images = published._processor.image_processor
    expected = (expected - np.array(images.image_mean, np.float32)) / np.array(images.image_std, np.float32)
    patches = expected.reshape(30, 2, 14, 30, 2, 14, 3).transpose(0, 3, 1, 4, 6, 2, 5)  # merged two by two
    seen = inputs["pixel_values"].reshape(30, 30, 2, 2, 3, 2, 14, 14).numpy()
    for moment in (0, 1):
        np.testing.assert_allclose(seen[:, :, :, :, :, moment], patches, atol=1e-5)


def test_answers_are_pixels_of_that_frame(published: LocalPrompter) -> None:
    text = '<think>a</think> <answer>```json[{"bbox_2d": [420, 0, 840, 420]}]```</answer>'
    (instance,) = parse_answer(text, frame_px=published.frame_px, finish="stop").scaled(192 / 840).instances
    assert instance.bbox == pytest.approx((96, 0, 192, 96))


def test_decoding_is_greedy_whatever_the_folder_says(published: LocalPrompter, folder: Path) -> None:
    assert json.loads((folder / "generation_config.json").read_text())["do_sample"] is True
    assert published._generation.do_sample is False
    assert published._generation.repetition_penalty in (None, 1.0)
    assert len(published._generation.eos_token_id) == 2


def test_newer_layouts_are_read_alike(published: LocalPrompter, folder: Path, tmp_path: Path) -> None:
    """As the transformers of today writes it: other key names, sections, the template in a file of its own."""
    published._model.save_pretrained(tmp_path, max_shard_size="100KB")
    published._processor.save_pretrained(tmp_path)
    again = LocalPrompter(tmp_path, digest="d", batch=2, max_new_tokens=6, device="cpu")
    tiles = [lake_tile(seed=seed) for seed in range(2)]
    assert again.ask(tiles, QUESTION) == published.ask(tiles, QUESTION)


def test_a_shard_that_lacks_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    index = json.loads((broken / "model.safetensors.index.json").read_text())
    kept = {name: file for name, file in index["weight_map"].items() if file.startswith("model-00001")}
    (broken / "model.safetensors.index.json").write_text(json.dumps({**index, "weight_map": kept}))
    with pytest.raises(ModelError, match="weights are missing"):
        LocalPrompter(broken, digest="d", device="cpu")


def test_the_authors_wording_drops_in(folder: Path, tmp_path: Path) -> None:
    words = tmp_path / "authors.yaml"
    words.write_text('name: authors\nsystem: You help.\nuser: |-\n  The question is "{question}".\n  Think first.\n')
    config = LocalConfig(path=str(folder), template=str(words), batch=1, max_new_tokens=3, device="cpu")
    prompter = load_prompter(config, folder, digest="d")
    assert prompter.template.fill("ships").startswith('The question is "ships".')
    assert prompter.ask([lake_tile()], "ships")[0].tokens == 3


@pytest.fixture
def cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of this machine, holding the miniature under the published name; no network."""
    repo = tmp_path / f"models--{HUB_ID.replace('/', '--')}"
    shutil.copytree(folder, repo / "snapshots" / REVISION)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(REVISION)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize("path", [f"{HUB_ID}@{REVISION}", HUB_ID], ids=["a pinned revision", "the latest"])
def test_a_hub_id_is_found_in_the_cache(cache: Path, folder: Path, path: str) -> None:
    config = LocalConfig(path=path, batch=1, max_new_tokens=2, device="cpu")
    weights = prompter_weights(config)
    assert weights.path == cache / f"models--{HUB_ID.replace('/', '--')}" / "snapshots" / REVISION
    assert weights.digest == prompter_weights(LocalConfig(path=str(folder))).digest
    assert load_prompter(config, weights.path, digest=weights.digest).ask([lake_tile()], QUESTION)


def test_offline_the_folder_to_fill_is_named(cache: Path) -> None:
    other = "f" * 40
    with pytest.raises(ModelError) as refused:
        prompter_weights(LocalConfig(path=f"{HUB_ID}@{other}"))
    for said in (HUB_ID, other, "into a folder", "models.prompter.path"):
        assert said in str(refused.value)
