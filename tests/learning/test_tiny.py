"""The small pair in training: what it reads and says, and that its own forward is transformers' forward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from think2seg.learning.settings import PrompterSettings, SegmenterSettings, load_settings
from think2seg.learning.tiny.anchors import CELLS, FRAME_PX, anchor_instances
from think2seg.learning.tiny.answers import Question, answer_text, corpus
from think2seg.learning.tiny.architecture import PrompterArchitecture, build_processor, build_prompter, question_suffix
from think2seg.learning.tiny.dense import DenseHeads, dense_targets
from think2seg.learning.tiny.encode import PackedText, Prefix, pack, patches
from think2seg.learning.tiny.forward import PackedForward
from think2seg.learning.tiny.prompter_recipe import PrompterRecipe
from think2seg.learning.tiny.segmenter import SegmenterRecipe
from think2seg.learning.tiny.vocabulary import END, IMAGE, UNKNOWN_REASONING, Role, Vocabulary, build_tokenizer
from think2seg.learning.train import training_source
from think2seg.prompting.answers import parse_answer
from think2seg.prompting.template import load_template
from think2seg.samples.labelled import Instance
from think2seg.samples.phrasings import phrasings

SMALL = PrompterArchitecture(vision_depth=2, vision_width=48, vision_heads=2, vision_mlp=64, depth=2, width=64, heads=2)


def instance(concept: str, x: int, y: int, width: int, height: int) -> Instance:
    mask = np.zeros((FRAME_PX, FRAME_PX), np.bool_)
    mask[y : y + height, x : x + width] = True
    return Instance(concept=concept, mask=mask)


SCENE = (instance("lake", 100, 100, 60, 40), instance("lake", 0, 4, 20, 50), instance("ship", 120, 110, 10, 6))


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(build_tokenizer(corpus(load_template("tiny"))))


@pytest.fixture(scope="module")
def model(vocabulary: Vocabulary) -> Qwen2_5_VLForConditionalGeneration:
    return build_prompter(SMALL, vocabulary, seed=0).eval()


@pytest.fixture
def packed(vocabulary: Vocabulary) -> PackedText:
    lakes = tuple(item for item in anchor_instances(SCENE) if item.concept == "lake")
    asked = [Question(phrasing=phrasings(concept, "train")[0], instances=()) for concept in ("water", "road", None)]
    rows = [[Question(phrasing=asked[0].phrasing, instances=lakes), asked[1]], [asked[2], asked[0]]]
    return pack(rows, vocabulary, load_template("tiny"))


def test_instances_are_anchored_where_they_lie_in_raster_order() -> None:
    first, *others = anchor_instances(SCENE)
    second, ship = sorted(others, key=lambda item: item.concept)
    assert first.box == (0, 4, 20, 54)
    assert first.anchor == CELLS  # the cell nearest to the centroid, in the second row
    assert second.box == (100, 100, 160, 140)
    assert [item.concept for item in (first, second, ship)] == ["lake", "lake", "ship"]
    for item, shown in ((first, SCENE[1]), (second, SCENE[0])):
        assert all(shown.mask[y, x] for x, y in item.points)


def test_two_instances_never_share_a_cell_while_others_are_left() -> None:
    crowd = [instance("building", 30, 30 + 6 * i, 80, 5) for i in range(3)]
    assert len({item.anchor for item in anchor_instances(crowd)}) == 3


@pytest.mark.parametrize("concept", ["lake", None])
@pytest.mark.parametrize("listed", [0, 2])
def test_an_answer_survives_its_tokens_and_the_parser(vocabulary: Vocabulary, concept: str | None, listed: int) -> None:
    if concept is None and listed:
        pytest.skip("an unknown concept has no instances")
    items = anchor_instances(SCENE)[:listed]
    text = answer_text(concept, items)
    ids = vocabulary.encode(text + END)
    assert vocabulary.decode(ids) == text
    answer = parse_answer(text, frame_px=FRAME_PX, finish="stop", unknown_reasoning=UNKNOWN_REASONING)
    assert answer.status == ("unknown concept" if concept is None else "ok")
    assert [prompt.bbox for prompt in answer.instances] == [item.box for item in items]


def test_roles_name_what_an_answer_decides(vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode(answer_text("lake", anchor_instances(SCENE)[:2]) + END)
    roles = vocabulary.roles(ids)
    assert (roles == Role.PRESENCE).sum() == 1
    assert (roles == Role.COORDINATE).sum() == 16
    assert (roles == Role.DECISION).sum() == 4  # the count, the first instance, the second, the end


def test_an_instance_takes_eleven_tokens(vocabulary: Vocabulary) -> None:
    lengths = [len(vocabulary.encode(answer_text("lake", anchor_instances(SCENE)[:n]))) for n in (1, 2)]
    assert lengths[1] - lengths[0] == 11


def test_prompts_are_those_of_the_chat_template(vocabulary: Vocabulary) -> None:
    template, processor = load_template("tiny"), build_processor(vocabulary)
    image = np.random.default_rng(0).integers(0, 256, (FRAME_PX, FRAME_PX, 3), dtype=np.uint8)
    question = "Where could an aircraft land, if at all?"
    text = processor.apply_chat_template(template.messages(question), add_generation_prompt=True)
    inputs = processor(text=[text], images=[image], return_tensors="pt")
    prefix = Prefix.of(template.system, vocabulary)
    asked = vocabulary.encode(question_suffix(template.fill(question)))
    expected = [*prefix.before.tolist(), *[vocabulary.id(IMAGE)] * CELLS**2, *prefix.after.tolist(), *asked]
    assert inputs["input_ids"][0].tolist() == expected
    torch.testing.assert_close(inputs["pixel_values"], patches(torch.from_numpy(image[None])))


def test_packed_forward_equals_transformers(
    model: Qwen2_5_VLForConditionalGeneration, vocabulary: Vocabulary, packed: PackedText
) -> None:
    prefix = Prefix.of(load_template("tiny").system, vocabulary)
    images = torch.randint(0, 256, (2, FRAME_PX, FRAME_PX, 3), dtype=torch.uint8)
    forward = PackedForward(model, prefix)
    with torch.no_grad():
        _, states = forward.states(forward.image_features(images), packed, tap=1)
        for row in range(2):
            for branch in (1, 2):
                own = packed.branch[row] == branch
                image_ids = torch.full((CELLS**2,), vocabulary.id(IMAGE))
                ids = torch.cat([prefix.before, image_ids, prefix.after, packed.ids[row][own]])[None]
                expected = model.model(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    pixel_values=patches(images[row : row + 1]),
                    image_grid_thw=torch.tensor([[1, 2 * CELLS, 2 * CELLS]]),
                    mm_token_type_ids=(ids == vocabulary.id(IMAGE)).int(),
                ).last_hidden_state[0, len(prefix) :]
                torch.testing.assert_close(states[row][own], expected, atol=1e-4, rtol=1e-4)


def test_a_saved_prompter_loads_and_answers(
    model: Qwen2_5_VLForConditionalGeneration, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    build_processor(vocabulary).save_pretrained(tmp_path)
    loaded = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path, local_files_only=True)
    processor = AutoProcessor.from_pretrained(tmp_path, local_files_only=True)
    text = processor.apply_chat_template(load_template("tiny").messages("lakes"), add_generation_prompt=True)
    inputs = processor(text=[text], images=[np.zeros((300, 300, 3), np.uint8)], return_tensors="pt")
    assert (inputs["input_ids"] == vocabulary.id(IMAGE)).sum() == CELLS**2
    assert loaded.generate(**inputs, max_new_tokens=3, do_sample=False).shape[0] == 1


def test_training_goes_on_from_a_folder_and_teaches_new_heads_first(
    model: Qwen2_5_VLForConditionalGeneration, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "weights")
    build_processor(vocabulary).save_pretrained(tmp_path / "weights")
    settings = load_settings(
        Path("conf/training/tiny-prompter-further.yaml"),
        [f"start={tmp_path / 'weights'}", f"runs={tmp_path}", "warm_up.images=2", "workers=0"],
    )
    assert isinstance(settings, PrompterSettings)
    recipe = PrompterRecipe(settings, training_source(settings), {"simulated": []})
    warm_up, *_ = recipe.stages
    heads = recipe.modules["vision_heads"].state_dict()
    before = {name: value.clone() for name, value in heads.items()}
    warm_up.update(next(warm_up.batches(0)), 1.0)
    torch.testing.assert_close(recipe.modules["model"].state_dict(), model.state_dict(), rtol=0, atol=0)
    assert any((value != before[name]).any() for name, value in heads.items())


def test_a_segmenter_is_taught_further_from_its_folder_and_in_its_architecture(tmp_path: Path) -> None:
    overrides = [f"runs={tmp_path}", "stage.images=2", "workers=0"]
    small = ["architecture.width=32", "architecture.heads=2", "architecture.depth=2", "architecture.global_blocks=[1]"]
    first = load_settings(Path("conf/training/tiny-sam.yaml"), [*overrides, *small])
    assert isinstance(first, SegmenterSettings)
    recipe = SegmenterRecipe(first, training_source(first), {"simulated": []})
    recipe.export(tmp_path)

    further = load_settings(Path("conf/training/tiny-sam-further.yaml"), [*overrides, f"start={tmp_path}"])
    assert isinstance(further, SegmenterSettings)
    again = SegmenterRecipe(further, training_source(further), {"simulated": []})
    given, taken = recipe.modules["sam"].state_dict(), again.modules["sam"].state_dict()
    torch.testing.assert_close(taken, {name: value.half().float() for name, value in given.items()}, rtol=0, atol=0)
    (stage,) = again.stages
    stage.update(next(stage.batches(0)), 1.0)
    assert any((value != given[name].half().float()).any() for name, value in again.modules["sam"].state_dict().items())


def test_perfect_cells_have_no_box_loss_and_unlabelled_concepts_are_no_negatives() -> None:
    anchored = anchor_instances(SCENE)
    targets = dense_targets([(frozenset({"lake", "ship"}), anchored)])
    assert targets.known.sum() == 2
    assert targets.owners[0, -1].sum() > 1  # nothing known there: road, forest or nothing may own it
    assert targets.ordinals[0, anchored[0].anchor, 0] == 1
    heads = DenseHeads(16, relative=False)
    loss, parts = heads(torch.randn(1, CELLS**2, 16), targets)
    assert loss.isfinite()
    assert parts["box"] > 0
