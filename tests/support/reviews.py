"""A small cube with imagery, a sample of it, and people who judge it by rule."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pytest
from support.cubes import Step, build_cube, clear, disc, spec_of

import think2seg.learning.review.package
from think2seg.cube import CubeSpec
from think2seg.grid import Grid
from think2seg.imagery import BlockImagery, Quality
from think2seg.learning.review import draw_sample
from think2seg.learning.review.manifest import MASKS, PACKAGE, UNITS, VERDICTS, Manifest, load
from think2seg.stac.scenes import Acquisition

GRID = Grid(
    crs="EPSG:32614", resolution=5.0, block_px=32, core_px=16, halo_px=4, row0=-32600, col0=3040, rows=2, cols=6
)
DAYS = (datetime(2009, 8, 18, 17, tzinfo=UTC), datetime(2014, 7, 20, 17, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Review:
    """A review folder and the cube that it was drawn from."""

    cube: Path
    folder: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        return load(self.folder)[1]

    def verdicts(self, said: Mapping[str, str], comments: Mapping[str, str] | None = None) -> None:
        """Leave what the page would download."""
        rows = [{"unit": u, "verdict": v, "comment": (comments or {}).get(u, "")} for u, v in said.items()]
        self.write({"review": self.digest, "verdicts": rows})

    def write(self, document: Any) -> None:
        (self.folder / VERDICTS).write_text(json.dumps(document))

    def edit(self, layer: str, change: Callable[[gpd.GeoDataFrame], gpd.GeoDataFrame], **options: Any) -> None:
        """Change a layer as somebody in QGIS would."""
        path = self.folder / PACKAGE
        layers = {name: gpd.read_file(path, layer=name) for name in (UNITS, MASKS)}
        layers[layer] = change(layers[layer])
        path.unlink()
        for name, frame in layers.items():
            frame.to_file(path, layer=name, driver="GPKG", geometry_type="MultiPolygon", promote_to_multi=True)


def spec() -> CubeSpec:
    return spec_of(GRID, attribution="Made up, no licence needed.")


def lakes() -> list[Step]:
    """A lake over several tiles that grows; a cloud on the second date."""
    clouded = clear(GRID)
    clouded[disc(GRID, 10, 180, 14)] = int(Quality.CLOUD)
    return [
        Step(time=DAYS[0], present=disc(GRID, 32, 70, 20), quality=clear(GRID)),
        Step(time=DAYS[1], present=disc(GRID, 32, 76, 26), quality=clouded),
    ]


def pretend_imagery(patch: pytest.MonkeyPatch, gone: tuple[str, ...] = ()) -> None:
    """Let the cube's scenes be found and read, all but acquisitions that are `gone`; made-up pixels."""
    module = think2seg.learning.review.package

    def imagery_of(spec: CubeSpec, ledger: Any, monitor: Any) -> tuple[Any, dict[str, Acquisition]]:
        from support.cubes import _scenes

        steps = {step.id: step for step in lakes() if step.id not in gone}
        return object(), {
            name: Acquisition(id=name, time=s.time, scenes=tuple(_scenes(s))) for name, s in steps.items()
        }

    def read_block(acquisition: Acquisition, block: Any, grid: Grid, archive: Any, region: Any) -> BlockImagery:
        side = grid.block_px + 2 * grid.halo_px
        rows, cols = np.mgrid[:side, :side]
        shade = (40 * np.sin((rows + block.row) / 5) + 40 * np.cos((cols + block.col) / 7) + 120).astype(np.uint8)
        return BlockImagery(
            rgb=np.stack([shade, shade + 20, shade - 20], -1), quality=np.zeros((side, side), np.uint16)
        )

    patch.setattr(module, "imagery_of", imagery_of)
    patch.setattr(module, "read_block", read_block)


def sampled(folder: Path, patch: pytest.MonkeyPatch, n: int = 24, gone: tuple[str, ...] = ()) -> Review:
    """A cube and a sample of it."""
    cube = folder / "lake.zarr"
    build_cube(cube, lakes(), spec())
    pretend_imagery(patch, gone)
    manifest = draw_sample(cube, folder / "review", n=n, seed=3)
    return Review(cube, folder / "review", manifest)


def mapped(review: Review, unit: str) -> npt.NDArray[np.uint8]:
    return review.manifest.mapped(review.folder, review.manifest.by_id[unit])
