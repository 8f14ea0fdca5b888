"""The page in a real browser: mouse, keyboard, and nothing that should not run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.chromium import EXECUTABLE, Tab, browser

pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium on this machine")
DATES = ["18 August 2009", "20 July 2014", "31 August 2020"]


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with browser() as one:
        yield one


@pytest.fixture
def page(tab: Tab, steps_page: Path) -> Tab:
    return tab.resize(1280, 900).open(steps_page.as_uri())


def shown(page: Tab) -> str:
    """The date on the page, after checking that map, slider, curve and table agree on it."""
    label = page.value("document.querySelector('#date').textContent")
    index = DATES.index(label)
    assert page.value("[...document.querySelectorAll('.frame')].findIndex(f => f.matches('.on'))") == index
    assert page.value("[...document.querySelectorAll('.mark')].findIndex(m => m.matches('.on'))") == index
    assert page.value("Number(document.querySelector('#when').value)") == index
    assert page.value("document.querySelector('tr.on').dataset.row") == str(index)
    assert page.value("document.querySelector('#when').getAttribute('aria-valuetext')").startswith(label)
    return str(label)


def test_latest_date_comes_first_without_errors_or_requests(page: Tab, steps_page: Path) -> None:
    assert shown(page) == DATES[-1]
    assert page.errors == []
    assert {url for url in page.requests if not url.startswith("data:")} == {steps_page.as_uri()}


def test_slider_by_keyboard(page: Tab) -> None:
    page.value("document.querySelector('#when').focus()")
    assert shown(page.press("Home")) == DATES[0]
    assert shown(page.press("ArrowRight")) == DATES[1]
    assert shown(page.press("ArrowRight", "ArrowRight", "ArrowRight")) == DATES[2]
    assert shown(page.press("ArrowLeft")) == DATES[1]
    assert shown(page.press("End")) == DATES[2]


def test_arrows_work_from_anywhere_on_the_page(page: Tab) -> None:
    assert shown(page.press("ArrowLeft")) == DATES[1]


def test_slider_is_reached_by_tab(page: Tab) -> None:
    reached = []
    for _ in range(6):
        page.press("Tab")
        reached.append(page.value("document.activeElement.id"))
    assert "when" in reached
    assert "play" in reached


def test_play_and_pause(page: Tab) -> None:
    page.value("document.querySelector('#when').focus()")
    page.press(" ")
    assert shown(page) == DATES[0], "playing from the last date starts over"
    assert page.value("document.querySelector('#play').getAttribute('aria-pressed')") == "true"
    page.value(
        "new Promise(done => new MutationObserver(done).observe(document.querySelector('#date'), {childList: true}))"
    )
    assert shown(page) == DATES[1]
    page.click("#play")
    assert page.value("document.querySelector('#play').getAttribute('aria-label')") == "Play all dates"


def test_point_on_the_curve_and_date_in_the_table_move_the_slider(page: Tab) -> None:
    assert shown(page.click(".mark[data-go='0']")) == DATES[0]
    assert shown(page.click("button.link[data-go='1']")) == DATES[1]
    assert page.value("document.activeElement.id") == "when"


def test_two_dates_side_by_side(page: Tab) -> None:
    page.value(
        "(() => { const c = document.querySelector('#compare'); c.value = '0';"
        " c.dispatchEvent(new Event('change')); })()"
    )
    assert page.value("document.querySelector('.frame.then').dataset.label") == DATES[0]
    assert page.value("getComputedStyle(document.querySelector('.frame.then')).clipPath").startswith("inset")
    page.value("document.querySelector('#divider').focus()")
    page.press("Home")
    assert page.value("document.querySelector('#stage').style.getPropertyValue('--cut')") == "0%"
    assert shown(page) == DATES[-1], "the divider's keys do not move the slider"


def test_outlines_can_be_hidden(page: Tab) -> None:
    assert page.value("getComputedStyle(document.querySelector('.frame.on .present')).display") != "none"
    page.click("#outlines")
    assert page.value("getComputedStyle(document.querySelector('.frame.on .present')).display") == "none"


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_page_never_scrolls_sideways(page: Tab, width: int) -> None:
    page.resize(width, 800)
    assert page.value("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(page: Tab, dark: bool) -> None:
    page.resize(1280, 900, dark=dark)
    script = (Path(__file__).parent / "contrast.js").read_text()
    assert page.value(script) == []


def test_planted_script_does_not_run(tab: Tab, hostile_page: Path) -> None:
    before = len(tab.errors)
    tab.open(hostile_page.as_uri())
    assert tab.errors[before:] == []
    assert tab.value("document.querySelectorAll('script').length") == 1
    assert tab.value("document.querySelector('h1').textContent").startswith('"><script>')


def test_without_scripts_all_dates_are_shown(tab: Tab, steps_page: Path) -> None:
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.resize(1280, 900).open(steps_page.as_uri())
        visible = tab.value(
            "[...document.querySelectorAll('.frame')].filter(f => f.checkVisibility({visibilityProperty: true})).length"
        )
        assert visible == len(DATES)
        assert not tab.value("document.querySelector('.controls').checkVisibility()")
    finally:
        tab.send("Emulation.setScriptExecutionDisabled", value=False)
