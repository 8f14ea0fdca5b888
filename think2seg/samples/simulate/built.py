"""What people build: roads, houses, sports fields, runways, solar farms, ships."""

from __future__ import annotations

import math

import numpy as np

from think2seg.samples.labelled import Mask
from think2seg.samples.simulate import palette
from think2seg.samples.simulate.canvas import Canvas
from think2seg.samples.simulate.palette import pick
from think2seg.samples.simulate.texture import Field
from think2seg.samples.simulate.water import WATER, course, ribbon

_TRIES = 6
THIN_ROAD_PX = 4.5
"""Narrower roads are painted and not listed: too thin to be outlined at this size."""


def _box(along: Field, across: Field, length_px: float, width_px: float) -> Mask:
    return np.asarray((np.abs(along) < length_px / 2) & (np.abs(across) < width_px / 2))


def road(canvas: Canvas, *, width_px: float, angle: float | None = None) -> None:
    """A road, lane or causeway; straight along `angle` (radians) when there is one."""
    rng = canvas.rng
    if angle is None:
        line = course(canvas, canvas.between(0, 12))
    else:
        row, column = canvas.point(canvas.size * 0.1)
        right, down = math.cos(angle) * 2 * canvas.size, math.sin(angle) * 2 * canvas.size
        line = [(column - right, row - down), (column + right, row + down)]
    mask = ribbon(canvas.size, line, width_px)
    if int(np.count_nonzero(mask)) < canvas.size:
        return
    if canvas.chance(0.4):
        verge = ribbon(canvas.size, line, width_px + canvas.between(2, 6))
        canvas.paint(verge, pick(rng, palette.GRASS + palette.SOIL), 3.0)
        canvas.disown(verge)
    canvas.paint(mask, pick(rng, palette.ASPHALT + palette.GRAVEL), rng.uniform(1, 4))
    if width_px > canvas.px(5) and canvas.chance(0.5):
        canvas.lift(ribbon(canvas.size, line, 1), rng.uniform(25, 70))
    if width_px < canvas.px(THIN_ROAD_PX):
        canvas.pass_over("road", mask)
    else:
        canvas.claim("road", mask, gap_px=2)


def building(canvas: Canvas, *, length_px: float, angle: float, gap_px: float = 3.0) -> bool:
    """A house or hall with roof and shadow; False where there was no room for it."""
    rng = canvas.rng
    width = length_px * float(rng.uniform(0.45, 1.0))
    for _ in range(_TRIES):
        along, across = canvas.frame(angle, *canvas.inner_point(length_px / 2))
        mask = _box(along, across, length_px, width)
        if canvas.chance(0.25):
            mask |= _box(along - length_px * 0.3, across - width * 0.45, length_px * 0.4, width * 0.7)
        if canvas.is_free(mask):
            break
    else:
        return False
    canvas.shade(mask, reach=float(rng.uniform(0.5, 1.6)))
    canvas.paint(mask, pick(rng, palette.ROOF), rng.uniform(1, 5))
    lit = mask & (across > 0) if canvas.chance(0.65) else mask & (np.abs(across) < width * 0.2)
    canvas.scale(lit, rng.uniform(0.7, 1.15))
    if canvas.chance(0.25):
        canvas.blend(mask * np.clip(canvas.noise(4) * 0.5, 0, 0.7), pick(rng, ((128, 82, 60), (90, 84, 80))))
    if canvas.chance(0.3):
        canvas.lift(mask & _box(along - length_px * 0.2, across + width * 0.15, 4, 3), 40)
    canvas.claim("building", mask, gap_px=gap_px)
    return True


def sports_field(canvas: Canvas) -> None:
    """A pitch, a running track around one, a hard court or a ball field."""
    rng = canvas.rng
    length = canvas.between(40, 84)
    for _ in range(_TRIES):
        along, across = canvas.frame(float(rng.uniform(0, math.pi)), *canvas.inner_point(length / 2))
        kind = int(rng.integers(4))
        if kind == 0:
            mask = _track(along, across, length, length * 0.55)
        elif kind == 3:
            mask = (along > 0) & (across > 0) & (along * along + across * across < (length * 0.75) ** 2)
        else:
            mask = _box(along, across, length, length * 0.6)
        if canvas.is_free(mask, 0.02):
            break
    else:
        return
    turf = pick(rng, palette.TURF)
    if kind == 0:
        canvas.paint(mask, pick(rng, palette.TRACK), 1.5)
        canvas.paint(_track(along, across, length * 0.8, length * 0.35), turf, 2.0, 2)
        inner = _box(along, across, length * 0.5, length * 0.33)
        _line_marks(canvas, along, across, inner, length * 0.5, length * 0.33)
    elif kind == 3:
        canvas.paint(mask, turf, 2.5, 3)
        diamond = mask & (along + across < length * 0.55)
        canvas.paint(diamond, pick(rng, palette.SOIL), 2.0)
        canvas.paint(diamond & _box(along - length * 0.17, across - length * 0.17, length * 0.2, length * 0.2), turf)
    else:
        surface = turf if kind == 1 else pick(rng, (*palette.TRACK, (60, 104, 120), (70, 120, 100)))
        canvas.paint(mask, surface, 2.0, 2)
        if kind == 1 and canvas.chance(0.5):
            canvas.scale(mask & (np.sin(along * np.float32(2 * math.pi / (length * 0.16))) > 0), 1.07)
        _line_marks(canvas, along, across, mask, length, length * 0.6)
    canvas.claim("sports field", mask, gap_px=4)


