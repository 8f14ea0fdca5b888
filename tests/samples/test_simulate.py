"""Simulated scenes: repeatable, exactly labelled, within the bounds the prompter can count to."""

import numpy as np
import pytest

from think2seg.errors import ConfigError
from think2seg.samples.labelled import LabelledImage
from think2seg.samples.simulate import CONCEPTS, HELD_OUT_FROM, simulate
from think2seg.samples.simulate.canvas import Canvas

SEEDS = range(120)


@pytest.fixture(scope="module")
def scenes() -> list[LabelledImage]:
    return [simulate(seed) for seed in SEEDS]


def test_a_seed_draws_the_same_scene_again(scenes: list[LabelledImage]) -> None:
    for seed in (0, 7, 31):
        again = simulate(seed)
        assert np.array_equal(again.image, scenes[seed].image)
        assert len(again.instances) == len(scenes[seed].instances)
        for one, other in zip(again.instances, scenes[seed].instances, strict=True):
            assert one.concept == other.concept
            assert np.array_equal(one.mask, other.mask)


def test_scenes_have_the_shape_that_is_promised(scenes: list[LabelledImage]) -> None:
    for scene in scenes:
        assert scene.image.shape == (224, 224, 3)
        assert scene.image.dtype == np.uint8
        assert 0.1 < scene.gsd_m < 20
        assert scene.labelled <= set(CONCEPTS)


def test_instances_are_few_listed_and_visible(scenes: list[LabelledImage]) -> None:
    for scene in scenes:
        assert len(scene.instances) <= 16
        found = [instance.concept for instance in scene.instances]
        assert all(found.count(concept) <= 10 for concept in set(found))
        assert set(found) <= scene.labelled
        for instance in scene.instances:
            assert instance.mask.shape == (224, 224)
            assert instance.mask.dtype == np.bool_
            assert instance.mask.sum() >= 40


def test_what_is_only_seen_in_slivers_is_neither_listed_nor_missed() -> None:
    canvas = Canvas(rng=np.random.default_rng(0), size=224, gsd_m=1.0, sun_angle=0.0, shadow_px=2.0)
    for side, concept in ((10, "lake"), (40, "forest"), (8, "building")):
        mask = np.zeros((224, 224), np.bool_)
        mask[:side, 60 * len(canvas.concepts) :][:, :side] = True
        canvas.claim(concept, mask)
    instances, labelled, slivers = canvas.instances()
    assert [instance.concept for instance in instances] == ["building", "forest"]
    assert set(CONCEPTS) - labelled == {"lake"}
    assert np.count_nonzero(slivers) == 100


def test_only_roads_may_overlap(scenes: list[LabelledImage]) -> None:
    for scene in scenes:
        masks = [instance.mask for instance in scene.instances if instance.concept != "road"]
        assert not masks or np.sum(masks, axis=0).max() == 1


def test_every_concept_is_drawn_and_often_absent(scenes: list[LabelledImage]) -> None:
    for concept in CONCEPTS:
        share = np.mean([any(instance.concept == concept for instance in scene.instances) for scene in scenes])
        assert 0.04 < share < 0.7, concept


def test_some_tiles_lie_wholly_in_water() -> None:
    water = {"lake", "river"}
    assert any(simulate(seed).mask_of(water).mean() > 0.97 for seed in range(200))


def test_water_is_told_from_its_surroundings_by_its_mask(scenes: list[LabelledImage]) -> None:
    """Masks lie on what is painted: colours differ more across a lake's shore than within the lake."""
    ratios = []
    for scene in scenes:
        image = scene.image.astype(float).mean(axis=2)
        for instance in scene.instances:
            if instance.concept == "lake" and 400 < instance.mask.sum() < 20_000:
                inside = image[instance.mask]
                ratios.append(abs(image[~instance.mask].mean() - inside.mean()) / (inside.std() + 1))
    assert np.median(ratios) > 1.5


def test_plain_scenes_hold_objects_that_stand_apart() -> None:
    plain = [simulate(seed, plain=True) for seed in range(60)]
    found = {instance.concept for scene in plain for instance in scene.instances}
    assert set(CONCEPTS) - found == {"farmland"}, "all but the parcels that fill a tile"
    assert np.mean([len(scene.instances) for scene in plain]) < 5


def test_seeds_part_training_from_held_out() -> None:
    assert simulate(HELD_OUT_FROM - 1).split == "train"
    assert simulate(HELD_OUT_FROM).split == "held_out"
    assert simulate(3).site != simulate(4).site


@pytest.mark.parametrize("size_px", [64, 112, 336])
def test_other_sizes_can_be_drawn(size_px: int) -> None:
    for seed in range(12):
        scene = simulate(seed, size_px=size_px)
        assert scene.image.shape == (size_px, size_px, 3)
        assert all(instance.mask.shape == (size_px, size_px) for instance in scene.instances)


@pytest.mark.parametrize(("seed", "size_px"), [(-1, 224), (0, 32), (0, 2048)])
def test_what_cannot_be_drawn_is_refused(seed: int, size_px: int) -> None:
    with pytest.raises(ConfigError, match="64 to 512 px"):
        simulate(seed, size_px=size_px)
