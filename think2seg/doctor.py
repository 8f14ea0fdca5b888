"""What this machine offers, and what a run on it would miss."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from think2seg.config import Monitor, ServedPrompter
from think2seg.errors import Think2SegError

if TYPE_CHECKING:
    import torch

    from think2seg.segmentation.memory import Need

_NEEDED_GB = {"memory": 3.0, "disk": 1.0}
_USUAL_TOKENS = 2048
_LICENCES = {"Think2Seg-RS-3B": "base model for research only", "Think2Seg-RS-7B": "Apache-2.0"}
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


def examine(monitor: Monitor | None = None) -> tuple[Check, ...]:
    """Look at Python, packages, memory, disk, devices, GDAL, weights and samples, and at which models fit.

    With a monitor, its own models are looked at too, and those that do not fit are not ok.
    """
    looks: tuple[Callable[[], Check], ...] = (
        _python, _packages, _memory, _disk, _devices, _gdal, _weights, _samples, _prefect,
    )  # fmt: skip
    return (*(look() for look in looks), *_fits(), *(_monitors_models(monitor) if monitor else ()))


def _fits() -> Iterator[Check]:
    """Which published models fit on the first device, and by what arithmetic."""
    from think2seg.prompting.memory import PUBLISHED
    from think2seg.segmentation.devices import choose_device
    from think2seg.segmentation.memory import SEGMENTERS

    device = choose_device("auto")

    def check(name: str, needs: dict[str, Need]) -> Check:
        return Check(name="fits", ok=True, found=f"{name} on {device}: {_verdicts(needs, device)}")

    for name, prompter in PUBLISHED.items():
        needs = {
            f"{dtype}, batch {batch}": prompter.need(
                dtype=dtype, batch=batch, frame_px=840, max_new_tokens=_USUAL_TOKENS, device=device
            )
            for dtype, batch in (("bfloat16", 16), ("bfloat16", 4), ("bfloat16", 1))
        }
        yield check(f"{name} ({_LICENCES[name]})", needs)
    for name, segmenter in SEGMENTERS.items():
        yield check(name, {dtype: segmenter.need(dtype=dtype, device=device) for dtype in ("bfloat16", "float32")})


def _verdicts(needs: Mapping[str, Need], device: torch.device) -> str:
    from think2seg.segmentation.memory import GIB, free_bytes

    free = free_bytes(device)
    fitting = next((how for how, need in needs.items() if need.total <= free), None)
    how, need = (fitting, needs[fitting]) if fitting else min(needs.items(), key=lambda one: one[1].total)
    if fitting:
        return f"fits in {how}: {need}, of {free / GIB:.1f} GiB free"
    short = (need.total - free) / GIB
    return f"does not fit, {short:.1f} GiB short even in {how}: {need}, of {free / GIB:.1f} GiB free"


def _monitors_models(monitor: Monitor) -> Iterator[Check]:
    """Whether a monitor's own models can be had, are what it takes them for, and fit where it wants them."""
    from think2seg.prompting.memory import TODO, need_of
    from think2seg.registry import prompter_weights, segmenter_weights
    from think2seg.segmentation import check_segmenter
    from think2seg.segmentation.devices import choose_device
    from think2seg.segmentation.memory import free_bytes

    prompter, segmenter = monitor.models.prompter, monitor.models.segmenter
    try:
        weights = prompter_weights(prompter)
        found, ok = f"prompter {weights.digest[:12]}", True
        if not isinstance(prompter, ServedPrompter) and weights.path is not None:
            device = choose_device(prompter.device)
            need = need_of(prompter, weights.path, device)
            if need is None:
                ok, found = False, f"{weights.path} is no prompter: its configuration or weights cannot be read"
            else:
                ok = need.total <= free_bytes(device)
                found += f" {_verdicts({f'{prompter.dtype}, batch {prompter.batch}': need}, device)} ({device})"
        yield Check(name="monitor", ok=ok, found=found, todo=TODO)
        drawing = segmenter_weights(segmenter)
        check_segmenter(segmenter, drawing.path)
        yield Check(name="monitor", ok=True, found=f"segmenter {drawing.digest[:12]}")
    except Think2SegError as error:
        yield Check(name="monitor", ok=False, found=error.given, todo=error.todo)


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
