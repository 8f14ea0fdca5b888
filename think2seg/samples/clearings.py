"""Which ground was felled in a Carpathian forest: a rule over a series of Sentinel-2 dates.

Felling shows as bare soil first and as bright young green later, so no fixed NDVI finds both; and the dates are not
comparable in absolute reflectance. Hence relative to the forest itself, per year: `visible` is the mean of red and
green in the year's median composite of clear leaf-on dates (felling is done in winter, so a year has one state),
divided by its median over the ground that was closed forest in 2016, before the felling. Undisturbed canopy stays
within 1.25 of that median in all years, scars are at 1.4 and more. Between the two, and along the edge of the old
forest, the label is doubtful.

Only dates from May to August have labels: what was felled is then 1.5 to 2.7 times as bright as the forest around it.
From the middle of September on, under a low sun and beside coloured leaves, it is as dark or darker (0.6 to 1.3 times),
so that no image of one date shows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from think2seg.samples.labelled import Image, Mask

FOREST_YEAR = 2016
"""The first year with labels: before the felling."""
_LEAF_ON = (5, 9)
_LABELLED = (5, 8)
_MIN_LEAF_ON_DATES = 5
_MIN_SHOWN = 0.9
_CLEAR_CLASSES = (4, 5, 6)
_CLOUD_CLASSES = (8, 9, 10, 11)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Felled:
    """The label of one date."""

    cleared: Mask
    """(y, x) bool."""
    doubtful: Mask
    """(y, x) bool, pixels that nobody should be judged by."""
    shown: Mask
    """(y, x) bool, neither cloud nor nodata."""


def felled(bands: Mapping[str, npt.NDArray[Any]], times: npt.NDArray[np.datetime64]) -> Iterator[tuple[int, Felled]]:
    """Label the dates from May to August, from 2016 on, of which nine tenths are shown: place in the series, label.

    Parameters
    ----------
    bands
        (time, y, x), B3, B4 as reflectance × 10,000 and the scene classes SCL, all 0 where there are no data.
    times
        (time,) of the whole series: the more clear dates a year has, the better is its composite.
    """
    years, months = times.astype("datetime64[Y]").astype(int) + 1970, times.astype("datetime64[M]").astype(int) % 12 + 1
    clear = np.isin(bands["SCL"], _CLEAR_CLASSES) & (bands["B4"] > 0) & (bands["B4"] < 10_000)
    shown = np.stack([shown_of(red, classes) for red, classes in zip(bands["B4"], bands["SCL"], strict=True)])
    leafy = (months >= _LEAF_ON[0]) & (months <= _LEAF_ON[1])
    forest = _old_forest(_visible(bands, clear, leafy & (years == FOREST_YEAR)))
    edge = ndimage.binary_dilation(forest, iterations=2) & ~ndimage.binary_erosion(forest, iterations=2)
    season = (months >= _LABELLED[0]) & (months <= _LABELLED[1]) & (shown.mean((1, 2)) > _MIN_SHOWN)
    for year in sorted(set(years[years >= FOREST_YEAR].tolist())):
        if np.count_nonzero(leafy & (years == year)) < _MIN_LEAF_ON_DATES:
            continue
        bright = _visible(bands, clear, leafy & (years == year))
        bright = bright / np.median(bright[forest])
        cleared = _within(ndimage.binary_opening(forest & (bright > 1.4), np.ones((2, 2))), edge)
        doubtful = (edge | (forest & (bright > 1.25))) & ~cleared
        for index in np.flatnonzero((years == year) & season):
            yield int(index), Felled(cleared=cleared, doubtful=doubtful, shown=shown[index])


def shown_of(red: npt.NDArray[Any], classes: npt.NDArray[Any]) -> Mask:
    """Where a date shows the ground, (y, x) bool: there is red, and no cloud of more than a few pixels."""
    cloudy = np.isin(classes, _CLOUD_CLASSES)
    return np.asarray((red > 0) & ~ndimage.binary_opening(cloudy, np.ones((3, 3))), np.bool_)


def to_rgb(*reflectance: npt.NDArray[Any]) -> Image:
    """Reflectance × 10,000 of red, green, blue, (y, x) each, to 8 bits with the fixed limits 0 and 3,000."""
    stacked = np.stack(reflectance, axis=-1).astype(np.float32)
    return np.asarray(np.clip(stacked * (255 / 3_000), 0, 255), np.uint8)


def _within(cleared: Mask, edge: Mask) -> Mask:
    """The pieces of `cleared` that lie inside the forest rather than along its edge, where roads were widened."""
    pieces = ndimage.label(cleared)[0]
    sizes = np.maximum(np.bincount(pieces.ravel()), 1)
    on_edge = np.bincount(pieces.ravel(), weights=edge.ravel())
    return np.asarray(cleared & (on_edge / sizes < 0.3)[pieces])


def _old_forest(visible: npt.NDArray[np.float32]) -> Mask:
    """The largest closed canopy: dark in the visible, openings of a few pixels filled, (y, x) bool."""
    dark = ndimage.binary_opening(visible < 1.25 * np.median(visible), iterations=2)
    pieces = ndimage.label(dark)[0]
    largest = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    return np.asarray(ndimage.binary_fill_holes(largest), np.bool_)


def _visible(bands: Mapping[str, npt.NDArray[Any]], clear: Mask, dates: Mask) -> npt.NDArray[np.float32]:
    """Median over the clear dates of (red + green) / 2, (y, x) float32; where none is clear, over all of them."""
    mean = (bands["B3"][dates].astype(np.float32) + bands["B4"][dates]) / 2
    seen = clear[dates] | ~clear[dates].any(axis=0)
    return np.asarray(np.nanmedian(np.where(seen, mean, np.nan), axis=0), np.float32)
