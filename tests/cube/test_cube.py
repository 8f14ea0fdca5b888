"""What a run may do to a cube, and what readers of every kind then see."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  (registers the accessor)
import xarray as xr
import zarr
from support.archive_run import (
    BLOCKS,
    GRID,
    PROMPTER,
    REGION_PX,
    SEGMENTER,
    SPEC,
    acquisition,
    contents,
    moment,
    plan_of,
    run,
    scene,
    write,
)

from think2seg.cube import (
    Cube,
    CubeSpec,
    check_cube,
    find_cube,
    is_cube,
    open_cube,
    open_or_create,
    read_instances,
    read_traces,
)
from think2seg.errors import CubeError, StoreError
from think2seg.grid import Block
from think2seg.imagery import BLOCKING, Quality
from think2seg.plan import BlockState, Reason, bundle

DAYS = ("2009-08-18", "2014-07-20", "2020-08-31")


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "cube.zarr")


@pytest.fixture
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def changed(day: str, blocks: tuple[Block, ...], version: str = "2") -> Any:
    """The acquisition of a day, whose scene over some blocks was published anew beside an unchanged one."""
    return acquisition(
        day,
        scene(f"item-{day}", moment(day)),
        scene(f"patch-{day}", moment(day), blocks, version=version),
    )


def opened(uri: str, **values: Any) -> Cube:
    given: dict[str, Any] = {"prompter": PROMPTER, "segmenter": SEGMENTER}
    return open_or_create(uri, values.pop("spec", SPEC), **(given | values))


# --- reading ------------------------------------------------------------------------------------------------------


def test_an_empty_cube_opens(uri: str, no_warnings: None) -> None:
    opened(uri)
    cube = open_cube(uri)
    assert dict(cube.sizes) == {"time": 0, "y": 64, "x": 64, "block_y": 2, "block_x": 2}
    assert len(read_traces(uri)) == len(read_instances(uri)) == 0
    assert check_cube(uri) == []


def test_xarray_shows_a_published_cube_without_warnings(uri: str, no_warnings: None) -> None:
    run(uri, [acquisition(day) for day in DAYS])
    for dataset in (open_cube(uri), xr.open_zarr(uri), xr.open_zarr(uri, consolidated=False)):
        assert {name: dataset[name].dtype.str for name in ("mask", "score", "quality", "state")} == {
            "mask": "|u1", "score": "|u1", "quality": "<u2", "state": "|u1",
        }  # fmt: skip
        assert "_FillValue" not in dataset["mask"].attrs
        assert dataset["mask"].chunks[0] == (1, 1, 1)
        assert [str(day)[:10] for day in dataset["time"].values] == list(DAYS)
        assert dataset["y"].values[0] == GRID.transform.f - 2.5
        assert dataset["x"].values[-1] == GRID.transform.c + 64 * 5 - 2.5
        assert dataset.attrs["proj:code"] == "EPSG:26914"
        assert dataset.attrs["spatial:transform"] == list(GRID.transform[:6])
    cube = open_cube(uri)
    assert list(cube["acquisition"].values) == [f"{day.replace('-', '')}-aircraft" for day in DAYS]
    assert cube["mask"].rio.crs.to_epsg() == 26914
    assert cube["observed_fraction"].values == pytest.approx((cube["mask"] != 255).mean(["y", "x"]).values)


def test_gdal_and_xarray_agree(uri: str, no_warnings: None) -> None:
    run(uri, [acquisition(day) for day in DAYS[:2]])
    cube = open_cube(uri)
    for array in ("mask", "score", "quality"):
        for step in range(2):
            with rasterio.open(f'ZARR:"{uri}":/{array}:{step}') as source:
                assert source.transform == GRID.transform
                assert source.crs.to_epsg() == 26914
                assert np.array_equal(source.read(1), cube[array][step].values)


def test_zarr_lists_the_group_without_warnings(uri: str, no_warnings: None) -> None:
    run(uri, [acquisition(DAYS[0])])
    group = zarr.open_group(uri, mode="r", use_consolidated=False)
    assert {"mask", "time", "_records"} <= {name for name, _ in group.members()}


def test_geographic_grids_too(uri: str, no_warnings: None) -> None:
    grid = replace(GRID, crs="EPSG:4326", resolution=0.0001, row0=-14700, col0=-31000)
    opened(uri, spec=replace(SPEC, grid=grid))
    cube = xr.open_zarr(uri)
    assert cube["y"].attrs["units"] == "degrees_north"
    assert cube["x"].attrs["standard_name"] == "longitude"


def test_duckdb_and_geopandas_read_the_tables(uri: str) -> None:
    run(uri, [acquisition(day) for day in DAYS])
    count = "SELECT acquisition, count(*) FROM '{}/_records/{}/*/*.parquet' GROUP BY ALL ORDER BY ALL"
    assert duckdb.sql(count.format(uri, "traces")).fetchall() == [
        (f"{day.replace('-', '')}-aircraft", len(BLOCKS)) for day in DAYS
    ]
    frame = gpd.read_parquet(next(Path(uri).glob("_records/instances/*/*.parquet")))
    assert frame.crs.to_epsg() == 4326
    instances = read_instances(uri)
    assert instances.crs.to_epsg() == 4326
    assert len(instances) == 3 * len(BLOCKS)
    assert (instances.geometry.geom_type == "Polygon").all()
    assert read_traces(uri)["time"].dt.tz is not None


def test_no_cube_is_said_so(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        for read in (open_cube, read_traces, read_instances, check_cube):
            with pytest.raises(CubeError):
                read(place)
    assert not is_cube(tmp_path / "missing")
    assert find_cube(tmp_path / "missing", SPEC, prompter=PROMPTER, segmenter=SEGMENTER) is None
    assert list(tmp_path.iterdir()) == []


# --- publishing ---------------------------------------------------------------------------------------------------


def test_steps_and_their_contents_do_not_depend_on_how_they_were_published(tmp_path: Path) -> None:
    days = [acquisition(day) for day in DAYS]
    run(tmp_path / "a", days)
    run(tmp_path / "b", days, together=True)
    run("memory://c", days)
    one, other, third = (contents(uri) for uri in (tmp_path / "a", tmp_path / "b", "memory://c"))
    assert one == other == third


def test_nothing_new_writes_nothing(uri: str) -> None:
    run(uri, [acquisition(DAYS[0])])
    seen: list[str] = []
    plan = run(uri, [acquisition(DAYS[0])], before_write=seen.append)
    assert [line.reason for line in plan.lines] == [Reason.DONE]
    assert not [key for key in seen if "/lease/" not in key]


def test_late_acquisitions_are_appended_and_shown_in_time_order(uri: str) -> None:
    run(uri, [acquisition(DAYS[0]), acquisition(DAYS[2])])
    plan = run(uri, [acquisition(day) for day in DAYS])
    assert [line.reason for line in plan.work] == [Reason.LATE]
    assert list(xr.open_zarr(uri)["time"].dt.year.values) == [2009, 2020, 2014]
    assert list(open_cube(uri)["time"].dt.year.values) == [2009, 2014, 2020]


def test_a_changed_scene_does_only_its_blocks_again(uri: str) -> None:
    run(uri, [acquisition(DAYS[0]), changed(DAYS[1], (BLOCKS[0],), version="1")])
    before = open_cube(uri).load()
    stored = {path: path.read_bytes() for path in Path(uri).glob("[mqs]*/c/[01]/*/*")}
    plan = run(uri, [acquisition(DAYS[0]), changed(DAYS[1], (BLOCKS[0],))])
    assert [(line.reason, line.blocks, line.revision) for line in plan.work] == [(Reason.CHANGED, (BLOCKS[0],), 1)]
    after = open_cube(uri).load()
    assert list(after["revision"].values) == [0, 1]
    difference = (before["mask"].values != after["mask"].values)[1]
    assert difference[:32, :32].any()
    assert not difference[32:].any()
    assert not difference[:, 32:].any()
    assert not (before["mask"].values != after["mask"].values)[0].any()
    assert {path: path.read_bytes() for path in stored} == stored
    assert after["observed_fraction"].values == pytest.approx((after["mask"] != 255).mean(["y", "x"]).values)
    traces = read_traces(uri)
    assert sorted(traces[traces["acquisition"] == "20140720-aircraft"]["answered_in"]) == [0, 0, 0, 1]
    assert set(traces["revision"]) == {0, 1}
    assert len(read_traces(uri, revisions="all")) == 3 * len(BLOCKS)
    assert len(open_cube(uri, revisions="all")["time"]) == 3


def test_as_of_shows_the_cube_as_it_stood(uri: str) -> None:
    run(uri, [changed(DAYS[1], (BLOCKS[0],), version="1")])
    first = open_cube(uri).load()
    between = datetime.now(UTC) + timedelta(milliseconds=1)
    time.sleep(0.01)
    run(uri, [acquisition(DAYS[0]), changed(DAYS[1], (BLOCKS[0],))])
    assert len(open_cube(uri)["time"]) == 2
    for when in (between, between.isoformat(), between.astimezone().isoformat(), between.replace(tzinfo=None)):
        xr.testing.assert_identical(open_cube(uri, as_of=when).load().drop_attrs(), first.drop_attrs())
    assert len(read_traces(uri, as_of=between)) == len(BLOCKS)
    assert len(open_cube(uri, as_of="2001-01-01")["time"]) == 0


def test_what_the_budget_cuts_off_is_pending_and_continues_as_a_revision(uri: str) -> None:
    per_block = (GRID.block_px // GRID.core_px) ** 2
    days = [acquisition(DAYS[0]), acquisition(DAYS[1])]
    plan = run(uri, days, budget_tiles=3 * per_block)
    assert [(line.reason, len(line.blocks), len(line.over_budget)) for line in plan.lines] == [
        (Reason.NEW, 3, 1), (Reason.OVER_BUDGET, 0, 4),
    ]  # fmt: skip
    cube = open_cube(uri).load()
    assert cube["state"].values.tolist() == [[[1, 1], [1, 0]]]
    cut = cube.isel(time=0, y=slice(32, None), x=slice(32, None))
    assert (cut["mask"] == 255).all()
    assert (cut["quality"] == int(Quality.OVER_BUDGET)).all()
    assert check_cube(uri) == []
    second = run(uri, days, budget_tiles=3 * per_block)
    assert [(line.reason, len(line.blocks), line.revision) for line in second.work] == [
        (Reason.RETRY, 1, 1), (Reason.NEW, 2, 0),
    ]  # fmt: skip
    run(uri, days)
    cube = open_cube(uri)
    assert (cube["state"] == 1).all()
    run("memory://unlimited", days)
    assert np.array_equal(cube["mask"].values, open_cube("memory://unlimited")["mask"].values)
    assert check_cube(uri) == []


def test_blocks_no_scene_touches_are_outside_and_hold_no_chunk(uri: str) -> None:
    part = acquisition(DAYS[0], scene("part", moment(DAYS[0]), BLOCKS[:1]))
    run(uri, [part])
    cube = open_cube(uri).load()
    assert cube["state"].values.tolist() == [[[1, 255], [255, 255]]]
    assert (cube["mask"].values[0, 32:] == 255).all()
    assert (cube["quality"].values[0, 32:] == int(Quality.OUTSIDE)).all()
    assert len(list(Path(uri).glob("mask/c/0/*/*"))) == 1


def test_failed_blocks_are_tried_again_then_quarantined(uri: str) -> None:
    day, bad = [acquisition(DAYS[0])], {("20090818-aircraft", BLOCKS[1])}
    run(uri, day, failing=bad)
    assert open_cube(uri)["state"].values.tolist() == [[[1, 3], [1, 1]]]
    reasons = [run(uri, day, failing=bad).lines[0].reason for _ in range(3)]
    assert reasons == [Reason.RETRY, Reason.RETRY, Reason.QUARANTINED]
    assert check_cube(uri) == []


def test_a_repaired_block_appears_in_a_revision(uri: str) -> None:
    day, bad = [acquisition(DAYS[0])], {("20090818-aircraft", BLOCKS[1])}
    run(uri, day, failing=bad)
    run(uri, day)
    run("memory://never-failed", day)
    mended, whole = open_cube(uri), open_cube("memory://never-failed")
    assert np.array_equal(mended["mask"].values, whole["mask"].values)
    assert mended["observed_fraction"].values == whole["observed_fraction"].values
    assert len(read_traces(uri)) == len(read_traces("memory://never-failed"))


def test_unparsable_blocks_wait_for_other_weights(uri: str) -> None:
    day, bad = [acquisition(DAYS[0])], {("20090818-aircraft", BLOCKS[2])}
    run(uri, day, unparsable=bad)
    assert run(uri, day).work == ()
    plan = run(uri, day, prompter="d" * 64, registered=True)
    assert [(line.reason, line.blocks) for line in plan.work] == [(Reason.RETRY, (BLOCKS[2],))]
    assert run(uri, day, prompter="d" * 64).work == ()
    assert open_cube(uri)["model_version"].values.tolist() == [f"{'d' * 12}+{'b' * 12}"]


def test_the_mask_rule_holds_everywhere(uri: str) -> None:
    run(uri, [acquisition(day) for day in DAYS], failing={("20140720-aircraft", BLOCKS[0])}, budget_tiles=40)
    cube = xr.open_zarr(uri).load()
    assert np.array_equal(cube["mask"].values == 255, (cube["quality"].values & BLOCKING) != 0)


# --- refusals -----------------------------------------------------------------------------------------------------


def test_foreign_places_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(CubeError, match=r"did not make[\s\S]*Set another cube.uri"):
        opened(str(tmp_path))
    xr.Dataset({"mask": ("x", [1])}).to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(CubeError, match="did not make"):
        opened(str(tmp_path / "other.zarr"))
    with pytest.raises(CubeError, match="did not make"):
        find_cube(tmp_path, SPEC, prompter=PROMPTER, segmenter=SEGMENTER)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.zarr", "precious.txt"]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"question": "forest clearings"}, "question: the cube has 'water bodies', asked for is 'forest clearings'"),
        ({"grid": replace(GRID, rows=3)}, "grid.rows: the cube has 2, asked for is 3"),
        ({"grid": replace(GRID, halo_px=8)}, "tiling.halo_px: the cube has 4, asked for is 8"),
        ({"source": {"archive": "x", "collections": ["naip"]}}, "source.archive: the cube has 'miniature'"),
        ({"recipe": {**SPEC.recipe, "limits": [0, 99]}}, r"recipe.limits: the cube has \[0, 255\]"),
        ({"template": "e" * 64}, "template: the cube has"),
    ],
)
def test_another_identity_is_refused_by_field(uri: str, other: dict[str, Any], told: str) -> None:
    opened(uri)
    with pytest.raises(CubeError, match=told + r"[\s\S]*another cube.uri") as caught:
        opened(uri, spec=replace(SPEC, **other))
    assert caught.value.exit_code == 2


def test_title_and_attribution_are_no_identity(uri: str) -> None:
    opened(uri)
    opened(uri, spec=replace(SPEC, title="Another", attribution="Someone"))


def test_spec_survives_json() -> None:
    assert CubeSpec.from_json(SPEC.to_json()) == SPEC


def test_other_weights_need_a_promotion(uri: str) -> None:
    opened(uri)
    run(uri, [acquisition(DAYS[0])], prompter="d" * 64)
    with pytest.raises(CubeError, match=r"prompter dddd[\s\S]*registered promotion"):
        opened(uri)
    run(uri, [acquisition(day) for day in DAYS[:2]], registered=True)
    assert open_cube(uri)["model_version"].values.tolist() == [f"{'d' * 12}+{'b' * 12}", f"{'a' * 12}+{'b' * 12}"]


def test_a_later_layout_is_refused(uri: str) -> None:
    opened(uri)
    path = Path(uri) / "_records" / "cube.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(CubeError, match="layout 99"):
        opened(uri)


def test_broken_rules_never_reach_the_store(uri: str) -> None:
    cube = opened(uri)
    job = bundle(plan_of([acquisition(DAYS[0])]).work, 1)[0].jobs[0]
    fine: dict[str, Any] = {
        "mask": np.zeros((32, 32), np.uint8),
        "score": np.zeros((32, 32), np.uint8),
        "quality": np.zeros((32, 32), np.uint16),
        "state": BlockState.DONE,
    }
    writer = cube.writer(1)
    for wrong, told in [
        ({"mask": np.full((32, 32), 255, np.uint8)}, "break the rule"),
        ({"mask": np.full((32, 32), 7, np.uint8)}, "break the rule"),
        ({"quality": np.full((32, 32), 2, np.uint16)}, "break the rule"),
        ({"mask": np.zeros((32, 31), np.uint8)}, "mask is uint8"),
        ({"quality": np.zeros((32, 32), np.uint8)}, "quality is uint8"),
        ({"traces": [{"colour": "red"}]}, "unknown columns"),
        ({"traces": [{"tile": "a"}]}, "lacks tile_y, tile_x, status"),
        ({"instances": [{"tile": "a", "number": "one"}]}, "does not fit"),
    ]:
        with pytest.raises(CubeError, match=told):
            writer.write_block(job, **(fine | wrong))
    with pytest.raises(CubeError, match="outside the cube"):
        writer.write_block(replace(job, step=1), **fine)
    assert cube.unpublished_receipts() == ()
    assert not list(Path(uri).glob("mask/c/*"))


def test_incomplete_or_misplaced_steps_are_refused(uri: str) -> None:
    cube = opened(uri)
    lines = plan_of([acquisition(day) for day in DAYS]).work
    writer = cube.writer(3)
    receipts = [write(writer, job) for order in bundle(lines, 9) for job in order.jobs]
    with cube.acquire_lease() as lease:
        for wrong, told in [
            (([lines[0]], receipts[1:]), "lacks receipts of 1 of its 4 blocks"),
            (([lines[1]], receipts), "goes on with step 0"),
            (([replace(lines[0], revision=1)], receipts), "revision 0"),
            (([replace(lines[0], id="../../etc")], receipts), "folder name"),
            (([replace(lines[0], id="other")], receipts), "was handed in for other"),
        ]:
            with pytest.raises(CubeError, match=told):
                cube.publish(*wrong, lease, region_px=REGION_PX)
        (Path(uri) / "score/c/0/1/1").unlink()
        with pytest.raises(StoreError, match="1 of 4 chunks of score"):
            cube.publish(lines[:1], receipts, lease, region_px=REGION_PX)
        assert len(open_cube(uri)["time"]) == 0
        cube.publish([], [], lease, region_px=REGION_PX)


@pytest.mark.parametrize("damage", ["not json", "dtype", "identity"])
def test_structure_drift_stops_publication(uri: str, damage: str) -> None:
    run(uri, [acquisition(DAYS[0])])
    path = Path(uri) / "zarr.json"
    root = json.loads(path.read_text())
    if damage == "dtype":
        root["consolidated_metadata"]["metadata"]["mask"]["data_type"] = "int8"
    elif damage == "identity":
        root["attributes"]["think2seg"]["identity_digest"] = "0"
    path.write_text("{" if damage == "not json" else json.dumps(root))
    with pytest.raises(CubeError, match="may change a cube's metadata"):
        run(uri, [acquisition(DAYS[0]), acquisition(DAYS[1])])


def test_a_cube_that_shows_more_than_its_ledger_is_refused(uri: str) -> None:
    run(uri, [acquisition(DAYS[0]), acquisition(DAYS[1])])
    (Path(uri) / "_records/ledger/00000002.json").unlink()
    with pytest.raises(CubeError, match="shows 2 steps, its ledger knows 1"):
        run(uri, [acquisition(day) for day in DAYS])


def test_a_hole_in_the_ledger_is_refused(uri: str) -> None:
    run(uri, [acquisition(DAYS[0]), acquisition(DAYS[1])])
    (Path(uri) / "_records/ledger/00000001.json").unlink()
    with pytest.raises(CubeError, match="ledger breaks off"):
        opened(uri)


def test_a_lost_root_is_made_again(uri: str) -> None:
    run(uri, [acquisition(DAYS[0])])
    before = contents(uri)
    (Path(uri) / "zarr.json").unlink()
    run(uri, [acquisition(DAYS[0])])
    assert contents(uri) == before
