"""The segment-anything segmenter."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything.modeling.image_encoder import Attention
from segment_anything.utils.transforms import ResizeLongestSide
from suites.segmenter import SegmenterSuite, prompt_of, same
from support.pictures import SIDE, lake_tile

from think2seg.config import SamSegmenter as SamConfig
from think2seg.errors import ModelError
from think2seg.segmentation import Prompt, load_segmenter
from think2seg.segmentation.architecture import load_sam_folder
from think2seg.segmentation.attention import BiasedAttention, FoldedAttention, quicken
from think2seg.segmentation.batches import Prompts
from think2seg.segmentation.decoding import EncodedImages
from think2seg.segmentation.sam import SamSegmenter


@pytest.fixture(scope="module")
def small(pair: Path) -> SamSegmenter:
    return SamSegmenter(pair / "segmenter", digest="0123456789abcdef", dtype="float32", device="cpu")


class TestSam(SegmenterSuite):
    @pytest.fixture
    def segmenter(self, small: SamSegmenter) -> SamSegmenter:
        return small


def test_it_draws_what_the_library_draws(small: SamSegmenter, pair: Path) -> None:
    """Against `Sam.forward`, one image and one prompt at a time."""
    sam, tile, prompt = load_sam_folder(pair / "segmenter"), lake_tile(), prompt_of()
    resize = ResizeLongestSide(sam.image_encoder.img_size)
    image = torch.from_numpy(resize.apply_image(tile)).permute(2, 0, 1)
    assert prompt.bbox is not None
    inputs = {
        "image": image,
        "original_size": (SIDE, SIDE),
        "boxes": torch.from_numpy(resize.apply_boxes(np.array([prompt.bbox]), (SIDE, SIDE))).float(),
        "point_coords": torch.from_numpy(resize.apply_coords(np.array([prompt.points]), (SIDE, SIDE))).float(),
        "point_labels": torch.ones(1, len(prompt.points)),
    }
    with torch.inference_mode():
        (theirs,) = sam([inputs], multimask_output=False)
    ((ours,),) = small.draw([tile], [[prompt]])
    assert (theirs["masks"][0, 0].numpy() != ours.mask).mean() < 0.002
    assert ours.score == pytest.approx(float(theirs["iou_predictions"][0, 0].clamp(0, 1)), abs=1e-5)


def test_a_tile_is_encoded_once_for_all_its_instances(small: SamSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    encoder = small._sam.image_encoder
    handle = encoder.register_forward_hook(lambda module, args, output: encoded.append(len(args[0])))
    small.draw([lake_tile(seed=seed) for seed in range(3)], [[prompt_of()] * 20, [], [prompt_of()]])
    handle.remove()
    assert sum(encoded) == 2


def test_many_instances_are_drawn_in_bounded_calls(small: SamSegmenter) -> None:
    (drawn,) = small.draw([lake_tile()], [[prompt_of()] * 50])
    assert len(drawn) == 50
    assert all(same(one, drawn[0]) for one in drawn)


def test_half_precision_encoding_draws_nearly_the_same(pair: Path, small: SamSegmenter) -> None:
    half = SamSegmenter(pair / "segmenter", digest="0123456789abcdef", dtype="bfloat16", device="cpu")
    ((coarse,),), ((fine,),) = (one.draw([lake_tile()], [[prompt_of()]]) for one in (half, small))
    assert (coarse.mask != fine.mask).mean() < 0.02


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04K\x01."], ids=["empty", "text", "a pickle"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sam_vit_b.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"models\.segmenter\.path"):
        SamSegmenter(path, digest="d")


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match=r"models\.segmenter\.path"):
        SamSegmenter(path, digest="d")


class _Malicious:
    def __reduce__(self) -> tuple[object, ...]:
        return pytest.fail, ("code of a checkpoint was run",)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"image_encoder.pos_embed": _Malicious()}, path)
    with pytest.raises(ModelError):
        SamSegmenter(path, digest="d")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "think2seg.json").write_text(json.dumps({"frame_px": 840}))
    with pytest.raises(ModelError):
        SamSegmenter(tmp_path, digest="d")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(
            ("think2seg.json", text)
            for text in (None, b"{", b"[]", b'{"kind": "sam"}', b'{"kind": "sam", "architecture": 3}')
        ),
        *(
            ("model.safetensors", text)
            for text in (None, b"", b"\x40" * 64, b"version https://git-lfs.github.com/spec/v1")
        ),
    ],
)
def test_a_damaged_folder_is_refused(pair: Path, tmp_path: Path, name: str, content: bytes | None) -> None:
    folder = tmp_path / "segmenter"
    shutil.copytree(pair / "segmenter", folder)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(ModelError):
        SamSegmenter(folder, digest="d")


def test_a_device_that_is_not_there_is_refused(pair: Path) -> None:
    with pytest.raises(ModelError, match="cuda:7"):
        load_segmenter(SamConfig(device="cuda:7"), pair / "segmenter", digest="d")


@pytest.mark.parametrize("learning", [False, True])
def test_folded_attention_equals_the_library_s(learning: bool) -> None:
    torch.manual_seed(0)
    theirs = Attention(40, num_heads=5, use_rel_pos=True, input_size=(6, 7))
    for position in (theirs.rel_pos_h, theirs.rel_pos_w):
        torch.nn.init.normal_(position)
    ours = copy.deepcopy(theirs)
    ours.__class__ = FoldedAttention
    x = torch.randn(2, 6, 7, 40)
    with torch.set_grad_enabled(learning):
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize("at_once", [1 << 24, 1], ids=["maps held whole", "head by head"])
def test_the_quick_attention_is_the_librarys(pair: Path, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("think2seg.segmentation.attention.SCORES_AT_ONCE", at_once)
    plain = load_sam_folder(pair / "segmenter").image_encoder
    quick = load_sam_folder(pair / "segmenter").image_encoder
    quicken(quick)
    assert {type(block.attn) for block in quick.blocks} == {BiasedAttention}
    image = torch.randn(1, 3, plain.img_size, plain.img_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(quick(image), plain(image), rtol=1e-4, atol=1e-4)


def test_tiles_encoded_by_several_calls_are_told_apart(pair: Path) -> None:
    segmenter = SamSegmenter(pair / "segmenter", digest="0123456789abcdef", dtype="float32", device="cpu")
    lake = lake_tile()
    tiles, prompts = (
        [lake, np.roll(lake, 25, axis=0), np.roll(lake, 25, axis=1)],
        [[Prompt(bbox=(18, 26, 62, 70))] * 2] * 3,
    )
    alone = [segmenter.draw([tile], [row])[0] for tile, row in zip(tiles, prompts, strict=True)]
    segmenter._encoded_at_once = 2
    for row, other in zip(segmenter.draw(tiles, prompts), alone, strict=True):
        for one, by_itself in zip(row, other, strict=True):
            assert (one.mask != by_itself.mask).mean() < 1e-3
    assert (alone[0][0].mask != alone[1][0].mask).mean() > 0.01


def test_out_of_memory_halves_the_calls_and_goes_on(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = SamSegmenter(pair / "segmenter", digest="0123456789abcdef", dtype="float32", device="cpu")
    tiles, prompts = [lake_tile()] * 2, [[Prompt(bbox=(18, 26, 62, 70))] * 3] * 2
    whole = segmenter.draw(tiles, prompts)
    before = segmenter._decode

    def fails_when_large(embeddings: EncodedImages, some: Prompts) -> tuple[torch.Tensor, torch.Tensor]:
        if len(embeddings.source) > 2:
            raise torch.OutOfMemoryError("tried to allocate 20.00 GiB")
        return before(embeddings, some)

    monkeypatch.setattr(segmenter, "_decode", fails_when_large)
    drawn = segmenter.draw(tiles, prompts)
    assert segmenter._decoded_at_once == 2
    for row, other in zip(drawn, whole, strict=True):
        for one, as_before in zip(row, other, strict=True):
            assert (one.mask != as_before.mask).mean() < 1e-3

    monkeypatch.setattr(segmenter, "_decode", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("20 GiB")))
    with pytest.raises(ModelError, match="single instance"):
        segmenter.draw(tiles, prompts)
