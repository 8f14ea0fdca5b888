"""Backdrops: open ground and patchworks of parcels."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from think2seg.samples.simulate import palette
from think2seg.samples.simulate.canvas import Canvas
from think2seg.samples.simulate.palette import pick
from think2seg.samples.simulate.texture import Field

type Cell = tuple[float, float, float, float]


def open_ground(canvas: Canvas, colours: palette.Colours) -> None:
    """Fill the canvas with mottled ground that belongs to no instance."""
    rng = canvas.rng
    canvas.bands[:] = pick(rng, colours)[:, None, None]
    for _ in range(rng.integers(0, 3)):
        patches = np.clip(canvas.noise(int(rng.integers(4, 8))) * 0.6 + 0.1, 0, 0.9)
        canvas.blend(patches, pick(rng, palette.GRASS + palette.SOIL if canvas.chance(0.3) else colours))
    fine, coarse = (np.float32(rng.uniform(2, 8)) for _ in range(2))
    canvas.lighten(fine * canvas.noise(int(rng.integers(1, 3))) + coarse * canvas.noise(int(rng.integers(3, 6))))


def split_plane(rng: np.random.Generator, half_side: float, parcel_px: float, count: int) -> list[Cell]:
    """Cut a square of ±`half_side` into about `count` rectangles (left, right, top, bottom), largest first."""
    cells: list[Cell] = [(-half_side, half_side, -half_side, half_side)]
    while len(cells) < count:
        cells.sort(key=lambda cell: (cell[1] - cell[0]) * (cell[3] - cell[2]), reverse=True)
        left, right, top, bottom = cells.pop(0)
        if max(right - left, bottom - top) < parcel_px:
            return [(left, right, top, bottom), *cells]
        at = float(rng.choice((0.5, rng.uniform(0.25, 0.75))))
        if (right - left) * rng.uniform(0.7, 1.4) > bottom - top:
            middle = left + at * (right - left)
            cells += [(left, middle, top, bottom), (middle, right, top, bottom)]
        else:
            middle = top + at * (bottom - top)
            cells += [(left, right, top, middle), (left, right, middle, bottom)]
    return cells


def parcels(canvas: Canvas, *, parcel_px: float, count: int, crop_share: float) -> float:
    """Fill the canvas with fields and pastures; fields become *farmland*. Returns the angle of the grid."""
    rng = canvas.rng
    angle = float(rng.choice((0.0, rng.normal(0, 0.05), rng.uniform(0, math.pi)), p=(0.35, 0.35, 0.3)))
    along, across = canvas.frame(angle, *canvas.point(canvas.size * 0.3))
    if canvas.chance(0.3):
        along = along + np.float32(canvas.between(2, 14)) * canvas.noise(6)
        across = across + np.float32(canvas.between(2, 14)) * canvas.noise(6)
    cells = split_plane(rng, canvas.size * 1.0, parcel_px, count)
    number = np.zeros((canvas.size, canvas.size), np.int16)
    gap = canvas.between(1.0, 3.0)
    for index, (left, right, top, bottom) in enumerate(cells, 1):
        inside = (along > left + gap) & (along < right - gap) & (across > top + gap) & (across < bottom - gap)
        number[inside] = index
    _fill_parcels(canvas, number, len(cells), along, across, crop_share)
    return angle


def _fill_parcels(
    canvas: Canvas, number: npt.NDArray[np.int16], count: int, along: Field, across: Field, crop_share: float
) -> None:
    rng = canvas.rng
    crops = rng.random(count + 1) < crop_share
    crops[0] = False
    seasonal = [pick(rng, palette.CROP) for _ in range(int(rng.integers(3, 7)))]
    colours = np.stack(
        [
            pick(rng, palette.WET_FIELD) if is_crop and canvas.chance(0.1)
            else seasonal[rng.integers(len(seasonal))] + np.float32(rng.normal(0, 4)) if is_crop
            else pick(rng, palette.GRASS)
            for is_crop in crops
        ]
    )  # fmt: skip
    for band, levels in zip(canvas.bands, colours.T, strict=True):
        np.take(levels, number, out=band)
    rows = rng.uniform(0, 7, count + 1) * (rng.random(count + 1) < 0.6) * crops
    wave = 2 * math.pi / rng.uniform(2.6, 8.0, count + 1)
    turned = rng.random(count + 1) < 0.5
    phase = along * (wave * turned).astype(np.float32)[number] + across * (wave * ~turned).astype(np.float32)[number]
    mottling = np.where(crops, rng.uniform(0, 9, count + 1), rng.uniform(5, 14, count + 1)).astype(np.float32)
    grain = np.where(crops, rng.uniform(0.5, 4, count + 1), rng.uniform(3, 7, count + 1)).astype(np.float32)
    light = rows.astype(np.float32)[number] * np.sin(phase)
    light += mottling[number] * canvas.noise(int(rng.integers(4, 7))) + grain[number] * canvas.noise(2)
    canvas.lighten(light)
    if canvas.chance(0.35):
        _washes(canvas)
    for index in np.flatnonzero(crops):
        mask = number == index
        if mask.any():
            canvas.claim("farmland", mask)
    canvas.taken[:] = False


def _washes(canvas: Canvas) -> None:
    """Drainage lines and damp or pale hollows that run across parcels."""
    hollows = canvas.noise(5) + 0.4 * canvas.noise(4)
    lines = np.clip(1 - np.abs(hollows) / 0.16, 0, 1) * np.float32(canvas.rng.uniform(0.15, 0.5))
    wet = canvas.chance(0.5)
    canvas.blend(lines, pick(canvas.rng, palette.WET_FIELD if wet else palette.SALT))
    if canvas.chance(0.4):
        patches = np.clip((hollows - 1.2) * 1.5, 0, 0.55)
        canvas.blend(patches, pick(canvas.rng, palette.SALT if wet else palette.WET_FIELD))


def pivot(canvas: Canvas) -> None:
    """A round, centre-pivot irrigated field."""
    radius = canvas.between(28, 70)
    row, column = canvas.point()
    along, across = canvas.frame(0.0, row, column)
    mask = along * along + across * across < radius * radius
    if not canvas.is_free(mask, 0.1):
        return
    canvas.paint(mask, pick(canvas.rng, palette.CROP), canvas.rng.uniform(1, 5), int(canvas.rng.integers(2, 6)))
    canvas.claim("farmland", mask, gap_px=2)
    if canvas.chance(0.5):
        canvas.scale(mask & (np.abs(across) < 0.8), 1.12)


def damp_patch(canvas: Canvas) -> None:
    """A dark, straight-edged or smudged patch of wet soil or shade: what is easily taken for water."""
    rng = canvas.rng
    row, column = canvas.point()
    along, across = canvas.frame(float(rng.uniform(0, math.pi)), row, column)
    length, width = canvas.between(16, 70), canvas.between(14, 50)
    inside = np.clip(3 - np.maximum(np.abs(along) / length, np.abs(across) / width) * 3, 0, 1)
    if canvas.chance(0.6):
        inside = np.clip(inside + 0.5 * canvas.noise(5) - 0.3, 0, 1)
    weight = inside * np.float32(rng.uniform(0.4, 0.9)) * ~canvas.shows(frozenset({"lake", "river"}))
    canvas.blend(weight, pick(rng, palette.WET_FIELD))
    canvas.lighten(weight * np.float32(rng.uniform(1, 5)) * canvas.noise(2))
