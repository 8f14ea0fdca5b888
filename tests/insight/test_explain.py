from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import shapely
from support.cubes import GRID, PROMPTER, REASONING, SEGMENTER, build_cube, spec_of, three_dates

from think2seg.crs import transformer
from think2seg.errors import ConfigError
from think2seg.insight import explain

WET, DRY, CLOUDED, LOST = (64, 80), (20, 20), (40, 150), (100, 150)


def lonlat(pixel: tuple[int, int]) -> tuple[float, float]:
    row, col = pixel
    lon, lat = transformer(GRID.crs, "EPSG:4326").transform(*(GRID.transform * (col + 0.5, row + 0.5)))
    return lon, lat


def test_pixel_leads_to_instance_prompt_reasoning_and_scene(lake: Path) -> None:
    lon, lat = lonlat(WET)
    found = explain(lake, "2009-08-18", lon, lat)
    assert (found.value, found.pixel, found.quality) == ("present", WET, ())
    assert found.scenes == ("m_4709963_se_14_1_20090818",)
    assert found.answer is not None
    assert found.answer.prompt == "Find every instance of: water bodies"
    assert found.answer.reasoning == REASONING
    assert found.answer.scenes == found.scenes
    assert found.instance is not None
    assert shapely.from_wkt(found.instance.polygon_wkt).covers(shapely.Point(lon, lat))
    left, top, right, bottom = found.instance.bbox_px
    assert left <= WET[1] < right
    assert top <= WET[0] < bottom
    assert (found.prompter, found.segmenter) == (PROMPTER, SEGMENTER)


def test_every_wet_pixel_has_an_instance_and_no_dry_one(lake: Path) -> None:
    for pixel in [(44, 80), (64, 60), (64, 99), (83, 80), (63, 79), (63, 80), (64, 79)]:
        assert explain(lake, "2009-08-18", *lonlat(pixel)).instance is not None
    dry = explain(lake, "2009-08-18", *lonlat(DRY))
    assert (dry.value, dry.instance) == ("absent", None)
    assert dry.answer is not None


def test_unobserved_pixel_says_why(lake: Path) -> None:
    found = explain(lake, "2014-07-20", *lonlat(CLOUDED))
    assert (found.value, found.quality, found.instance) == ("not observed", ("cloud",), None)


def test_failed_block_tells_its_failure_through_later_revisions(lake: Path) -> None:
    found = explain(lake, "2020-08-31", *lonlat(LOST))
    assert (found.state, found.revision, found.answered_in) == ("failed", 1, 0)
    assert found.failures == ("unreadable: asset is gone: 404",)
    assert found.answer is None
    assert "This tile was not asked." in found.render()


def test_mended_block_is_explained_by_the_revision_that_mended_it(lake: Path) -> None:
    found = explain(lake, "2020-08-31", *lonlat((40, 80)))
    assert (found.value, found.revision, found.answered_in, found.failures) == ("present", 1, 1, ())


@pytest.mark.parametrize(
    "time",
    [
        "20140720-aircraft",
        "2014-07-20T17:00:00Z",
        "2014-07-20T12:00:00-05:00",
        "2014-07-20",
        date(2014, 7, 20),
        datetime(2014, 7, 20, 17, tzinfo=UTC),
        datetime(2014, 7, 20, 9),
    ],
)
def test_a_date_may_be_given_in_many_ways(lake: Path, time: str | date | datetime) -> None:
    assert explain(lake, time, *lonlat(WET)).acquisition == "20140720-aircraft"


def test_unknown_date_names_the_nearest(lake: Path) -> None:
    with pytest.raises(ConfigError, match=r"no acquisition on 2013-01-01") as caught:
        explain(lake, "2013-01-01", *lonlat(WET))
    assert "2014-07-20, 2009-08-18" in str(caught.value)


def test_day_with_two_acquisitions_asks_which(tmp_path: Path) -> None:
    first = three_dates()[0]
    evening = replace(first, time=first.time.replace(hour=23, microsecond=24_000), platform="balloon")
    build_cube(tmp_path / "c.zarr", [first, evening])
    with pytest.raises(ConfigError, match="2009-08-18 has 2 acquisitions") as caught:
        explain(tmp_path / "c.zarr", "2009-08-18", *lonlat(WET))
    assert "20090818-aircraft, 20090818-balloon" in str(caught.value)
    assert explain(tmp_path / "c.zarr", "2009-08-18T23:00:00Z", *lonlat(WET)).acquisition == "20090818-balloon"


@pytest.mark.parametrize("time", ["yesterday", "2014-7-20", "20/07/2014", ""])
def test_unreadable_date_says_what_is_allowed(lake: Path, time: str) -> None:
    with pytest.raises(ConfigError, match="such as 2014-07-20"):
        explain(lake, time, *lonlat(WET))


def test_position_outside_the_cube_names_its_bounds(lake: Path) -> None:
    with pytest.raises(ConfigError, match="longitude -99"):
        explain(lake, "2014-07-20", 10.0, 50.0)


def test_text_of_models_is_shown_not_obeyed(tmp_path: Path) -> None:
    hostile = replace(three_dates()[0], reasoning="calm\x1b[2Jwater\u202egnp\x07", scenes=("m_1\x1b]0;owned\x07",))
    build_cube(tmp_path / "c.zarr", [hostile], spec_of(question="wa\x1b[31mter"))
    text = explain(tmp_path / "c.zarr", "2009-08-18", *lonlat(WET)).render()
    assert not any(sign in text for sign in "\x1b\x07\u202e")
    assert r"calm\x1b[2Jwater" in text


@pytest.mark.parametrize(
    ("part", "views", "told"),
    [
        ("", 1, "\n"),
        ("2", 1, ", part 2 of the tile asked again in four\n"),
        ("v5", 4, ", one of 4 views of the tile\n"),
    ],
)
def test_words_tell_which_of_several_answers_it_is(lake: Path, part: str, views: int, told: str) -> None:
    found = explain(lake, "2009-08-18", *lonlat(WET))
    assert found.answer is not None
    answer = replace(found.answer, part=part, views=views, presence=None)
    assert f"answer       ok{told}" in replace(found, answer=answer).render()


def test_json_is_plain(lake: Path) -> None:
    plain = json.loads(json.dumps(explain(lake, "2009-08-18", *lonlat(WET)).to_dict()))
    assert plain["answer"]["reasoning"] == REASONING
    assert plain["time"] == "2009-08-18T17:00:00+00:00"
