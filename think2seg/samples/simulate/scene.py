"""The grammar of scenes: which ground, which objects, in which order they cover each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from think2seg.errors import ConfigError
from think2seg.samples.labelled import LabelledImage
from think2seg.samples.simulate import built, ground, palette, vegetation, water
from think2seg.samples.simulate.canvas import REFERENCE_PX, Canvas
from think2seg.samples.simulate.looks import AERIAL, DRONE, REGIONAL, SATELLITE, Look, develop
from think2seg.samples.simulate.texture import BANK_SIDE

HELD_OUT_FROM = 2**31
"""Seeds from here on draw the held-out scenes."""
SIZES_PX = (64, BANK_SIDE * 2 // 3)


def simulate(seed: int, *, size_px: int = REFERENCE_PX, plain: bool = False) -> LabelledImage:
    """Draw a scene with the exact masks of its instances.

    Parameters
    ----------
    seed
        Non-negative; the same seed gives the same scene on every machine. Seeds from 2**31 on are held out.
    size_px
        Side of the square scene in pixels, 64 to 512; objects grow with it.
    plain
        Only scenes of a few objects that stand apart: the easy ones, to begin with.

    Returns
    -------
    LabelledImage
        At most 8 instances of a concept and 16 in all. A scene that shows more of a concept lists none of it and
        leaves it out of `labelled`.

    Raises
    ------
    ConfigError
        For a negative seed or a size that cannot be drawn.
    """
    low, high = SIZES_PX
    if seed < 0 or not low <= size_px <= high:
        raise ConfigError(
            f"simulate(seed={seed}, size_px={size_px})",
            f"seeds of 0 or more, sizes of {low} to {high} px",
            "Draw a scene within these bounds and resize it.",
        )
    rng = np.random.default_rng(seed)
    draw, look = _choose(rng, _GRAMMAR[:1] if plain else _GRAMMAR)
    canvas = Canvas(
        rng=rng,
        size=size_px,
        gsd_m=float(rng.uniform(*look.gsd_m)),
        sun_angle=float(rng.uniform(0, 2 * math.pi)),
        shadow_px=float(np.clip(rng.uniform(1.5, 6) / max(look.gsd_m[0], 0.5), 1, 9)) * size_px / REFERENCE_PX,
    )
    draw(canvas)
    image, hidden = develop(canvas, look)
    if hidden is not None:
        canvas.disown(hidden)
    instances, labelled, slivers = canvas.instances()
    ignore = slivers if hidden is None else slivers | hidden
    return LabelledImage(
        image=image,
        instances=instances,
        labelled=labelled,
        gsd_m=canvas.gsd_m * REFERENCE_PX / size_px,
        source="simulated",
        site=f"simulated/{seed}",
        split="held_out" if seed >= HELD_OUT_FROM else "train",
        licence="MIT",
        ignore=ignore if ignore.any() else None,
    )


def _wetland(canvas: Canvas) -> None:
    """Prairie with potholes: large parcels, lakes of every size and colour, causeways."""
    rng = canvas.rng
    angle = 0.0
    if canvas.chance(0.65):
        angle = ground.parcels(
            canvas,
            parcel_px=canvas.between(60, 130),
            count=int(rng.integers(2, 7)),
            crop_share=float(rng.uniform(0.85, 1)),
        )
    else:
        ground.open_ground(canvas, palette.GRASS + palette.MARSH if canvas.chance(0.7) else palette.SOIL)
    for _ in range(rng.integers(0, 3)):
        ground.damp_patch(canvas)
    kind = rng.choice(5, p=(0.45, 0.2, 0.08, 0.2, 0.07))
    if kind == 0:
        water.potholes(canvas, cover=float(rng.uniform(0.06, 0.55)))
    elif kind == 1:
        water.shoreline(canvas)
    elif kind == 2:
        water.open_water(canvas)
    if kind in (1, 3):
        for _ in range(rng.integers(1, 5)):
            water.round_lake(canvas, radius_px=canvas.between(5, 40))
    if canvas.chance(0.3):
        vegetation.forest_patch(canvas)
    if canvas.chance(0.35):
        built.road(canvas, width_px=canvas.between(2.5, 8), angle=angle + float(rng.choice((0, math.pi / 2))))


def _farmland(canvas: Canvas) -> None:
    """Fields with woods, ponds, lanes and a river."""
    rng = canvas.rng
    angle = ground.parcels(
        canvas, parcel_px=canvas.between(36, 110), count=int(rng.integers(2, 10)), crop_share=float(rng.uniform(0.9, 1))
    )
    _some(canvas, ((0.15, ground.pivot), (0.35, ground.damp_patch), (0.3, water.river), (0.2, vegetation.burnt_area)))
    for _ in range(rng.choice(3, p=(0.65, 0.2, 0.15))):
        water.round_lake(canvas, radius_px=canvas.between(6, 34))
    for _ in range(rng.choice(4, p=(0.45, 0.3, 0.15, 0.1))):
        vegetation.forest_patch(canvas)
    _some(canvas, ((0.2, built.solar_farm), (0.12, built.runway), (0.2, vegetation.trees)))
    if canvas.chance(0.4):
        built.road(canvas, width_px=canvas.between(3, 10), angle=angle + float(rng.choice((0, math.pi / 2))))
    if canvas.gsd_m < 2.5 and canvas.chance(0.4):
        _houses(canvas, int(rng.integers(1, 4)))


def _forest(canvas: Canvas) -> None:
    """Forest with clearings, burn scars, lakes and tracks."""
    rng = canvas.rng
    vegetation.forest_backdrop(canvas)
    if canvas.chance(0.25):
        water.potholes(canvas, cover=float(rng.uniform(0.05, 0.4)))
    _some(canvas, ((0.25, water.river), (0.3, vegetation.burnt_area)))
    for _ in range(rng.choice(3, p=(0.7, 0.2, 0.1))):
        water.round_lake(canvas, radius_px=canvas.between(8, 36))
    if canvas.chance(0.35):
        built.road(canvas, width_px=canvas.between(3, 9))
    small = canvas.chance(0.35)
    few_or_many = (0.1, 0.05, 0.1, 0.15, 0.2, 0.2, 0.2) if small else (0.16, 0.22, 0.24, 0.16, 0.12, 0.06, 0.04)
    for _ in range(rng.choice(7, p=few_or_many) + (rng.integers(0, 4) if small else 0)):
        vegetation.clearing(canvas, radius_px=canvas.between(7, 14) if small else canvas.between(9, 42))
    _some(canvas, ((0.06, built.solar_farm), (0.08, built.runway)))


def _town(canvas: Canvas) -> None:
    """Houses, streets, sports fields, trees."""
    rng = canvas.rng
    ground.open_ground(canvas, (palette.GRASS, palette.SOIL, palette.GRAVEL)[rng.choice(3, p=(0.5, 0.35, 0.15))])
    if canvas.chance(0.12):
        water.river(canvas)
    if canvas.chance(0.2):
        water.round_lake(canvas, radius_px=canvas.between(8, 40))
    angle = float(rng.uniform(0, math.pi))
    for _ in range(rng.choice(3, p=(0.3, 0.4, 0.3))):
        turned = angle + float(rng.choice((0, math.pi / 2))) if canvas.chance(0.7) else None
        built.road(canvas, width_px=canvas.between(5, 14), angle=turned)
    for _ in range(rng.choice(3, p=(0.45, 0.4, 0.15))):
        built.sports_field(canvas)
    if canvas.chance(0.12):
        built.solar_farm(canvas)
    if canvas.chance(0.8):
        _houses(canvas, int(rng.integers(1, 11)))
    if canvas.chance(0.4):
        vegetation.trees(canvas)


def _harbour(canvas: Canvas) -> None:
    """Wide water with ships."""
    rng = canvas.rng
    ground.open_ground(canvas, (palette.GRASS, palette.SOIL, palette.SAND, palette.GRAVEL)[rng.integers(4)])
    kind = rng.integers(4)
    if kind == 0:
        water.open_water(canvas)
    elif kind == 1:
        water.shoreline(canvas)
    elif kind == 2:
        water.round_lake(canvas, radius_px=canvas.between(60, 95))
    else:
        water.river(canvas)
        water.shoreline(canvas)
    for _ in range(rng.choice(5, p=(0.08, 0.3, 0.26, 0.2, 0.16))):
        built.ship(canvas)
    if canvas.chance(0.4):
        built.road(canvas, width_px=canvas.between(5, 10))
    if canvas.chance(0.4):
        _houses(canvas, int(rng.integers(1, 5)))


def _open(canvas: Canvas) -> None:
    """Open country, any mixture."""
    rng = canvas.rng
    grounds = (palette.GRASS, palette.SOIL, palette.SAND, palette.MARSH, palette.SNOW)
    ground.open_ground(canvas, grounds[rng.choice(5, p=(0.45, 0.28, 0.1, 0.1, 0.07))])
    _some(canvas, ((0.2, ground.damp_patch), (0.2, water.river), (0.35, vegetation.burnt_area), (0.4, built.runway)))
    for _ in range(rng.choice(4, p=(0.55, 0.25, 0.12, 0.08))):
        water.round_lake(canvas, radius_px=canvas.between(8, 46))
    for _ in range(rng.choice(4, p=(0.5, 0.27, 0.15, 0.08))):
        vegetation.forest_patch(canvas)
    for _ in range(rng.choice(3, p=(0.65, 0.2, 0.15))):
        vegetation.clearing(canvas, radius_px=canvas.between(9, 40))
    _some(canvas, ((0.35, built.solar_farm), (0.2, built.sports_field), (0.15, vegetation.trees)))
    if canvas.chance(0.3):
        built.road(canvas, width_px=canvas.between(4, 11))
    if canvas.chance(0.2):
        built.ship(canvas)


_CALM = 0.7
"""Share of plain scenes that are seen at their best, too."""


def _plain(canvas: Canvas) -> None:
    """A few objects that stand apart on even ground: from these the crowded scenes are learnt several times faster."""
    rng = canvas.rng
    canvas.calm = canvas.chance(_CALM)
    wooded = canvas.chance(0.28)
    if wooded:
        vegetation.forest_backdrop(canvas, listed=False)
    else:
        ground.open_ground(canvas, (palette.GRASS, palette.SOIL, palette.SAND)[rng.choice(3, p=(0.6, 0.28, 0.12))])
    kinds = (*_ISOLATED, _clearings, _clearings, _clearings) if wooded else (*_ISOLATED, vegetation.forest_patch)
    for index in rng.choice(len(kinds), int(rng.integers(1, 6))):
        kinds[index](canvas)


def _lake(canvas: Canvas) -> None:
    water.round_lake(canvas, radius_px=canvas.between(10, 46))


def _lake_with_ships(canvas: Canvas) -> None:
    water.round_lake(canvas, radius_px=canvas.between(40, 80))
    for _ in range(canvas.rng.integers(1, 4)):
        built.ship(canvas)


def _lane(canvas: Canvas) -> None:
    built.road(canvas, width_px=canvas.between(5, 13))


def _clearings(canvas: Canvas) -> None:
    for _ in range(canvas.rng.integers(1, 4)):
        vegetation.clearing(canvas, radius_px=canvas.between(12, 36))


def _few_houses(canvas: Canvas) -> None:
    _houses(canvas, int(canvas.rng.integers(1, 4)))


_ISOLATED: tuple[Callable[[Canvas], None], ...] = (
    _lake, _lake, _lake_with_ships, water.river, _lane, _few_houses, built.sports_field, built.runway,
    built.solar_farm, vegetation.burnt_area,
)  # fmt: skip


def _houses(canvas: Canvas, count: int) -> None:
    """Houses more or less along one direction; seen from close by they are large and stand wall to wall."""
    angle = float(canvas.rng.uniform(0, math.pi))
    close = canvas.gsd_m < DRONE.gsd_m[1] and canvas.chance(0.4)
    for _ in range(count):
        turned = angle + float(canvas.rng.choice((0, math.pi / 2))) + float(canvas.rng.normal(0, 0.06))
        length = canvas.between(30, 100) if close else canvas.between(15, 48)
        built.building(canvas, length_px=length, angle=turned, gap_px=1.0 if close else 3.0)


def _some(canvas: Canvas, objects: Sequence[tuple[float, Callable[[Canvas], None]]]) -> None:
    for probability, draw in objects:
        if canvas.chance(probability):
            draw(canvas)


type _Kind = tuple[Callable[[Canvas], None], float, tuple[Look, ...]]

_GRAMMAR: tuple[_Kind, ...] = (
    (_plain, 0.7, (DRONE, AERIAL, AERIAL, REGIONAL)),
    (_wetland, 0.1, (REGIONAL, REGIONAL, AERIAL, SATELLITE)),
    (_farmland, 0.06, (AERIAL, REGIONAL, SATELLITE)),
    (_forest, 0.04, (AERIAL, REGIONAL, SATELLITE, SATELLITE)),
    (_town, 0.05, (DRONE, DRONE, AERIAL)),
    (_harbour, 0.025, (DRONE, AERIAL, REGIONAL)),
    (_open, 0.025, (AERIAL, REGIONAL, SATELLITE)),
)


def _choose(rng: np.random.Generator, kinds: tuple[_Kind, ...]) -> tuple[Callable[[Canvas], None], Look]:
    shares = np.array([share for _, share, _ in kinds])
    draw, _, looks = kinds[rng.choice(len(kinds), p=shares / shares.sum())]
    return draw, looks[rng.integers(len(looks))]
