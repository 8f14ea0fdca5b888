"""A small archive of real imagery, a monitor over it, and what two cubes must have in common to be equal.

The archive holds crops of the embedded wetlands sample: three columns and two rows of blocks of 128 px, one tile each.
Tests add, change, damage and remove acquisitions of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
import shapely
import yaml
from rasterio.windows import Window, from_bounds
from support.rasters import write_raster
from support.stac_items import item, write_catalog

from think2seg.config import Monitor, load_monitor
from think2seg.coordinator import RunSummary, find, plan_run, run_archive
from think2seg.crs import transformer
from think2seg.cube import open_cube, read_instances, read_traces
from think2seg.plan import PlanLine
from think2seg.samples.archive import catalog_path

CRS = "EPSG:26914"
BLOCK_M = 640.0
LEFT, TOP = 759 * BLOCK_M + BLOCK_M, 8139 * BLOCK_M
"""Upper-left corner of block 0, 0."""
_HALO_M = 160.0
DAYS = ("2010-06-29", "2014-07-20", "2020-08-31")

type Place = Path | str | dict[str, Any]
"""URI of a cube, or the whole section about it."""


def area(cols: float = 2, rows: float = 2) -> dict[str, Any]:
    """GeoJSON polygon of the first columns and rows of blocks, parts of one included."""
    box = shapely.box(LEFT + 1, TOP - rows * BLOCK_M + 1, LEFT + cols * BLOCK_M - 1, TOP - 1)
    to_wgs84 = transformer(CRS, "EPSG:4326")
    wgs84 = shapely.transform(box, lambda xy: np.column_stack(to_wgs84.transform(*xy.T)))
    return dict(json.loads(shapely.to_geojson(wgs84)))


@cache
def pixels(day: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(4, y, x) uint8 of the sample's acquisition of a day over the crop."""
    path = next(catalog_path("naip-wetlands").parent.rglob(f"*_{day.replace('-', '')}/image.tif"))
    with rasterio.open(path) as source:
        values: np.ndarray[Any, np.dtype[np.uint8]] = source.read(window=_window(source))
    return values


def _window(source: rasterio.DatasetReader) -> Window:
    box = (LEFT - _HALO_M, TOP - 2 * BLOCK_M - _HALO_M, LEFT + 3 * BLOCK_M + _HALO_M, TOP + _HALO_M)
    return from_bounds(*box, transform=source.transform).round_offsets().round_lengths()


@dataclass(frozen=True, slots=True)
class Archive:
    """A static catalog in a folder."""

    folder: Path

    @classmethod
    def of(cls, folder: Path, days: Sequence[str] = DAYS) -> Archive:
        """An archive that holds the acquisitions of some days."""
        archive = cls(folder)
        for day in days:
            archive.put(day)
        return archive

    @property
    def catalog(self) -> Path:
        """Its root document."""
        return self.folder / "catalog.json"

    def image(self, day: str, name: str = "scene") -> Path:
        """The COG of a scene."""
        return self.folder / f"{name}-{day}.tif"

    def put(
        self,
        day: str,
        values: np.ndarray[Any, np.dtype[np.uint8]] | None = None,
        *,
        name: str = "scene",
        cols: float = 3,
        **properties: Any,
    ) -> None:
        """Add a scene, or put another in its place.

        values: (bands, y, x) uint8 instead of the sample's own; cols: columns of blocks under its footprint.
        """
        values = pixels(day) if values is None else values
        path = next(catalog_path("naip-wetlands").parent.rglob(f"*_{day.replace('-', '')}/image.tif"))
        with rasterio.open(path) as source:
            transform = source.window_transform(_window(source))
        self.folder.mkdir(parents=True, exist_ok=True)
        image = write_raster(self.image(day, name), values, transform, CRS)
        asset = {
            "href": f"../{image.name}",
            "eo:bands": [{"name": name} for name in ("red", "green", "blue", "nir08")[: len(values)]],
            "file:checksum": "1220" + sha256(image.read_bytes()).hexdigest(),
        }
        grid = {"proj__code": CRS, "proj__shape": values.shape[1:], "proj__transform": list(transform)[:6]}
        document = item(
            f"{name}-{day}",
            f"{day}T17:00:00Z",
            assets={"image": asset},
            **({"platform": "aircraft"} | grid | properties),
        )
        footprint = area(cols)
        bounds = shapely.from_geojson(json.dumps(footprint)).bounds
        self._write({**document, "geometry": footprint, "bbox": list(bounds)})

    def remove(self, day: str) -> None:
        """Take an acquisition away."""
        (self.folder / "naip" / f"scene-{day}.json").unlink()
        self._write()

    def items(self) -> list[dict[str, Any]]:
        """All item documents."""
        return [json.loads(path.read_text()) for path in sorted((self.folder / "naip").glob("*-*.json"))]

    def _write(self, *documents: dict[str, Any]) -> None:
        held = {one["id"]: one for one in [*(self.items() if self.catalog.exists() else []), *documents]}
        write_catalog(self.folder, list(held.values()))


