from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pystac
import pystac.validation
import pytest
import rasterio
import xarray as xr
from affine import Affine
from support.rasters import write_raster

from think2seg.errors import ConfigError
from think2seg.samples import archive

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "naip-wetlands"
NAMES = ("carpathian-clearings", "naip-wetlands")


def items_of(catalog: Path) -> Iterator[pystac.Item]:
    yield from pystac.Catalog.from_file(str(catalog)).get_items(recursive=True)


def test_samples_are_known_by_name() -> None:
    assert archive.catalog_names() == NAMES
    with pytest.raises(ConfigError, match="samples: carpathian-clearings, naip-wetlands"):
        archive.catalog_path("atlantis")


@pytest.mark.parametrize("name", NAMES)
def test_catalogs_are_valid_and_describe_their_files(name: str) -> None:
    root = archive.catalog_path(name)
    for document in sorted(root.parent.rglob("*.json")):
        content = json.loads(document.read_text())
        assert pystac.validation.validate_dict(content, extensions=[])
        hrefs = [link["href"] for link in content["links"]]
        hrefs += [asset["href"] for asset in content.get("assets", {}).values()]
        assert all(href.startswith(".") for href in hrefs)
        assert all((document.parent / href).is_file() for href in hrefs)
    items = list(items_of(root))
    assert len(items) == {"naip-wetlands": 10, "carpathian-clearings": 23}[name]
    for item in items:
        for asset in item.assets.values():
            path = Path(asset.get_absolute_href() or "")
            content = path.read_bytes()
            assert asset.extra_fields["file:size"] == len(content)
            assert asset.extra_fields["file:checksum"] == f"1220{sha256(content).hexdigest()}"
            with rasterio.open(path) as pixels:
                assert pixels.crs.to_epsg() == int(item.properties["proj:code"].removeprefix("EPSG:"))
                assert list(pixels.transform)[:6] == item.properties["proj:transform"]
                assert list(pixels.shape) == item.properties["proj:shape"]
                bands = asset.extra_fields["raster:bands"]
                assert [band["data_type"] for band in bands] == list(pixels.dtypes)
                assert [band["nodata"] for band in bands] == list(pixels.nodatavals)
                assert rasterio.enums.MaskFlags.alpha not in pixels.mask_flag_enums[0]


