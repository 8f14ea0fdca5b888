"""Monitors and archives: what loads, and what the refusals say."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from pathlib import Path

import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from think2seg.config import (
    Archive,
    Monitor,
    archive_names,
    conf_root,
    load_archive,
    load_monitor,
    monitor_names,
    monitor_schema,
)
from think2seg.config.documents import parse_document
from think2seg.config.intervals import format_interval, parse_interval
from think2seg.errors import ConfigError

MONITOR = """\
monitor: ponds
question: ponds
region:
  kind: bbox
  bbox: [10, 50, 11, 51]
source:
  archive: naip-local
  catalog: catalog.json
  datetime: 2020-01-01/..
cube:
  uri: out/ponds.zarr
"""


@pytest.fixture
def monitor_file(tmp_path: Path) -> Path:
    path = tmp_path / "ponds.yaml"
    path.write_text(MONITOR)
    return path


def refusal(path: Path | str, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_monitor(path, overrides)
    return caught.value


@pytest.mark.parametrize("name", monitor_names())
def test_monitors_that_ship_load_and_fit_their_archive(name: str) -> None:
    monitor = load_monitor(name)
    assert monitor.monitor == name
    assert load_monitor(conf_root() / "monitors" / f"{name}.yaml") == monitor
    assert pickle.loads(pickle.dumps(monitor)) == monitor
    archive = load_archive(monitor.source.archive)
    footprint, halo = monitor.footprint_m(archive), monitor.halo_m(archive)
    core_px = (footprint - 2 * halo) / monitor.resolution(archive)
    assert core_px.is_integer()
    assert monitor.cube.block_px % core_px == 0


@pytest.mark.parametrize("name", archive_names())
def test_archives_that_ship_load(name: str) -> None:
    archive = load_archive(name)
    assert archive.archive == name
    assert set(archive.needed_bands) <= set(archive.bands)
    footprint_px = archive.tile_footprint_m / archive.resolution
    core_px = footprint_px - 2 * footprint_px / 6
    assert 1024 % core_px == 0, "the default tile divides the default block"


def test_defaults_come_from_the_archive(monitor_file: Path) -> None:
    monitor, archive = load_monitor(monitor_file), load_archive("naip-local")
    assert monitor.collections(archive) == ("naip",)
    assert monitor.resolution(archive) == archive.resolution
    assert monitor.footprint_m(archive) == 960
    assert monitor.halo_m(archive) == 160


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("archive: naip-local", "archve: naip-local", ["line 7", "source.archve", "naip-local", "'archive'"]),
        (
            "kind: bbox",
            "kind: box",
            ["line 4", "region.kind", "'box'", "bbox, geojson, geometry", "Did you mean 'bbox'?"],
        ),
        ("archive: naip-local", "archive: naip-lokal", ["line 7", "'naip-lokal'", "Did you mean 'naip-local'?"]),
        ("2020-01-01/..", "2020-13-01/..", ["line 9", "source.datetime", "2020-13-01", "2020-08-31"]),
        ("2020-01-01/..", "2021-01-01/2020-01-01", ["line 9", "before the beginning"]),
        ("[10, 50, 11, 51]", "[10, 51, 11, 50]", ["line 5", "region.bbox", "south is below north"]),
        ("[10, 50, 11, 51]", "[10, 50, 11]", ["line 5", "region.bbox"]),
        ("monitor: ponds", "monitor: Ponds!", ["line 1", "'Ponds!'", "nd-wetlands"]),
        ("uri: out/ponds.zarr", "uri: out/{zon}.zarr", ["line 11", "{zon}", "{question} and {zone}"]),
        ("question: ponds\n", "", ["question is missing"]),
        ("question: ponds\n", "question: ponds\nquestions: [lakes]\n", ["not both"]),
        ("question: ponds\n", "questions: [ponds, lakes]\n", ["{question}", "cube.uri"]),
        ("question: ponds\n", "questions: [ponds, ponds]\n", ["twice"]),
        ("question: ponds\n", "questions: [ponds]\nprobes: [ships]\n", ["probes names 'ships'", "['ponds']"]),
        ("question: ponds\n", "question: a\nquestion: b\n", ["line 3", "second time", "line 2"]),
        ("  kind: bbox", " kind: [", ["line"]),
        (MONITOR, "- a\n", ["list", "mapping"]),
        (MONITOR, "[a, b]: c\n", ["line 1", "cannot be a key"]),
        (MONITOR, "", ["not a mapping"]),
    ],
)
def test_a_mistake_is_named_with_its_place(monitor_file: Path, old: str, new: str, said: list[str]) -> None:
    monitor_file.write_text(MONITOR.replace(old, new, 1))
    text = str(refusal(monitor_file))
    assert "ponds.yaml" in text
    for part in said:
        assert part in text


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("source.max_cloud_covr=3", "Did you mean 'max_cloud_cover'?"),
        ("source.max_cloud_cover=101", "less than or equal to 100"),
        ("models.prompter.kind=locl", "Did you mean 'local'?"),
        ("models.prompter.device=gpu", "For example: auto, cpu"),
        ("schedule={cron: 0 6 * * 1, timezone: America/Chicgo}", "Did you mean 'America/Chicago'?"),
        ("schedule.cron=daily", "0 6 * * 1"),
        ("question.text=a", "nothing can be set inside it"),
        ("cube.uri", "is not KEY=VALUE"),
        ("=3", "is not KEY=VALUE"),
        ("cube.uri=[", "is not YAML"),
        ("cube.uri={{question}}", "is not YAML"),
        ("cube.uri=out/{zone:05d}.zarr", "{question} and {zone}"),
        ("cube.uri=out/{zone!z}.zarr", "{question} and {zone}"),
        ("region={kind: geojson, path: missing.geojson}", "missing.geojson"),
        ("region={kind: geometry, geometry: {type: Point, coordinates: [0, 0]}}", "polygon with an area"),
        ("region={bbox: [1, 2, 3, 4]}", "kind"),
    ],
)
def test_an_override_that_makes_no_sense_is_named(monitor_file: Path, override: str, said: str) -> None:
    text = str(refusal(monitor_file, override))
    assert f"--set {override}" in text
    assert said in text


SERVED = "models.prompter={kind: served, url: 'http://h/v1', model: m, revision: r%s}"


def test_models_of_other_kinds(monitor_file: Path) -> None:
    models = load_monitor(monitor_file, [SERVED % "", "models.segmenter={kind: sam2, path: a/b}"]).models
    assert (models.prompter.kind, models.segmenter.kind) == ("served", "sam2")
    text = str(refusal(monitor_file, "models.segmenter={kind: sam2}"))
    assert "models.segmenter.path is missing" in text


@pytest.mark.parametrize(
    "overrides",
    [
        [SERVED % ", api_key_variable: sk-secret"],
        [SERVED % "", "models.prompter.api_key_variable=sk-secret"],
        ["models.prompter={kind: served, url: 'http://u:sk-secret@h/v1', model: m, revision: r}"],
        ["models.prompter={kind: served, url: 'http://h/v1?key=sk-secret', model: m, revision: r}"],
    ],
)
def test_a_key_in_the_wrong_place_is_not_repeated(monitor_file: Path, overrides: list[str]) -> None:
    text = str(refusal(monitor_file, *overrides))
    assert "sk-secret" not in text
    assert "models.prompter." in text
    assert "For example: " in text


def test_the_place_of_a_server_is_not_what_is_asked(monitor_file: Path) -> None:
    plain = load_monitor(monitor_file, [SERVED % ""]).hash
    assert load_monitor(monitor_file, [SERVED % "", "models.prompter.url=https://elsewhere/v1"]).hash == plain
    assert load_monitor(monitor_file, [SERVED % "", "models.prompter.revision=s"]).hash != plain


def test_several_mistakes_are_told_together(monitor_file: Path) -> None:
    text = str(refusal(monitor_file, "cube.blockpx=3", "tile.halo=2", "budget.tiles=0"))
    assert "cube.blockpx" in text
    assert "tile.halo" in text
    assert "budget.tiles" in text


def test_overrides_reach_any_field(monitor_file: Path) -> None:
    monitor = load_monitor(
        monitor_file,
        ["cube.uri=a=b.zarr", "budget.tiles=12", "tile={footprint_m: 480}", "schedule=null", "cluster.gpus=true"],
    )
    assert monitor.cube.uri == "a=b.zarr"
    assert monitor.budget.tiles == 12
    assert monitor.tile.footprint_m == 480
    assert monitor.cluster.gpus


def test_the_hash_is_of_what_is_asked(monitor_file: Path) -> None:
    plain = load_monitor(monitor_file).hash
    same = [
        "cube.uri=b.zarr",
        "budget.tiles=1",
        "schedule.cron=0 6 * * 1",
        "cluster.workers=1",
        "source.catalog=x.json",
    ]
    assert load_monitor(monitor_file, same).hash == plain
    for change in ("question=lakes", "cube.block_px=256", "region.bbox=[10, 50, 11, 52]", "models.segmenter.path=x"):
        assert load_monitor(monitor_file, [change]).hash != plain


def test_the_hash_follows_a_region_file(monitor_file: Path, tmp_path: Path) -> None:
    region = tmp_path / "region.geojson"
    override = f"region={{kind: geojson, path: '{region}'}}"
    region.write_text(shapely.to_geojson(shapely.box(10, 50, 11, 51)))
    first = load_monitor(monitor_file, [override])
    assert first.geometry.equals(shapely.box(10, 50, 11, 51))
    before = first.hash
    region.write_text(shapely.to_geojson(shapely.box(10, 50, 11, 52)))
    assert load_monitor(monitor_file, [override]).hash != before


def test_a_monitor_survives_being_written(monitor_file: Path) -> None:
    polygon = json.loads(shapely.to_geojson(shapely.box(10, 50, 11, 51)))
    for region in ("bbox: [10, 50, 11, 51]", f"kind: geometry, geometry: {json.dumps(polygon)}"):
        kind = "kind: bbox, " if region.startswith("bbox") else ""
        monitor = load_monitor(monitor_file, [f"region={{{kind}{region}}}"])
        again = Monitor.model_validate_json(monitor.model_dump_json())
        assert again == monitor
        assert again.hash == monitor.hash
        assert again.geometry.equals(shapely.box(10, 50, 11, 51))


def test_a_box_may_cross_the_antimeridian(monitor_file: Path) -> None:
    geometry = load_monitor(monitor_file, ["region.bbox=[179, -18, -179, -16]"]).geometry
    assert shapely.get_num_geometries(geometry) == 2
    assert geometry.area == pytest.approx(4)
    assert geometry.covers(shapely.Point(-179.5, -17))


def test_unknown_names_are_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'earth-search-sentinel-2'"):
        load_archive("earth-serch-sentinel-2")
    assert "Did you mean 'nd-wetlands'?" in str(refusal("nd-wetland"))
    assert "cannot be read" in str(refusal("nowhere/at-all.yaml"))


def test_an_archive_is_added_by_adding_a_file(tmp_path: Path, monitor_file: Path) -> None:
    text = (conf_root() / "archives" / "naip-local.yaml").read_text()
    own = tmp_path / "own.yaml"
    own.write_text(
        text.replace("archive: naip-local", "archive: own").replace("collections: [naip]", "collections: [o]")
    )
    monitor = load_monitor(monitor_file, [f"source.archive={own}"])
    assert monitor.collections(load_archive(monitor.source.archive)) == ("o",)
    own.write_text(text.replace("bands: [red, green, blue]", "bands: [red, green, bleu]"))
    assert "Did you mean 'blue'?" in str(refusal(monitor_file, f"source.archive={own}"))


def test_the_digest_of_an_archive_is_of_pixels_not_of_places() -> None:
    archive = load_archive("earth-search-sentinel-2")
    moved = archive.model_copy(update={"endpoint": "https://elsewhere.example/v1", "description": "moved"})
    assert moved.digest == archive.digest
    assert archive.model_copy(update={"nodata": 1.0}).digest != archive.digest
    assert Archive.model_validate(archive.model_dump()) == archive


def test_the_schema_is_json_and_knows_every_field() -> None:
    schema = json.loads(json.dumps(monitor_schema()))
    assert schema["additionalProperties"] is False
    assert {"monitor", "question", "region", "source", "cube"} <= set(schema["properties"])
    assert "letters, digits" in schema["properties"]["monitor"]["description"]


def test_the_schema_accepts_what_ships() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    for name in monitor_names():
        text = (conf_root() / "monitors" / f"{name}.yaml").read_text()
        jsonschema.validate(parse_document(text, source=name).data, monitor_schema())


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("2020-01-02", datetime(2020, 1, 2, tzinfo=UTC), datetime(2020, 1, 2, 23, 59, 59, 999999, tzinfo=UTC)),
        ("../2020-01-02T12:00:00+02:00", None, datetime(2020, 1, 2, 10, tzinfo=UTC)),
        ("../..", None, None),
    ],
)
def test_intervals(text: str, begin: datetime | None, end: datetime | None) -> None:
    assert parse_interval(text) == (begin, end)


@given(
    st.datetimes(datetime(1972, 1, 1), datetime(2100, 1, 1)), st.datetimes(datetime(1972, 1, 1), datetime(2100, 1, 1))
)
@settings(max_examples=50, deadline=None)
def test_intervals_survive_being_written(one: datetime, other: datetime) -> None:
    interval = (min(one, other).replace(tzinfo=UTC), max(one, other).replace(tzinfo=UTC))
    assert parse_interval(format_interval(interval)) == interval