def monitor_file(folder: Path, catalog: Path | str, cube: Place, **sections: Any) -> Path:
    """Write a monitor; `sections` are merged into those of its document, other values take the place of its own."""
    document: dict[str, Any] = {
        "monitor": "miniature",
        "question": "water bodies",
        "region": {"kind": "geometry", "geometry": area()},
        "source": {"archive": "naip-local", "catalog": str(catalog), "datetime": "2009-01-01/2020-12-31"},
        "grid": {"crs": CRS, "resolution": 5.0},
        "tile": {"footprint_m": 960, "halo_m": 160},
        "models": {"prompter": {"kind": "local", "dtype": "float32"}, "segmenter": {"kind": "sam", "dtype": "float32"}},
        "cube": {"block_px": 128} | (cube if isinstance(cube, dict) else {"uri": str(cube)}),
        "cluster": {"order_blocks": 2},
    }
    for name, values in sections.items():
        document[name] = {**document.get(name, {}), **values} if isinstance(values, Mapping) else values
    path = folder / "monitor.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def published(uri: Path | str) -> dict[str, Any]:
    """All that a cube shows, every revision, without times of publication and durations: equal cubes are equal here."""
    cube = open_cube(uri, revisions="all")
    arrays = {name: cube[name].values for name in ("mask", "score", "quality", "state", "time", "observed_fraction")}
    labels = {name: cube[name].values.tolist() for name in ("acquisition", "revision", "model_version")}
    return {**arrays, **labels, "traces": _untimed(read_traces(uri, revisions="all")),
            "instances": pd.DataFrame(read_instances(uri, revisions="all").to_wkb())}  # fmt: skip


def assert_equal_cubes(one: Path | str, other: Path | str) -> None:
    """Fail where two cubes differ in anything but times of publication and durations."""
    first, second = published(one), published(other)
    for name, held in first.items():
        if isinstance(held, pd.DataFrame):
            pd.testing.assert_frame_equal(held, second[name], check_exact=True, obj=name)
        else:
            np.testing.assert_array_equal(held, second[name], err_msg=name)


@dataclass(frozen=True, slots=True)
class Miniature:
    """An archive, a cube to be, and the workers that fill it."""

    folder: Path
    archive: Archive
    scheduler: str

    @property
    def cube(self) -> Path:
        """Where the cube is, unless a test says otherwise."""
        return self.folder / "cube.zarr"

    def file(self, cube: Place | None = None, catalog: Path | str | None = None, **sections: Any) -> Path:
        """The monitor as a file; see `monitor_file`."""
        cluster = {"scheduler": self.scheduler, **sections.pop("cluster", {})}
        return monitor_file(
            self.folder, catalog or self.archive.catalog, cube or self.cube, cluster=cluster, **sections
        )

    def monitor(self, cube: Place | None = None, **sections: Any) -> Monitor:
        """The monitor, loaded."""
        return load_monitor(self.file(cube, **sections))

    def run(
        self,
        cube: Place | None = None,
        *,
        retry_quarantined: bool = False,
        allow_changes: bool = False,
        **sections: Any,
    ) -> RunSummary:
        """One run to the end."""
        asked = self.monitor(cube, **sections)
        return run_archive(asked, retry_quarantined=retry_quarantined, allow_changes=allow_changes)

    def plan(self, cube: Place | None = None, **sections: Any) -> dict[str, PlanLine]:
        """What a run would do: day → line."""
        planned = plan_run(find(self.monitor(cube, **sections)))
        return {f"{line.time:%Y-%m-%d}": line for one in planned.cubes for line in one.plan.lines}


def _untimed(traces: pd.DataFrame) -> pd.DataFrame:
    return traces.drop(columns=["seconds_prompt", "seconds_segment"])
