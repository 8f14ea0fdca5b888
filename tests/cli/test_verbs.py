"""Every verb: what it prints for people, its one JSON document, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import shapely
from support.miniature import Archive, Miniature, area
from support.standins import standins

DAYS = ("2014-07-20", "2020-08-31")
LON, LAT = shapely.from_geojson(json.dumps(area())).centroid.coords[0]

type Think2Seg = Callable[..., Any]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Iterator[Miniature]:
    """A monitor whose cube holds all there is."""
    folder = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch, standins(folder / "weights", patch):
        world = Miniature(folder, Archive.of(folder / "archive", DAYS), scheduler)
        world.run()
        yield world


PIXEL = ("--time", DAYS[0], "--lon", LON, "--lat", LAT)
VERBS: dict[str, tuple[object, ...]] = {
    "plan": ("plan", "MONITOR"),
    "run": ("run", "MONITOR"),
    "backfill": ("backfill", "MONITOR"),
    "status": ("status", "MONITOR"),
    "report": ("report", "MONITOR"),
    "check": ("check", "CUBE"),
    "explain": ("explain", "CUBE", *PIXEL),
    "series": ("series", "CUBE"),
    "events": ("events", "CUBE"),
    "export": ("export", "CUBE", "FOLDER"),
    "schema": ("schema",),
    "doctor": ("doctor",),
}


def words(done: Miniature, verb: str) -> list[object]:
    places = {"MONITOR": done.file(), "CUBE": done.cube, "FOLDER": done.cube.parent / "exported"}
    return [places.get(str(word), word) for word in VERBS[verb]]


@pytest.mark.parametrize("verb", VERBS)
def test_json_is_one_document_and_nothing_else(done: Miniature, think2seg: Think2Seg, verb: str) -> None:
    outcome = think2seg(*words(done, verb), "--json")
    assert isinstance(outcome.document, dict)
    assert outcome.code == outcome.document.get("exit_code", 0)
    assert outcome.code == 0 or verb == "doctor"
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("doctor", "schema")])
def test_people_get_sentences(done: Miniature, think2seg: Think2Seg, verb: str) -> None:
    outcome = think2seg(*words(done, verb))
    assert outcome.code == 0
    assert outcome.out.strip()
    assert not outcome.out.startswith("{")


def test_every_verb_takes_json(think2seg: Think2Seg) -> None:
    listed = think2seg("--help").out
    for verb in (*VERBS, "train", "samples"):
        assert f" {verb} " in listed
        asked = (verb, "build", "--help") if verb == "samples" else (verb, "--help")
        assert "--json" in think2seg(*asked).out


def test_the_contract_of_a_run(world: Miniature, think2seg: Think2Seg) -> None:
    first = think2seg("run", world.file(), "--json")
    summary = first.document
    assert set(summary) == {
        "monitor", "monitor_hash", "cubes", "acquisitions", "blocks", "tiles", "failures", "seconds", "square_km",
        "seam_ratio", "reasons", "unparsable_tiles", "unknown_tiles", "probes", "exit_code",
    }  # fmt: skip
    assert summary["monitor"] == "miniature"
    assert summary["cubes"] == [str(world.cube)]
    assert summary["acquisitions"] == {"done": 2, "skipped": 0, "failed": 0}
    assert summary["tiles"] == {"done": 8, "cloud": 0, "failed": 0, "gated": 0}
    assert set(summary["seconds"]) == {"total", "search", "read", "prompt", "segment", "write"}
    assert (first.code, summary["exit_code"]) == (0, 0)
    assert "Traceback" not in first.err
    again = think2seg("run", world.file())
    assert again.code == 0
    assert again.out == f"Nothing to do: the cube holds every acquisition that can be read.\ncube: {world.cube}\n"


def test_a_plan_names_every_acquisition_with_its_reason(world: Miniature, think2seg: Think2Seg) -> None:
    outcome = think2seg("plan", world.file(), "--set", "budget.tiles=6", "--until", "2020-12-31")
    rows = outcome.out.splitlines()
    assert rows[0].startswith("miniature: water bodies")
    for day in DAYS:
        (row,) = [row for row in rows if row.startswith(day)]
        assert f"{day.replace('-', '')}-aircraft" in row
        assert " new " in row
    assert rows[-1].startswith("2 new; to do: 6 blocks, up to 6 tiles, ")
    document = think2seg("plan", world.file(), "--since", DAYS[1], "--json").document
    assert [row["time"][:10] for row in document["acquisitions"]] == [DAYS[1]]
    assert document["blocks"] == 4
    assert not world.cube.exists()


def test_set_overrides_and_a_scheduler_can_be_named(
    world: Miniature, think2seg: Think2Seg, scheduler: str, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere.zarr"
    file = world.file(cluster={"scheduler": "tcp://127.0.0.1:1"})
    named = think2seg("run", file, "--set", f"cube.uri={elsewhere}", "--dask-scheduler", scheduler, "--json")
    assert named.document["cubes"] == [str(elsewhere)]
    assert named.code == 0
    assert think2seg("status", file).out.strip() == f"{world.cube}: no cube yet"


def test_status_and_check_of_a_cube(done: Miniature, think2seg: Think2Seg) -> None:
    (cube,) = think2seg("status", done.file(), "--json").document["cubes"]
    assert (cube["uri"], cube["exists"], cube["acquisitions"], cube["holder"]) == (str(done.cube), True, 2, None)
    assert "2 acquisitions in 2 steps, 2014-07-20 to 2020-08-31" in think2seg("status", done.file()).out
    assert think2seg("check", done.cube).out == "0 errors, 0 other findings\n"


def test_explain_walks_from_a_pixel_to_the_reasoning(done: Miniature, think2seg: Think2Seg) -> None:
    document = think2seg("explain", done.cube, *PIXEL, "--json").document
    assert document["scenes"] == [f"scene-{DAYS[0]}"]
    assert "dark pieces" in document["answer"]["reasoning"]
    assert document["answer"]["prompt"] == "Where is water bodies?"
    assert "dark pieces" in think2seg("explain", done.cube, *PIXEL).out


def test_series_writes_a_table_and_a_plot(done: Miniature, think2seg: Think2Seg, tmp_path: Path) -> None:
    outcome = think2seg("series", done.cube, "--csv", tmp_path / "a.csv", "--png", tmp_path / "a.png")
    assert outcome.code == 0
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 3
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_series_of_a_part(done: Miniature, think2seg: Think2Seg, tmp_path: Path) -> None:
    west, south, east, north = shapely.from_geojson(json.dumps(area())).bounds
    whole = think2seg("series", done.cube, "--json").document
    left = think2seg("series", done.cube, "--region", f"{west},{south},{(west + east) / 2},{north}", "--json")
    assert left.document["region_m2"] == pytest.approx(whole["region_m2"] / 2, rel=0.05)
    file = tmp_path / "all.geojson"
    file.write_text(json.dumps(area()))
    assert think2seg("series", done.cube, "--region", file, "--json").document == whole


@pytest.mark.parametrize(
    ("region", "said"),
    [("1,2,3", "west,south,east,north"), ("none.geojson", "cannot be read"), ("1,2,3,4", "outside the cube")],
)
def test_series_of_a_part_that_makes_no_sense(done: Miniature, think2seg: Think2Seg, region: str, said: str) -> None:
    outcome = think2seg("series", done.cube, "--region", region)
    assert outcome.code in (2, 3)
    assert said in outcome.err


def test_a_report_goes_beside_the_cube_or_where_it_is_told_to(
    done: Miniature, think2seg: Think2Seg, tmp_path: Path
) -> None:
    assert think2seg("report", done.file(), "--json").document == {"paths": [str(done.cube.with_suffix(".html"))]}
    elsewhere = tmp_path / "new" / "page.html"
    assert think2seg("report", done.file(), "--out", elsewhere).out.split() == [str(elsewhere)]
    assert elsewhere.read_text().startswith("<!doctype html>")


def test_the_schema_knows_every_section(think2seg: Think2Seg) -> None:
    assert {"question", "region", "source", "models", "cube", "budget", "schedule"} <= set(
        think2seg("schema").document["properties"]
    )
