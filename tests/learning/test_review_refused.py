"""What comes back from people and cannot be used is refused with its row and the reason, and adds nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from support.reviews import Review, mapped, sampled

from think2seg.errors import SampleError
from think2seg.learning.review import import_review
from think2seg.learning.review.manifest import IMAGES, MAPPED, MASKS, PACKAGE, UNITS
from think2seg.learning.review.store import Sample, add, read_index

type Frame = gpd.GeoDataFrame
type Edit = Callable[[Frame], Frame]


@pytest.fixture
def review(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Review:
    """A sample whose every unit is accepted."""
    one = sampled(tmp_path, monkeypatch)
    one.verdicts({unit.id: "accept" for unit in one.manifest.units})
    return one


def refused(review: Review) -> str:
    store = review.folder.parent / "samples"
    with pytest.raises(SampleError) as error:
        import_review(review.folder, store)
    assert not store.exists(), "nothing was added"
    return str(error.value)


def at(row: int, column: str, value: Any) -> Edit:
    def change(frame: Frame) -> Frame:
        frame[column] = frame[column].astype(object) if column != "geometry" else frame[column]
        frame.loc[row, column] = value
        return frame

    return change


BOWTIE = [(0, 0), (20, 20), (20, 0), (0, 20)]


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize(
    ("layer", "change", "told"),
    [
        (UNITS, at(2, "comment", "<b onclick=alert(1)>fine</b>"), "layer units, row 3 .*holds HTML or a script"),
        (UNITS, at(0, "comment", "x" * 501), "layer units, row 1 .*longer than 500"),
        (UNITS, at(1, "verdict", "maybe"), "layer units, row 2 .*verdict maybe; allowed: accept, reject, unsure"),
        (UNITS, at(1, "verdict", "reject"), "the layer units says reject, verdicts.json says accept"),
        (UNITS, at(1, "split", "test"), "layer units, row 2 .*split test; allowed: train, held_out"),
        (UNITS, at(3, "unit", "../../etc/passwd"), r"row 4 \(unit ../../etc/passwd\): no such unit"),
        (UNITS, lambda frame: frame.drop(index=0), "layer units: unit .* is missing"),
        (UNITS, lambda frame: frame.iloc[[0, *range(len(frame))]], "row 2 .*the unit is there twice"),
        (UNITS, lambda frame: frame.set_geometry(frame.translate(80)), "row 1 .*moved or reshaped"),
        (UNITS, lambda frame: frame.drop(columns="unit"), "the column unit is missing"),
        (MASKS, at(0, "geometry", shapely.MultiPolygon()), "layer masks, row 1 .*an empty mask"),
        (MASKS, lambda frame: frame.set_geometry(frame.buffer(30)), "layer masks, row 1 .*a mask of another size"),
        (MASKS, lambda frame: frame.set_crs(None, allow_override=True), "layer masks: it has no coordinate"),
        (MASKS, lambda frame: frame.to_crs(4326), "layer masks: its coordinate reference system is EPSG:4326"),
        (MASKS, lambda frame: frame.iloc[:0], "an empty mask where present is claimed"),
    ],
)
def test_rows_of_the_package(review: Review, layer: str, change: Edit, told: str) -> None:
    review.edit(layer, change)
    text = refused(review)
    assert re.search(told, text), text


def test_a_polygon_that_crosses_itself(review: Review) -> None:
    unit = review.manifest.units[0]
    left, bottom, *_ = review.manifest.footprint(unit).bounds
    bowtie = shapely.Polygon([(left + x, bottom + y) for x, y in BOWTIE])
    review.edit(MASKS, lambda frame: at(0, "geometry", bowtie)(at(0, "unit", unit.id)(frame)))
    assert "row 1" in (text := refused(review))
    assert "crosses itself" in text


def test_every_row_is_told_at_once(review: Review) -> None:
    review.edit(UNITS, lambda frame: frame.assign(comment="<i>"))
    text = refused(review)
    assert text.count("holds HTML") == 20
    assert f"{len(review.manifest.units)} rows cannot be used" in text
    assert "and 4 more" in text


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"review": "0" * 64, "verdicts": []}, "belongs to another review"),
        ({"verdicts": []}, "is no file of verdicts"),
        ({"review": None, "verdicts": [{"unit": "nowhere", "verdict": "accept"}]}, "no such unit"),
        ({"review": None, "verdicts": [7]}, "row 1"),
    ],
)
def test_files_of_verdicts(review: Review, document: dict[str, Any], told: str) -> None:
    if "review" in document and document["review"] is None:
        document = document | {"review": review.digest}
    review.write(document)
    assert told in refused(review)


def test_a_site_in_both_splits(review: Review) -> None:
    """One tile at two dates, well away from the ground that the store holds out."""
    store = review.folder.parent / "elsewhere"
    import_review(review.folder, store)
    training = read_index(store).query("split == 'train'")["unit"]
    by_tile = {review.manifest.by_id[name].tile: name for name in training}
    one, other = next(
        (name, by_tile[review.manifest.by_id[name].tile])
        for name in training
        if by_tile[review.manifest.by_id[name].tile] != name
    )
    says = {one: "train", other: "held_out"}
    review.edit(UNITS, lambda frame: frame.assign(split=frame["unit"].map(says)))
    text = refused(review)
    assert re.search(rf"unit {one}\) for training is less than one tile away from .*unit {other}\), which", text), text


def test_training_on_ground_that_is_held_out(review: Review) -> None:
    review.edit(UNITS, lambda frame: frame.assign(split="train"))
    text = refused(review)
    assert "split train, but it touches ground that is held out" in text


@pytest.mark.parametrize(("folder", "told"), [(MAPPED, "is missing or was changed"), (IMAGES, "is not the image")])
def test_rasters_that_were_changed(review: Review, folder: str, told: str) -> None:
    path = review.folder / folder / f"{review.manifest.units[0].id}.tif"
    path.write_bytes(path.read_bytes() + b" ")
    assert told in refused(review)


def test_a_package_that_is_gone(review: Review) -> None:
    (review.folder / PACKAGE).unlink()
    assert "no such file" in refused(review)


def sample(unit: str = "a", x: float = 0.0, **values: Any) -> Sample:
    one = Sample(
        image=np.full((16, 16, 3), 90, np.uint8), mask=np.eye(16, dtype=bool), observed=1.0, question="water bodies",
        footprint=(500_000.0 + x, 5_200_000.0, 500_080.0 + x, 5_200_080.0), crs="EPSG:32614", gsd_m=5.0, cube="c" * 64,
        unit=unit, split="train", redrawn=False, source="reviewed:made-up", licence="",
    )  # fmt: skip
    return replace(one, **values)


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ([sample(), sample("b", 400, mask=np.ones((8, 9), bool))], r"sample 1 \(unit b\): a mask of 8 × 9 .* 16 × 16"),
        ([sample(crs="")], r"sample 0 \(unit a\): no coordinate reference system"),
        ([sample(), sample()], r"sample 1 \(unit a\): the unit is there twice"),
        ([sample(), sample("b", split="held_out")], r"sample 0 \(unit a\) for training is less than one tile away"),
        ([sample(), sample("b", 150, split="held_out")], "less than one tile away from sample 1"),
    ],
)
def test_the_store_itself_takes_nothing_corrupt(tmp_path: Path, samples: list[Sample], told: str) -> None:
    with pytest.raises(SampleError, match=told):
        add(tmp_path / "samples", samples)
    assert not (tmp_path / "samples").exists()


def test_what_the_store_holds_counts_for_the_splits(tmp_path: Path) -> None:
    add(tmp_path, [sample(), sample("b", 160, split="held_out")])
    with pytest.raises(SampleError, match="away from unit b in the store"):
        add(tmp_path, [sample("c", 240)])
    with pytest.raises(SampleError, match="unit a in the store for training"):
        add(tmp_path, [sample("d", -80, split="held_out", crs="EPSG:32614")])
    assert list(read_index(tmp_path)["unit"]) == ["a", "b"]


def test_half_a_mask_is_no_mask(review: Review) -> None:
    """Redrawn, but nobody said whether it is right now."""
    unit = next(u for u in review.manifest.units if (mapped(review, u.id) == 1).any())
    review.verdicts({one.id: "accept" for one in review.manifest.units if one.id != unit.id})
    review.edit(MASKS, lambda frame: frame[frame["unit"] != unit.id])
    assert f"unit {unit.id}: its mask was redrawn, but there is no verdict" in refused(review)
