"""What every segmenter must do; inherit and give the `segmenter` fixture, in float32 on a CPU with one thread."""

from __future__ import annotations

import numpy as np
import pytest
from support.pictures import DISC, SIDE, Disc, disc_mask, iou, lake_tile

from think2seg.segmentation import Drawn, Prompt, Segmenter


def prompt_of(disc: Disc = DISC) -> Prompt:
    y, x, radius = disc
    return Prompt(bbox=(x - radius, y - radius, x + radius, y + radius), points=((x - 6, y), (x + 6, y + 4)))


class SegmenterSuite:
    """`finds_lakes` is off for weights that were never trained."""

    finds_lakes = True

    @pytest.fixture
    def segmenter(self) -> Segmenter:
        raise NotImplementedError

    def test_it_says_what_it_is(self, segmenter: Segmenter) -> None:
        assert len(segmenter.digest) >= 16
        assert segmenter.image_px > 0

    def test_one_mask_per_prompt_in_order(self, segmenter: Segmenter) -> None:
        tiles = [lake_tile(seed=seed) for seed in range(3)]
        small = prompt_of((20, 70, 8))
        drawn = segmenter.draw(tiles, [[prompt_of(), small], [], [small]])
        assert [len(row) for row in drawn] == [2, 0, 1]
        for row in drawn:
            for one in row:
                assert one.mask.shape == (SIDE, SIDE)
                assert one.mask.dtype == np.bool_
                assert 0 <= one.score <= 1

    def test_nothing_to_draw(self, segmenter: Segmenter) -> None:
        assert segmenter.draw([], []) == []
        assert segmenter.draw([lake_tile()], [[]]) == [[]]

    def test_it_draws_what_the_prompt_points_at(self, segmenter: Segmenter) -> None:
        if not self.finds_lakes:
            pytest.skip("untrained weights")
        for side in (64, SIDE, 224, 300):
            disc = (DISC[0] * side / SIDE, DISC[1] * side / SIDE, DISC[2] * side / SIDE)
            ((drawn,),) = segmenter.draw([lake_tile(side, disc)], [[prompt_of(disc)]])
            assert iou(drawn.mask, disc_mask(side, disc)) > 0.8

    @pytest.mark.parametrize(
        "prompt",
        [
            Prompt(bbox=(18, 26, 62, 70)),
            Prompt(bbox=None, points=((40, 48),)),
            Prompt(bbox=None, points=((34, 48), (46, 52)), negative_points=((80, 10),)),
            Prompt(bbox=(18, 26, 62, 70), points=((40, 48),), negative_points=((80, 10), (90, 90))),
            Prompt(bbox=(0, 0, 1, 1), points=((0, 0),)),
            Prompt(bbox=(95, 95, 96, 96)),
        ],
        ids=["box", "a point", "points of both kinds", "box and points", "upper-left pixel", "lower-right pixel"],
    )
    def test_every_kind_of_prompt_is_drawn(self, segmenter: Segmenter, prompt: Prompt) -> None:
        ((drawn,),) = segmenter.draw([lake_tile()], [[prompt]])
        assert drawn.mask.shape == (SIDE, SIDE)

    def test_masks_do_not_depend_on_what_is_drawn_beside_them(self, segmenter: Segmenter) -> None:
        tiles = [lake_tile(seed=seed) for seed in range(2)] + [lake_tile(), lake_tile(64, (30, 30, 12))]
        box_only = Prompt(bbox=prompt_of().bbox)
        prompts = [[prompt_of()] * (1 + i) for i in range(2)] + [[box_only, prompt_of()], [prompt_of((30, 30, 12))]]
        together = segmenter.draw(tiles, prompts)
        backwards = segmenter.draw(tiles[::-1], [row[::-1] for row in prompts[::-1]])[::-1]
        for tile, row, drawn, other in zip(tiles, prompts, together, backwards, strict=True):
            for number, prompt in enumerate(row):
                ((alone,),) = segmenter.draw([tile], [[prompt]])
                assert same(alone, drawn[number])
                assert same(alone, other[len(row) - 1 - number])

    def test_inputs_are_left_as_they_are(self, segmenter: Segmenter) -> None:
        tile = lake_tile()
        tile.setflags(write=False)
        segmenter.draw([tile], [[prompt_of()]])


def same(first: Drawn, second: Drawn) -> bool:
    return first.score == second.score and bool((first.mask == second.mask).all())
