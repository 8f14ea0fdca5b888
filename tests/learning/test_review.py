"""From a cube to a folder for people, and back."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image
from support.cubes import build_cube, spec_of
from support.reviews import DAYS, GRID, Review, lakes, mapped, pretend_imagery, sampled, spec

from think2seg.crs import to_wgs84
from think2seg.cube import check_cube
from think2seg.errors import ConfigError, SampleError
from think2seg.learning.card import training_of
from think2seg.learning.datasets import read_dataset
from think2seg.learning.review import draw_sample, import_review, read_figures, take_in, training_ground
from think2seg.learning.review.manifest import IMAGES, MANIFEST, MASKS, PACKAGE, UNITS
from think2seg.learning.review.population import read_population
from think2seg.learning.review.splits import FOLDER as SPLITS
from think2seg.learning.review.splits import read_held_out
from think2seg.learning.review.store import read_index


@pytest.fixture
def review(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Review:
    return sampled(tmp_path, monkeypatch)


def test_population_is_every_observed_core(review: Review) -> None:
    units = read_population(review.cube, GRID)
    assert len({unit.id for unit in units}) == len(units) == review.manifest.population
    first, second = lakes()
    assert sum(u.mapped_m2 for u in units if u.acquisition == first.id) == pytest.approx(
        first.present.sum() * 25, rel=2e-3
    )
    hidden = np.count_nonzero(second.quality)
    assert sum(u.observed_m2 for u in units if u.acquisition == second.id) == pytest.approx(
        (second.quality.size - hidden) * 25, rel=2e-3
    )
    assert {u.changed_m2 for u in units if u.acquisition == first.id} == {None}
    grown = np.count_nonzero(second.present & ~first.present)
    assert sum(u.changed_m2 or 0 for u in units) == pytest.approx(grown * 25, rel=2e-3)
    assert all(u.score == pytest.approx(200 / 254) for u in units if u.mapped_m2)
    assert all(u.score == pytest.approx(0.9) for u in units if not u.mapped_m2), "one minus presence"


def test_layers_hold_the_units_and_their_masks(review: Review) -> None:
    units, masks = (gpd.read_file(review.folder / PACKAGE, layer=name) for name in (UNITS, MASKS))
    assert list(units["unit"]) == [unit.id for unit in review.manifest.units]
    assert units.crs.to_epsg() == masks.crs.to_epsg() == 32614
    assert {"time", "question", "stratum", "weight", "verdict", "comment", "split"} <= set(units.columns)
    assert units["verdict"].isna().all()
    assert set(units.geometry.area) == {(16 * 5.0) ** 2}
    assert units["weight"].sum() == pytest.approx(review.manifest.population)
    for unit in review.manifest.units:
        drawn = masks[masks["unit"] == unit.id].geometry.area.sum()
        assert drawn == np.count_nonzero(mapped(review, unit.id) == 1) * 25


def test_images_lie_where_their_tiles_are(review: Review) -> None:
    for unit in review.manifest.units:
        with rasterio.open(review.folder / IMAGES / f"{unit.id}.tif") as image:
            assert image.crs.to_epsg() == 32614
            assert image.shape == (24, 24)
            assert image.transform == review.manifest.geobox(unit, halo=True).transform
            left, bottom, right, top = review.manifest.footprint(unit).bounds
            assert image.bounds == (left - 20, bottom - 20, right + 20, top + 20)


def test_same_seed_same_sample(review: Review, tmp_path: Path) -> None:
    again = draw_sample(review.cube, tmp_path / "again", n=24, seed=3)
    other = draw_sample(review.cube, tmp_path / "other", n=24, seed=4)
    assert [unit.id for unit in again.units] == [unit.id for unit in review.manifest.units]
    assert [unit.id for unit in other.units] != [unit.id for unit in again.units]


def test_nothing_is_ever_written_over(review: Review) -> None:
    before = (review.folder / MANIFEST).read_bytes()
    with pytest.raises(ConfigError, match="holds something already"):
        draw_sample(review.cube, review.folder, n=24)
    assert (review.folder / MANIFEST).read_bytes() == before


def test_a_failed_draw_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_cube(tmp_path / "lake.zarr", lakes(), spec())
    pretend_imagery(monkeypatch)
    monkeypatch.setattr("think2seg.learning.review.package.render", lambda *parts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        draw_sample(tmp_path / "lake.zarr", tmp_path / "review", n=24)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lake.zarr"]


def test_units_whose_scenes_are_gone_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    review = sampled(tmp_path, monkeypatch, gone=(lakes()[1].id,))
    lacking = [unit for unit in review.manifest.units if unit.image_sha256 is None]
    assert {unit.time for unit in lacking} == {DAYS[1]}
    assert all("no longer has the scenes" in unit.no_image for unit in lacking)
    assert "No image. The catalog no longer has the scenes." in (review.folder / "review.html").read_text()
    review.verdicts({unit.id: "accept" for unit in review.manifest.units})
    done = import_review(review.folder, tmp_path / "samples")
    assert done.left_out["no image"] == len(lacking)
    assert done.figures.accepted == len(review.manifest.units), "they count for accuracy all the same"


def test_an_archive_that_cannot_be_found_is_an_error_unless_images_are_not_wanted(tmp_path: Path) -> None:
    build_cube(tmp_path / "lake.zarr", lakes(), spec())
    with pytest.raises(ConfigError, match="made-up"):
        draw_sample(tmp_path / "lake.zarr", tmp_path / "review")
    drawn = draw_sample(tmp_path / "lake.zarr", tmp_path / "review", images=False)
    assert {unit.no_image for unit in drawn.units} == {"Images were not asked for."}


def test_a_perfect_map_is_accepted(review: Review, tmp_path: Path) -> None:
    review.verdicts({unit.id: "accept" for unit in review.manifest.units})
    done = import_review(review.folder, tmp_path / "samples")
    one = done.figures
    assert one.overall is not None
    assert one.area_m2 is not None
    assert (one.agreement.value if one.agreement else 0, one.overall.value) == (1, 1)
    assert one.overall.low < 1, "a sample makes no certainty"
    assert one.area_m2.value == pytest.approx(one.mapped_m2)
    first, second = lakes()
    seen = first.present.sum() + (second.present & (second.quality == 0)).sum()
    assert one.mapped_m2 == pytest.approx(seen * 25 / 2, rel=2e-3)
    assert done.added == done.train + done.held_out > 0
    assert done.train
    assert done.held_out
    assert done.left_out.keys() == {"less than one tile away from held-out ground"}


def test_samples_are_what_was_judged(review: Review, tmp_path: Path) -> None:
    review.verdicts({unit.id: "accept" for unit in review.manifest.units})
    store = tmp_path / "samples"
    import_review(review.folder, store)
    for row in read_index(store).itertuples():
        truth = mapped(review, row.unit)
        mask = np.asarray(Image.open(store / "masks" / f"{row.sample}.tif"))
        image = np.asarray(Image.open(store / "images" / f"{row.sample}.tif"))
        with rasterio.open(review.folder / IMAGES / f"{row.unit}.tif") as source:
            whole = np.moveaxis(source.read(), 0, -1)
        np.testing.assert_array_equal(mask == 255, truth == 1)
        np.testing.assert_array_equal(image, whole[4:-4, 4:-4])
        assert row.present == bool((truth == 1).any())
        assert row.licence == "Made up, no licence needed."
        assert row.observed == pytest.approx((truth != 255).mean())
        assert row.gsd_m == pytest.approx(5, rel=1e-3)


def test_store_is_read_as_a_dataset(review: Review, tmp_path: Path) -> None:
    review.verdicts({unit.id: "accept" for unit in review.manifest.units})
    done = import_review(review.folder, tmp_path / "samples")
    train, test = (read_dataset("reviewed", tmp_path / "samples", split) for split in ("train", "held_out"))
    assert len(train.items) + len(train.odd) == done.train
    assert len(test.items) + len(test.odd) == done.held_out
    assert all("observed" in odd.reason for odd in (*train.odd, *test.odd))
    one = train.items[0]
    assert one.questions == ("water bodies",)
    assert one.pixels(32).shape == (32, 32, 3)
    assert one.truth(16).shape == (16, 16)
    with pytest.raises(ConfigError, match="held_out, train"):
        read_dataset("reviewed", tmp_path / "samples", "test")


def test_ground_that_models_are_judged_on_is_never_learnt_from(
    review: Review, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [review.manifest.footprint(unit) for unit in review.manifest.units]
    west, south, east, north = shapely.total_bounds(frames)
    judged_on = to_wgs84(shapely.box((west + east) / 2, south, east, north), review.manifest.grid.crs)
    monkeypatch.setattr(take_in, "held_out_ground", lambda: {"judged": judged_on})
    review.verdicts({unit.id: "accept" for unit in review.manifest.units})
    done = import_review(review.folder, tmp_path / "samples")
    assert done.train > 0
    assert done.held_out > 0
    learnt = training_ground(tmp_path / "samples")
    assert all(ground.distance(judged_on) > 0 for ground in learnt.values())
    record = tmp_path / "record.json"
    record.write_text(json.dumps({"data": "", "config": {"data": {"reviewed": str(tmp_path / "samples")}}}))
    assert training_of(record, base="", footprints={}).footprints == learnt
    index = read_index(tmp_path / "samples")
    assert all(index[index["split"] == "held_out"].intersects(judged_on))
    assert not read_held_out(tmp_path / "samples")


def test_importing_again_changes_nothing(review: Review, tmp_path: Path) -> None:
    review.verdicts({unit.id: "accept" for unit in review.manifest.units})
    store = tmp_path / "samples"
    first = import_review(review.folder, store)
    files = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    second = import_review(review.folder, store)
    assert (second.added, second.known, second.digest) == (0, first.added, first.digest)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == files


def test_a_redrawn_mask_replaces_the_first_one(review: Review, tmp_path: Path) -> None:
    store, units = tmp_path / "samples", review.manifest.units
    review.verdicts({unit.id: "accept" for unit in units})
    first = import_review(review.folder, store)
    row = read_index(store).query("present").iloc[0]

    def erode(masks: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
        mine = masks["unit"] == row["unit"]
        masks.loc[mine, "geometry"] = masks.loc[mine].geometry.intersection(
            review.manifest.footprint(review.manifest.by_id[row["unit"]]).buffer(-20)
        )
        return masks

    review.edit(MASKS, erode)
    review.verdicts({unit.id: "reject" if unit.id == row["unit"] else "accept" for unit in units})
    second = import_review(review.folder, store)
    assert (second.added, second.known) == (1, first.added - 1)
    assert second.digest != first.digest
    assert len(read_index(store)) == first.added
    now = read_index(store).set_index("unit").loc[row["unit"]]
    assert now["sample"] != row["sample"]
    assert now["redrawn"]
    assert (store / "masks" / f"{row['sample']}.tif").exists(), "what was written stays"
    assert second.figures.users is not None
    assert second.figures.users.value < 1


@pytest.mark.parametrize("word", ["reject", "unsure"])
def test_a_verdict_that_is_withdrawn_takes_its_sample_along(review: Review, tmp_path: Path, word: str) -> None:
    store, units = tmp_path / "samples", [unit.id for unit in review.manifest.units]
    review.verdicts(dict.fromkeys(units, "accept"))
    first = import_review(review.folder, store)
    kept = read_index(store).query("split == 'train'")["unit"].iloc[0]
    review.verdicts({unit: word for unit in units if unit != kept})  # of which nothing is said any more
    second = import_review(review.folder, store)
    assert (second.added, second.withdrawn) == (0, first.added - 1)
    assert second.digest != first.digest
    assert list(read_index(store)["unit"]) == [kept]
    assert len(training_ground(store)) == 1
    assert import_review(review.folder, store).withdrawn == 0
    review.verdicts(dict.fromkeys(units, "accept"))
    assert import_review(review.folder, store).digest == first.digest


def test_figures_follow_the_truth(review: Review, tmp_path: Path) -> None:
    """Where the map has twice the lake, the reviewed area is about half of it."""
    half = {unit.id: (mapped(review, unit.id) == 1) for unit in review.manifest.units}
    for unit in review.manifest.units:
        half[unit.id][:, ::2] = False

    def redraw(masks: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
        from think2seg.learning.review.package import outlines

        rows = [
            {"unit": unit.id, "geometry": shape}
            for unit in review.manifest.units
            for shape in outlines(half[unit.id], review.manifest.geobox(unit))
        ]
        return gpd.GeoDataFrame(rows, geometry="geometry", crs=masks.crs)

    review.edit(MASKS, redraw)
    present = {u.id for u in review.manifest.units if (mapped(review, u.id) == 1).any()}
    review.verdicts({u.id: "reject" if u.id in present else "accept" for u in review.manifest.units})
    one = import_review(review.folder, tmp_path / "samples").figures
    assert one.users is not None
    assert one.producers is not None
    assert one.area_m2 is not None
    assert one.users.value == pytest.approx(0.5, abs=0.05)
    assert one.producers.value == 1
    assert one.area_m2.low < 0.5 * one.mapped_m2 * 1.02 < one.area_m2.high * 1.04
    assert one.agreement is not None
    assert one.agreement.value < 1


def test_rejected_and_not_redrawn_is_no_knowledge(review: Review, tmp_path: Path) -> None:
    first, *rest = review.manifest.units
    review.verdicts({first.id: "reject"} | {unit.id: "accept" for unit in rest[:-3]} | {rest[-1].id: "unsure"})
    done = import_review(review.folder, tmp_path / "samples")
    one = done.figures
    assert (one.rejected, one.unsure, one.not_judged, one.without_mask) == (1, 1, 2, 1)
    assert one.overall is None
    assert one.area_m2 is None
    assert one.agreement is not None
    assert 0 < one.agreement.value < 1
    assert {"rejected, not redrawn": 1, "unsure": 1, "not judged": 2}.items() <= done.left_out.items()
    assert any("not redrawn" in sentence for sentence in one.sentences())


def test_figures_lie_beside_the_cube(review: Review, tmp_path: Path) -> None:
    from think2seg.cube import CubeStore

    review.verdicts({unit.id: "accept" for unit in review.manifest.units})
    done = import_review(review.folder, tmp_path / "samples")
    import_review(review.folder, tmp_path / "samples")
    (kept,) = read_figures(CubeStore(review.cube))
    assert kept.review == done.figures.review
    assert kept.sentences() == done.figures.sentences()
    assert [finding for finding in check_cube(review.cube) if finding.severity != "info"] == []


def test_a_cube_that_was_moved_is_named(review: Review, tmp_path: Path) -> None:
    review.verdicts({unit.id: "accept" for unit in review.manifest.units})
    review.cube.rename(tmp_path / "moved.zarr")
    assert "Name its place with --cube" in import_review(review.folder, tmp_path / "samples").note
    assert import_review(review.folder, tmp_path / "samples", cube=str(tmp_path / "moved.zarr")).note == ""
    build_cube(tmp_path / "other.zarr", lakes(), spec_of(GRID, question="car parks"))
    with pytest.raises(SampleError, match="another cube"):
        import_review(review.folder, tmp_path / "samples", cube=str(tmp_path / "other.zarr"))


def test_event_tells_what_a_flow_needs(review: Review, tmp_path: Path) -> None:
    review.verdicts({unit.id: "accept" for unit in review.manifest.units})
    done = import_review(review.folder, tmp_path / "samples")
    event = done.event()
    assert event["store"] == str(tmp_path / "samples")
    assert event["digest"] == done.digest
    assert event["added"] == event["train"] + event["held_out"] == len(read_index(tmp_path / "samples"))
    assert event["accepted"] == len(review.manifest.units)


def test_held_out_ground_stays_where_it_is(review: Review, tmp_path: Path) -> None:
    store = tmp_path / "samples"
    review.verdicts({unit.id: "accept" for unit in review.manifest.units})
    import_review(review.folder, store)
    (frozen,) = (store / SPLITS).iterdir()
    text = frozen.read_text()
    import_review(review.folder, store)
    assert frozen.read_text() == text
    frozen.write_text(text.replace("99.", "98."))
    with pytest.raises(SampleError, match="changed after it was written"):
        import_review(review.folder, store)
