"""The gate: what passes, what is refused, and with which figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import shapely

from think2seg.errors import ConfigError
from think2seg.learning.gate import Answered, Contender, Cost, judge, paired_interval, require_apart
from think2seg.learning.verdict import RULE, Check, Limits, Verdict, verdict_markdown

N = 120
CHEAP = Cost(latency_s=1.0, memory_bytes=2**30)
LIMITS = Limits(resamples=1000)


def answers(shift: Callable[[int], float] = lambda image: 0.0, *, n: int = N, seed: int = 0) -> list[Answered]:
    """Two questions about each of `n` images, the second about something that is not there."""
    rng = np.random.default_rng(seed)
    hard, found = rng.uniform(0.1, 0.8, n), []
    for image in range(n):
        iou = float(np.clip(hard[image] + shift(image), 0, 1))
        place = {"image": f"image-{image:03d}", "category": "water" if image % 2 else "forest", "parsed": True}
        found.append(Answered(key=f"{image}-there", iou=iou, false_alarm=None, **place))
        alarm = image % 25 == 0
        found.append(Answered(key=f"{image}-absent", iou=float(not alarm), false_alarm=alarm, **place))
    return found


def noise(seed: int, mean: float, spread: float = 0.08) -> Callable[[int], float]:
    drawn = np.random.default_rng(seed).normal(mean, spread, 1000)
    return lambda image: float(drawn[image])


def verdict_of(candidate: list[Answered], champion: list[Answered] | None = None, **changes: object) -> Verdict:
    champion = answers() if champion is None else champion
    ours = replace(Contender(digest="b" * 32, answered=candidate, cost=CHEAP), **changes)  # type: ignore[arg-type]
    return judge(
        ours,
        Contender(digest="a" * 32, answered=champion, cost=CHEAP),
        frozen_set="f" * 32,
        segmenter="5" * 32,
        limits=LIMITS,
    )


def check_of(verdict: Verdict, name: str) -> Check:
    return next(check for check in verdict.checks if check.name == name)


def test_a_truly_better_candidate_passes_with_figures() -> None:
    verdict = verdict_of(answers(noise(1, 0.06)))
    assert verdict.passed, verdict.reasons
    g_iou = verdict.figures[0]
    assert 0 < g_iou.low < g_iou.difference < g_iou.high
    assert g_iou.difference == pytest.approx(g_iou.candidate - g_iou.champion)
    assert (verdict.n_images, verdict.n_questions) == (N, 2 * N)


def test_a_worse_candidate_is_refused_with_figures() -> None:
    verdict = verdict_of(answers(noise(1, -0.1)))
    assert not verdict.passed
    sentence = check_of(verdict, "gain").sentence
    assert sentence.startswith("Measurably worse: gIoU 0.")
    assert f"{verdict.figures[0].low:+.3f} to {verdict.figures[0].high:+.3f}" in sentence
    assert "gIoU, forest" in check_of(verdict, "categories").sentence


def test_the_same_answers_are_not_measurably_better() -> None:
    verdict = verdict_of(answers())
    assert not verdict.passed
    assert [check.name for check in verdict.checks if not check.passed] == ["gain"]
    assert "Not measurably better: gIoU" in verdict.reasons[0]


def test_the_champion_itself_is_never_a_candidate() -> None:
    assert "these are the champion's weights" in verdict_of(answers(noise(1, 0.06)), digest="a" * 32).reasons[0]


def test_better_on_training_images_only_is_refused_and_said() -> None:
    learned = {"on_training": answers(noise(3, 0.2), seed=9)}
    champion = Contender(digest="a" * 32, answered=answers(), cost=CHEAP, on_training=answers(seed=9))
    candidate = Contender(digest="b" * 32, answered=answers(noise(2, 0.0)), cost=CHEAP, **learned)
    verdict = judge(candidate, champion, frozen_set="f" * 32, segmenter="5" * 32, limits=LIMITS)
    assert not verdict.passed
    assert "On training images it gains +0.098" in check_of(verdict, "gain").sentence
    assert "does not carry over" in check_of(verdict, "gain").sentence


def test_a_small_gain_says_how_many_images_would_show_it() -> None:
    verdict = verdict_of(answers(noise(1, 0.03, spread=0.3), n=40), answers(n=40))
    assert not verdict.passed
    assert "images would show a difference of that size" in check_of(verdict, "gain").sentence


def test_a_set_that_is_too_small_says_so_however_good_the_candidate() -> None:
    verdict = verdict_of(answers(noise(1, 0.2), n=8), answers(n=8))
    assert verdict.reasons == (
        "The set is too small to tell: 8 images, 8 questions about something that is not there; "
        "at least 30 and 20 are needed.",
    )


def test_one_image_is_judged_without_a_crash() -> None:
    verdict = verdict_of(answers(noise(1, 0.2), n=1), answers(n=1))
    assert not check_of(verdict, "size").passed
    assert json.dumps(verdict.to_dict(), allow_nan=False)


def test_answers_that_became_unreadable_are_refused() -> None:
    better = [replace(one, parsed=index % 12 > 0) for index, one in enumerate(answers(noise(1, 0.2)))]
    verdict = verdict_of(better)
    assert [check.name for check in verdict.checks if not check.passed] == ["parse rate"]
    assert "harder to read: parse rate 1.000 to 0.9" in verdict.reasons[0]


def test_one_category_may_not_pay_for_the_others() -> None:
    verdict = verdict_of(answers(lambda image: 0.3 if image % 2 else -0.08))
    assert [check.name for check in verdict.checks if not check.passed] == ["categories"]
    assert "gIoU, forest" in verdict.reasons[0]


def test_seeing_what_is_not_there_is_refused() -> None:
    loud = [
        replace(one, false_alarm=index % 3 == 0 or one.false_alarm) if one.false_alarm is not None else one
        for index, one in enumerate(answers(noise(1, 0.2)))
    ]
    verdict = verdict_of(loud)
    assert [check.name for check in verdict.checks if not check.passed] == ["false alarms"]
    assert "the ceiling is 10.0%" in verdict.reasons[0]


def test_a_set_without_negative_probes_is_refused() -> None:
    def there(found: list[Answered]) -> list[Answered]:
        return [one for one in found if one.false_alarm is None]

    verdict = verdict_of(there(answers(noise(1, 0.2))), there(answers()))
    assert {check.name for check in verdict.checks if not check.passed} == {"size", "false alarms"}
    assert json.dumps(verdict.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("cost", "name"),
    [(Cost(latency_s=1.3, memory_bytes=2**30), "latency"), (Cost(latency_s=1.0, memory_bytes=2**31), "memory")],
)
def test_a_candidate_that_costs_too_much_is_refused(cost: Cost, name: str) -> None:
    verdict = verdict_of(answers(noise(1, 0.2)), cost=cost)
    assert [check.name for check in verdict.checks if not check.passed] == [name]
    assert "up to 1.25 times is allowed" in verdict.reasons[0]


def test_both_must_have_answered_the_same_questions() -> None:
    with pytest.raises(ConfigError, match="1 questions were answered by one model only, such as 0-absent"):
        verdict_of([one for one in answers() if one.key != "0-absent"])
    with pytest.raises(ConfigError, match="holds no question"):
        verdict_of([], [])


def test_the_verdict_does_not_depend_on_the_order_and_repeats() -> None:
    better = answers(noise(1, 0.06))
    assert verdict_of(better) == verdict_of(better[::-1], answers()[::-1])


def test_plain_form_and_page() -> None:
    verdict = verdict_of(answers(noise(1, -0.1)))
    again = Verdict.from_dict(json.loads(json.dumps(verdict.to_dict(), allow_nan=False)))
    assert again.to_dict() == verdict.to_dict()
    assert (again.rule, Verdict.from_dict({k: v for k, v in verdict.to_dict().items() if k != "rule"}).rule) == (
        RULE,
        1,
    )
    page = verdict_markdown(verdict)
    assert page.startswith("# The candidate is refused\n")
    assert "| **no** | gain | Measurably worse: gIoU" in page
    assert "| parse rate | 1.000 | 1.000 | 0.000 |" in page
    assert verdict_markdown(verdict_of(answers(noise(1, 0.06)))).startswith("# The candidate may be promoted\n")


@pytest.mark.parametrize(("n", "low", "high"), [(30, 0.90, 0.97), (100, 0.92, 0.98)])
def test_the_interval_covers_the_truth_as_often_as_it_says(n: int, low: float, high: float) -> None:
    """Skewed differences between images of one to three questions, 400 sets of each size."""
    rng, covered = np.random.default_rng(5), 0
    for seed in range(400):
        counts = rng.integers(1, 4, n).astype(float)
        difference = (rng.exponential(0.1, n) - 0.1 + 0.02) * counts
        _, below, above = paired_interval(difference, counts, resamples=400, seed=seed)
        covered += below <= 0.02 <= above
    assert low <= covered / 400 <= high


def test_questions_about_one_image_are_not_independent() -> None:
    """The same answers counted tenfold narrow nothing."""
    difference = np.random.default_rng(0).normal(0.02, 0.1, 50)
    assert paired_interval(difference, np.ones(50)) == pytest.approx(
        paired_interval(difference * 10, np.full(50, 10.0))
    )


def test_footprints_of_training_and_gate_may_not_touch() -> None:
    gate = {"g1": shapely.box(0, 0, 1, 1), "g2": shapely.box(5, 5, 6, 6)}
    require_apart({"far": shapely.box(2, 0, 3, 1)}, gate)
    require_apart({}, gate)
    for near in (shapely.box(1, 0, 2, 1), shapely.box(0.5, 0.5, 2, 2), shapely.box(1 + 1e-9, 0, 2, 1)):
        with pytest.raises(ConfigError, match=r"1 pairs .* touch: g1 \(gate\) and near \(train\)"):
            require_apart({"near": near, "far": shapely.box(2.1, 0, 3, 1)}, gate)
