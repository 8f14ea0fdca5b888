"""The held-out half of the wetland archive through the whole chain, from search to cube, and the cube's score."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import xarray as xr
from affine import Affine
from PIL import Image as PilImage
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from shapely.geometry import box, mapping
from shapely.geometry.base import BaseGeometry
from shapely.ops import transform as transform_shape

from think2seg.config import load_monitor
from think2seg.coordinator import Progress, run_archive
from think2seg.crs import transformer
from think2seg.cube import open_cube
from think2seg.learning.suite.asking import OnProgress
from think2seg.learning.suite.baselines import fit_threshold, otsu
from think2seg.learning.suite.sheet import outlined
from think2seg.samples._sheets import NAIP_SPLIT_X_M
from think2seg.samples.archive import WETLANDS, catalog_path
from think2seg.samples.labelled import Image, Mask

MONITOR = "nd-wetlands"
CRS = "EPSG:26914"
BEYOND_M = 20_000.0
"""More than the archive extends in any direction, metres."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Masks of water over the dates against the reference, on the pixels both know."""

    question: str
    dates: tuple[str, ...]
    iou: tuple[float, ...]
    area_ha: tuple[float, ...]
    reference_ha: tuple[float, ...]
    seam_ratio: float | None = None

    @property
    def mean_iou(self) -> float:
        """Mean over the dates."""
        return float(np.mean(self.iou))

    @property
    def area_correlation(self) -> float:
        """Pearson's correlation of the areas over the dates; NaN for areas that do not vary."""
        if len(self.dates) < 2 or np.std(self.area_ha) == 0:
            return float("nan")
        return float(np.corrcoef(self.area_ha, self.reference_ha)[0, 1])

    def to_dict(self) -> dict[str, object]:
        """Plain data, ready for JSON."""
        return {
            "question": self.question,
            "mean_iou": round(self.mean_iou, 4),
            "area_correlation": round(self.area_correlation, 4),
            "seam_ratio": self.seam_ratio,
            "dates": [
                {"date": date, "iou": round(iou, 4), "area_ha": round(area, 1), "reference_ha": round(reference, 1)}
                for date, iou, area, reference in zip(
                    self.dates, self.iou, self.area_ha, self.reference_ha, strict=True
                )
            ],
        }


def score_questions(
    questions: Sequence[str], out: Path, *, prompter: str, segmenter: str, views: int, on_progress: OnProgress
) -> list[Score]:
    """Run the wetland monitor's held-out half once for each question, and score the cubes; cubes stay in `out`."""
    scores = []
    for number, question in enumerate(questions):
        uri = out / f"wetlands-{number}.zarr"
        overrides = [
            f"question={json.dumps(question)}",
            f"region={json.dumps({'kind': 'geometry', 'geometry': mapping(_east())})}",
            f"cube.uri={json.dumps(str(uri))}",
            f"models.prompter.path={json.dumps(prompter)}",
            f"models.segmenter.path={json.dumps(segmenter)}",
            f"tile.views={views}",
        ]

        def show(now: Progress, question: str = question) -> None:
            on_progress(f"wetlands: {question}", now.blocks_done, now.blocks_total or 0)

        summary = run_archive(load_monitor(MONITOR, overrides), on_progress=show)
        with open_cube(str(uri)) as cube:
            scores.append(score(question, _masks(cube), cube, summary.seam_ratio))
    return scores


def score_baselines(like: Path) -> list[Score]:
    """Best fixed colour threshold of the training half, Otsu of NDWI for each date, and *everything*, likewise."""
    with open_cube(str(like)) as cube:
        west = cube.x.values < NAIP_SPLIT_X_M
        dates = [str(time)[:10] for time in cube.time.values]
        bands = {date: read_bands(date, cube) for date in dates}
        masks: dict[str, dict[str, Mask]] = {"everything": {}, "Otsu of NDWI": {}, "best colour threshold": {}}
        rgb: Mapping[str, Image] = {date: np.ascontiguousarray(np.moveaxis(b[:3], 0, -1)) for date, b in bands.items()}
        west_tiles = [(rgb[date], *_reference_on(date, cube, west)) for date in dates]
        threshold = fit_threshold(west_tiles)
        for date in dates:
            green, nir = bands[date][1].astype(np.float32), bands[date][3].astype(np.float32)
            ndwi = (green - nir) / np.maximum(green + nir, 1)
            imaged = bands[date].any(axis=0)
            masks["everything"][date] = imaged
            masks["Otsu of NDWI"][date] = (ndwi > otsu(ndwi[imaged])) & imaged
            masks["best colour threshold"][date] = threshold(rgb[date]) & imaged
        named = {"best colour threshold": f"best colour threshold ({threshold})"}
        return [score(named.get(name, name), by_date, cube, None) for name, by_date in masks.items()]


