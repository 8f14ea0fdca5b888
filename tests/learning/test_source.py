"""Where training images come from: augmentations keep image and labels together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from think2seg.learning.settings import PrompterSettings, load_settings
from think2seg.learning.tiny.prompter import stage_batches
from think2seg.learning.tiny.source import LEAST_LEFT_PX, MixedSource, PlainSource, cut_off, turn
from think2seg.learning.tiny.vocabulary import Vocabulary, build_tokenizer
from think2seg.prompting.template import load_template
from think2seg.samples.labelled import LabelledImage
from think2seg.samples.simulate import simulate

SCENES_ONLY = MixedSource(real_share=0, folder=None, wheels=None, tiles=1, sources=None, seed=0)


@pytest.fixture(scope="module")
def scenes() -> list[LabelledImage]:
    return [replace(scene, image=np.maximum(scene.image, 1)) for scene in map(simulate, range(40))]


def test_nothing_is_labelled_where_there_is_no_data(scenes: list[LabelledImage]) -> None:
    rng = np.random.default_rng(0)
    shares = []
    for scene in scenes:
        cut = cut_off(scene, rng)
        black = (cut.image == 0).all(axis=2)
        assert np.array_equal(cut.image[~black], scene.image[~black])
        shares.append(black.mean())
        for instance in cut.instances:
            assert not (instance.mask & black).any()
            assert np.count_nonzero(instance.mask) >= LEAST_LEFT_PX
    assert 0.2 < np.mean(shares) < 0.7


def test_a_concept_of_which_a_scrap_is_left_is_neither_there_nor_missing(scenes: list[LabelledImage]) -> None:
    rng = np.random.default_rng(1)
    for scene in scenes:
        cut = cut_off(scene, rng)
        black = (cut.image == 0).all(axis=2)
        for concept in scene.labelled:
            left = [np.count_nonzero(i.mask & ~black) for i in scene.instances if i.concept == concept]
            whole = sum(n >= LEAST_LEFT_PX for n in left)
            assert sum(i.concept == concept for i in cut.instances) == whole
            assert (concept in cut.labelled) == (whole > 0 or not any(left))


def test_turning_moves_masks_with_the_image(scenes: list[LabelledImage]) -> None:
    rng = np.random.default_rng(2)
    for scene in scenes[:8]:
        turned = turn(scene, rng)
        for before, after in zip(scene.instances, turned.instances, strict=True):
            assert np.array_equal(np.sort(scene.image[before.mask], axis=0), np.sort(turned.image[after.mask], axis=0))


def test_stages_draw_from_what_the_training_file_says() -> None:
    """The bundled prompter begins with plain scenes alone and ends with more real tiles."""
    settings = load_settings(Path("conf/training/tiny-prompter.yaml"))
    assert isinstance(settings, PrompterSettings)
    template = load_template(settings.template)
    source = replace(SCENES_ONLY, real_share=settings.data.real_share)
    vocabulary = Vocabulary(build_tokenizer(["find lakes"]))
    warm_up, answers, polish = stage_batches(settings, source, vocabulary, template)
    assert isinstance(warm_up.source, PlainSource)
    assert answers.source == source
    assert settings.polish is not None
    assert polish.source == replace(source, real_share=settings.polish.real_share)
    assert len({batches.stage for batches in (warm_up, answers, polish)}) == 3
    alone = settings.model_copy(update={"polish": None})
    assert len(stage_batches(alone, source, vocabulary, template)) == 2
