"""Planted secrets and planted markup: neither gets out, neither gets in."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.miniature import Miniature
from support.stac_api import RunningApi, catalog_items, stac_api

import think2seg
from think2seg.config import load_monitor
from think2seg.cube import read_instances, read_traces
from think2seg.errors import ConfigError

type Think2Seg = Callable[..., Any]
TOKEN = "planted-token-91c4"
MARKUP = "<img src=x onerror=alert(91)>"
PATH_ID = f"../../../outside/{MARKUP}"
SOURCES = sorted(Path(think2seg.__file__).parent.rglob("*.py"))


@pytest.fixture
def api(world: Miniature) -> Iterator[RunningApi]:
    """The miniature archive with pre-signed hrefs; the first item's id is a path with markup in it."""
    items = catalog_items(world.archive.catalog)
    items[0]["id"] = PATH_ID
    for item in items:
        item["assets"]["image"]["href"] += f"?sig={TOKEN}"
    with stac_api(items, assets=world.archive.folder) as running:
        yield running


def test_no_output_holds_a_planted_token_or_live_markup(
    world: Miniature, think2seg: Think2Seg, api: RunningApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monitor = world.file(catalog=api.url)
    outcomes = [think2seg("plan", monitor, "--json"), think2seg("plan", monitor)]
    outcomes += [think2seg("run", monitor), think2seg("run", monitor, "--json")]
    outcomes += [think2seg("report", monitor), think2seg("check", world.cube, "--monitor", monitor)]
    shown = [outcome.out + outcome.err for outcome in outcomes]
    tables = [read_traces(world.cube).to_csv(), read_instances(world.cube).to_csv()]
    files = [path.read_bytes().decode("latin-1") for path in world.folder.rglob("*") if path.is_file()]
    logs = [record.getMessage() for record in caplog.records if record.name.startswith(("think2seg", "rasterio"))]
    assert [outcome.code for outcome in outcomes] == [0] * len(outcomes)
    assert not any(TOKEN in text for text in [*shown, *tables, *files, *logs])
    reports = [path.read_text() for path in world.folder.rglob("*.html")]
    assert reports
    assert not any(MARKUP in report for report in reports)
    assert not (world.folder.parent / "outside").exists()
    assert not list(world.folder.rglob("outside"))


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['touch planted']", "!!python/name:os.system"])
def test_yaml_makes_no_objects(tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "monitor.yaml").write_text(f"monitor: x\nquestion: {tag}\n")
    with pytest.raises(ConfigError):
        load_monitor(tmp_path / "monitor.yaml")
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize(
    "unsafe",
    [r"yaml\.(unsafe_load|full_load|load)\((?!text, Loader=_Loader\))",
     r"\bpickle\.loads?\(", r"weights_only=False", r"trust_remote_code=True",
     r"\beval\(", r"\bexec\(", r"shell=True", r"allow_pickle=True"],
)  # fmt: skip
def test_nothing_from_outside_is_run(unsafe: str) -> None:
    calls = {path.name: re.findall(rf"(?<!\.)(?:{unsafe})", path.read_text()) for path in SOURCES}
    assert not {name for name, hits in calls.items() if hits}


def test_the_plan_of_a_hostile_catalog_is_plain_json(world: Miniature, think2seg: Think2Seg, api: RunningApi) -> None:
    rows = json.loads(think2seg("plan", world.file(catalog=api.url), "--json").out)["acquisitions"]
    assert PATH_ID in [scene for row in rows for scene in row["scenes"]]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", row["acquisition"]) for row in rows)
