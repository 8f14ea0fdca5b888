"""The evaluation suite: its baselines, its calibration, its tables and sheets, on models by rule."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage
from support.registries import make_weights
from support.standins import DarkSegmenter

from think2seg.errors import ConfigError
from think2seg.learning.suite import correctable, run_suite, write_calibration
from think2seg.learning.suite.asking import ask_and_draw, balanced_questions, questions_for
from think2seg.learning.suite.baselines import Threshold, baseline_outcomes, fit_threshold, otsu
from think2seg.learning.suite.calibration import Platt, draw_reliability, fit_platt, reliability
from think2seg.learning.suite.sheet import best_and_worst, contact_sheet
from think2seg.learning.suite.tables import compared_table, per_concept_table
from think2seg.prompting import Reply, load_template
from think2seg.samples.labelled import Instance, LabelledImage
from think2seg.samples.phrasings import PHRASINGS, phrasings
from think2seg.samples.simulate import simulate

SIDE = 224


class Oracle:
    """Answers with the box of what is dark, knows two questions, and notes what it was asked."""

    digest, template, batch, frame_px, footprint_m = "oracle", load_template("tiny"), 4, 2 * SIDE, None
    unknown_reasoning = "What?"

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def ask(self, tiles: list[np.ndarray], question: str) -> list[Reply]:
        self.calls.append((question, len(tiles)))
        return [self._reply(tile, question) for tile in tiles]

    def _reply(self, tile: np.ndarray, question: str) -> Reply:
        unknown = next(found for found in PHRASINGS if found.text == question).concept is None
        ys, xs = np.nonzero(tile.mean(axis=-1) < 90)
        item = ""
        if len(xs) and not unknown:
            box = [int(v) * 2 for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]
            item = json.dumps({"bbox_2d": box, "positive_points": [[box[0] + 4, box[1] + 4]] * 2})
        text = f"<think>{'What?' if unknown else 'Yes.'}</think> <answer>```json[{item}]```</answer>"
        return Reply(text=text, finish="stop", tokens=9, presence=0.8 if item else 0.3)


def lake(*, size: int, seed: int = 0) -> LabelledImage:
    """Light ground with a dark square lake of `size` px."""
    rng = np.random.default_rng(seed)
    image = rng.integers(150, 200, (SIDE, SIDE, 3)).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[10 : 10 + size, 20 : 20 + size] = True
    image[mask] = 30
    return LabelledImage(
        image=image,
        instances=(Instance(concept="lake", mask=mask),) if size else (),
        labelled=frozenset({"lake", "river"}),
        gsd_m=1.0,
        source="made",
        site="made/0",
        split="held_out",
        licence="none",
    )


def test_questions_are_asked_together_and_outcomes_keep_their_order() -> None:
    (phrasing, *_), unknown = phrasings("lake", "held_out"), phrasings(None, "held_out")[0]
    samples = questions_for([lake(size=size) for size in (60, 0, 90)], phrasing)
    strange = balanced_questions([lake(size=60)], seed=0, absent=0.0, unknown=1.0)
    prompter = Oracle()
    cases = ask_and_draw([samples[0], *strange, *samples[1:]], prompter, DarkSegmenter(digest=""))  # type: ignore[arg-type]
    assert prompter.calls[0] == (phrasing.text, 3)
    assert len(prompter.calls) == 2
    assert [case.outcome.iou for case in cases] == [1.0, 1.0, 1.0, 1.0]
    assert cases[1].outcome.concept is None
    assert strange[0].question.phrasing.kind in ("direct", "implicit", "standing")
    assert [case.outcome.true for case in cases] == [1, 0, 0, 1]
    assert unknown.text


def test_every_concept_is_asked_about_in_words_never_trained_on() -> None:
    samples = balanced_questions([simulate(2**31 + i) for i in range(60)], seed=0, absent=0.25, unknown=0.1)
    asked = {sample.question.phrasing.concept for sample in samples}
    assert len(asked) >= 12
    assert None in asked
    assert all(sample.question.phrasing.split == "held_out" for sample in samples)
    assert any(not s.question.instances for s in samples if s.question.phrasing.concept)


def test_the_best_threshold_is_found() -> None:
    images = [lake(size=60, seed=seed) for seed in range(3)]
    everywhere = np.ones((SIDE, SIDE), np.bool_)
    found = fit_threshold((image.image, image.mask_of({"lake"}), everywhere) for image in images)
    assert found.iou == pytest.approx(1.0)
    assert not found.above
    assert np.array_equal(found(images[0].image), images[0].mask_of({"lake"}))


def test_baselines_answer_the_same_questions() -> None:
    samples = questions_for([lake(size=60), lake(size=0)], phrasings("lake", "held_out")[0])
    dark = Threshold(index="brightness", value=-0.4, above=False, iou=1.0)
    outcomes = baseline_outcomes(samples, {"lake": dark})
    assert [o.iou for o in outcomes["best colour threshold"]] == [1.0, 1.0]
    assert [round(o.iou, 4) for o in outcomes["everything"]] == [round(3600 / SIDE**2, 4), 0.0]


def test_otsu_parts_two_classes() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(-0.5, 0.05, 800), rng.normal(0.4, 0.1, 200)])
    assert -0.35 < otsu(values) < 0.15


def test_platt_makes_overconfidence_honest(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    honest = rng.uniform(0.02, 0.98, 4000)
    true = (rng.random(4000) < honest).astype(float)
    overconfident = Platt(scale=3.0, bias=1.0)(honest)
    fitted = fit_platt(overconfident, true)
    assert fitted.scale == pytest.approx(1 / 3, abs=0.05)
    before, after = reliability(overconfident, true), reliability(fitted(overconfident), true)
    assert after.error < 0.03 < before.error
    draw_reliability({"before": before, "after": after}, tmp_path / "curve.png")
    assert PilImage.open(tmp_path / "curve.png").size[0] > 600


def test_a_correction_goes_on_top_of_the_one_there(tmp_path: Path) -> None:
    path = tmp_path / "think2seg.json"
    path.write_text('{"frame_px": 224}')
    write_calibration(tmp_path, Platt(scale=0.5, bias=0.2))
    write_calibration(tmp_path, Platt(scale=2.0, bias=0.1))
    assert json.loads(path.read_text()) == {"frame_px": 224, "presence": {"scale": 1.0, "bias": 0.5}}


def test_weights_that_are_not_registered_may_be_corrected(registry_folder: Path, tmp_path: Path) -> None:
    assert correctable(str(make_weights(tmp_path / "mine", "mine"))) == tmp_path / "mine"
    assert correctable("champion") == tmp_path / "bundled" / "prompter"


def test_tables_and_sheets(tmp_path: Path) -> None:
    samples = questions_for([lake(size=size) for size in (60, 36, 0)], phrasings("lake", "held_out")[0])
    cases = ask_and_draw(samples, Oracle(), DarkSegmenter(digest=""))  # type: ignore[arg-type]
    outcomes = {"pair": [case.outcome for case in cases]} | baseline_outcomes(samples, {})
    table = compared_table("Lakes", outcomes)
    assert "| pair | 3 | 1.000 |" in table.markdown()
    assert "| everything | 3 |" in table.markdown()
    assert per_concept_table(outcomes).rows[0][0] == "lake"
    best, worst = best_and_worst(cases, n=2)
    assert len(best) == 2
    assert all(case.outcome.true for case in best)
    assert len(worst) == 2
    contact_sheet(best, tmp_path / "best.png", columns=2)
    picture = np.asarray(PilImage.open(tmp_path / "best.png").convert("RGB"))
    assert (picture == (255, 60, 60)).all(axis=-1).any()


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="simulated, wetlands"):
        run_suite(tmp_path, parts=["clouds"])


def test_views_are_put_to_the_vote() -> None:
    samples = questions_for([lake(size=size) for size in (60, 0)], phrasings("lake", "held_out")[0])

    class Squinting(Oracle):
        """Sees nothing in every view but the first and the third, where there is nothing a little something."""

        def ask(self, tiles: list[np.ndarray], question: str) -> list[Reply]:
            replies = super().ask(tiles, question)
            if len(self.calls) % 2:
                return replies
            nothing = Reply(
                text="<think>No.</think> <answer>```json[]```</answer>", finish="stop", tokens=1, presence=0.1
            )
            return [nothing for _ in tiles]

    def found(views: int) -> list[tuple[float, int]]:
        cases = ask_and_draw(samples, Squinting(), DarkSegmenter(digest=""), views=views)  # type: ignore[arg-type]
        return [(case.outcome.iou, case.outcome.predicted) for case in cases]

    assert found(1) == found(2) == found(4) == [(1.0, 1), (1.0, 0)]
    sceptics = ask_and_draw(samples, Squinting(), DarkSegmenter(digest=""), views=5)  # type: ignore[arg-type]
    assert [case.outcome.iou for case in sceptics] == [1.0, 1.0]
