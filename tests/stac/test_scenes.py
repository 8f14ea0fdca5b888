"""Footprints, fingerprints, re-processings and acquisitions."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from support.stac_items import REGION, item

from think2seg.config import Archive, load_archive
from think2seg.errors import CatalogError
from think2seg.stac.acquisitions import group, resolve_reprocessings
from think2seg.stac.footprints import item_footprint
from think2seg.stac.hrefs import HrefGuard, absolute, redacted
from think2seg.stac.items import Item, scene_of
from think2seg.stac.scenes import Scene

NAIP = load_archive("naip-local")
SENTINEL = load_archive("earth-search-sentinel-2")


def scene(document: dict[str, Any], archive: Archive = NAIP, base: str = "/catalog/catalog.json") -> Scene:
    return scene_of(Item(document, base), archive, HrefGuard(catalog=base, rules=archive.hrefs))


def sentinel(name: str, when: str = "2022-01-03T10:00:00Z", baseline: str = "03.01", **more: Any) -> Scene:
    root = "https://sentinel-cogs.s3.us-west-2.amazonaws.com"
    assets = more.pop(
        "assets", {key: {"href": f"{root}/{name}/{key}.tif"} for key in ("red", "green", "blue", "nir", "scl")}
    )
    properties = {
        "platform": "Sentinel-2A",
        "s2__product_uri": "S2A_MSIL2A_20220103T100401_N0301_R122_T33UUP_20220103T114205.SAFE",
        "grid__code": "MGRS-33UUP",
        "s2__processing_baseline": baseline,
        **more,
    }
    document = item(name, when, collection="sentinel-2-l2a", assets=assets, **properties)
    return scene(document, SENTINEL, "https://earth-search.example/v1")


def test_an_acquisition_is_a_solar_day_a_platform_and_an_orbit() -> None:
    one = sentinel("a")
    assert (one.platform, one.orbit, one.place, one.baseline) == ("sentinel-2a", "122", "MGRS-33UUP", "03.01")
    (acquisition,) = group([one, sentinel("b", "2022-01-03T10:00:15Z", grid__code="MGRS-33UVP")])
    assert acquisition.id == "20220103-sentinel-2a-r122"
    assert [s.id for s in acquisition.scenes] == ["a", "b"]
    others = [
        sentinel("day", "2022-01-04T10:00:00Z"),
        sentinel("satellite", platform="Sentinel-2B"),
        sentinel("orbit", **{"sat__relative_orbit": 22}),
    ]
    assert len(group([one, *others])) == 4


def test_the_solar_day_is_local() -> None:
    sydney = item("a", "2020-06-01T23:50:00Z", bbox=(151, -34, 152, -33))
    hawaii = item("b", "2020-06-02T05:00:00Z", bbox=(-156, 19, -155, 20))
    dateline = item("c", "2020-06-01T23:00:00Z", bbox=(179, -17, 181, -16))
    assert scene(sydney, SENTINEL).solar_day == date(2020, 6, 2)
    assert scene(hawaii, SENTINEL).solar_day == date(2020, 6, 1)
    assert scene(dateline, SENTINEL).solar_day == date(2020, 6, 1)
    assert scene(sydney, NAIP).solar_day == date(2020, 6, 1), "an archive whose times are dates"


def test_the_newest_baseline_wins_whatever_the_order() -> None:
    old, new = sentinel("old", baseline="02.12"), sentinel("new", baseline="05.10")
    for scenes in ([old, new], [new, old]):
        kept, replaced = resolve_reprocessings(scenes)
        assert [s.id for s in kept] == ["new"]
        assert [s.id for s in replaced] == ["old"]
    ten = sentinel("ten", baseline="10.00")
    assert [s.id for s in resolve_reprocessings([old, new, ten])[0]] == ["ten"]


def test_the_latest_update_wins_among_equals() -> None:
    first = sentinel("first", updated="2022-01-04T00:00:00Z")
    second = sentinel("second", updated="2022-02-04T00:00:00Z")
    assert [s.id for s in resolve_reprocessings([first, second])[0]] == ["second"]


def test_parts_of_one_granule_are_both_kept() -> None:
    def part(name: str, bbox: tuple[float, ...]) -> Scene:
        base = "https://earth-search.example/v1"
        href = {"href": f"https://sentinel-cogs.s3.us-west-2.amazonaws.com/{name}.tif"}
        document = item(
            name, "2022-01-03T10:00:00Z", bbox=bbox, collection="s", assets={"red": href}, grid__code="MGRS-1"
        )
        return scene(document, SENTINEL, base)

    kept, replaced = resolve_reprocessings([part("north", (10, 50.5, 11, 51)), part("south", (10, 50, 11, 50.6))])
    assert len(kept) == 2
    assert replaced == []


def test_scenes_without_a_place_never_replace_each_other() -> None:
    kept, _ = resolve_reprocessings([scene(item("a")), scene(item("b"))])
    assert len(kept) == 2


def test_bands_are_those_the_item_really_has() -> None:
    assert scene(item("four")).bands == {"red", "green", "blue", "nir08"}
    three = {"image": {"href": "x.tif", "eo:bands": [{"name": "r"}, {"name": "g"}, {"name": "b"}]}}
    assert scene(item("three", assets=three)).bands == {"red", "green", "blue"}
    assert scene(item("none", assets={})).bands == frozenset()
    old = {"B04": {"href": "https://sentinel-cogs.s3.us-west-2.amazonaws.com/x/B04.tif"}}
    renamed = sentinel("old names", assets=old)
    assert renamed.bands == {"red"}
    assert list(json.loads(renamed.item)["assets"]) == ["red"], "assets get the archive's own keys"


@pytest.mark.parametrize(
    ("properties", "crs"),
    [
        ({"proj__epsg": 32633}, "EPSG:32633"),
        ({"proj__code": "EPSG:26914"}, "EPSG:26914"),
        ({"proj__epsg": None}, None),
        ({}, None),
    ],
)
def test_the_crs_is_what_the_item_says(properties: dict[str, Any], crs: str | None) -> None:
    assert scene(item("a", **properties)).crs == crs


def test_metadata_and_moves_do_not_change_a_fingerprint() -> None:
    plain = sentinel("a")
    assets = {"red": {"href": "https://sentinel-cogs.s3.us-west-2.amazonaws.com/moved/red.tif", "title": "moved"}}
    moved = sentinel("a", updated="2030-01-01T00:00:00Z", eo__cloud_cover=3, assets={**assets, "visual": {"href": "x"}})
    full = dict.fromkeys(("red", "green", "blue", "nir", "scl"), assets["red"])
    assert sentinel("a", updated="2030-01-01T00:00:00Z", assets=full).fingerprint == plain.fingerprint
    assert moved.fingerprint != plain.fingerprint, "bands that are missing do"


@pytest.mark.parametrize("name", ["file:checksum", "etag"])
def test_content_changes_a_fingerprint(name: str) -> None:
    def with_checksum(value: str) -> str:
        href = "https://sentinel-cogs.s3.us-west-2.amazonaws.com/x.tif"
        return sentinel(
            "a", assets={k: {"href": href, name: value} for k in ("red", "green", "blue", "scl")}
        ).fingerprint

    assert with_checksum("1") == with_checksum("1")
    assert with_checksum("1") != with_checksum("2")


def test_baseline_day_and_place_change_a_fingerprint() -> None:
    plain = sentinel("a").fingerprint
    assert sentinel("a", baseline="04.00").fingerprint != plain
    assert sentinel("a", "2022-01-08T10:00:00Z").fingerprint != plain
    assert sentinel("a", grid__code="MGRS-33UVP").fingerprint != plain


def test_a_local_file_counts_with_size_and_grid_but_not_with_its_age(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"12345")

    def fingerprint(**properties: Any) -> str:
        return scene(item("a", href="a.tif", **properties), base=str(tmp_path / "catalog.json")).fingerprint

    plain = fingerprint()
    os.utime(path, (0, 0))
    assert fingerprint() == plain
    assert fingerprint(proj__shape=[3, 4]) != plain
    path.write_bytes(b"123456")
    assert fingerprint() != plain


def test_footprints_across_the_antimeridian_are_split() -> None:
    drawn = [[[179, -17], [-179, -17], [-179, -16], [179, -16], [179, -17]]]
    beyond = [[[179, -17], [181, -17], [181, -16], [179, -16], [179, -17]]]
    for geometry, bbox in (
        ({"type": "Polygon", "coordinates": drawn}, None),
        ({"type": "Polygon", "coordinates": beyond}, None),
        (None, [179, -17, -179, -16]),
        (None, [179, -17, 0, -179, -16, 100]),
    ):
        footprint = item_footprint("a", geometry, bbox)
        assert footprint.geometry.area == pytest.approx(2)
        assert footprint.geometry.bounds == (-180, -17, 180, -16)
        assert abs(footprint.centre_lon) == pytest.approx(180)


def test_a_footprint_all_around_the_globe_stays_as_it_is() -> None:
    world = shapely.box(-180, -90, 180, 90)
    for footprint in (
        item_footprint("a", json.loads(shapely.to_geojson(world)), None),
        item_footprint("a", None, [-180, -90, 180, 90]),
    ):
        assert footprint.geometry.equals(world)
        assert footprint.centre_lon == 0


@given(st.floats(-179, 179), st.floats(-80, 80), st.floats(0.01, 10), st.floats(0.01, 5))
@settings(max_examples=60, deadline=None)
def test_a_footprint_keeps_its_area_wherever_it_lies(west: float, south: float, width: float, height: float) -> None:
    geometry = json.loads(shapely.to_geojson(shapely.box(west, south, west + width, south + height)))
    footprint = item_footprint("a", geometry, None)
    assert footprint.geometry.area == pytest.approx(width * height)
    assert -180 <= footprint.geometry.bounds[0] <= footprint.geometry.bounds[2] <= 180
    assert -180 <= footprint.centre_lon < 180


@pytest.mark.parametrize(
    "geometry",
    [{"type": "Point", "coordinates": [10, 50]}, {"type": "Polygon", "coordinates": []}, {"type": "What"}, {}],
)
def test_a_useless_geometry_falls_back_on_the_bbox(geometry: dict[str, Any]) -> None:
    assert item_footprint("a", geometry, REGION).geometry.bounds == REGION
    with pytest.raises(CatalogError, match="neither a usable geometry nor a usable bbox"):
        item_footprint("a", geometry, [10, 50, 10, 50])


def test_hrefs_are_resolved_and_redacted() -> None:
    assert absolute("./a/b.tif", "https://host/x/catalog.json") == "https://host/x/a/b.tif"
    assert absolute("../b.tif", "/data/x/catalog.json") == "/data/b.tif"
    assert absolute("https://other/b.tif", "/data/x/catalog.json") == "https://other/b.tif"
    assert redacted("https://user:password@host/x.tif?sig=secret#part") == "https://host/x.tif"


@pytest.mark.parametrize(
    "href",
    [
        "https://sentinel-cogs.s3.us-west-2.amazonaws.com.evil.example/x.tif",
        "https://sentinel-cogs.s3.us-west-2.amazonaws.com@evil.example/x.tif",
        "http://sentinel-cogs.s3.us-west-2.amazonaws.com/x.tif",
        "s3://sentinel-cogs/x.tif",
    ],
)
def test_prefixes_are_not_fooled(href: str) -> None:
    guard = HrefGuard(catalog="https://earth-search.example/v1", rules=SENTINEL.hrefs)
    with pytest.raises(CatalogError, match="may not be read"):
        guard.asset(href, "https://earth-search.example/v1/items/a")


def test_dots_do_not_climb_out_of_a_root() -> None:
    rules = SENTINEL.hrefs.model_copy(update={"roots": ("https://host.example/open/",)})
    guard = HrefGuard(catalog="/data/catalog.json", rules=rules)
    assert guard.asset("https://host.example/open/a.tif", "/data/catalog.json")
    with pytest.raises(CatalogError):
        guard.asset("https://host.example/open/../closed/a.tif", "/data/catalog.json")
