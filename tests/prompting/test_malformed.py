"""Three hundred answers that ramble: each is read, or counts as truncated or unparsable; none is taken for absence."""

from __future__ import annotations

import numpy as np
import pytest
from support.malformed import INJECTED, SIDE, Malformed, malformed

from think2seg.engine.looks import Look, Seen, Window
from think2seg.engine.stitch import stitch
from think2seg.grid import Block, Tile
from think2seg.imagery import Quality
from think2seg.prompting import Reply, load_template, parse_answer
from think2seg.prompting.answers import MAX_INSTANCES
from think2seg.segmentation import Drawn

CASES = malformed()


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 300


@pytest.mark.parametrize("case", CASES, ids=[case.name[:60] for case in CASES])
def test_it_is_read_or_said_to_be_unreadable(case: Malformed) -> None:
    answer = parse_answer(case.text, frame_px=SIDE, finish=case.finish)
    assert answer.status in ("ok", "truncated", "unparsable")
    assert answer.instances or answer.status != "ok", "taken for absence"
    assert len(answer.instances) <= MAX_INSTANCES
    for instance in answer.instances:
        assert instance.bbox or instance.points
        values = [*(instance.bbox or ()), *(value for point in instance.points for value in point)]
        assert all(0 <= value <= SIDE for value in values)


@pytest.mark.parametrize("case", CASES, ids=[case.name[:60] for case in CASES])
def test_its_tile_never_becomes_absent_without_an_answer(case: Malformed) -> None:
    answer = parse_answer(case.text, frame_px=SIDE, finish=case.finish)
    tile = Tile(id="r0c0", block=Block(0, 0), y=0, x=0)
    look = Look(tile=tile, part="", rgb=np.zeros((8, 8, 3), np.uint8), y=0, x=0, core=Window(0, 0, 8, 8))
    drawn = [Drawn(mask=np.zeros((8, 8), np.bool_), score=0.5) for _ in answer.instances]
    reply = Reply(text=case.text, finish=case.finish, tokens=1, presence=None)
    seen = Seen(look=look, reply=reply, answer=answer, drawn=drawn, seconds_prompt=0.0, seconds_segment=0.0)
    stitched = stitch(np.zeros((8, 8), np.uint16), [seen])
    if answer.status == "ok":
        assert (stitched.mask == 0).all(), "nothing was drawn of what was named"
    else:
        bit = {"truncated": Quality.TRUNCATED, "unparsable": Quality.UNPARSABLE}[answer.status]
        assert (stitched.mask == 255).all()
        assert (stitched.quality == bit).all()


@pytest.mark.parametrize("words", INJECTED)
def test_an_injected_question_stays_text_of_the_users_turn(words: str) -> None:
    template = load_template("think2seg-rs")
    system, user = template.messages(words)
    assert words not in system["content"]
    image, text = user["content"]
    assert image == {"type": "image"}
    assert "<|im_" not in text["text"]
    unchanged = template.fill("ships").split("ships")
    assert text["text"].startswith(unchanged[0])
    assert text["text"].endswith(unchanged[-1])
