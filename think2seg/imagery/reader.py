"""How odc-stac reads the pixels of one band for us.

odc-loader's own reader depends on the window it is asked for (a paste tolerance, approximate warps, overviews chosen
at a threshold), takes a file without a nodata tag at face value, and logs the hrefs it cannot read, tokens and all.
This one reads a window of the source as float32 with NaN for *no data*, and resamples that in memory.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.cache
from affine import Affine
from odc.geo.converters import rio_geobox
from odc.geo.geobox import GeoBox
from odc.geo.overlap import ReprojectInfo, compute_reproject_roi
from odc.geo.roi import roi_is_empty
from odc.loader import RioDriver
from odc.loader.types import RasterLoadParams, RasterSource
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.io import DatasetReader
from rasterio.warp import reproject
from rasterio.windows import Window

from think2seg.errors import ImageryError

SAME_GRID_PX = 1e-3
"""Pixel edges closer than this are the same grid: the window is copied, not resampled."""
WARP_TOLERANCE_PX = 0.02
"""Largest error of a source position where projections differ; exact (0) where they do not."""
_PAD_PX = 3
"""Pixels (of source or grid, the coarser) read around what the window covers: no kernel reaches the window's edge."""
_MOST_PX = 2**28
"""Source pixels that are held in memory at once, 1 GiB: more is a file that misstates its resolution or its layout."""
_CATEGORICAL = ("nearest", "mode")
"""Rules that must see the pixels themselves: overviews may have been averaged."""
_GDAL_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "6",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_TIMEOUT": "120",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
}

type Sign = Callable[[str], str]


class WindowDriver(RioDriver):
    """odc-loader driver whose pixels depend on the source and the pixel grid alone, not on the window.

    Parameters
    ----------
    sign
        Adds a short-lived token to an href; called for each opening, its result never leaves this module.
    """

    def __init__(self, *, sign: Sign | None) -> None:
        super().__init__()
        self._sign = sign

    def capture_env(self) -> dict[str, Any]:
        """GDAL options of the readers; what the environment sets takes precedence."""
        return {key: value for key, value in _GDAL_OPTIONS.items() if key not in os.environ}

    def open(self, src: RasterSource, ctx: Any) -> _WindowReader:  # type: ignore[override]  # of odc's protocol
        """Reader of one band."""
        return _WindowReader(src, self._sign)


class _WindowReader:
    def __init__(self, src: RasterSource, sign: Sign | None) -> None:
        self._src, self._sign = src, sign

    def read(
        self,
        cfg: RasterLoadParams,
        dst_geobox: GeoBox,
        *,
        dst: npt.NDArray[np.float32] | None = None,
        selection: Any = None,
    ) -> tuple[tuple[slice, slice], npt.NDArray[np.float32]]:
        """Whole `dst_geobox`, NaN where the source has no data."""
        href = self._src.uri
        nodata = self._src.meta.nodata if self._src.meta else None
        url = self._sign(href) if self._sign else href
        failure = None
        try:
            pixels = _read_band(url, self._src.band, dst_geobox, cfg.resampling, nodata)
        except (RasterioError, CRSError) as error:
            failure = RasterioError(redacted(_deepest(error)))
            if "://" in url:
                rasterio.cache.invalidate(url)  # GDAL would remember the failure, and never ask again
        if failure is not None:  # outside the handler, so that no token hides in a chained exception
            raise _unreadable(href, failure) from failure
        return np.s_[0 : pixels.shape[0], 0 : pixels.shape[1]], pixels


def redacted(text: str) -> str:
    """`text` without the query strings of its URLs: that is where tokens are."""
    return re.sub(r"\?[^\s'\"<>]+", "", text)


def _redact_record(record: logging.LogRecord) -> bool:
    record.msg, record.args = redacted(record.getMessage()), None
    return True


for _name in ("rasterio._env", "rasterio._base", "rasterio._io"):  # these name whole URLs, retries even as warnings
    logging.getLogger(_name).addFilter(_redact_record)


def _read_band(url: str, band: int, geobox: GeoBox, resampling: str, nodata: float | None) -> npt.NDArray[np.float32]:
    with rasterio.open(url, sharing=False) as source:
        if band > source.count:
            raise RasterioError(f"band {band} is asked for, the file has {source.count}")
        level = None
        if resampling not in _CATEGORICAL:
            level = _overview(compute_reproject_roi(_frame(source), geobox), source.overviews(band))
        if level is None:
            return _resampled(source, band, geobox, resampling, nodata)
    with rasterio.open(url, sharing=False, overview_level=level) as source:
        return _resampled(source, band, geobox, resampling, nodata)


def _frame(source: DatasetReader) -> GeoBox:
    frame = rio_geobox(source)
    if source.crs is None or not isinstance(frame, GeoBox):
        raise RasterioError("the file has no coordinate reference system, or no affine transform")
    return frame


def _overview(info: ReprojectInfo, factors: list[int]) -> int | None:
    """Coarsest overview that is still as fine as the grid; a hair of slack keeps neighbouring blocks on one level."""
    usable = [level for level, factor in enumerate(factors) if factor <= info.scale * 1.05]
    return max(usable, default=None)


