"""Who reads while a run writes sees the cube before or after a publication, never between."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from rasterio.errors import RasterioIOError
from support.archive_run import BLOCKS, acquisition, moment, run, scene

from think2seg.cube import check_cube, open_cube, read_traces
from think2seg.cube.layout import LABELS

POLLS = 2000
"""By two processes together: one reads as xarray does, one as `open_cube` does."""
_PATIENCE_S = 240.0
_LABELS = ("time", "acquisition", "revision", "published", "model_version", "observed_fraction")

type Poll = tuple[int, str]
"""Number of steps and digest of all that was seen; -1 and the error where reading failed."""


def changed(day: Any, version: str = "1") -> Any:
    patch = scene(f"patch-{day.id}", moment(f"{day.time:%Y-%m-%d}"), BLOCKS[:1], version=version)
    return replace(day, scenes=(*day.scenes, patch))


def publications() -> Iterator[list[Any]]:
    """What the catalog holds from one publication to the next: days are added, re-done and back-filled."""
    catalog = [acquisition("2014-07-03")]
    yield catalog
    for number in (9, 10):
        catalog = [*catalog, acquisition(f"2014-{number:02d}-09"), acquisition(f"2014-{number:02d}-21")]
        yield catalog
        catalog = [changed(catalog[0], str(number)), *catalog[1:]]
        yield catalog
        catalog = [*catalog, acquisition(f"2009-{number:02d}-18")]
        yield catalog


def plainly(uri: str) -> Poll:
    cube = xr.open_zarr(uri, chunks=None, drop_variables=["score", "quality", "y", "x"]).load()
    assert all(cube[name].sizes["time"] == cube.sizes["time"] for name in ("mask", "state", *_LABELS))
    return cube.sizes["time"], digest(*(cube[name].values for name in ("mask", "state", *_LABELS)))


def latest(uri: str) -> Poll:
    with dask.config.set(scheduler="synchronous"):
        cube = open_cube(uri)[["mask", "revision"]].load()
    return cube.sizes["time"], digest(cube["mask"].values, cube["time"].values, cube["revision"].values)


def digest(*arrays: Any) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def poll(read: Callable[[str], Poll], uri: str, polls: Any, queue: Any) -> None:
    """Read again and again until there are enough polls."""
    found: dict[Poll, int] = {}
    while polls.value < POLLS:
        try:
            seen = read(uri)
        except Exception as error:  # noqa: BLE001  # whatever a reader meets is a finding
            seen = (-1, f"{type(error).__name__}: {error}")
        found[seen] = found.get(seen, 0) + 1
        with polls.get_lock():
            polls.value += 1
    queue.put((read.__name__, found))


def states(uri: str, extents: list[int]) -> dict[str, set[Poll]]:
    """All that readers may have seen: the cube as it was after each publication."""
    final = xr.open_zarr(uri).load()
    names = np.asarray(final["acquisition"].attrs["names"])[final["acquisition"].values]
    allowed: dict[str, set[Poll]] = {"plainly": set(), "latest": set()}
    for extent in extents:
        cube = final.isel(time=slice(0, extent))
        allowed["plainly"].add((extent, digest(*(cube[name].values for name in ("mask", "state", *_LABELS)))))
        newest = {names[step]: step for step in range(extent)}
        steps = sorted(newest.values(), key=lambda step: final["time"].values[step])
        shown = final.isel(time=steps)
        found = digest(shown["mask"].values, shown["time"].values, shown["revision"].values)
        allowed["latest"].add((len(steps), found))
    return allowed


@pytest.mark.timeout(1200)
def test_who_polls_sees_whole_publications_only(spawn: Any, tmp_path: Path) -> None:
    """The run goes on to its next write only when somebody has read since the last one."""
    uri, context = str(tmp_path / "cube.zarr"), get_context("forkserver")
    polls, queue = context.Value("i", 0), context.Queue()
    every = list(publications())
    run(uri, every[0])
    readers = [spawn(poll, read, uri, polls, queue) for read in (plainly, latest)]
    last = 0

    def after_a_poll(key: str) -> None:
        nonlocal last
        deadline = time.monotonic() + _PATIENCE_S
        while polls.value == last and polls.value < POLLS and time.monotonic() < deadline:
            time.sleep(0.0005)
        last = polls.value

    extents = [1]
    for catalog in every[1:]:
        run(uri, catalog, together=True, before_write=after_a_poll)
        extents.append(xr.open_zarr(uri).sizes["time"])
    found = dict(queue.get() for _ in readers)
    for reader in readers:
        reader.join()
    assert sum(sum(seen.values()) for seen in found.values()) >= POLLS
    allowed = states(uri, extents)
    for name, seen in found.items():
        assert seen.keys() <= allowed[name], seen.keys() - allowed[name]
        assert len(seen) > 3, f"{name} saw the cube grow"
    assert len(extents) == len(set(extents)) == len(every)
    assert check_cube(uri) == []
    days = len(every[-1])
    assert len(read_traces(uri)) == days * len(BLOCKS)


def test_what_readers_of_single_arrays_see_is_whole(tmp_path: Path) -> None:
    """Before every write of a publication: each array by its own metadata, GDAL, and xarray without the root's."""
    place, whole = tmp_path / "cube.zarr", tmp_path / "whole.zarr"
    every = list(publications())[:2]
    for uri in (place, whole):
        run(uri, every[0])
    for catalog in every[1:]:
        run(whole, catalog, together=True)
    final = xr.open_zarr(whole).load()
    lengths: set[tuple[int, ...]] = set()
    mixed: set[bool] = set()

    def look(key: str) -> None:
        if key.startswith("_records/"):
            return
        held = {name: zarr.open_array(place / name, mode="r")[...] for name in ("mask", "state", *LABELS)}
        for name, values in held.items():
            if name != "published":
                assert np.array_equal(values, raw(whole, name)[: len(values)]), f"{name}, before writing {key}"
        assert (held["published"] > 0).all()
        lengths.add(tuple(len(values) for values in held.values()))
        newest = len(held["mask"]) - 1
        assert np.array_equal(by_gdal(place, newest), final["mask"][newest])
        assert by_gdal(place, newest + 1) is None
        mixed.add(by_xarray_alone(place, final))

    for catalog in every[1:]:
        run(place, catalog, together=True, before_write=look)
    assert len(lengths) > 3, "arrays grow one after the other"
    assert mixed == {True, False}, "who opens a group by its arrays' own metadata must be ready to try again"
    look("the end")
    assert by_xarray_alone(place, final)


def raw(uri: Path, name: str) -> Any:
    return zarr.open_array(uri / name, mode="r")[...]


def by_gdal(uri: Path, step: int) -> Any:
    """One step as GDAL reads it; None where it says that there is none."""
    try:
        with rasterio.open(f'ZARR:"{uri}":/mask:{step}') as source:
            return source.read(1)
    except RasterioIOError:
        return None


def by_xarray_alone(uri: Path, final: xr.Dataset) -> bool:
    """Whether xarray opens the cube by its arrays' own metadata; what it shows then is right."""
    try:
        cube = xr.open_zarr(uri, consolidated=False).load()
    except ValueError:  # conflicting sizes
        return False
    length = cube.sizes["time"]
    assert np.array_equal(cube["mask"], final["mask"][:length])
    assert np.array_equal(cube["time"], final["time"][:length])
    return True
