"""Every reason of the plan, and that planning is pure: no order, no clock, no I/O."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from support.archive_run import BLOCKS, GRID, PROMPTER, acquisition, footprint, moment, plan_of, scene

from think2seg.errors import CatalogError
from think2seg.grid import Block, Grid
from think2seg.plan import BlockState, HeldStep, Plan, PlanLine, Reason, bundle, make_plan
from think2seg.stac.scenes import Acquisition

DAYS = ("2009-08-18", "2014-07-20", "2020-08-31")
TILES = (GRID.block_px // GRID.core_px) ** 2


def held(one: Acquisition, step: int = 0, **values: Any) -> HeldStep:
    given: dict[str, Any] = {
        "step": step,
        "acquisition": one.id,
        "revision": 0,
        "time": one.time,
        "scenes": {scene.id: scene.fingerprint for scene in one.scenes},
        "prompter": PROMPTER,
        "states": dict.fromkeys(BLOCKS, BlockState.DONE),
        "attempts": {},
    }
    return HeldStep(**(given | values))


def only(plan: Plan) -> PlanLine:
    assert len(plan.lines) == 1
    return plan.lines[0]


def test_new_acquisitions_get_steps_in_time_order() -> None:
    plan = plan_of([acquisition(day) for day in reversed(DAYS)], n_published=5)
    assert [(line.reason, line.step, line.revision) for line in plan.lines] == [
        (Reason.NEW, 5, 0), (Reason.NEW, 6, 0), (Reason.NEW, 7, 0),
    ]  # fmt: skip
    assert [line.blocks for line in plan.lines] == [BLOCKS] * 3
    assert [line.tiles for line in plan.lines] == [len(BLOCKS) * TILES] * 3
    assert [line.bytes_to_read for line in plan.lines] == [4000] * 3
    assert plan.work == plan.lines


def test_older_than_the_newest_held_is_late() -> None:
    plan = plan_of([acquisition(day) for day in DAYS], [held(acquisition(DAYS[1]))], 1)
    assert [line.reason for line in plan.lines] == [Reason.LATE, Reason.DONE, Reason.NEW]
    assert [line.step for line in plan.lines] == [1, None, 2]


def test_only_the_latest_revision_of_what_is_held_counts() -> None:
    day = acquisition(DAYS[0])
    failed = {**dict.fromkeys(BLOCKS, BlockState.DONE), BLOCKS[0]: BlockState.FAILED}
    first, second = held(day, 0, states=failed), held(day, 1, revision=1)
    for order in ([first, second], [second, first]):
        assert only(plan_of([day], order, 2)).reason is Reason.DONE


def test_changed_scenes_redo_only_the_blocks_they_touch() -> None:
    before = acquisition(DAYS[0], scene("a", moment(DAYS[0])), scene("b", moment(DAYS[0]), BLOCKS[1:2]))
    after = replace(before, scenes=(before.scenes[0], replace(before.scenes[1], fingerprint="other")))
    line = only(plan_of([after], [held(before)], 1))
    assert (line.reason, line.blocks, line.revision, line.step) == (Reason.CHANGED, (BLOCKS[1],), 1, 1)
    assert "1 of 2 scenes changed" in line.note


def test_an_added_scene_counts_as_a_change_and_a_removed_one_does_not() -> None:
    both = acquisition(DAYS[0], scene("a", moment(DAYS[0]), BLOCKS[:2]), scene("b", moment(DAYS[0]), BLOCKS[2:]))
    one = replace(both, scenes=both.scenes[:1])
    states = dict.fromkeys(BLOCKS[:2], BlockState.DONE)
    assert only(plan_of([both], [held(one, states=states)], 1)).blocks == BLOCKS[2:]
    assert only(plan_of([one], [held(both)], 1)).reason is Reason.DONE


def test_a_renamed_scene_with_the_same_fingerprint_is_done() -> None:
    day = acquisition(DAYS[0])
    renamed = replace(day, scenes=(replace(day.scenes[0], id="other", updated=datetime.now(UTC)),))
    assert only(plan_of([renamed], [held(day)], 1)).reason is Reason.DONE


@pytest.mark.parametrize(
    ("n_changed", "n_scenes", "refused"),
    [(1, 1, False), (1, 10, False), (2, 40, False), (2, 39, True), (3, 40, True), (10, 10, True)],
)
def test_many_changes_stop_the_run(n_changed: int, n_scenes: int, refused: bool) -> None:
    days = [acquisition(f"2014-{1 + n // 28:02d}-{1 + n % 28:02d}") for n in range(n_scenes)]
    steps = [held(day, number) for number, day in enumerate(days)]
    # Every other one is overwritten in place, the rest replaced by an item of another name.
    altered = [
        replace(
            day,
            scenes=(replace(day.scenes[0], fingerprint="x", id=f"v2-{number}" if number % 2 else day.scenes[0].id),),
        )
        for number, day in enumerate(days[:n_changed])
    ]
    now = [*altered, *days[n_changed:]]
    if refused:
        with pytest.raises(CatalogError, match=f"{n_changed} of {n_scenes} scenes") as caught:
            plan_of(now, steps, n_scenes)
        assert "--allow-changes" in str(caught.value)
    allowed = plan_of(now, steps, n_scenes, allow_changes=True)
    assert sum(line.reason is Reason.CHANGED for line in allowed.lines) == n_changed
    if not refused:
        assert plan_of(now, steps, n_scenes) == allowed


def test_failed_blocks_are_retried_until_quarantine() -> None:
    day = acquisition(DAYS[0])
    states = {**dict.fromkeys(BLOCKS, BlockState.DONE), BLOCKS[2]: BlockState.FAILED}
    for attempts, reason in ((1, Reason.RETRY), (2, Reason.RETRY), (3, Reason.QUARANTINED)):
        line = only(plan_of([day], [held(day, states=states, attempts={BLOCKS[2]: attempts})], 1))
        assert line.reason is reason
        assert line.blocks == ((BLOCKS[2],) if reason is Reason.RETRY else ())
        if reason is Reason.RETRY:
            assert bundle([line], 1)[0].jobs[0].attempt == attempts + 1
    assert plan_of([day], [held(day, states=states, attempts={BLOCKS[2]: 3})], 1, retry_quarantined=True).work


def test_a_change_frees_a_quarantined_block() -> None:
    day = acquisition(DAYS[0])
    step = held(day, scenes={"x": "x"}, states=dict.fromkeys(BLOCKS, BlockState.FAILED),
                attempts=dict.fromkeys(BLOCKS, 3))  # fmt: skip
    line = only(plan_of([day], [step], 1))
    assert (line.reason, line.blocks) == (Reason.CHANGED, BLOCKS)
    assert {job.attempt for job in bundle([line], 9)[0].jobs} == {1}


def test_unparsable_blocks_wait_for_other_weights() -> None:
    day = acquisition(DAYS[0])
    step = held(day, unparsable=frozenset(BLOCKS[:1]))
    assert only(plan_of([day], [step], 1)).reason is Reason.DONE
    line = only(plan_of([day], [step], 1, prompter_digest="other"))
    assert (line.reason, line.blocks) == (Reason.RETRY, BLOCKS[:1])
    assert only(plan_of([day], [held(day)], 1, prompter_digest="other")).reason is Reason.DONE


def test_a_backfill_asks_again_what_other_weights_answered() -> None:
    day = acquisition(DAYS[0])
    states = dict(zip(BLOCKS, [BlockState.CLOUD, *[BlockState.DONE] * (len(BLOCKS) - 1)], strict=True))
    assert only(plan_of([day], [held(day, states=states)], 1, backfill=True)).reason is Reason.DONE
    line = only(plan_of([day], [held(day, states=states)], 1, backfill=True, prompter_digest="other"))
    assert (line.reason, line.blocks, line.revision) == (Reason.BACKFILL, BLOCKS[1:], 1)


def test_a_backfill_looks_at_who_answered_each_block() -> None:
    day = acquisition(DAYS[0])
    step = held(day, revision=1, answered_by=dict.fromkeys(BLOCKS[1:], "older"), unparsable=frozenset(BLOCKS[2:3]))
    assert only(plan_of([day], [step], 1)).blocks == BLOCKS[2:3], "unreadable to the older weights alone"
    line = only(plan_of([day], [step], 1, backfill=True))
    assert (line.reason, line.blocks, line.revision) == (Reason.BACKFILL, BLOCKS[1:], 2)
    assert only(plan_of([day], [step], 1, backfill=True, prompter_digest="older")).blocks == BLOCKS[:1]


def test_a_region_that_grew_inside_the_grid_adds_its_blocks() -> None:
    day = acquisition(DAYS[0])
    step = held(day, states=dict.fromkeys(BLOCKS[:3], BlockState.DONE))
    assert only(plan_of([day], [step], 1)).blocks == BLOCKS[3:]


def test_cloudy() -> None:
    def covers(*clouds: float | None) -> Reason:
        scenes = (scene(f"s{n}", moment(DAYS[0]), cloud_cover=cloud) for n, cloud in enumerate(clouds))
        return only(plan_of([acquisition(DAYS[0], *scenes)], max_cloud=80)).reason

    assert covers(90, 95) is Reason.CLOUDY
    assert covers(90, 10) is covers(90, None) is covers(80) is covers(None) is Reason.NEW
    assert (
        "90 % cloud, limit 80 %"
        in only(plan_of([acquisition(DAYS[0], scene("s", moment(DAYS[0]), cloud_cover=90.0))], max_cloud=80)).note
    )


def test_outside_and_touching_edges() -> None:
    east = replace(GRID, col0=GRID.col0 + 2)
    beside = scene("s", moment(DAYS[0])).footprint
    assert only(plan_of([acquisition(DAYS[0])], blocks=())).reason is Reason.OUTSIDE
    outside = scene("s", moment(DAYS[0]), footprint=footprint(BLOCKS, east))
    assert only(plan_of([acquisition(DAYS[0], outside)])).reason is Reason.OUTSIDE
    assert outside.footprint != beside
    left = acquisition(DAYS[0], scene("s", moment(DAYS[0]), (Block(0, 0), Block(1, 0))))
    assert only(plan_of([left])).blocks == (Block(0, 0), Block(1, 0))


def test_an_untidy_footprint_is_repaired() -> None:
    west, south, east, north = GRID.bbox_wgs84
    bowtie = (
        f'{{"type":"Polygon","coordinates":[[[{west},{south}],[{east},{north}],[{east},{south}],[{west},{north}],'
        f"[{west},{south}]]]}}"
    )
    line = only(plan_of([acquisition(DAYS[0], scene("s", moment(DAYS[0]), footprint=bowtie))]))
    assert line.blocks == BLOCKS


@pytest.mark.parametrize("bbox", [(-180, -90, 180, 90), (-180, 0, 0, 90), (-170, -80, -10, 85)])
def test_a_footprint_as_wide_as_the_world_covers_the_region(bbox: tuple[float, float, float, float]) -> None:
    wide = scene("s", moment(DAYS[0]), footprint=str(shapely.to_geojson(shapely.box(*bbox))))
    line = only(plan_of([acquisition(DAYS[0], wide)]))
    assert (line.reason, line.blocks) == (Reason.NEW, BLOCKS)


def test_missing_bands() -> None:
    good, bad = scene("good", moment(DAYS[0]), BLOCKS[:1]), scene("bad", moment(DAYS[0]), bands=frozenset({"red"}))
    line = only(plan_of([acquisition(DAYS[0], bad)]))
    assert (line.reason, line.note) == (Reason.MISSING_BANDS, "bad has no blue, green")
    line = only(plan_of([acquisition(DAYS[0], bad, good)]))
    assert (line.reason, line.blocks) == (Reason.NEW, BLOCKS[:1])
    assert "bad has no blue, green" in line.note
    assert line.acquisition is not None
    assert line.acquisition.scenes == (good,)


@pytest.mark.parametrize("state", [BlockState.DONE, BlockState.FAILED, BlockState.PENDING])
def test_what_is_held_waits_for_bands_that_are_missing_for_a_while(state: BlockState) -> None:
    bare = acquisition(DAYS[0], scene("bare", moment(DAYS[0]), bands=frozenset()))
    step = held(bare, revision=2, states=dict.fromkeys(BLOCKS, state))
    line = only(plan_of([bare], [step], 1))
    assert (line.reason, line.blocks, line.revision) == (Reason.MISSING_BANDS, (), 2)
    assert line.note == "bare has no blue, green, red"


@pytest.mark.parametrize("state", [BlockState.FAILED, BlockState.PENDING])
def test_blocks_that_no_scene_reaches_any_more_wait_for_one(state: BlockState) -> None:
    both = acquisition(DAYS[0], scene("a", moment(DAYS[0]), BLOCKS[:2]), scene("b", moment(DAYS[0]), BLOCKS[2:]))
    one = replace(both, scenes=both.scenes[:1])
    states = dict(zip(BLOCKS, [BlockState.DONE, state, state, state], strict=True))
    line = only(plan_of([one], [held(both, states=states)], 1))
    assert (line.reason, line.blocks) == (Reason.RETRY, BLOCKS[1:2])
    line = only(plan_of([one], [held(both, states=states | {BLOCKS[1]: BlockState.DONE})], 1))
    assert (line.reason, line.blocks) == (Reason.OUTSIDE, ())
    assert line.note == "2 blocks were not done, and no scene reaches them now"
    assert only(plan_of([one], [held(both)], 1, backfill=True, prompter_digest="other")).blocks == BLOCKS[:2]


def test_gone_only_inside_the_search_window() -> None:
    steps = [held(acquisition(day), number) for number, day in enumerate(DAYS)]

    def reasons(since: str | None, until: str | None) -> list[Reason]:
        window = (moment(since) if since else None, moment(until) if until else None)
        return [line.reason for line in plan_of([acquisition(DAYS[0])], steps, 3, window=window).lines]

    assert reasons(None, None) == [Reason.DONE, Reason.GONE, Reason.GONE]
    assert reasons("2014-01-01", None) == [Reason.DONE, Reason.GONE, Reason.GONE]
    assert reasons("2014-01-01", "2019-01-01") == [Reason.DONE, Reason.GONE]
    assert reasons(None, "2010-01-01") == [Reason.DONE]
    line = plan_of([acquisition(DAYS[0])], steps, 3).lines[1]
    assert (line.acquisition, line.blocks, line.step) == (None, (), None)


def test_the_budget_cuts_by_block_and_says_so() -> None:
    days = [acquisition(day) for day in DAYS]
    plan = plan_of(days, budget_tiles=6 * TILES + TILES - 1)
    assert [(line.reason, line.blocks, line.over_budget, line.step) for line in plan.lines] == [
        (Reason.NEW, BLOCKS, (), 0),
        (Reason.NEW, BLOCKS[:2], BLOCKS[2:], 1),
        (Reason.OVER_BUDGET, (), BLOCKS, None),
    ]
    assert sum(line.tiles for line in plan.lines) == 6 * TILES
    assert f"{4 * TILES} tiles (new) wait" in plan.lines[2].note
    assert plan_of(days, budget_tiles=0).work == ()
    assert plan_of(days, budget_tiles=10**9) == plan_of(days)


def test_pending_blocks_are_planned_again() -> None:
    day = acquisition(DAYS[0])
    states = {**dict.fromkeys(BLOCKS[:3], BlockState.DONE), BLOCKS[3]: BlockState.PENDING}
    line = only(plan_of([day], [held(day, states=states)], 1))
    assert (line.reason, line.blocks, line.revision) == (Reason.RETRY, BLOCKS[3:], 1)


def test_bundles() -> None:
    plan = plan_of([acquisition(day) for day in DAYS])
    orders = bundle(plan.work, 5)
    assert [len(order.jobs) for order in orders] == [5, 5, 2]
    assert [(job.step, job.block) for order in orders for job in order.jobs] == [
        (step, block) for step in range(3) for block in BLOCKS
    ]
    assert len({order.id for order in orders}) == 3
    assert bundle([], 5) == ()
    with pytest.raises(ValueError, match="1 or more"):
        bundle(plan.work, 0)


@settings(max_examples=60, deadline=None)
@given(
    shuffle=st.randoms(use_true_random=False),
    n_days=st.integers(0, 8),
    n_held=st.integers(0, 8),
    budget=st.one_of(st.none(), st.integers(0, 100)),
)
def test_planning_is_pure_and_complete(shuffle: random.Random, n_days: int, n_held: int, budget: int | None) -> None:
    days = [acquisition(f"2014-07-{1 + day:02d}", scene(f"s{day}", moment(f"2014-07-{1 + day:02d}"),
                                                        BLOCKS[: 1 + day % 4])) for day in range(n_days)]  # fmt: skip
    some = shuffle.sample(days, min(n_held, n_days))
    state = {block: shuffle.choice(list(BlockState)) for block in BLOCKS}
    steps = [held(day, number, states=dict(list(state.items())[: 1 + number % 4])) for number, day in enumerate(some)]
    plan = plan_of(days, steps, len(steps), budget_tiles=budget)
    mixed_days, mixed_steps = shuffle.sample(days, len(days)), shuffle.sample(steps, len(steps))
    assert plan_of(mixed_days, mixed_steps, len(steps), budget_tiles=budget) == plan
    assert {line.id for line in plan.lines} == {day.id for day in days}
    assert [line.step for line in plan.work] == list(range(len(steps), len(steps) + len(plan.work)))
    assert [line.time for line in plan.lines] == sorted(line.time for line in plan.lines)
    assert budget is None or sum(line.tiles for line in plan.lines) <= budget
    for line in plan.lines:
        assert not set(line.blocks) & set(line.over_budget)


def test_ten_thousand_acquisitions_of_a_hundred_blocks() -> None:
    """Runs in seconds; anything quadratic would not come back."""
    grid = Grid(crs="EPSG:32614", resolution=10.0, block_px=512, core_px=256, halo_px=32, row0=-1000, col0=90,
                rows=10, cols=10)  # fmt: skip
    blocks = [Block(row, col) for row in range(10) for col in range(10)]
    shape = footprint(blocks, grid)
    start = datetime(2000, 1, 1, tzinfo=UTC)
    days = []
    for number in range(10_000):
        time = start + timedelta(hours=7 * number)
        values = {"crs": grid.crs, "footprint": shape}
        days.append(Acquisition(id=f"a{number}", time=time, scenes=(scene(f"s{number}", time, (), **values),)))
    states = dict.fromkeys(blocks, BlockState.DONE)
    steps = [held(day, number, states=states) for number, day in enumerate(days[:5000])]
    plan = make_plan(days, grid, blocks, steps, required_bands={"red"}, prompter_digest=PROMPTER, n_published=5000,
                     estimate=lambda one, count: count)  # fmt: skip
    assert sum(len(line.blocks) for line in plan.lines) == 500_000
    assert len(bundle(plan.work, 16)) == 31_250