def test_samples_stay_small_and_are_attributed() -> None:
    files = [path for path in archive.catalog_path(NAMES[0]).parents[1].rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 15_000_000
    attribution = archive.catalog_path(NAMES[0]).parents[1] / "LICENSES" / "ATTRIBUTION.md"
    assert all(name in attribution.read_text() for name in (*NAMES, "Copernicus Sentinel data", "Public domain"))


def test_cloud_cover_is_that_of_the_classes() -> None:
    cover = {}
    for item in items_of(archive.catalog_path("carpathian-clearings")):
        with rasterio.open(item.assets["scl"].get_absolute_href()) as classes:
            clouds = np.isin(classes.read(1), (8, 9, 10)).mean() * 100
        cover[item.id] = item.properties["eo:cloud_cover"]
        assert cover[item.id] == pytest.approx(clouds, abs=0.05)
    assert sum(percent > 80 for percent in cover.values()) == 1
    assert sum(20 < percent <= 80 for percent in cover.values()) == 3
    assert sum(percent < 5 for percent in cover.values()) == 19


def test_wetlands_are_the_source_bit_for_bit() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"the source imagery is not beside the checkout: {SHARED.name}")
    items = {item.id: item for item in items_of(archive.catalog_path("naip-wetlands"))}
    sources = sorted(SHARED.glob("naip/*/*.tif"))
    assert {path.stem for path in sources} == set(items)
    for path in sources:
        labels = SHARED / "labels" / f"water_{path.stem[-8:]}.tif"
        for asset, source in (("image", path), ("water", labels)):
            with (
                rasterio.open(items[path.stem].assets[asset].get_absolute_href()) as ours,
                rasterio.open(source) as theirs,
            ):
                assert (ours.read() == theirs.read()).all()
                assert (ours.transform, ours.crs, ours.nodata) == (theirs.transform, theirs.crs, theirs.nodata)


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    """A wetland of one date and a forest of all dates, both tiny; one corner of the forest is felled after 2016."""
    rng = np.random.default_rng(0)
    naip, name = tmp_path / "source", "nd_20200101"
    folder = naip / "naip" / name
    folder.mkdir(parents=True)
    (naip / "labels").mkdir()
    frame = Affine(5, 0, 486000, 0, -5, 5209000)
    write_raster(folder / f"{name}.tif", rng.integers(0, 255, (4, 60, 70)).astype(np.uint8), frame, "EPSG:26914")
    water = rng.integers(0, 2, (1, 60, 70)).astype(np.uint8)
    write_raster(naip / "labels" / "water_20200101.tif", water, frame, "EPSG:26914", nodata=255)
    item = json.loads(next(archive.catalog_path("naip-wetlands").parent.glob("naip/*/*.json")).read_text())
    item["id"], item["assets"] = name, {"image": {"href": f"{name}.tif"}}
    (folder / f"{name}.json").write_text(json.dumps(item))
    collection = {"description": "wetlands", "license": "PDDL-1.0", "providers": [{"name": "USDA"}]}
    (naip / "naip" / "collection.json").write_text(json.dumps(collection))

    days = sorted(
        {*archive.CLEARING_DATES, *(f"{year}-06-0{day}" for year in range(2016, 2021) for day in range(1, 6))}
    )
    shape = (len(days), 24, 30)
    numbers = {band: rng.integers(380, 420, shape).astype(np.uint16) for band in ("B2", "B3", "B4", "B8")}
    felled_from = days.index("2017-06-01")
    for band in numbers.values():
        band[:, :, 24:] = 2000
        band[felled_from:, 8:12, 8:12] = 1500
    classes = np.full(shape, 4, np.uint16)
    classes[days.index("2018-07-06")] = 9
    cube = xr.Dataset(
        {name: (("time", "y", "x"), values) for name, values in (numbers | {"SCL": classes}).items()},
        {
            "time": np.array(days, dtype="datetime64[ns]"),
            "y": 2533000.0 - 10 * np.arange(24),
            "x": 5272000.0 + 10 * np.arange(30),
        },
    )
    cube.to_netcdf(tmp_path / "cube.nc", engine="h5netcdf")
    return naip, tmp_path / "cube.nc"


def test_same_sources_give_the_same_bytes(sources: tuple[Path, Path], tmp_path: Path) -> None:
    naip, cube = sources
    contents = []
    for out in (tmp_path / "first", tmp_path / "second"):
        catalogs = archive.build(out, naip_source=naip, nrt_wheel=cube)
        assert [catalog.parent.name for catalog in catalogs] == ["naip-wetlands", "carpathian-clearings"]
        contents.append({path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()})
    assert contents[0] == contents[1]
    (item,) = items_of(catalogs[0])
    with (
        rasterio.open(item.assets["image"].get_absolute_href()) as ours,
        rasterio.open(naip / "naip" / item.id / f"{item.id}.tif") as theirs,
    ):
        assert (ours.read() == theirs.read()).all()


def test_what_was_felled_is_labelled_from_then_on(sources: tuple[Path, Path], tmp_path: Path) -> None:
    _, catalog = archive.build(tmp_path / "out", naip_source=sources[0], nrt_wheel=sources[1])
    found = {}
    for item in items_of(catalog):
        with rasterio.open(item.assets["clearings"].get_absolute_href()) as labels:
            found[item.id.removeprefix("S2_")] = labels.read(1)
    assert not (found["2016-08-05"] == 1).any()
    assert (found["2018-07-06"] == archive.UNSEEN).all()
    for day in ("2017-07-06", "2020-08-29"):
        assert (found[day][8:12, 8:12] == 1).all()
        assert np.count_nonzero(found[day] == 1) == 16
        assert (found[day][4:20, 23:25] == archive.DOUBTFUL).all()


def test_other_sources_are_refused(sources: tuple[Path, Path], tmp_path: Path) -> None:
    import zipfile

    with pytest.raises(ConfigError, match="has no items"):
        archive.build(tmp_path / "out", naip_source=tmp_path / "labels", nrt_wheel=sources[1])
    wheel = tmp_path / "nrt-0.2.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as content:
        content.writestr("nrt/__init__.py", "")
    with pytest.raises(ConfigError, match=r"has no nrt/data"):
        archive.build(tmp_path / "out", naip_source=sources[0], nrt_wheel=wheel)
