"""The arithmetic of memory, and refusals that show it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.checkpoints import published_model, published_prompter

from think2seg.config import LocalPrompter, load_monitor
from think2seg.doctor import examine
from think2seg.errors import ModelError
from think2seg.prompting import load_prompter
from think2seg.prompting.memory import PUBLISHED, need_of, shape_of
from think2seg.segmentation import memory
from think2seg.segmentation.memory import GIB, SEGMENTERS, Need

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_prompter(tmp_path_factory.mktemp("published"))


def test_a_folder_tells_its_sizes(folder: Path) -> None:
    shape = shape_of(folder)
    assert shape is not None
    assert shape.parameters == sum(value.numel() for value in published_model().parameters())
    assert (shape.layers, shape.kv_heads, shape.head_px, shape.widest) == (2, 2, 8, 48)
    newer = json.loads((folder / "config.json").read_text())
    assert "text_config" not in newer


@pytest.mark.parametrize("text", ["{", "{}", '{"text_config": {"num_attention_heads": "many"}}'])
def test_a_folder_that_tells_nothing_is_left_to_the_loader(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert shape_of(tmp_path) is None
    assert need_of(LocalPrompter(), tmp_path, CPU) is None


def test_the_arithmetic_of_the_published_sizes() -> None:
    """Weights: parameters times two bytes. A token's keys and values: 2 · layers · heads · width · two bytes."""
    small, large = PUBLISHED["Think2Seg-RS-3B"], PUBLISHED["Think2Seg-RS-7B"]
    assert small.cache_bytes_per_token("bfloat16") == 2 * 36 * 2 * 128 * 2 == 36_864
    assert large.cache_bytes_per_token("bfloat16") == 2 * 28 * 4 * 128 * 2 == 57_344
    needs = [shape.need(dtype="bfloat16", batch=16, frame_px=840, max_new_tokens=2048) for shape in (small, large)]
    assert [round(need.weights / GIB, 1) for need in needs] == [7.0, 15.4]
    assert [round(need.cache / GIB, 1) for need in needs] == [1.8, 2.8]
    one = small.need(dtype="float32", batch=1, frame_px=840, max_new_tokens=2048)
    assert one.weights == 2 * needs[0].weights
    assert 8 * one.cache == needs[0].cache
    on_cpu = small.need(dtype="bfloat16", batch=1, frame_px=840, max_new_tokens=2048, device=CPU)
    assert on_cpu.cache == needs[0].cache, "a batch has whole groups of 16 rows there"


def test_needs_read_as_sums() -> None:
    need = Need(weights=7 * GIB, cache=2 * GIB, runtime=GIB)
    assert str(need) == "7.0 weights + 2.0 cache + 1.0 runtime = 10.0 GiB"
    assert SEGMENTERS["SAM vit_h"].need(dtype="float32", device=CPU).weights == 4 * 641_090_608


def test_what_cannot_fit_is_refused_before_it_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: GIB // 8)
    with pytest.raises(ModelError) as refused:
        load_prompter(LocalPrompter(path=str(folder), device="cpu"), folder, digest="d")
    for said in ("weights", "GiB", "0.1 GiB are free", "models.prompter.dtype", "kind: served"):
        assert said in str(refused.value)


def test_the_doctor_says_what_fits_and_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 12 * GIB)
    told = {check.found.partition(" on ")[0]: check for check in examine() if check.name == "fits"}
    assert set(told) >= {"Think2Seg-RS-3B (base model for research only)", "Think2Seg-RS-7B (Apache-2.0)", "SAM vit_h"}
    assert all(check.ok for check in told.values())
    assert "fits in bfloat16, batch 16" in told["Think2Seg-RS-3B (base model for research only)"].found
    assert "GiB short even in bfloat16, batch 1" in told["Think2Seg-RS-7B (Apache-2.0)"].found


def test_the_doctor_looks_at_the_models_of_a_monitor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def checks(path: Path | str, *more: str) -> list[tuple[bool, str]]:
        monitor = load_monitor("nd-wetlands", [f"models.prompter.path={path}", *more])
        return [(check.ok, check.found) for check in examine(monitor) if check.name == "monitor"]

    (ok, found), (also, _) = checks(folder)
    assert (ok, also) == (True, True)
    assert "fits in float32, batch 16" in found
    assert checks(folder, f"models.segmenter.path={folder}")[1][0] is False, "a prompter is no segmenter"
    assert checks(folder, f"models.segmenter={{kind: sam2, path: {folder}}}")[1][0] is False
    assert checks(folder, "models.segmenter.device=cuda:7")[1][0] is False
    assert checks("think2seg/weights/segmenter")[0][0] is False
    monkeypatch.setattr(memory, "free_bytes", lambda device: GIB // 8)
    assert checks(folder)[0][0] is False
    assert checks("no/such/folder")[0][0] is False
