"""Forest, its clearings, and what fire left."""

from __future__ import annotations

import math

import numpy as np

from think2seg.samples.labelled import Mask
from think2seg.samples.simulate import palette, texture
from think2seg.samples.simulate.canvas import Canvas
from think2seg.samples.simulate.palette import pick
from think2seg.samples.simulate.texture import Field
from think2seg.samples.simulate.water import WATER


def _crowns(canvas: Canvas, mask: Mask, colour: Field) -> None:
    """Paint canopy: sun-lit crowns as large as they look at this sampling distance."""
    rng = canvas.rng
    crown = int(np.clip(round(math.log2(8.0 / canvas.gsd_m)) + 1, 1, 5)) if canvas.gsd_m < 8 else 1
    light = np.float32(rng.uniform(6, 15) / crown**0.3) * texture.relief(rng, canvas.size, crown)
    light += np.float32(rng.uniform(1, 7)) * canvas.noise(int(rng.integers(1, 3)))
    light += np.float32(rng.uniform(1, 7)) * canvas.noise(int(rng.integers(4, 7)))
    lit = light[mask]
    for band, level, tint in zip(canvas.bands, colour, (1.0, 1.1, 0.8), strict=True):
        band[mask] = level + lit * np.float32(tint)


def _canopy_colour(canvas: Canvas) -> Field:
    return pick(canvas.rng, palette.AUTUMN_CANOPY if canvas.chance(0.15) else palette.CANOPY, 5.0)


def forest_backdrop(canvas: Canvas, *, listed: bool = True) -> None:
    """Forest all over; its instances, where they are `listed`, are what later paint leaves of it."""
    everything = np.ones((canvas.size, canvas.size), np.bool_)
    _crowns(canvas, everything, _canopy_colour(canvas))
    if canvas.chance(0.4) and not canvas.calm:
        stands = canvas.noise(6) > canvas.rng.normal(0.5, 0.5)
        _crowns(canvas, stands, _canopy_colour(canvas))
    if listed:
        canvas.claim("forest", everything)
    else:
        canvas.pass_over("forest", everything)
    canvas.taken[:] = False


def _patch(canvas: Canvas, radius_px: float, *, ragged: float, straight: float) -> tuple[Mask, Field]:
    """A rounded or straight-edged patch: its mask and a height that is 0 on its edge, negative inside."""
    rng = canvas.rng
    row, column = canvas.inner_point(radius_px)
    along, across = canvas.frame(float(rng.uniform(0, math.pi)), row, column)
    stretch = float(rng.uniform(0.75, 1.35))
    along, across = np.abs(along / np.float32(radius_px * stretch)), np.abs(across / np.float32(radius_px / stretch))
    if canvas.chance(straight):
        height = np.maximum(along, across) - 1 + np.float32(ragged * 0.25) * canvas.noise(3)
    else:
        height = np.sqrt(along * along + across * across) - 1 + np.float32(rng.uniform(0.1, 0.35)) * canvas.noise(6)
        height += np.float32(ragged) * canvas.noise(4)
    return height < 0, height.astype(np.float32)


def forest_patch(canvas: Canvas) -> None:
    """A wood between fields or in open ground."""
    radius = canvas.between(18, 48)
    mask, _ = _patch(canvas, radius, ragged=float(canvas.rng.uniform(0.03, 0.16)), straight=0.35)
    mask &= ~canvas.shows(WATER)
    if not canvas.is_free(mask, 0.08):
        return
    canvas.shade(mask, reach=1.0)
    _crowns(canvas, mask, _canopy_colour(canvas))
    canvas.claim("forest", mask, gap_px=4)


def trees(canvas: Canvas) -> None:
    """Single trees and hedges, too few to be a forest."""
    crowns = canvas.noise(3) + 0.7 * canvas.noise(6) > canvas.rng.uniform(2.4, 3.0)
    crowns &= ~canvas.taken
    canvas.shade(crowns, reach=0.7)
    _crowns(canvas, crowns, _canopy_colour(canvas))
    canvas.disown(crowns)


def clearing(canvas: Canvas, *, radius_px: float) -> None:
    """A patch where trees were felled: bare, littered or greening, with the shadow of its edge."""
    rng = canvas.rng
    mask, _ = _patch(canvas, radius_px, ragged=float(rng.uniform(0.02, 0.14)), straight=0.55)
    if not canvas.is_free(mask, 0.02):
        return
    kinds = (palette.SOIL, palette.SAND, palette.GRASS, palette.SALT, ((132, 140, 96), (150, 132, 104)))
    kind = kinds[rng.choice(len(kinds), p=(0.4, 0.25, 0.05, 0.15, 0.15))]
    forest = canvas.shows(frozenset({"forest"}))
    canvas.paint(mask, pick(rng, kind), rng.uniform(3, 10), int(rng.integers(1, 5)))
    if canvas.chance(0.3):
        along, _across = canvas.frame(float(rng.uniform(0, math.pi)), 0.0, 0.0)
        rows = np.float32(rng.uniform(3, 10)) * np.sin(along * np.float32(2 * math.pi / rng.uniform(4, 10)))
        canvas.lighten(rows * mask)
    edge = mask & ~texture.shift(
        mask,
        round(math.sin(canvas.sun_angle) * canvas.shadow_px),
        round(math.cos(canvas.sun_angle) * canvas.shadow_px),
    )
    if np.count_nonzero(forest & texture.grow(mask, 2)) > np.count_nonzero(mask) // 4:
        canvas.scale(edge, rng.uniform(0.45, 0.8))
    canvas.claim("clearing", mask, gap_px=4)


def burnt_area(canvas: Canvas) -> None:
    """A burn scar: charred, ragged, paler or reddish where the fire was weak, with unburnt islands."""
    rng = canvas.rng
    mask, height = _patch(canvas, canvas.between(20, 48), ragged=float(rng.uniform(0.05, 0.18)), straight=0.0)
    mask &= ~canvas.shows(WATER)
    if not canvas.is_free(mask, 0.05):
        return
    base = pick(rng, palette.CHAR, 5.0)
    weak = pick(rng, ((96, 70, 54), (110, 84, 64), (84, 66, 58)))
    severity = np.clip(0.8 + np.float32(0.3) * canvas.noise(4) - np.exp(np.minimum(height, 0) * 6), 0.1, 1)[mask]
    for band, low, high in zip(canvas.bands, weak, base, strict=True):
        band[mask] = low + severity * (high - low)
    canvas.scale(mask, 1 + np.float32(rng.uniform(0.03, 0.12)) * canvas.noise(2)[mask])
    canvas.claim("burnt area", mask, gap_px=4)
