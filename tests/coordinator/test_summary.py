"""What a run counts."""

from __future__ import annotations

from collections.abc import Mapping

from think2seg.coordinator.summary import Tally
from think2seg.cube.receipts import Receipt
from think2seg.grid import Block
from think2seg.plan import BlockState


def receipt(tiles: Mapping[str, int]) -> Receipt:
    return Receipt(
        step=0,
        acquisition="2020-06-01",
        revision=0,
        block=Block(0, 0),
        attempt=1,
        fingerprint="f",
        prompter="p",
        segmenter="s",
        state=BlockState.DONE,
        digests={},
        present_px=0,
        observed_px=1,
        region_px=1,
        tiles=tiles,
        seconds={},
    )


def test_tiles_of_which_nothing_was_asked_do_not_count_as_done() -> None:
    tally = Tally()
    tally.add([receipt({"ok": 3, "truncated": 1, "unknown concept": 2, "outside": 4, "nodata": 5})])
    tally.add([receipt({"ok": 1, "cloud": 2, "failed": 3, "gated": 4})])
    assert tally.tiles == {"done": 7, "cloud": 2, "failed": 3, "gated": 4}
    assert (tally.unparsable_tiles, tally.unknown_tiles) == (1, 2)
