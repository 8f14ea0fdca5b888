"""Lakes, ponds, rivers and what floats on them."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image as PilImage
from PIL import ImageDraw

from think2seg.samples.labelled import Mask
from think2seg.samples.simulate import palette, texture
from think2seg.samples.simulate.canvas import Canvas
from think2seg.samples.simulate.palette import pick
from think2seg.samples.simulate.texture import Field

_KINDS = (palette.DARK_WATER, palette.BLUE_WATER, palette.GREEN_WATER, palette.BROWN_WATER, palette.GREY_WATER)
WATER = frozenset({"lake", "river"})


def water_colour(canvas: Canvas) -> Field:
    """A colour of water; now and then one that is hard to tell from the ground nearby."""
    if canvas.calm:
        return pick(canvas.rng, palette.DARK_WATER if canvas.chance(0.5) else palette.BLUE_WATER)
    if canvas.chance(0.02):
        row, column = (int(value) for value in canvas.point())
        return np.asarray(canvas.bands[:, row, column] * np.float32(canvas.rng.uniform(0.75, 1.0)) + np.float32(2))
    kind = canvas.rng.choice(len(_KINDS), p=(0.36, 0.3, 0.18, 0.08, 0.08))
    return pick(canvas.rng, _KINDS[kind])


def fill_water(canvas: Canvas, mask: Mask, depth: Field, colour: Field) -> None:
    """Paint water: smooth, with wind streaks, a shallow or weedy fringe and a gradient across.

    `depth` is (y, x), 0 at the shore and growing inwards, about 1 well inside.
    """
    rng = canvas.rng
    surface = np.repeat(colour[:, None], int(np.count_nonzero(mask)), axis=1)

    light = np.float32(rng.uniform(0.3, 2.2)) * canvas.noise(int(rng.integers(1, 4)))
    if canvas.calm:
        canvas.bands[:, mask] = surface + light[mask]
        return

    def mix(weight: Field, other: Field) -> None:
        surface[:] += weight[mask] * (other[:, None] - surface)

    if canvas.chance(0.12):
        along, _ = canvas.frame(float(rng.uniform(0, 2 * math.pi)), *canvas.point())
        slope = np.clip(0.5 + along / np.float32(canvas.between(120, 420)), 0, 1)
        mix(slope * np.float32(rng.uniform(0.3, 1)), pick(rng, _KINDS[rng.integers(len(_KINDS))]))
    if canvas.chance(0.3):
        fringe = np.clip(1 - depth / np.float32(rng.uniform(0.1, 0.3)), 0, 1)
        shallow = pick(rng, palette.BROWN_WATER + palette.GREEN_WATER + palette.DARK_WATER)
        mix(fringe * np.float32(rng.uniform(0.2, 0.8)), shallow)
    light += np.float32(rng.uniform(0.0, 3.0)) * canvas.noise(6)
    if canvas.chance(0.4):
        strength = np.float32(rng.uniform(0.6, 3))
        light += strength * texture.streaks(rng, canvas.size, float(rng.uniform(0, math.pi)))
    if canvas.chance(0.08):
        mix(np.clip(canvas.noise(4) + canvas.noise(2) - 1.4, 0, 1), pick(rng, palette.MARSH))
    lit = light[mask]
    for band, levels in zip(canvas.bands, surface, strict=True):
        band[mask] = levels + lit


def _shores(canvas: Canvas, height: Field, level: float) -> None:
    """Rings around water where the ground is higher than `level`: marsh, then salt or mud, then a dark rim."""
    if canvas.calm:
        return
    rng = canvas.rng
    wobble = np.float32(0.3) * canvas.noise(4)
    ground = ~canvas.shows(WATER)
    if canvas.chance(0.35):
        ring = np.clip(1.5 - (height - level) / (np.float32(rng.uniform(0.1, 0.35)) * (1 + wobble)), 0, 1)
        canvas.blend(ring * ground * np.float32(rng.uniform(0.4, 1)), pick(rng, palette.MARSH))
    if canvas.chance(0.4):
        ring = np.clip(1.5 - (height - level) / (np.float32(rng.uniform(0.04, 0.25)) * (1 + wobble)), 0, 1)
        pale = palette.SALT if canvas.chance(0.7) else palette.SAND + palette.SOIL
        canvas.blend(ring * ground * np.float32(rng.uniform(0.5, 1)), pick(rng, pale))
    if canvas.chance(0.3):
        ring = np.clip(1.5 - (height - level) / np.float32(rng.uniform(0.02, 0.06)), 0, 1)
        canvas.blend(ring * ground * np.float32(rng.uniform(0.4, 0.9)), pick(rng, palette.DARK_WATER))


def potholes(canvas: Canvas, *, cover: float) -> None:
    """Lakes and ponds that fill the hollows of a terrain: finger-like shores, islands, many off the tile.

    `cover` is the share of the canvas that lies under water, 0 to 1.
    """
    rng = canvas.rng
    height = texture.terrain(
        rng, canvas.size, warp_px=canvas.between(0, 16), roughness=float(rng.choice((0.05, 0.15, 0.35)))
    )
    level = float(np.quantile(height[::4, ::4], cover))
    mask = height < level
    canvas.claim("lake", mask, gap_px=2)
    _shores(canvas, height, level)
    fill_water(canvas, mask, level - height, water_colour(canvas))
    if canvas.chance(0.3):
        algae = np.clip(canvas.noise(7) + np.float32(0.3) * canvas.noise(5), 0, 1) * mask
        canvas.blend(algae * np.float32(rng.uniform(0.3, 0.8)), pick(rng, palette.GREEN_WATER))


def round_lake(canvas: Canvas, *, radius_px: float) -> bool:
    """One lake or pond of compact, rounded outline; False where there was no room for it."""
    rng = canvas.rng
    row, column = canvas.inner_point(radius_px)
    along, across = canvas.frame(float(rng.uniform(0, math.pi)), row, column)
    stretch = np.float32(rng.uniform(0.65, 1.0))
    distance = np.sqrt(along * along * stretch + across * across / stretch) / np.float32(radius_px)
    height = distance - 1 + np.float32(rng.uniform(0.04, 0.18)) * canvas.noise(5 if radius_px < canvas.px(30) else 6)
    mask = height < 0
    if not canvas.is_free(mask, 0.03):
        return False
    canvas.claim("lake", mask, gap_px=3)
    _shores(canvas, height, 0.0)
    fill_water(canvas, mask, -height, water_colour(canvas))
    return True


def open_water(canvas: Canvas) -> None:
    """The whole tile, or nearly all of it, inside one lake."""
    everything = np.ones((canvas.size, canvas.size), np.bool_)
    canvas.claim("lake", everything)
    fill_water(canvas, everything, np.ones(everything.shape, np.float32), water_colour(canvas))


def shoreline(canvas: Canvas) -> None:
    """A large lake that takes one side of the tile."""
    rng = canvas.rng
    along, _ = canvas.frame(float(rng.uniform(0, 2 * math.pi)), *canvas.point(canvas.size * 0.25))
    height = along / np.float32(canvas.px(60)) + np.float32(rng.uniform(0.05, 0.5)) * canvas.noise(6)
    height += np.float32(rng.uniform(0, 0.1)) * canvas.noise(4)
    mask = height < 0
    canvas.claim("lake", mask, gap_px=3)
    _shores(canvas, height, 0.0)
    fill_water(canvas, mask, -height, water_colour(canvas))


def course(canvas: Canvas, bend_px: float) -> list[tuple[float, float]]:
    """A winding line (x, y) across the canvas from one side to another, ending outside of it."""
    rng = canvas.rng
    angle = float(rng.choice((0, 0.5, rng.uniform(0, 1)), p=(0.2, 0.2, 0.6))) * math.pi + float(rng.normal(0, 0.04))
    row, column = canvas.point(canvas.size * 0.12)
    step = np.linspace(-1.1, 1.1, 56)
    offset = sum(
        rng.normal() * np.sin(2 * math.pi * wave * step + rng.uniform(0, 6.3)) / wave**0.8 for wave in (0.35, 0.8, 1.7)
    )
    along, across = step * canvas.size, bend_px * np.asarray(offset)
    across -= across[len(step) // 2]
    x = column + along * math.cos(angle) - across * math.sin(angle)
    y = row + along * math.sin(angle) + across * math.cos(angle)
    margin = 0.3 * canvas.size
    near = np.flatnonzero(
        (np.abs(x - canvas.size / 2) < canvas.size / 2 + margin)
        & (np.abs(y - canvas.size / 2) < canvas.size / 2 + margin)
    )
    visible = slice(max(near[0] - 1, 0), near[-1] + 2)
    return list(zip(x[visible].tolist(), y[visible].tolist(), strict=True))


def ribbon(size: int, line: list[tuple[float, float]], width_px: float) -> Mask:
    """Pixels of a line of that width, (y, x) bool."""
    picture = PilImage.new("L", (size, size))
    width = max(1, round(width_px))
    ImageDraw.Draw(picture).line(line, fill=1, width=width, joint="curve" if width > 6 else None)
    return np.asarray(picture).astype(np.bool_)


def river(canvas: Canvas) -> None:
    """A river or stream across the tile, with its banks."""
    rng = canvas.rng
    line = course(canvas, canvas.between(4, 34))
    width = canvas.between(7, 30)
    wobble = canvas.noise(6)
    wide, narrow = ribbon(canvas.size, line, width * 1.12), ribbon(canvas.size, line, width * 0.86)
    mask = np.where(wobble > 0, wide, narrow) if canvas.chance(0.7) else wide
    if not canvas.is_free(mask, 0.25):
        return
    if canvas.chance(0.6):
        bank = ribbon(canvas.size, line, width + canvas.between(3, 16)) & (canvas.noise(4) > rng.normal(-0.6, 0.5))
        kinds = (palette.MARSH, palette.SOIL, palette.SAND, palette.CANOPY)
        bank &= ~canvas.shows(WATER)
        canvas.paint(bank, pick(rng, kinds[rng.integers(len(kinds))]), rng.uniform(2, 8), 2)
        canvas.disown(bank)
    canvas.claim("river", mask, gap_px=3)
    fill_water(canvas, mask, ribbon(canvas.size, line, width * 0.6).astype(np.float32), water_colour(canvas))