def _track(along: Field, across: Field, length_px: float, width_px: float) -> Mask:
    straight = np.clip(np.abs(along) - (length_px - width_px) / 2, 0, None)
    return np.asarray(straight * straight + across * across < (width_px / 2) ** 2)


def _line_marks(canvas: Canvas, along: Field, across: Field, mask: Mask, length: float, width: float) -> None:
    thick = max(0.7, canvas.px(0.8))
    border = mask & ~_box(along, across, length - 3 * thick, width - 3 * thick)
    centre = mask & (np.abs(along) < thick)
    distance = np.sqrt(along * along + across * across)
    circle = mask & (np.abs(distance - width * 0.15) < thick)
    ends = mask & (np.abs(np.abs(along) - length * 0.36) < thick) & (np.abs(across) < width * 0.3)
    canvas.bands[:, border | centre | circle | ends] = np.float32(canvas.rng.uniform(190, 235))


def runway(canvas: Canvas) -> None:
    """A landing strip with its markings, often running off the tile."""
    rng = canvas.rng
    length, width = canvas.between(110, 230), canvas.between(12, 24)
    for _ in range(_TRIES):
        along, across = canvas.frame(float(rng.uniform(0, math.pi)), *canvas.point(canvas.size * 0.22))
        mask = _box(along, across, length, width)
        if canvas.is_free(mask, 0.05):
            break
    else:
        return
    if canvas.chance(0.6):
        strip = _box(along, across, length + canvas.px(16), width + canvas.between(8, 30))
        canvas.paint(strip, pick(rng, palette.GRASS), 3.0, 3)
        canvas.disown(strip)
    canvas.paint(mask, pick(rng, palette.ASPHALT, 5.0), rng.uniform(1, 3), 2)
    if canvas.chance(0.85):
        dash = canvas.px(14)
        white = np.float32(rng.uniform(170, 225))
        dashes = (np.abs(across) < max(0.7, width * 0.05)) & (np.mod(along, dash) < dash / 2)
        canvas.bands[:, mask & dashes & (np.abs(along) < length / 2 - canvas.px(14))] = white
        bars = (np.abs(np.abs(along) - length / 2 + canvas.px(7)) < canvas.px(4)) & (
            np.mod(across, width / 4) < width / 8
        )
        canvas.bands[:, mask & bars] = white
    canvas.claim("runway", mask, gap_px=5)


def solar_farm(canvas: Canvas) -> None:
    """A block of panel rows; one instance, gaps between the rows included."""
    rng = canvas.rng
    length, width = canvas.between(34, 80), canvas.between(26, 56)
    for _ in range(_TRIES):
        angle = float(rng.choice((0.0, rng.normal(0, 0.15), rng.uniform(0, math.pi))))
        along, across = canvas.frame(angle, *canvas.inner_point(length / 2))
        mask = _box(along, across, length, width)
        if canvas.chance(0.4):
            mask &= ~_box(along - length / 2, across - width / 2, length * 0.6, width * 0.6)
        if canvas.is_free(mask, 0.03):
            break
    else:
        return
    canvas.paint(mask, pick(rng, palette.GRASS + palette.SOIL + palette.SALT), 3.0)
    period = canvas.between(2.6, 9)
    rows = np.mod(across, period) < period * rng.uniform(0.5, 0.75)
    aisles = np.mod(along, canvas.between(24, 60)) > canvas.px(1.6)
    panels = mask & rows & aisles
    canvas.paint(panels, pick(rng, palette.PANEL, 5.0), 1.5)
    if canvas.chance(0.2):
        canvas.lift(panels, rng.uniform(15, 60))
    canvas.claim("solar farm", mask, gap_px=5)


def ship(canvas: Canvas) -> None:
    """A ship or boat on the water there is, with deck and perhaps a wake."""
    rng = canvas.rng
    water = canvas.shows(WATER)
    rows, columns = np.nonzero(water)
    if len(rows) < canvas.size * 4:
        return
    length = canvas.between(18, 52)
    width = length * float(rng.uniform(0.26, 0.4)) + canvas.px(1)
    for _ in range(_TRIES):
        at = int(rng.integers(len(rows)))
        along, across = canvas.frame(float(rng.uniform(0, 2 * math.pi)), float(rows[at]), float(columns[at]))
        taper = np.clip((length / 2 - along) / (length * 0.28), 0, 1)
        mask = (np.abs(along) < length / 2) & (np.abs(across) < taper * np.float32(width / 2))
        area = int(np.count_nonzero(mask))
        if area >= 40 and int(np.count_nonzero(mask & water)) == area:
            break
    else:
        return
    if canvas.chance(0.4):
        behind = -along - length * 0.45
        opening = np.abs(np.abs(across) - behind * np.float32(0.22)) < canvas.px(1.2)
        fading = np.clip(1 - behind / np.float32(length * 2.5), 0, 1) * (behind > 0) * water
        canvas.blend(fading * opening * np.float32(0.7), np.full(3, 215, np.float32))
    canvas.paint(mask, pick(rng, palette.HULL), 2.0)
    deck = mask & _box(along + length * 0.22, across, length * 0.26, width * 0.7)
    canvas.lift(deck, float(rng.choice((-45, 40))))
    if canvas.chance(0.4):
        cargo = mask & _box(along - length * 0.08, across, length * 0.4, width * 0.6)
        canvas.paint(cargo, pick(rng, palette.TRACK + palette.ROOF), 6.0, 1)
    canvas.claim("ship", mask)
