"""Region → GeoBox → blocks → tiles.

A grid is a window on a lattice that is anchored at the origin of its CRS. Every extent is derived from integer lattice
positions with one multiplication, so the same block has bit-for-bit the same geobox in every grid on that lattice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask
from shapely.geometry.base import BaseGeometry

from think2seg.crs import canonical_crs, check_region, metres_per_unit, parse_crs, project, slug, transformer, unit_m
from think2seg.errors import ConfigError

MAX_BLOCKS = 1_000_000
"""Blocks that one grid may have; beyond it planning and the cube's `state` array stop being cheap."""
_EDGE_PX = 0.01
"""A region that reaches over a block's edge by less than this does not touch the next block."""


class Block(NamedTuple):
    """Position of a block in a grid: whole Zarr chunks, owned by exactly one worker."""

    row: int
    col: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One model unit: a core that belongs to one block, and a halo around it."""

    id: str
    """Absolute lattice position, the same in every grid: ``r-8139c760``."""
    block: Block
    y: int
    x: int
    """Upper-left pixel of the core inside its block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The frozen pixel grid of a cube.

    Blocks and tiles lie on lattices anchored at the CRS origin, so that growing a region never moves a tile.

    Raises
    ------
    ConfigError
        From the constructor, when the sizes contradict each other.
    """

    crs: str
    """``EPSG:…`` where there is one, else WKT."""
    resolution: float
    """Pixel size in CRS units (metres, or degrees)."""
    block_px: int
    core_px: int
    """Side of a tile's core; divides `block_px`."""
    halo_px: int
    row0: int
    """Lattice row of the first block: its upper edge is at ``y = -row0 * block_px * resolution``."""
    col0: int
    """Lattice column of the first block: its left edge is at ``x = col0 * block_px * resolution``."""
    rows: int
    cols: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.resolution) and self.resolution > 0):
            raise ConfigError(f"resolution {self.resolution}", "a pixel size above 0, in units of the CRS")
        for name in ("block_px", "core_px", "rows", "cols"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)} of a grid", "a whole number from 1 on")
        if self.halo_px < 0:
            raise ConfigError(f"halo of {self.halo_px} px", "a halo of 0 px or more")
        if self.block_px % self.core_px:
            raise _core_error(self.core_px, self.block_px, self.halo_px, self.resolution, _unit(self.crs))

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels; whole blocks."""
        return self.rows * self.block_px, self.cols * self.block_px

    @property
    def tile_px(self) -> int:
        """Side of a tile with its halo."""
        return self.core_px + 2 * self.halo_px

    @property
    def geobox(self) -> GeoBox:
        """All pixels of the grid."""
        return self._geobox(self.row0 * self.block_px, self.col0 * self.block_px, self.shape)

    @property
    def transform(self) -> Affine:
        """Pixel corner (column, row) → CRS coordinates (x, y)."""
        return self.geobox.transform

    @property
    def zone(self) -> str:
        """Slug of the CRS for paths: ``utm14n`` for WGS 84 / UTM, else ``epsg3035``, else a digest of the WKT."""
        return slug(self.crs)

    @property
    def gsd_m(self) -> tuple[float, float]:
        """Ground sampling distance (y, x) in metres, in the middle of the grid."""
        height, width = self.shape
        transform = self.transform
        x, y = transform.c + transform.a * width / 2, transform.f + transform.e * height / 2
        scale = metres_per_unit(self.crs, np.array([x]), np.array([y]))
        return self.resolution * float(scale[0][0]), self.resolution * float(scale[1][0])

    @property
    def pixel_area_m2(self) -> npt.NDArray[np.float64]:
        """(height, 1) float64, ground area of the pixels of each row; broadcasts over a (y, x) mask."""
        height, width = self.shape
        transform = self.transform
        y = transform.f + transform.e * (np.arange(height, dtype=np.float64) + 0.5)
        x = np.full(height, transform.c + transform.a * width / 2)
        along_y, along_x = metres_per_unit(self.crs, x, y)
        return (self.resolution**2 * along_y * along_x)[:, np.newaxis]

    def block_geobox(self, block: Block, *, halo: bool = True) -> GeoBox:
        """Pixels of one block, by default with the halo its tiles need; the same in every grid of this lattice."""
        margin = self.halo_px if halo else 0
        side = self.block_px + 2 * margin
        top = (self.row0 + block.row) * self.block_px - margin
        left = (self.col0 + block.col) * self.block_px - margin
        return self._geobox(top, left, (side, side))

    def tile_geobox(self, tile: Tile, *, halo: bool = True) -> GeoBox:
        """Pixels of one tile, by default with its halo; the same in every grid of this lattice."""
        margin = self.halo_px if halo else 0
        side = self.core_px + 2 * margin
        top = (self.row0 + tile.block.row) * self.block_px + tile.y - margin
        left = (self.col0 + tile.block.col) * self.block_px + tile.x - margin
        return self._geobox(top, left, (side, side))

    def tiles(self, block: Block) -> tuple[Tile, ...]:
        """Tiles whose cores make up `block`, row by row."""
        side = self.block_px // self.core_px
        row, col = (self.row0 + block.row) * side, (self.col0 + block.col) * side
        return tuple(
            Tile(id=f"r{row + i}c{col + j}", block=block, y=i * self.core_px, x=j * self.core_px)
            for i in range(side)
            for j in range(side)
        )

    def region_mask(self, region: BaseGeometry, block: Block, *, halo: bool = False) -> npt.NDArray[np.bool_]:
        """(block_px, block_px) bool, or with the halo around it: pixels whose centre lies in `region` (WGS 84)."""
        geobox = self.block_geobox(block, halo=halo)
        projected = project(region, self.crs)
        shape, transform = geobox.shape.yx, geobox.transform
        if shapely.covers(projected, shapely.box(*geobox.extent.boundingbox)):
            return np.ones(shape, dtype=np.bool_)
        return np.asarray(geometry_mask([projected], out_shape=shape, transform=transform, invert=True), dtype=np.bool_)

    def pixel_of(self, lon: float, lat: float) -> tuple[int, int]:
        """(y, x) pixel of a WGS 84 position.

        Raises
        ------
        ConfigError
            When the position lies outside the grid.
        """
        x, y = transformer("EPSG:4326", self.crs).transform(lon, lat)
        transform = self.transform
        col, row = (x - transform.c) / transform.a, (y - transform.f) / transform.e
        height, width = self.shape
        if not (0 <= row < height and 0 <= col < width):
            west, south, east, north = self.bbox_wgs84
            raise ConfigError(
                f"position {lon:g}, {lat:g} (longitude, latitude)",
                f"inside the grid: longitude {west:.5f} to {east:.5f}, latitude {south:.5f} to {north:.5f}",
            )
        return int(row), int(col)

    @property
    def bbox_wgs84(self) -> tuple[float, float, float, float]:
        """(min_x, min_y, max_x, max_y) degrees around the grid."""
        west, south, east, north = self.geobox.extent.boundingbox
        return transformer(self.crs, "EPSG:4326").transform_bounds(west, south, east, north)

    def covering(self, region: BaseGeometry) -> Grid:
        """The grid on the same lattice that covers `region` (WGS 84), whatever this one covers.

        Raises
        ------
        ConfigError
            When the region is empty, outside the CRS's validity, or needs more than `MAX_BLOCKS` blocks.
        """
        return make_grid(region, self.crs, self.resolution, self.block_px, self.core_px, self.halo_px)

    def to_json(self) -> str:
        """The grid as a JSON object, keys sorted; `from_json` gives an equal grid."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Grid:
        """A grid from what `to_json` wrote.

        Raises
        ------
        ConfigError
            When the text is not a grid.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"a grid that is not JSON: {text[:80]!r}") from error
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or values.keys() != names:
            raise ConfigError(f"a grid with other keys: {text[:80]!r}", f"exactly {', '.join(sorted(names))}")
        return cls(**values)

    def _geobox(self, top_px: int, left_px: int, shape: tuple[int, int]) -> GeoBox:
        step = self.resolution
        return GeoBox(shape, Affine(step, 0, left_px * step, 0, -step, -top_px * step), self.crs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """One grid and the part of the region that its cube answers for."""

    grid: Grid
    region: BaseGeometry
    """WGS 84."""


def make_grid(region: BaseGeometry, crs: str, resolution: float, block_px: int, core_px: int, halo_px: int) -> Grid:
    """Smallest grid of whole blocks over `region` (a WGS 84 polygon; two parts where it crosses the antimeridian).

    Raises
    ------
    ConfigError
        When the region is empty, outside the CRS's validity or needs more than `MAX_BLOCKS` blocks, when the CRS is
        unknown, or when the sizes contradict each other.
    """
    crs = canonical_crs(crs)
    check_region(region, crs)
    seed = Grid(
        crs=crs,
        resolution=resolution,
        block_px=block_px,
        core_px=core_px,
        halo_px=halo_px,
        row0=0,
        col0=0,
        rows=1,
        cols=1,
    )
    if parse_crs(crs).is_geographic and resolution > 1:
        raise ConfigError(
            f"resolution {resolution:g} with {crs}, whose unit is the degree",
            f"degrees per pixel: {resolution:g} m are about {resolution / 111_320:.3g}",
        )
    west, south, east, north = project(region, crs).bounds
    side, edge = block_px * resolution, _EDGE_PX / block_px
    col0, row0 = math.floor(west / side + edge), math.floor(-north / side + edge)
    cols = max(1, math.ceil(east / side - edge) - col0)
    rows = max(1, math.ceil(-south / side - edge) - row0)
    if rows * cols > MAX_BLOCKS:
        raise ConfigError(
            f"region too large: {east - west:g} × {north - south:g} CRS units at {resolution:g} per pixel are "
            f"{cols} × {rows} = {rows * cols} blocks of {block_px} px",
            f"at most {MAX_BLOCKS} blocks in one grid",
            "choose a larger cube.block_px, a coarser grid.resolution, or split the region",
        )
    return replace(seed, row0=row0, col0=col0, rows=rows, cols=cols)


def blocks_of(grid: Grid, region: BaseGeometry) -> tuple[Block, ...]:
    """Blocks of `grid` that touch `region` (WGS 84), row by row; indices are relative to the grid.

    A block counts when the rectangle through its outermost pixel centres meets the region.
    """
    projected = project(region, grid.crs)
    shapely.prepare(projected)
    transform, side, half = grid.transform, grid.block_px * grid.resolution, grid.resolution / 2
    left = transform.c + side * np.arange(grid.cols)
    found: list[Block] = []
    for row in range(grid.rows):
        top = transform.f - side * row
        boxes = shapely.box(left + half, top - side + half, left + side - half, top - half)
        hits = np.flatnonzero(shapely.intersects(projected, boxes))
        found.extend(Block(row, int(col)) for col in hits)
    return tuple(found)


def tile_pixels(
    footprint_m: float, halo_m: float, *, gsd_m: float, block_px: int, snap: bool = False
) -> tuple[int, int]:
    """Pixels (core, halo) of a tile with a ground footprint of `footprint_m`, halo included.

    With `snap` the core becomes the nearest divisor of `block_px`; without it, it must be one.

    Raises
    ------
    ConfigError
        When no core fits; the message names the nearest footprints that do.
    """
    if not (0 <= 2 * halo_m < footprint_m):
        raise ConfigError(
            f"tile.footprint_m {footprint_m:g} with tile.halo_m {halo_m:g}",
            "a footprint larger than its two halos, and a halo of 0 or more",
        )
    halo_px = round(halo_m / gsd_m)
    wanted = (footprint_m - 2 * halo_m) / gsd_m
    core_px = min(_divisors(block_px), key=lambda divisor: abs(math.log(divisor / wanted)))
    if not snap and abs(core_px - wanted) > 1e-3 * wanted:
        raise _core_error(wanted, block_px, halo_px, gsd_m, "m")
    return core_px, halo_px


def zones(
    region: BaseGeometry,
    *,
    crs: str,
    resolution: float,
    block_px: int,
    footprint_m: float,
    halo_m: float,
    native: Collection[str] = (),
) -> tuple[Zone, ...]:
    """Grids for `region` (WGS 84): one, or one per UTM zone.

    Parameters
    ----------
    crs
        A CRS for the whole region, or ``auto``: the CRS that all scenes share, else the UTM zones of the region.
    resolution
        Pixel size in units of the CRS.
    footprint_m, halo_m
        Ground size of a tile with its halo, and of the halo. Where metres and pixels have no fixed ratio (geographic
        CRSs, Mercator), the core snaps to the nearest divisor of `block_px`.
    native
        CRSs of the scenes that were found.

    Raises
    ------
    ConfigError
        As `make_grid` and `tile_pixels` do.
    """
    found: list[Zone] = []
    for part_crs, part in _parts(region, crs, native):
        check_region(part, part_crs)
        point = part.representative_point()
        x, y = transformer("EPSG:4326", part_crs).transform([point.x], [point.y])
        scale = metres_per_unit(part_crs, np.asarray(x), np.asarray(y))
        gsd_m = resolution * math.sqrt(float(scale[0][0]) * float(scale[1][0]))
        snap = not math.isclose(gsd_m, resolution * unit_m(part_crs))
        core_px, halo_px = tile_pixels(footprint_m, halo_m, gsd_m=gsd_m, block_px=block_px, snap=snap)
        grid = make_grid(part, part_crs, resolution, block_px, core_px, halo_px)
        if blocks_of(grid, part):
            found.append(Zone(grid=grid, region=part))
    return tuple(found)


def _parts(region: BaseGeometry, crs: str, native: Collection[str]) -> Iterator[tuple[str, BaseGeometry]]:
    shared = {canonical_crs(one) for one in native} if crs == "auto" else {canonical_crs(crs)}
    if len(shared) == 1:
        yield shared.pop(), region
        return
    west, _, east, _ = region.bounds
    for zone in range(int((west + 180) // 6) + 1, min(60, int((east + 180) // 6) + 1) + 1):
        for base, low, high in ((32600, 0.0, 84.0), (32700, -80.0, 0.0)):
            part = region.intersection(shapely.box(zone * 6 - 186, low, zone * 6 - 180, high))
            if part.area > 0:
                yield f"EPSG:{base + zone}", part


def _unit(crs: str) -> str:
    return "°" if parse_crs(crs).is_geographic else "m"


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _core_error(core_px: float, block_px: int, halo_px: int, gsd: float, unit: str) -> ConfigError:
    divisors = _divisors(block_px)
    below = max((d for d in divisors if d <= core_px), default=divisors[0])
    above = min((d for d in divisors if d >= core_px), default=divisors[-1])
    nearest = " or ".join(f"{(core + 2 * halo_px) * gsd:g} {unit} (core {core} px)" for core in sorted({below, above}))
    return ConfigError(
        f"a tile core of {core_px:g} px does not divide a block of {block_px} px",
        f"nearest footprints that do, with a halo of {halo_px} px: {nearest}",
        "change tile.footprint_m, tile.halo_m, grid.resolution or cube.block_px",
    )
