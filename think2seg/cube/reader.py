"""How people read a cube: xarray for the masks, tables for what was said and drawn. Needs no torch."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import xarray as xr

from think2seg.cube.layout import CubeSpec
from think2seg.cube.records import decode, schema_of, table_key
from think2seg.cube.store import CubeStore, explained, local_path, shown
from think2seg.errors import CubeError

if TYPE_CHECKING:
    import geopandas as gpd

_LABELS = ["published", "revision", "observed_fraction", "acquisition", "model_version"]

type Revisions = Literal["latest", "all"]


def open_cube(
    uri: str | Path,
    *,
    revisions: Revisions = "latest",
    as_of: datetime | str | None = None,
    min_presence: float | None = None,
) -> xr.Dataset:
    """Open a cube lazily.

    Parameters
    ----------
    uri
        A path or URL; see `think2seg.cube.store.CubeStore`.
    revisions
        ``latest``: the last answer for each acquisition. ``all``: every step ever published.
    as_of
        Show the cube as it stood then: steps published later are left out. UTC where it has no time zone.
    min_presence
        Show what was drawn in a tile only where the prompter's probability that the tile holds anything is at least
        this, in [0, 1]; elsewhere it is absent. Tiles without a probability stay as they are.

    Returns
    -------
    xarray.Dataset
        `mask` (time, y, x) uint8 of 0 absent, 1 present, 255 not observed; `score` (time, y, x) uint8, predicted IoU
        times 254; `quality` (time, y, x) uint16 bits; `state` (time, block_y, block_x) uint8. Along time, in time
        order: `acquisition` and `model_version` as text, `revision`, `published`, `observed_fraction`. Dask chunks are
        the cube's blocks. Times repeat where two acquisitions, or with ``all`` two revisions, share one.

    Raises
    ------
    CubeError
        There is no cube at `uri`.
    StoreError
        It cannot be read.
    """
    dataset = _open(_store(uri))
    steps = _steps(dataset, revisions, as_of)
    if not np.array_equal(steps, np.arange(dataset.sizes["time"])):
        dataset = dataset.isel(time=steps)
    for name in ("acquisition", "model_version"):
        label = dataset[name]
        attributes = {key: value for key, value in label.attrs.items() if key not in ("names", "comment")}
        dataset = dataset.assign_coords({name: ("time", _named(label), attributes)})
    if min_presence is None:
        return dataset
    if not 0 <= min_presence <= 1:
        raise CubeError(f"min_presence={min_presence}", "A probability in [0, 1].", "Correct it.")
    from think2seg.cube.threshold import above_presence

    traces = read_traces(uri, revisions=revisions, as_of=as_of)
    spec = CubeSpec.from_json(json.dumps(dataset.attrs["think2seg"]))
    return above_presence(dataset, traces, spec.grid, min_presence)


def read_traces(
    uri: str | Path, *, revisions: Revisions = "latest", as_of: datetime | str | None = None
) -> pd.DataFrame:
    """Read who asked what of which pixels, what was said, what came of it: one row per answer.

    Parameters and errors as in `open_cube`; columns in `think2seg.cube.records.TRACE_FIELDS`.
    """
    frame: pd.DataFrame = _read("traces", uri, revisions, as_of).to_pandas()
    return frame


def read_instances(
    uri: str | Path, *, revisions: Revisions = "latest", as_of: datetime | str | None = None
) -> gpd.GeoDataFrame:
    """Read the objects that were found, as polygons in WGS 84 (EPSG:4326): one row per object.

    Parameters and errors as in `open_cube`; columns in `think2seg.cube.records.INSTANCE_FIELDS`.
    """
    import geopandas as gpd

    frame = _read("instances", uri, revisions, as_of).to_pandas()
    geometry = gpd.GeoSeries.from_wkb(frame["geometry"], crs="EPSG:4326")
    return gpd.GeoDataFrame(frame.drop(columns="geometry"), geometry=geometry, crs="EPSG:4326")


def _store(uri: str | Path) -> CubeStore:
    path = local_path(uri)
    if path is None or path.exists():
        store = CubeStore(uri)
        if _is_ours(store.get("zarr.json")):
            return store
    raise CubeError(
        f"There is no cube at {shown(str(uri))}", "A folder or URL that `think2seg run` wrote.", "Check the path."
    )


def _is_ours(root: bytes | None) -> bool:
    try:
        return "think2seg" in json.loads(root or b"{}").get("attributes", {})
    except ValueError:
        return False


def _open(store: CubeStore) -> xr.Dataset:
    with explained(store.uri, "read"):
        dataset: xr.Dataset = xr.open_zarr(store.zarr(read_only=True), consolidated=True, chunks={})
        labels = dataset.reset_coords()[_LABELS].load()
    return dataset.assign_coords(labels.variables).set_coords("spatial_ref")


def _steps(dataset: xr.Dataset, revisions: Revisions, as_of: datetime | str | None) -> npt.NDArray[np.int64]:
    """Positions on the stored time axis to show, in time order."""
    steps = np.arange(dataset.sizes["time"])
    revision, acquisition = dataset["revision"].values, dataset["acquisition"].values
    if as_of is not None:
        steps = steps[dataset["published"].values <= _moment(as_of)]
    order = np.lexsort((revision[steps], acquisition[steps], dataset["time"].values[steps]))
    if revisions == "all":
        return np.asarray(steps[order])
    last = {int(acquisition[step]): int(step) for step in sorted(steps, key=lambda step: revision[step])}
    kept = set(last.values())
    return np.asarray([step for step in steps[order] if int(step) in kept], dtype=np.int64)


def _moment(when: datetime | str) -> np.datetime64:
    moment = datetime.fromisoformat(when) if isinstance(when, str) else when
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(moment, "us")


def _named(label: xr.DataArray) -> npt.NDArray[np.str_]:
    names = np.asarray(label.attrs["names"], dtype=np.str_)
    return names[label.values] if len(names) else np.asarray([], dtype=np.str_)


def _read(name: str, uri: str | Path, revisions: Revisions, as_of: datetime | str | None) -> pa.Table:
    store = _store(uri)
    dataset = _open(store)
    steps = _steps(dataset, revisions, as_of)
    tables = [schema_of(name).empty_table()]
    for acquisition, revision in zip(
        _named(dataset["acquisition"])[steps], dataset["revision"].values[steps], strict=True
    ):
        key = table_key(name, str(acquisition), int(revision))
        data = store.get(key)
        if data is None:
            raise CubeError(
                f"{key} is missing from {shown(store.uri)}",
                "Every published revision has its tables.",
                "Restore the file from a copy of the cube.",
            )
        tables.append(decode(name, data))
    return pa.concat_tables(tables)
