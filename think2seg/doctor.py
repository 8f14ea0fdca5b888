"""What this machine offers, and what a run on it would miss."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from think2seg.errors import Think2SegError

_NEEDED_GB = {"memory": 3.0, "disk": 1.0}
_PACKAGES = ("torch", "transformers", "segment-anything", "dask", "xarray", "zarr", "odc-stac", "prefect")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    found: str
    todo: str = ""
    """What to do when it is not ok."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {"name": self.name, "ok": self.ok, "found": self.found, "todo": self.todo}


def examine() -> tuple[Check, ...]:
    """Look at Python, packages, memory, disk, devices, GDAL, weights and samples."""
    looks: tuple[Callable[[], Check], ...] = (
        _python, _packages, _memory, _disk, _devices, _gdal, _weights, _samples, _prefect,
    )  # fmt: skip
    return tuple(look() for look in looks)


def _python() -> Check:
    return Check(
        name="python",
        ok=sys.version_info >= (3, 12),
        found=f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        todo="Python 3.12 or later is needed.",
    )


def _packages() -> Check:
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    return Check(
        name="packages",
        ok=not missing,
        found=", ".join(found) + (f"; missing: {', '.join(missing)}" if missing else ""),
        todo="Install them with `pip install -r requirements.lock`, or run `make setup`.",
    )


def _memory() -> Check:
    free = psutil.virtual_memory().available / 2**30
    return Check(
        name="memory",
        ok=free >= _NEEDED_GB["memory"],
        found=f"{free:.1f} GiB available; two workers with the bundled pair need about {_NEEDED_GB['memory']:.0f} GiB",
        todo="Close other programs, or set cluster.workers: 1.",
    )


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return Check(
        name="disk",
        ok=free >= _NEEDED_GB["disk"],
        found=f"{free:.1f} GiB free in the current folder",
        todo="Free some space, or point cube.uri elsewhere.",
    )


def _devices() -> Check:
    import torch

    if torch.cuda.is_available():
        names = [
            f"{torch.cuda.get_device_name(i)} ({torch.cuda.get_device_properties(i).total_memory / 2**30:.0f} GiB)"
            for i in range(torch.cuda.device_count())
        ]
        return Check(name="devices", ok=True, found=", ".join(names))
    return Check(
        name="devices", ok=True, found=f"CPU only, {torch.get_num_threads()} threads: right for the bundled pair"
    )


def _gdal() -> Check:
    import rasterio
    from rasterio.drivers import raster_driver_extensions

    drivers = set(raster_driver_extensions().values())
    needed = {"GTiff", "JP2OpenJPEG"}
    return Check(
        name="gdal",
        ok=needed <= drivers,
        found=f"GDAL {rasterio.__gdal_version__} in rasterio {rasterio.__version__}",
        todo=f"This build lacks {', '.join(sorted(needed - drivers))}: install rasterio from its wheel.",
    )


def _weights() -> Check:
    from think2seg.registry import resolve, weights_digest

    try:
        found = [
            f"prompter {weights_digest(resolve('prompter', 'champion'))[:12]}",
            f"segmenter {weights_digest(resolve('segmenter', 'bundled'))[:12]}",
        ]
    except Think2SegError as error:
        return Check(name="weights", ok=False, found=error.given, todo=error.todo)
    return Check(name="weights", ok=True, found=", ".join(found))


def _samples() -> Check:
    from think2seg.samples.archive import catalog_path

    try:
        paths = [catalog_path(name) for name in ("naip-wetlands", "carpathian-clearings")]
    except Think2SegError as error:
        return Check(name="samples", ok=False, found=error.given, todo=error.todo)
    return Check(name="samples", ok=True, found=", ".join(path.parent.name for path in paths))


def _prefect() -> Check:
    url = os.environ.get("PREFECT_API_URL")
    return Check(
        name="prefect", ok=True, found=f"API at {url}" if url else "no PREFECT_API_URL: `make demo` starts its own"
    )