def _resampled(
    source: DatasetReader, band: int, geobox: GeoBox, resampling: str, nodata: float | None
) -> npt.NDArray[np.float32]:
    frame = _frame(source)
    shift = pixel_shift(frame, geobox)
    if shift is not None and max(abs(part - round(part)) for part in shift) < SAME_GRID_PX:
        return _copied(source, band, nodata, geobox.shape.yx, (round(shift[0]), round(shift[1])))
    out = np.full(geobox.shape.yx, np.nan, dtype=np.float32)
    info = compute_reproject_roi(frame, geobox)
    info = compute_reproject_roi(frame, geobox, padding=math.ceil(_PAD_PX * max(1.0, *info.scale2.xy)))
    if roi_is_empty(info.roi_src):
        return out
    rows, cols = info.roi_src
    pixels = _pixels(source, band, nodata, Window.from_slices(rows, cols))
    same_crs = frame.crs == geobox.crs
    reproject(
        pixels,
        out,
        src_transform=source.window_transform(Window.from_slices(rows, cols)),
        src_crs=source.crs,
        src_nodata=np.nan,
        dst_transform=geobox.transform,
        dst_crs=str(geobox.crs),
        dst_nodata=np.nan,
        resampling=Resampling[resampling],
        tolerance=0 if same_crs else WARP_TOLERANCE_PX,
        XSCALE=_kernel_scale(info.scale2.x),
        YSCALE=_kernel_scale(info.scale2.y),
    )
    return out


def _kernel_scale(shrink: float) -> str:
    """Destination pixels per source pixel, said outright: GDAL's own guess depends on the window."""
    return str(1 / max(1.0, round(shrink, 2)))


def pixel_shift(frame: GeoBox, geobox: GeoBox) -> tuple[float, float] | None:
    """Offset (y, x) of `geobox`'s first pixel in `frame`; None where the two differ in projection or pixel size."""
    if frame.crs != geobox.crs:
        return None
    ours, theirs = geobox.transform, frame.transform
    step = Affine(theirs.a, theirs.b, 0, theirs.d, theirs.e, 0)
    if not step.almost_equals(Affine(ours.a, ours.b, 0, ours.d, ours.e, 0), precision=1e-6 * abs(ours.a)):
        return None
    return (ours.f - theirs.f) / theirs.e, (ours.c - theirs.c) / theirs.a


def _copied(
    source: DatasetReader, band: int, nodata: float | None, shape: tuple[int, int], shift: tuple[int, int]
) -> npt.NDArray[np.float32]:
    spans = [
        (max(0, start), min(limit, start + size), start)
        for start, size, limit in zip(shift, shape, source.shape, strict=True)
    ]
    (row0, row1, top), (col0, col1, left) = spans
    if (row1 - row0, col1 - col0) == shape:
        return _pixels(source, band, nodata, Window.from_slices((row0, row1), (col0, col1)))
    out = np.full(shape, np.nan, dtype=np.float32)
    if row0 < row1 and col0 < col1:
        window = Window.from_slices((row0, row1), (col0, col1))
        out[row0 - top : row1 - top, col0 - left : col1 - left] = _pixels(source, band, nodata, window)
    return out


def _pixels(source: DatasetReader, band: int, nodata: float | None, window: Window) -> npt.NDArray[np.float32]:
    """(y, x) float32 of a window; NaN where a nodata tag, a mask, or else `nodata` says so."""
    for what, height, width in (
        ("under this block", window.height, window.width),
        ("in each of its tiles", *source.block_shapes[band - 1]),
    ):
        if height * width > _MOST_PX:
            raise RasterioError(f"the file has {height:.0f} × {width:.0f} px {what}, at most {_MOST_PX} px are read")
    pixels: npt.NDArray[np.float32] = source.read(band, window=window, out_dtype=np.float32)
    flags = source.mask_flag_enums[band - 1]
    if flags == [MaskFlags.nodata] and np.issubdtype(source.dtypes[band - 1], np.integer):
        pixels[pixels == np.float32(source.nodatavals[band - 1])] = np.nan
    elif MaskFlags.all_valid not in flags:
        pixels[source.read_masks(band, window=window) == 0] = np.nan
    elif nodata is not None and not math.isnan(nodata):
        pixels[pixels == nodata] = np.nan
    return pixels


def _deepest(error: BaseException) -> str:
    """The message of the first cause: rasterio's outer errors only say that a read failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def _unreadable(href: str, failure: RasterioError) -> ImageryError:
    message = str(failure)
    if re.search(r"\b(401|403)\b", message):
        todo = "access was refused or a token expired: check the archive's signing, or your credentials, and run again"
    elif re.search(r"\b404\b|No such file|does not exist", message):
        todo = "the file is gone: run again after the catalog was updated; the scene then counts as gone"
    elif re.search(r"\b(429|5\d\d)\b|[Tt]imed? ?out|resolve host|connect", message):
        todo = "the archive did not answer: run again later; only the failed blocks are read again"
    else:
        todo = "the file is damaged or not a raster: run again; if it stays, report it to the archive"
    return ImageryError(f"{redacted(href)}: {message}", "", todo)
