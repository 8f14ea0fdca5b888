"""What a run would do, before anything is written."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
import shapely
from support.miniature import DAYS, Miniature

from think2seg.coordinator import ArchiveRun, cube_status, find, plan_rows, plan_run
from think2seg.cube import open_cube, open_or_create
from think2seg.errors import CatalogError, ConfigError, NothingFound
from think2seg.grid import Block, Grid
from think2seg.plan import Reason

OLD, MIDDLE, NEW = DAYS
AUTO = {"crs": "auto", "resolution": 5.0}


def test_a_plan_says_what_it_would_cost_and_writes_nothing(world: Miniature) -> None:
    planned = plan_run(find(world.monitor(budget={"tiles": 5})))
    totals = planned.totals()
    assert (totals["blocks"], totals["tiles"], totals["reasons"]) == (5, 5, {"new": 2, "over budget": 1})
    assert totals["bytes"] == sum(row["bytes"] for row in plan_rows(planned)) > 0
    rows = plan_rows(planned)
    assert [row["blocks"] for row in rows] == [4, 1, 0]
    assert rows[0]["scenes"] == [f"scene-{OLD}"]
    assert "wait for the next run" in rows[2]["note"]
    assert planned.sentence().startswith("2 new, 1 over budget; to do: 5 blocks, up to 5 tiles, ")
    assert not world.cube.exists()
    assert [status.render() for status in cube_status(world.monitor())] == [f"{world.cube}: no cube yet"]


def test_a_budget_that_would_never_be_spent_is_refused(world: Miniature) -> None:
    with pytest.raises(ConfigError, match="budget of 3 tiles would never be spent: a block has 4") as caught:
        plan_run(find(world.monitor({"uri": str(world.cube), "block_px": 256}, budget={"tiles": 3})))
    assert "at least 4" in caught.value.allowed
    assert plan_run(find(world.monitor({"uri": str(world.cube), "block_px": 256}, budget={"tiles": 4}))).n_blocks == 1


def test_since_and_until_are_days_and_both_included(world: Miniature) -> None:
    def days(since: str | None, until: str | None) -> list[str]:
        found = find(
            world.monitor(),
            since=dt.date.fromisoformat(since) if since else None,
            until=dt.date.fromisoformat(until) if until else None,
        )
        return [f"{acquisition.time:%Y-%m-%d}" for acquisition in found.result.acquisitions]

    assert days(MIDDLE, None) == [MIDDLE, NEW]
    assert days(None, MIDDLE) == [OLD, MIDDLE]
    assert days(MIDDLE, MIDDLE) == [MIDDLE]
    with pytest.raises(NothingFound, match="2015-01-01") as caught:
        days("2015-01-01", "2015-12-31")
    assert caught.value.exit_code == 2


def test_a_first_run_that_finds_nothing_is_the_users_error(world: Miniature) -> None:
    source = {"datetime": "1990-01-01/1991-01-01", "lookback_days": 10}
    with pytest.raises(NothingFound, match="lie outside the interval") as caught:
        find(world.monitor(source=source))
    assert isinstance(caught.value, CatalogError)


def test_a_run_that_looks_back_searches_its_window_only(world: Miniature) -> None:
    world.run()
    world.archive.remove(OLD)
    found = find(world.monitor(source={"lookback_days": 30}))
    assert [acquisition.id for acquisition in found.result.acquisitions] == ["20200831-aircraft"]
    assert {line.reason for line in plan_run(found).cubes[0].plan.lines} == {Reason.DONE}, "not searched is not gone"
    assert world.plan()[OLD].reason is Reason.GONE, "a full sweep notices"


@pytest.mark.parametrize("grid", [{}, AUTO], ids=["fixed CRS", "automatic CRS"])
def test_a_look_back_that_finds_nothing_has_nothing_to_do(world: Miniature, grid: dict[str, object]) -> None:
    world.run(grid=grid)
    world.archive.remove(NEW)
    monitor = {"grid": grid, "source": {"lookback_days": 30}}
    found = find(world.monitor(**monitor))
    assert "lie outside the interval 2020-08-01" in found.notes[0]
    assert {line.reason for line in plan_run(found).cubes[0].plan.lines} == {Reason.GONE}
    summary = world.run(**monitor)
    assert (summary.exit_code, summary.acquisitions["done"]) == (0, 0)
    assert open_cube(world.cube).sizes["time"] == 3, "what is gone from the catalog stays in the cube"


def test_an_automatic_crs_is_that_of_the_scenes_and_then_that_of_the_cube(world: Miniature) -> None:
    world.run(grid=AUTO)
    assert open_cube(world.cube).attrs["proj:code"] == "EPSG:26914"
    world.archive.put("2012-07-31", proj__code="EPSG:26913")
    lines = world.plan(grid=AUTO)
    assert lines["2012-07-31"].reason is not Reason.DONE
    assert lines[OLD].reason is Reason.DONE


def test_a_region_in_two_zones_needs_two_cubes(world: Miniature) -> None:
    wide = {"kind": "geometry", "geometry": shapely.box(-96.05, 47.0, -95.95, 47.05).__geo_interface__}
    found = find(world.monitor())
    asked = world.monitor(grid=AUTO | {"resolution": 20.0}, region=wide)
    nothing = replace(found.result, acquisitions=())
    with pytest.raises(ConfigError, match="2 zones \\(utm14n, utm15n\\)") as caught:
        plan_run(replace(found, monitor=asked, result=nothing))
    assert "{zone}" in caught.value.todo
    apart = world.monitor(world.folder / "{zone}.zarr", grid=AUTO | {"resolution": 20.0}, region=wide)
    cubes = plan_run(replace(found, monitor=apart, result=nothing)).cubes
    assert [cube.uri.rpartition("/")[2] for cube in cubes] == ["utm14n.zarr", "utm15n.zarr"]


def test_zones_share_a_budget(world: Miniature) -> None:
    wide = shapely.box(-96.05, 47.0, -95.95, 47.05)
    found = find(world.monitor())
    (day, *_) = found.result.acquisitions
    scenes = tuple(replace(scene, crs=None, footprint=str(shapely.to_geojson(wide))) for scene in day.scenes)
    result = replace(found.result, acquisitions=(replace(day, scenes=scenes),))

    def blocks(tiles: int) -> list[int]:
        asked = world.monitor(
            {"uri": str(world.folder / "{zone}.zarr"), "block_px": 64},
            grid=AUTO,
            region={"kind": "geometry", "geometry": wide.__geo_interface__},
            tile={"footprint_m": 640, "halo_m": 160},
            budget={"tiles": tiles},
        )
        cubes = plan_run(replace(found, monitor=asked, result=result)).cubes
        return [line.tiles for cube in cubes for line in cube.plan.lines]

    assert blocks(7) == [3, 3]
    with pytest.raises(ConfigError, match="a block has 1, and 2 cubes share it") as caught:
        blocks(1)
    assert "at least 2" in caught.value.allowed


def test_a_large_region_is_looked_at_pixel_by_pixel_along_its_edge_only(
    world: Miniature, monkeypatch: pytest.MonkeyPatch
) -> None:
    """About 90,000 blocks."""
    wide = {"kind": "geometry", "geometry": shapely.box(-99.9, 46.0, -97.5, 47.9).__geo_interface__}
    found = replace(find(world.monitor()), monitor=world.monitor(region=wide))
    honest, looks = Grid.region_mask, list[Block]()

    def counted(self: Grid, region: Any, block: Block, **options: Any) -> Any:
        looks.append(block)
        return honest(self, region, block, **options)

    monkeypatch.setattr(Grid, "region_mask", counted)
    with ArchiveRun(found) as run:
        (cube,) = run.plan.cubes
    assert len(cube.blocks) > 90_000
    assert len(cube.plan.lines) == 3
    assert len(looks) < 2_000


def test_the_status_tells_what_is_held_and_who_is_writing(world: Miniature) -> None:
    world.run()
    monitor = world.monitor()
    (status,) = cube_status(monitor)
    assert (status.steps, status.acquisitions, status.blocks, status.waiting) == (3, 3, {"done": 12}, 0)
    assert (status.first, status.last) == (f"{OLD}T17:00:00+00:00", f"{NEW}T17:00:00+00:00")
    assert status.holder is None
    assert "no run is writing" in status.render()
    planned = plan_run(find(monitor)).cubes[0]
    cube = open_or_create(planned.uri, planned.spec, prompter=planned.prompter, segmenter=planned.segmenter)
    with cube.acquire_lease():
        (busy,) = cube_status(monitor)
        assert busy.holder is not None
        assert "being written by process" in busy.render()
