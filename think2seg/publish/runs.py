"""Reports of monitors and of runs: where they go, and what pictures they show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import binary_dilation

from think2seg.config import Monitor
from think2seg.cube import open_cube
from think2seg.publish.maps import step_map, view_of
from think2seg.publish.pictures import Encoding, crop, data_uri, fitted
from think2seg.publish.quicklook import archive_quicklook
from think2seg.publish.report import write_report
from think2seg.publish.sentences import command_of
from think2seg.stac.scenes import Acquisition

if TYPE_CHECKING:
    from think2seg.coordinator import ArchiveRun, CubePlan, RunSummary

_EDGE_RGB, _GREY = (47, 240, 255), 72
_QUICKLOOK_PX = 640


def report_monitor(monitor: Monitor, out: Path | None = None, *, command: str | None = None) -> tuple[Path, ...]:
    """Write a report of each cube that a monitor has; the catalog is searched for imagery, nothing is asked.

    Parameters
    ----------
    out
        An HTML file, or a folder where there are several cubes; default beside each cube.
    command
        Shell command that runs the monitor again; default by its name.

    Raises
    ------
    CatalogError, CubeError, StoreError
        The catalog cannot be searched, or a cube cannot be read.
    """
    from think2seg.coordinator import find, plan_run

    since, _ = monitor.source.interval
    planned = plan_run(find(monitor, since=since.date() if since else None), allow_changes=True)
    cubes = [cube for cube in planned.cubes if cube.exists]
    return tuple(
        write_report(
            cube.uri,
            _target(cube.uri, out, alone=len(cubes) == 1),
            quicklook=archive_quicklook(_acquisitions(cube), cube.zone.grid, planned.found.archive),
            plan=cube.plan.lines,
            command=command or command_of(f"conf/monitors/{monitor.monitor}.yaml"),
        )
        for cube in cubes
    )


def write_run_report(
    cube: CubePlan, run: ArchiveRun, summary: RunSummary, out: Path, *, command: str | None = None
) -> Path:
    """Write the report of a cube that a run has just written to, with the run's bill; see `write_report`."""
    return write_report(
        cube.uri,
        out,
        quicklook=archive_quicklook(_acquisitions(cube), cube.zone.grid, run.plan.found.archive),
        run=summary.to_dict(),
        plan=cube.plan.lines,
        command=command or command_of(f"conf/monitors/{run.monitor.monitor}.yaml"),
    )


def report_path(uri: str) -> Path:
    """Where a cube's report goes by default: beside a local cube, in the current folder for one in an object store."""
    path = Path(uri.rpartition("/")[2]) if "://" in uri else Path(uri)
    return path.with_suffix(".html")


def quicklook_png(cube: CubePlan, run: ArchiveRun) -> str:
    """Newest acquisition of a cube with its outlines, as a small ``data:`` URI; grey where it has no imagery.

    Raises
    ------
    CubeError, StoreError
        The cube cannot be read.
    """
    grid = cube.zone.grid
    step = open_cube(cube.uri).isel(time=-1)
    view = view_of(step["quality"], _QUICKLOOK_PX)
    present = step_map(step, view).present
    size = (present.shape[1], present.shape[0])
    raw = archive_quicklook(_acquisitions(cube), grid, run.plan.found.archive)(str(step["acquisition"].values))
    picture = np.full((*present.shape, 3), _GREY, np.uint8)
    if raw is not None:
        picture = np.asarray(fitted(crop(raw, view.window(grid)), _QUICKLOOK_PX).resize(size, Image.Resampling.LANCZOS))
    return data_uri(outlined(picture, present), Encoding(longest_px=_QUICKLOOK_PX, quality=80))


def outlined(picture: npt.NDArray[np.uint8], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """(y, x, 3) picture with the edge of a (y, x) mask drawn in, one pixel wide."""
    drawn = picture.copy()
    drawn[binary_dilation(present) & ~present] = _EDGE_RGB
    return drawn


def _acquisitions(cube: CubePlan) -> Mapping[str, Acquisition]:
    return {line.id: line.acquisition for line in cube.plan.lines if line.acquisition is not None}


def _target(uri: str, out: Path | None, *, alone: bool) -> Path:
    if out is None:
        return report_path(uri)
    return out if alone and out.suffix == ".html" else out / report_path(uri).name
