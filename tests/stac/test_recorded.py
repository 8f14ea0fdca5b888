"""Recorded answers of real STAC APIs become scenes with the right bands, scales, offsets and fingerprints."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import odc.stac
import pystac
import pytest
from support.stac_items import monitor

from think2seg.config import Archive, load_archive
from think2seg.config.archive import Band, HrefRules
from think2seg.stac.loading import scale_offset, stac_cfg
from think2seg.stac.scenes import Acquisition, Scene
from think2seg.stac.search import search

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "data" / "stac-responses"
pytestmark = pytest.mark.skipif(
    not RECORDED.is_dir(), reason="recorded answers (shared/data/stac-responses) are not here"
)
RGB = {"red", "green", "blue"}


def found(name: str, archive: Archive, **source: Any) -> tuple[Acquisition, ...]:
    return found_in(json.loads((RECORDED / name).read_text()), archive, **source)


def found_in(recorded: Any, archive: Archive, **source: Any) -> tuple[Acquisition, ...]:
    features = recorded if isinstance(recorded, list) else recorded.get("features", [recorded])
    with TemporaryDirectory() as folder:
        catalog = Path(folder) / "recorded.json"
        catalog.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        wide = {"bbox": (-180, -90, 180, 90), "datetime": "../..", **source}
        return search(monitor(catalog, **wide), archive).acquisitions


def scenes(acquisitions: tuple[Acquisition, ...]) -> list[Scene]:
    return [scene for acquisition in acquisitions for scene in acquisition.scenes]


ANSWERS = """
earthsearch_v1_sentinel-2-l2a.json       earth-search-sentinel-2        7 20231008-sentinel-2a-r141  32613 05.09 s2
earthsearch_v1_sentinel-2-c1-l2a.json    earth-search-sentinel-2-c1     6 20250731-sentinel-2b-r095  32724 05.11 offset
earthsearch_v1_landsat-c2-l2.json        earth-search-landsat           1 20231008-landsat-8-r033    32613 -     landsat
pc_sentinel-2-l2a.json                   planetary-computer-sentinel-2  6 20190101-sentinel-2a-r116  32660 02.12 s2
odcstac_site2-2020_jun_jul-35MNM.geojson planetary-computer-sentinel-2 13 20200601-sentinel-2a-r078  32735 02.12 s2
stacgeoparquet_sentinel-2-l2a-pc.json    planetary-computer-sentinel-2  4 20240419-sentinel-2b-r122  32647 05.10 offset
pc_landsat-c2-l2.json                    planetary-computer-landsat     6 20250723-landsat-9-r084    32657 -     landsat
stacgeoparquet_landsat-c2-l2-pc.json     planetary-computer-landsat     4 20240418-landsat-9-r089    32655 -     landsat
pc_naip_series.json                      planetary-computer-naip       14 20110818                   26918 -     naip
stacgeoparquet_naip-pc.json              planetary-computer-naip        4 20221212                   26920 -     naip
"""
SCALING = {"s2": (0.0001, 0.0), "offset": (0.0001, -0.1), "landsat": (0.0000275, -0.2), "naip": (1.0, 0.0)}


@pytest.mark.parametrize("row", ANSWERS.split("\n")[1:-1])
def test_a_recorded_answer_becomes_scenes(row: str) -> None:
    name, archive, count, first, epsg, baseline, scaling = row.split()
    rules = load_archive(archive)
    acquisitions = found(name, rules)
    members = scenes(acquisitions)
    assert len(members) == int(count)
    assert acquisitions[0].id == first
    assert f"EPSG:{epsg}" in {scene.crs for scene in members}
    assert baseline in {scene.baseline or "-" for scene in members}
    assert len({scene.fingerprint for scene in members}) == int(count)
    for scene in members:
        assert scene.bands == set(rules.bands)
        assert scale_offset(scene, "red", rules) == pytest.approx(SCALING[scaling])
        hrefs = [asset["href"] for asset in json.loads(scene.item)["assets"].values()]
        assert all(href.startswith(rules.hrefs.roots) for href in hrefs)


def test_twenty_dates_of_one_path_and_row() -> None:
    bands = {"red": "SR_B4", "green": "SR_B3", "blue": "SR_B2", "nir": "SR_B5", "qa_pixel": "QA_PIXEL"}
    base = load_archive("planetary-computer-landsat")
    rules = base.model_copy(
        update={
            "collections": ("landsat-8-c2-l2",),
            "bands": {n: base.bands[n].model_copy(update={"asset": asset}) for n, asset in bands.items()},
        }
    )
    acquisitions = found("pc_landsat-8-c2-l2_197023_series.json", rules)
    assert len(acquisitions) == 20
    assert [a.time for a in acquisitions] == sorted(a.time for a in acquisitions)
    assert {(s.platform, s.orbit) for s in scenes(acquisitions)} == {("landsat-8", "197")}
    assert acquisitions[0].id == "20210422-landsat-8-r197"
    assert scale_offset(acquisitions[0].scenes[0], "red", rules) == SCALING["landsat"]
    assert scale_offset(acquisitions[0].scenes[0], "qa_pixel", rules) == (1.0, 0.0)


def test_an_item_without_collection_and_of_an_old_version() -> None:
    nbart = {name: Band(asset=f"nbart_{name}") for name in RGB}
    rules = load_archive("planetary-computer-landsat").model_copy(
        update={
            "collections": ("",),
            "bands": nbart,
            "quality": None,
            "signing": None,
            "hrefs": HrefRules(schemes=("http", "https")),
        }
    )
    (acquisition,) = found("odcstac_ga_ls8c_ard_3-1-0_088080_2020-05-25_final.stac-item.json", rules)
    assert acquisition.scenes[0].bands == RGB
    assert acquisition.scenes[0].crs == "EPSG:32656"
    assert f"{acquisition.scenes[0].solar_day}" == "2020-05-26", "the day in Australia"


def test_one_search_finds_the_days_of_one_orbit_together() -> None:
    archive = load_archive("earth-search-sentinel-2")
    acquisitions = found("earthsearch_v1_sentinel-2-l2a.json", archive, datetime="2025-07-31")
    assert [(a.id, len(a.scenes)) for a in acquisitions] == [
        ("20250731-sentinel-2b-r095", 6),
    ]


def test_checksums_make_the_fingerprint() -> None:
    rules = load_archive("earth-search-sentinel-2-c1")
    recorded = json.loads((RECORDED / "earthsearch_v1_sentinel-2-c1-l2a.json").read_text())
    plain = {s.id: s.fingerprint for s in scenes(found("earthsearch_v1_sentinel-2-c1-l2a.json", rules))}

    def fingerprints(change: Callable[[dict[str, Any]], None]) -> dict[str, str]:
        copied = copy.deepcopy(recorded)
        for feature in copied["features"]:
            change(feature)
        return {s.id: s.fingerprint for s in scenes(found_in(copied, rules))}

    assert fingerprints(lambda f: f["properties"].update(updated="2031-01-01T00:00:00Z")) == plain
    assert fingerprints(lambda f: f["assets"]["red"].update(href=f["assets"]["red"]["href"] + "?v=2")) == plain
    assert fingerprints(lambda f: f["assets"]["coastal"].update({"file:checksum": "other"})) == plain, "a band not read"
    changed = fingerprints(lambda f: f["assets"]["red"].update({"file:checksum": "other"}))
    assert all(changed[name] != plain[name] for name in plain)
    newer = fingerprints(lambda f: f["properties"].update({"s2:processing_baseline": "06.00"}))
    assert all(newer[name] != plain[name] for name in plain)


@pytest.mark.parametrize(
    ("name", "archive", "dtypes"),
    [
        ("earthsearch_v1_sentinel-2-l2a.json", "earth-search-sentinel-2", {"red": "uint16", "scl": "uint8"}),
        ("stacgeoparquet_sentinel-2-l2a-pc.json", "planetary-computer-sentinel-2", {"red": "uint16", "scl": "uint8"}),
        ("pc_landsat-c2-l2.json", "planetary-computer-landsat", {"red": "uint16", "qa_pixel": "uint16"}),
        ("stacgeoparquet_naip-pc.json", "planetary-computer-naip", {"red": "uint8", "nir08": "uint8"}),
    ],
)
def test_odc_stac_understands_the_plain_items(name: str, archive: str, dtypes: dict[str, str]) -> None:
    rules = load_archive(archive)
    acquisition = found(name, rules)[0]
    items = [pystac.Item.from_dict(json.loads(scene.item)) for scene in acquisition.scenes[:1]]
    for parsed in odc.stac.parse_items(items, stac_cfg(rules)):
        for band, dtype in dtypes.items():
            source = parsed[band]
            assert source.meta is not None
            assert source.meta.data_type == dtype
            assert source.meta.nodata == (
                rules.nodata if rules.bands[band].nodata is None else rules.bands[band].nodata
            )
            assert source.uri.startswith(rules.hrefs.roots)
        assert parsed["red"].geobox is not None or "naip" in archive
