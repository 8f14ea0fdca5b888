"""The SAM 2 segmenter on a miniature checkpoint in the hub's layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from suites.segmenter import SegmenterSuite, prompt_of, same
from support.checkpoints import published_sam2
from support.pictures import SIDE, lake_tile
from transformers import Sam2Model, Sam2Processor

from think2seg.config import Sam2Segmenter as Sam2Config
from think2seg.errors import ModelError
from think2seg.registry import segmenter_weights
from think2seg.segmentation import Prompt, load_segmenter
from think2seg.segmentation.sam2 import Sam2Segmenter


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return published_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="module")
def small(folder: Path) -> Sam2Segmenter:
    config = Sam2Config(kind="sam2", path=str(folder), dtype="float32", device="cpu")
    weights = segmenter_weights(config)
    segmenter = load_segmenter(config, weights.path, digest=weights.digest)
    assert isinstance(segmenter, Sam2Segmenter)
    return segmenter


class TestSam2(SegmenterSuite):
    finds_lakes = False

    @pytest.fixture
    def segmenter(self, small: Sam2Segmenter) -> Sam2Segmenter:
        return small


def test_the_layout_is_the_published_one(folder: Path) -> None:
    assert json.loads((folder / "config.json").read_text())["model_type"] == "sam2_video"
    assert (folder / "model.safetensors").is_file()
    assert (folder / "processor_config.json").is_file() or (folder / "preprocessor_config.json").is_file()


@pytest.mark.parametrize(
    "prompt",
    [prompt_of(), Prompt(bbox=(18, 26, 62, 70)), Prompt(bbox=None, points=((40, 48),), negative_points=((80, 10),))],
    ids=["box and points", "box", "points of both kinds"],
)
def test_it_draws_what_the_library_draws(folder: Path, small: Sam2Segmenter, prompt: Prompt) -> None:
    """Against `Sam2Model.forward` and its processor, one image and one prompt at a time."""
    processor, model = Sam2Processor.from_pretrained(folder), Sam2Model.from_pretrained(folder).eval()
    points = [[list(map(list, (*prompt.points, *prompt.negative_points)))]]
    labels = [[[1] * len(prompt.points) + [0] * len(prompt.negative_points)]]
    inputs = processor(
        images=lake_tile(),
        input_points=points if labels[0][0] else None,
        input_labels=labels if labels[0][0] else None,
        input_boxes=[[list(prompt.bbox)]] if prompt.bbox else None,
        return_tensors="pt",
    )
    with torch.inference_mode():
        theirs = model(**inputs, multimask_output=False)
    (mask,) = processor.post_process_masks(theirs.pred_masks, inputs["original_sizes"])
    ((ours,),) = small.draw([lake_tile()], [[prompt]])
    assert ours.mask.any()
    assert not ours.mask.all()
    assert (mask[0, 0].numpy() != ours.mask).mean() < 0.002
    assert float(theirs.iou_scores[0, 0, 0]) == pytest.approx(ours.score, abs=1e-5)


def test_a_tile_is_encoded_once_for_all_its_instances(small: Sam2Segmenter) -> None:
    encoded: list[int] = []
    encoder = small._model.vision_encoder
    handle = encoder.register_forward_hook(lambda module, args, output: encoded.append(len(args[0])))
    small.draw([lake_tile(seed=seed) for seed in range(3)], [[prompt_of()] * 20, [], [prompt_of()]])
    handle.remove()
    assert sum(encoded) == 2


def test_instances_of_several_tiles_are_decoded_together(small: Sam2Segmenter) -> None:
    decoded: list[int] = []
    handle = small._model.mask_decoder.register_forward_hook(lambda module, args, output: decoded.append(1))
    drawn = small.draw([lake_tile(seed=seed) for seed in range(2)], [[prompt_of()] * 2] * 2)
    handle.remove()
    assert [len(row) for row in drawn] == [2] * 2
    assert len(decoded) == 1
    assert same(*drawn[0])


def test_tiles_encoded_by_several_calls_are_told_apart(small: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    tiles = [rng.integers(0, 255, (96, 96, 3), dtype=np.uint8) for _ in range(3)]
    prompts = [[Prompt(bbox=(20, 30, 70, 80))]] * 3
    alone = [segmented[0] for tile, row in zip(tiles, prompts, strict=True) for segmented in small.draw([tile], [row])]
    monkeypatch.setattr(small, "_encoded_at_once", 2)
    for (one,), by_itself in zip(small.draw(tiles, prompts), alone, strict=True):
        assert (one.mask != by_itself.mask).mean() < 1e-2
        assert one.score == pytest.approx(by_itself.score, abs=1e-4)


def test_half_precision_encoding_draws_nearly_the_same(folder: Path, small: Sam2Segmenter) -> None:
    half = Sam2Segmenter(folder, digest="0123456789abcdef", dtype="bfloat16", device="cpu")
    ((coarse,),), ((fine,),) = (one.draw([lake_tile()], [[prompt_of()]]) for one in (half, small))
    assert (coarse.mask != fine.mask).mean() < 0.05


@pytest.mark.parametrize("files", [{}, {"config.json": '{"model_type": "bert"}'}, {"config.json": "{"}])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match=r"models\.segmenter\.path"):
        Sam2Segmenter(tmp_path, digest="d", device="cpu")


def test_masks_are_as_large_as_the_tile(small: Sam2Segmenter) -> None:
    ((drawn,),) = small.draw([lake_tile(SIDE + 13)], [[prompt_of()]])
    assert drawn.mask.shape == (SIDE + 13, SIDE + 13)
    assert drawn.mask.dtype == np.bool_