def draw(uri: Path, path: Path, *, columns: int = 5) -> None:
    """Draw every date of a cube in true colour, answers outlined in red and the reference in cyan, into one PNG."""
    with open_cube(str(uri)) as cube:
        east = cube.x.values >= NAIP_SPLIT_X_M
        pictures = []
        for date, mask in _masks(cube).items():
            rgb = np.ascontiguousarray(np.moveaxis(read_bands(date, cube)[:3], 0, -1))
            pictures.append(outlined(rgb, mask == 1, reference(date, cube) == 1)[:, east])
    blank = [np.full_like(pictures[0], 255)] * (-len(pictures) % columns)
    tiles = [np.pad(picture, ((0, 4), (0, 4), (0, 0)), constant_values=255) for picture in [*pictures, *blank]]
    rows = [np.concatenate(tiles[start : start + columns], axis=1) for start in range(0, len(tiles), columns)]
    PilImage.fromarray(np.concatenate(rows)).save(path, optimize=True)


def score(
    question: str, masks: Mapping[str, Mask | npt.NDArray[np.uint8]], cube: xr.Dataset, seam: float | None
) -> Score:
    """Score masks of dates, (y, x) on the grid of `cube`: bool, or uint8 with 255 for what was not observed."""
    east = np.broadcast_to(cube.x.values[None] >= NAIP_SPLIT_X_M, cube.mask.shape[1:])
    hectares = abs(_transform(cube).determinant) / 10_000
    rows = []
    for date, mask in masks.items():
        truth, valid = _reference_on(date, cube, east[0])
        valid &= np.asarray(mask) != 255 if mask.dtype != np.bool_ else True
        said, true = (np.asarray(mask) == 1) & valid, truth & valid
        either = np.count_nonzero(said | true)
        iou = np.count_nonzero(said & true) / either if either else 1.0
        rows.append((date, iou, np.count_nonzero(said) * hectares, np.count_nonzero(true) * hectares))
    names, ious, areas, references = zip(*rows, strict=True)
    return Score(question=question, dates=names, iou=ious, area_ha=areas, reference_ha=references, seam_ratio=seam)


def read_bands(date: str, cube: xr.Dataset) -> npt.NDArray[np.uint8]:
    """Red, green, blue and near infrared of a date on the cube's grid, (4, y, x) uint8."""
    return _read(date, "image", cube, Resampling.bilinear)


def reference(date: str, cube: xr.Dataset) -> npt.NDArray[np.uint8]:
    """The reference mask of a date on the cube's grid, (y, x) uint8: 0, 1, or 255 where there is none."""
    return np.asarray(_read(date, "water", cube, Resampling.nearest)[0])


def _reference_on(date: str, cube: xr.Dataset, columns: npt.NDArray[np.bool_]) -> tuple[Mask, Mask]:
    labels = reference(date, cube)
    return labels == 1, (labels != 255) & columns[None]


def _read(date: str, asset: str, cube: xr.Dataset, resampling: Resampling) -> npt.NDArray[np.uint8]:
    day = date.replace("-", "")
    (path,) = Path(catalog_path(WETLANDS)).parent.glob(f"naip/*_{day}/{asset}.tif")
    height, width = cube.mask.shape[1:]
    nodata = 255 if asset == "water" else 0
    with (
        rasterio.open(path) as source,
        WarpedVRT(
            source, crs=CRS, transform=_transform(cube), width=width, height=height, resampling=resampling,
            src_nodata=nodata, nodata=nodata,
        ) as warped,
    ):  # fmt: skip
        return np.asarray(warped.read(), np.uint8)


def _masks(cube: xr.Dataset) -> dict[str, npt.NDArray[np.uint8]]:
    return {str(time)[:10]: cube.mask.isel(time=index).values for index, time in enumerate(cube.time.values)}


def _transform(cube: xr.Dataset) -> Affine:
    return Affine.from_gdal(*(float(value) for value in cube.spatial_ref.attrs["GeoTransform"].split()))


def _east() -> BaseGeometry:
    """The part of the monitor's region that is held out, WGS 84."""
    region = load_monitor(MONITOR).region.shape()
    (_, y) = transformer("EPSG:4326", CRS).transform(region.centroid.x, region.centroid.y)
    half = box(NAIP_SPLIT_X_M, y - BEYOND_M, NAIP_SPLIT_X_M + BEYOND_M, y + BEYOND_M).segmentize(500)
    held_out: BaseGeometry = region.intersection(transform_shape(transformer(CRS, "EPSG:4326").transform, half))
    return held_out
