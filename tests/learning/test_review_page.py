"""The page on which people judge, in a real browser and by keyboard; and what it downloads, taken in again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
from support.chromium import EXECUTABLE, Tab, browser
from support.reviews import Review, mapped, sampled

from think2seg.learning.review import import_review
from think2seg.learning.review.manifest import MASKS, VERDICTS
from think2seg.learning.review.page import render
from think2seg.learning.review.store import read_index

pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium on this machine")
MARKUP = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'{{7*7}}</style>"


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with browser() as one:
        yield one


@pytest.fixture
def review(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Review:
    return sampled(tmp_path, monkeypatch, n=10)


@pytest.fixture
def page(tab: Tab, review: Review) -> Tab:
    tab.errors.clear()
    tab.requests.clear()
    tab.resize(1280, 900).open((review.folder / "review.html").as_uri())
    tab.value("localStorage.clear()")
    return tab.open((review.folder / "review.html").as_uri())


def text(page: Tab, selector: str) -> str:
    return str(page.value(f"document.querySelector({json.dumps(selector)}).textContent"))


def unit(page: Tab) -> str:
    (one,) = page.value("[...document.querySelectorAll('.card:not([hidden])')].map(c => c.dataset.unit)")
    return str(one)


def downloaded(page: Tab, folder: Path) -> Any:
    """What the link on the page saves."""
    page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    page.click("#download")
    while not (folder / VERDICTS).is_file():
        page.value("new Promise(done => setTimeout(done, 20))")
    return json.loads((folder / VERDICTS).read_text())


def test_units_are_judged_by_keyboard_alone(page: Tab, review: Review) -> None:
    ids = [one.id for one in review.manifest.units]
    assert unit(page) == ids[0]
    assert text(page, "#count") == "0 of 10 judged"
    assert unit(page.press("a")) == ids[1]
    assert unit(page.press("R")) == ids[2]
    assert unit(page.press("u")) == ids[3]
    assert text(page, "#count") == "3 of 10 judged"
    assert unit(page.press("ArrowLeft")) == ids[2]
    assert text(page, "#verdict") == "3 of 10: unsure"
    assert unit(page.press("z")) == ids[2], "undone"
    assert text(page, "#count") == "2 of 10 judged"
    assert unit(page.press("a")) == ids[3]
    assert page.value("document.querySelector('#progress').getAttribute('aria-valuenow')") == "3"
    assert page.errors == []
    own = (review.folder / "review.html").as_uri()
    assert {url for url in page.requests if not url.startswith(("data:", "blob:"))} == {own}


def test_what_is_typed_into_the_comment_is_no_verdict(page: Tab, review: Review) -> None:
    first = unit(page)
    page.press("c").press(*"a rare case").press("Enter")
    assert (unit(page), text(page, "#count")) == (first, "0 of 10 judged")
    assert page.value("document.activeElement.id") != "comment"
    page.press("r")
    (said,) = downloaded(page, review.folder)["verdicts"]
    assert said == {"unit": first, "verdict": "reject", "comment": "a rare case"}


def test_verdicts_are_still_there_after_the_page_was_closed(page: Tab, review: Review) -> None:
    page.press("a", "r", "a")
    deadline = time.monotonic() + 10  # a browser's processes learn of what one of them keeps a moment later
    while text(page.open((review.folder / "review.html").as_uri()), "#count") != "3 of 10 judged":
        assert time.monotonic() < deadline
    assert unit(page) == review.manifest.units[3].id, "goes on where it was left"


def test_outline_can_be_hidden_to_see_the_ground(page: Tab, review: Review) -> None:
    page.press("o")
    assert page.value("getComputedStyle(document.querySelector('.edge')).display") == "none"
    page.press("o")
    assert page.value("getComputedStyle(document.querySelector('.edge')).display") != "none"


@pytest.mark.parametrize(("width", "dark"), [(360, False), (1280, True)])
def test_page_fits_and_can_be_read(page: Tab, width: int, dark: bool) -> None:
    page.resize(width, 800, dark=dark)
    assert page.value("document.documentElement.scrollWidth") <= width
    script = (Path(__file__).parents[1] / "publish" / "contrast.js").read_text()
    assert page.value(script) == []


def test_planted_script_does_not_run(tab: Tab, review: Review, tmp_path: Path) -> None:
    units = tuple(replace(one, no_image=MARKUP, scenes=(MARKUP,)) for one in review.manifest.units)
    hostile = replace(review.manifest, question=MARKUP, licence=MARKUP, units=units)
    masks = {one.id: mapped(review, one.id) for one in units}
    (tmp_path / "hostile.html").write_text(render(hostile, masks, {one.id: MARKUP for one in units}))
    tab.errors.clear()
    tab.open((tmp_path / "hostile.html").as_uri())
    assert tab.errors == []
    assert tab.value("document.querySelectorAll('script, body img').length") == 1
    assert text(tab, "h1") == MARKUP


def test_from_the_browser_and_a_redrawn_mask_into_the_store(page: Tab, review: Review, tmp_path: Path) -> None:
    """Sample, verdicts by keyboard, one polygon redrawn in the package, import, sample store."""
    wrong = next(one for one in review.manifest.units if (mapped(review, one.id) == 1).sum() > 60)
    for one in review.manifest.units:
        assert unit(page) == one.id
        page.press("r" if one.id == wrong.id else "a")
    assert text(page, "#count") == "10 of 10 judged"
    downloaded(page, review.folder)
    shore = review.manifest.footprint(wrong).buffer(-15)

    def redraw(masks: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
        mine = masks["unit"] == wrong.id
        masks.loc[mine, "geometry"] = masks[mine].intersection(shore)
        return masks

    review.edit(MASKS, redraw)
    done = import_review(review.folder, tmp_path / "samples")
    assert (done.figures.accepted, done.figures.rejected, done.figures.without_mask) == (9, 1, 0)
    assert done.figures.users is not None
    assert 0 < done.figures.users.value < 1
    rows = read_index(tmp_path / "samples").set_index("unit")
    assert len(rows) == done.added > 0
    if wrong.id in rows.index:
        assert bool(rows.loc[wrong.id, "redrawn"])
    assert np.count_nonzero(rows["redrawn"]) == int(wrong.id in rows.index)
