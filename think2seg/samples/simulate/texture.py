"""Noise that ground, water and canopy are made of: cut from a bank that is drawn once per process."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

type Field = npt.NDArray[np.float32]
type Mask = npt.NDArray[np.bool_]

BANK_SIDE = 768
"""Side of the periodic noise images in pixels; the largest scene is smaller, so that cuts differ."""
SCALES = (0.0, 0.7, 1.4, 2.8, 5.5, 11.0, 22.0, 44.0)
"""Correlation lengths of the bank in pixels, addressed by index; 0 is white noise."""


@cache
def _bank() -> tuple[Field, ...]:
    """Gaussian noise of unit variance at each of `SCALES`, each (768, 768) float32 and periodic."""
    rng = np.random.default_rng(20_240_229)
    frequency = np.fft.fftfreq(BANK_SIDE)[:, None] ** 2 + np.fft.rfftfreq(BANK_SIDE)[None, :] ** 2
    images = []
    for scale in SCALES:
        spectrum = np.fft.rfft2(rng.standard_normal((BANK_SIDE, BANK_SIDE)))
        image = np.fft.irfft2(spectrum * np.exp(-2 * (math.pi * scale) ** 2 * frequency), s=(BANK_SIDE, BANK_SIDE))
        image -= image.mean()
        images.append((image / image.std()).astype(np.float32))
    return tuple(images)


@cache
def _relief() -> tuple[Field, ...]:
    """The bank lit from one side: slopes of the noise, what tree crowns and ploughed clods look like."""
    reliefs = []
    for image in _bank():
        slope = image - np.roll(image, (1, 1), axis=(0, 1))
        reliefs.append((slope / slope.std()).astype(np.float32))
    return tuple(reliefs)


@cache
def _grain() -> tuple[Field, ...]:
    """Noise of three bands, white and slightly smooth, each (768, 768, 3) float32."""
    shifts = ((0, 0), (211, 97), (401, 533))
    return tuple(
        np.stack([np.roll(image, shift_by, axis=(0, 1)) for shift_by in shifts], axis=2) for image in _bank()[:2]
    )


def grain(rng: np.random.Generator, size: int) -> Field:
    """Sensor noise of unit variance, unalike in the three bands: (size, size, 3) float32."""
    return _cut(rng, _grain()[rng.integers(2)], size)


def _cut(rng: np.random.Generator, image: Field, size: int) -> Field:
    top, left = rng.integers(0, BANK_SIDE - size, 2)
    return image[top : top + size, left : left + size]


def noise(rng: np.random.Generator, size: int, scale: int) -> Field:
    """Noise of unit variance as (size, size) float32; `scale` is an index into `SCALES`."""
    cut = _cut(rng, _bank()[scale], size)
    return cut if rng.random() < 0.5 else cut.T


def relief(rng: np.random.Generator, size: int, scale: int) -> Field:
    """Sun-lit noise of unit variance as (size, size) float32, all of it lit from the upper left."""
    return _cut(rng, _relief()[scale], size)


def streaks(rng: np.random.Generator, size: int, angle: float, stretch: float = 9.0) -> Field:
    """Noise drawn out along `angle` (radians), as wind draws it on water: (size, size) float32."""
    along, across = frame(size, angle, 0.0, 0.0)
    row = (across + rng.uniform(2_000, 3_000)).astype(np.intp) % BANK_SIDE
    column = (along / stretch + rng.uniform(2_000, 3_000)).astype(np.intp) % BANK_SIDE
    return np.asarray(_bank()[2][row, column])


def terrain(rng: np.random.Generator, size: int, *, warp_px: float, roughness: float) -> Field:
    """Smooth hills with drawn-out, finger-like contour lines: (size, size) float32, about unit variance."""
    row, column = pixel_grid(size)
    top, left = rng.integers(0, BANK_SIDE, 2)
    rows = (row + top + warp_px * noise(rng, size, 5)).astype(np.intp) % BANK_SIDE
    columns = (column + left + warp_px * noise(rng, size, 5)).astype(np.intp) % BANK_SIDE
    hills = _bank()[7 if rng.random() < 0.5 else 6][rows, columns]
    hills = hills + np.float32(roughness) * noise(rng, size, 4) + np.float32(roughness / 3) * noise(rng, size, 3)
    return np.asarray(hills, np.float32)


@cache
def pixel_grid(size: int) -> tuple[Field, Field]:
    """Row and column of each pixel, both (size, size) float32."""
    row, column = np.mgrid[0:size, 0:size].astype(np.float32)
    return row, column


def frame(size: int, angle: float, row: float, column: float) -> tuple[Field, Field]:
    """Distance of each pixel from a point along and across a direction, in pixels: two (size, size) float32."""
    at = np.arange(size, dtype=np.float32)
    cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    down, right = (at - np.float32(row))[:, None], at - np.float32(column)
    return right * cosine + down * sine, down * cosine - right * sine


def shift(mask: Mask, down: int, right: int) -> Mask:
    """The mask moved by whole pixels; what enters from outside is False."""
    moved = np.zeros_like(mask)
    height, width = mask.shape
    if abs(down) < height and abs(right) < width:
        moved[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = mask[
            max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
        ]
    return moved


def grow(mask: Mask, by_px: int) -> Mask:
    """The mask widened by `by_px` along rows, columns and diagonals (exact for shapes wider than `by_px`)."""
    grown = mask.copy()
    for down in (-by_px, 0, by_px):
        for right in (-by_px, 0, by_px):
            if down or right:
                grown |= shift(mask, down, right)
    return grown
