from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from support.cubes import GRID, PROMPTER, build_cube, disc, spec_of, three_dates

from think2seg.cube import open_or_create
from think2seg.errors import CubeError
from think2seg.publish import report_path, write_report
from think2seg.publish.report import MOST_FRAMES, framed


class Document(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u202f", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.words.append(data)


def test_page_asks_nothing_of_any_server(steps_page: Path) -> None:
    for tag, attributes in Document(steps_page).tags:
        for name in ("src", "href", "action", "srcset", "poster"):
            assert attributes.get(name, "#").startswith(("data:", "#")), (tag, attributes)
    text = steps_page.read_text()
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text


def test_only_its_own_script_may_run(steps_page: Path) -> None:
    tags = Document(steps_page).tags
    (policy,) = [a["content"] for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert sum(tag == "script" for tag, _ in tags) == 1
    assert not [a for _, a in tags if any(name.startswith("on") for name in a)]


def test_every_date_has_its_map_its_mark_and_its_row(steps_page: Path) -> None:
    tags = Document(steps_page).tags
    frames = [a for tag, a in tags if a.get("class", "").startswith("frame")]
    assert [frame["data-label"] for frame in frames] == ["18 August 2009", "20 July 2014", "31 August 2020"]
    assert [a["class"] for tag, a in tags if tag == "figure"][-1] == "frame on"
    assert sum(tag == "img" for tag, _ in tags) == 3
    assert len([a for tag, a in tags if "mark" in a.get("class", "").split()]) == 3
    assert len([a for tag, a in tags if "data-row" in a]) == 3


def test_words_of_the_page(steps_page: Path) -> None:
    text = Document(steps_page).text
    assert "A lake that grows" in text
    assert "Between 18 August 2009 and 31 August 2020 the area found grew from 3.14 ha to 12.6 ha, by 300 %." in text
    assert "missing bands" in text
    assert "item m_2021 lacks band blue" in text
    assert "Made up, no licence needed." in text
    assert "86 %" in text
    assert "1 min 01 s" in text
    assert "1.11 tiles/s" in text
    assert PROMPTER in text


def test_failures_come_with_the_command_that_redoes_them(steps_page: Path) -> None:
    text = Document(steps_page).text
    assert "asset is gone: 404" in text
    assert "TIFF directory is broken" not in text, "mended by the revision"
    assert "think2seg run conf/monitors/lake.yaml --since 2020-08-30 --until 2020-09-01" in text


def test_planted_markup_stays_text(hostile_page: Path) -> None:
    page = Document(hostile_page)
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not [a for _, a in page.tags if "onerror" in a or a.get("src") == "x"]
    raw = hostile_page.read_text()
    assert "<script>alert" not in raw
    assert "{{7*7}}" in raw
    assert "49&#39;" not in raw
    assert raw.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 8


def test_page_without_imagery_says_so(hostile_page: Path) -> None:
    page = Document(hostile_page)
    assert "No imagery could be read" in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]


def test_without_a_run_the_bill_is_that_of_the_answers(tmp_path: Path) -> None:
    build_cube(tmp_path / "c.zarr", three_dates())
    text = Document(write_report(tmp_path / "c.zarr", tmp_path / "r.html", quicklook=lambda name: None)).text
    assert "What these answers cost" in text
    assert "of worker time" in text


def test_empty_cube_has_a_page(tmp_path: Path) -> None:
    open_or_create(tmp_path / "c.zarr", spec_of(), prompter="a", segmenter="b")
    page = Document(write_report(tmp_path / "c.zarr", tmp_path / "new" / "r.html", quicklook=lambda name: None))
    assert "Nothing has been asked yet" in page.text


def test_change_of_weights_is_told(tmp_path: Path) -> None:
    build_cube(tmp_path / "c.zarr", three_dates()[:2], prompters=[PROMPTER, "0b1d" * 8])
    text = Document(write_report(tmp_path / "c.zarr", tmp_path / "r.html", quicklook=lambda name: None)).text
    assert "2 versions of the prompter answered" in text
    assert "Dashed: another version" in text


def test_bundled_weights_are_named_for_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_cube(tmp_path / "c.zarr", three_dates()[:1])
    for digest, told in ((PROMPTER, True), ("other", False)):
        monkeypatch.setattr("think2seg.publish.sentences._bundled", lambda kind, digest=digest: digest)
        text = Document(write_report(tmp_path / "c.zarr", tmp_path / "r.html", quicklook=lambda name: None)).text
        assert ("These masks come from the small models that travel with think2seg" in text) is told


def test_two_acquisitions_of_a_day_are_told_apart(tmp_path: Path) -> None:
    first = three_dates()[0]
    evening = replace(first, time=first.time.replace(hour=23), platform="balloon")
    build_cube(tmp_path / "c.zarr", [first, evening])
    text = Document(write_report(tmp_path / "c.zarr", tmp_path / "r.html", quicklook=lambda name: None)).text
    assert "18 August 2009, 17:00 UTC" in text
    assert "18 August 2009, 23:00 UTC" in text


def test_many_dates_fit_into_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("think2seg.publish.report._BUDGET_BYTES", 120_000)
    noise = np.random.default_rng(1).integers(0, 255, (*GRID.shape, 3), np.uint8)
    steps = [
        replace(three_dates()[0], time=datetime(2001 + year, 7, 1, tzinfo=UTC), present=disc(GRID, 64, 80, 10 + year))
        for year in range(14)
    ]
    build_cube(tmp_path / "c.zarr", steps)
    out = write_report(tmp_path / "c.zarr", tmp_path / "r.html", quicklook=lambda name: noise)
    assert out.stat().st_size < 300_000


def test_of_too_many_dates_some_get_a_map_and_all_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("think2seg.publish.report.MOST_FRAMES", 3)
    steps = [replace(three_dates()[0], time=datetime(2001 + year, 7, 1, tzinfo=UTC)) for year in range(8)]
    build_cube(tmp_path / "c.zarr", steps)
    asked: list[str] = []
    page = Document(write_report(tmp_path / "c.zarr", tmp_path / "r.html", quicklook=asked.append))
    assert [acquisition[:4] for acquisition in asked] == ["2001", "2005", "2008"]
    frames = [a["data-label"] for tag, a in page.tags if a.get("class", "").startswith("frame")]
    assert frames == ["1 July 2001", "1 July 2005", "1 July 2008"]
    assert len([a for tag, a in page.tags if "mark" in a.get("class", "").split()]) == 3
    assert [a["data-row"] for tag, a in page.tags if "data-row" in a] == ["0", "1", "2"]
    assert not [a for tag, a in page.tags if tag == "tr" and a.get("class") == "off"]
    assert page.text.count("July 200") >= 8
    assert "The map shows 3 of 8 dates" in page.text


@pytest.mark.parametrize("n", [0, 1, 2, 119, 120, 121, 1000])
def test_maps_are_spread_evenly_from_the_first_to_the_last(n: int) -> None:
    steps = framed(n)
    assert len(set(steps)) == len(steps) == min(n, MOST_FRAMES)
    assert steps[:1] == ((0,) if n else ())
    assert steps[-1:] == ((n - 1,) if n else ())
    assert list(steps) == sorted(steps)


def test_no_cube_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(CubeError):
        write_report(tmp_path / "nothing.zarr", tmp_path / "r.html", quicklook=lambda name: None)
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("uri", "path"),
    [("out/nd.zarr", "out/nd.html"), ("s3://bucket/a/nd.zarr", "nd.html"), ("/data/cube", "/data/cube.html")],
)
def test_report_lies_beside_its_cube(uri: str, path: str) -> None:
    assert report_path(uri) == Path(path)
