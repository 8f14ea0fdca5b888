"""Tiles that are asked about in several views: one mask, one owner of every pixel, one redraw."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from support.worlds import GRID, Bench

from think2seg.grid import Block
from think2seg.imagery import Quality
from think2seg.prompting import Reply
from think2seg.prompting.views import VIEWS

BLOCK = Block(0, 1)


@pytest.fixture
def several(bench: Bench) -> Bench:
    """Every tile in four views."""
    return replace(bench, spec=replace(bench.spec, views=4))


def test_a_prompter_that_sees_alike_in_every_view_changes_nothing(bench: Bench, several: Bench) -> None:
    once, voted = bench.run()[BLOCK], several.run()[BLOCK]
    for name in ("mask", "score", "quality"):
        np.testing.assert_array_equal(voted[name], once[name])
    assert [row["part"] for row in voted["traces"]] == ["", "v2", "v5", "v7"] * 4
    assert voted["tiles"] == once["tiles"] == {"ok": 4}
    for one in ("", "v2", "v5", "v7"):
        boxes = {tuple(np.round(row["bbox_px"], 6)) for row in voted["instances"] if row["part"] == one}
        assert boxes == {tuple(np.round(row["bbox_px"], 6)) for row in once["instances"]}


@pytest.mark.parametrize(("blind", "found"), [((1,), True), ((1, 2), True), ((0, 2, 3), False), ((0, 1, 2, 3), False)])
def test_half_of_the_views_decide(several: Bench, blind: tuple[int, ...], found: bool) -> None:
    asked: list[int] = []

    def say(tile: np.ndarray) -> str | None:
        asked.append(1)
        return "<answer>[]</answer>" if (len(asked) - 1) % 4 in blind else None

    content = several.run([BLOCK], say=say)[BLOCK]
    truth = several.world.inner(several.world.present, BLOCK)
    assert (content["mask"] == (truth if found else np.zeros_like(truth))).all()
    assert len(asked) == 16


def test_every_present_pixel_has_one_owner(several: Bench) -> None:
    asked: list[int] = []

    def say(tile: np.ndarray) -> str | None:
        """The first view sees the upper half of what is there alone."""
        asked.append(1)
        if (len(asked) - 1) % 4:
            return None
        half = tile.copy()
        half[len(tile) // 2 :] = 0
        return several.prompter._reply(half).text

    content = several.run([BLOCK], say=say)[BLOCK]
    assert (content["mask"] == several.world.inner(several.world.present, BLOCK)).all()
    assert sum(row["area_px"] for row in content["instances"]) == (content["mask"] == 1).sum()
    assert {row["part"] for row in content["instances"] if row["area_px"]} == {"v2"}


def test_views_that_cannot_be_read_do_not_vote(several: Bench) -> None:
    asked: list[int] = []

    def say(tile: np.ndarray) -> str | None:
        asked.append(1)
        return "Well." if (len(asked) - 1) % 4 != 3 else None

    content = several.run([BLOCK], say=say)[BLOCK]
    assert (content["mask"] == several.world.inner(several.world.present, BLOCK)).all()
    assert content["tiles"] == {"ok": 4}
    nothing = several.run([BLOCK], say=lambda _: "Well.")[BLOCK]
    assert nothing["tiles"] == {"unparsable": 4}
    assert (nothing["quality"] == Quality.UNPARSABLE).all()


def test_a_tile_that_is_cut_off_is_asked_again_in_quarters_once(several: Bench) -> None:
    content = several.run([BLOCK], limit=9)[BLOCK]
    assert (content["mask"] == several.world.inner(several.world.present, BLOCK)).all()
    parts = [row["part"] for row in content["traces"]]
    assert parts[:8] == ["", "0", "1", "2", "3", "v2", "v5", "v7"]
    assert content["tiles"] == {"ok": 4}


def test_views_that_came_to_an_end_outvote_the_quarters_of_one_that_did_not(several: Bench) -> None:
    asked: list[int] = []

    class CutOff(type(several.prompter)):  # type: ignore[misc]
        """Rambles about every first view; of quarters it cannot speak."""

        def _reply(self, tile: np.ndarray) -> Reply:
            reply = super()._reply(tile)
            if len(tile) < GRID.tile_px:
                return replace(reply, text="Well.")
            asked.append(1)
            return reply if (len(asked) - 1) % 4 else replace(reply, text=reply.text[:60], finish="length")

    cut_off = CutOff(**{part.name: getattr(several.prompter, part.name) for part in fields(several.prompter)})
    content = replace(several, prompter=cut_off).run([BLOCK])[BLOCK]
    assert content["tiles"] == {"ok": 4}
    assert (content["mask"] == several.world.inner(several.world.present, BLOCK)).all()
    assert {row["part"] for row in content["instances"] if row["area_px"]} <= {"v2", "v5", "v7"}


def test_more_views_are_asked_in_order(bench: Bench) -> None:
    content = replace(bench, spec=replace(bench.spec, views=8)).run([BLOCK])[BLOCK]
    assert {row["part"] for row in content["traces"]} == {"", *(f"v{view}" for view in VIEWS[1:])}
    assert (content["mask"] == bench.world.inner(bench.world.present, BLOCK)).all()
    assert content["mask"].shape == (GRID.block_px, GRID.block_px)
