"""Runs over a real STAC API and images over HTTP, both with their bad days."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.miniature import Miniature, assert_equal_cubes
from support.stac_api import HTML, Fault, RunningApi, catalog_items, stac_api

from think2seg.cube import check_cube, open_cube, read_instances, read_traces

type Think2Seg = Callable[..., Any]
DAY = "2014-07-20"
TOKEN = "sig=Zx81planted"


@pytest.fixture
def api(world: Miniature, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningApi]:
    """The archive behind an API; every image has a token in its href, which storage wants to see."""
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "2")
    items = catalog_items(world.archive.catalog)
    for item in items:
        item["assets"]["image"]["href"] += f"?{TOKEN}"
    with stac_api(items, assets=world.archive.folder) as running:
        yield running


def asset(day: str) -> str:
    return f"/assets/scene-{day}.tif"


def test_a_run_over_an_api_on_a_bad_day_equals_one_over_files(
    world: Miniature, think2seg: Think2Seg, api: RunningApi
) -> None:
    api.behaviour.faults = deque([
        Fault(status=503, path="/"),
        Fault(status=429, path="/search"),
        Fault(status=503, path=asset(DAY)),
    ])  # fmt: skip
    outcome = think2seg("run", world.file(catalog=api.url), "--json")
    assert (outcome.code, outcome.document["acquisitions"]["done"]) == (0, 2)
    assert not api.behaviour.faults, "all of them happened"
    world.run(world.folder / "files.zarr")
    assert_equal_cubes(world.cube, world.folder / "files.zarr")
    searches = len(api.searches())
    again = think2seg("run", world.file(catalog=api.url), "--json")
    assert again.document["acquisitions"] == {"done": 0, "skipped": 2, "failed": 0}
    assert len(api.searches()) == searches + 1, "searched once per run"


def test_an_api_that_answers_with_html(world: Miniature, think2seg: Think2Seg, api: RunningApi) -> None:
    world.run(budget={"tiles": 4})
    api.behaviour.faults = deque([Fault(status=200, body=HTML, headers=(("Content-Type", "text/html"),))])
    outcome = think2seg("run", world.file(catalog=api.url))
    assert (outcome.code, outcome.out) == (2, "")
    assert "is an HTML page" in outcome.err
    assert check_cube(world.cube) == []
    assert open_cube(world.cube).sizes["time"] == 1


@pytest.mark.parametrize(
    ("status", "advice"), [(404, "the file is gone"), (403, "access was refused or a token expired")]
)
def test_an_image_that_is_refused_fails_its_blocks_and_no_token_is_shown_anywhere(
    world: Miniature,
    think2seg: Think2Seg,
    api: RunningApi,
    status: int,
    advice: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    api.behaviour.faults = deque([Fault(status=status, path=asset(DAY))] * 200)
    with caplog.at_level(logging.DEBUG):
        outcome = think2seg("run", world.file(catalog=api.url))
        document = think2seg("plan", world.file(catalog=api.url), "--json")
        report = think2seg("report", world.file(catalog=api.url))
    assert outcome.code == 3
    assert advice in outcome.err
    assert f"{api.url}{asset(DAY)}" in outcome.err
    cube = open_cube(world.cube)
    assert cube["observed_fraction"].values.tolist() == [0, 1]
    assert check_cube(world.cube) == []
    assert any(TOKEN.partition("=")[2] in str(query) for _, path, query in api.behaviour.requests if path == asset(DAY))
    shown = [outcome.out, outcome.err, document.out, document.err, report.out, report.err, *said(world.cube)]
    for text in (*shown, *(record.getMessage() for record in caplog.records if record.name.startswith("think2seg"))):
        assert "planted" not in text

    api.behaviour.faults.clear()
    assert think2seg("run", world.file(catalog=api.url)).code == 0
    assert open_cube(world.cube)["observed_fraction"].values.tolist() == [1, 1]


def said(cube: Path) -> Iterator[str]:
    """All text of a cube and of the report beside it."""
    for path in (*cube.rglob("*"), cube.with_suffix(".html")):
        if path.is_file():
            yield path.read_bytes().decode(errors="replace")
    yield read_traces(cube).to_csv()
    yield read_instances(cube).to_csv()
