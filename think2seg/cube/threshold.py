"""A threshold on presence after the fact: what was drawn in tiles that hardly hold anything becomes absent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import dask.array as da
import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from think2seg.grid import Grid

NOT_DRAWN = 255

type Keep = npt.NDArray[np.bool_]
"""(time, tile_y, tile_x) bool: whether what was drawn in a tile stays."""


def above_presence(dataset: xr.Dataset, traces: pd.DataFrame, grid: Grid, min_presence: float) -> xr.Dataset:
    """`dataset` with mask 0 and score 255 where a tile's presence is below `min_presence`; computed lazily.

    A tile that was asked again in parts has the highest presence of all its answers, and one that no answer gives a
    presence stays as it is.
    """
    keep = _kept(traces, list(zip(dataset["acquisition"].values, dataset["revision"].values, strict=True)), grid,
                 min_presence)  # fmt: skip
    present = dataset["mask"] == 1
    stays = xr.DataArray(_on_pixels(keep, dataset["mask"].data, grid), dims=dataset["mask"].dims)
    return dataset.assign(
        mask=dataset["mask"].where(~present | stays, np.uint8(0)).assign_attrs(dataset["mask"].attrs),
        score=dataset["score"].where(~present | stays, np.uint8(NOT_DRAWN)).assign_attrs(dataset["score"].attrs),
    )


def _kept(traces: pd.DataFrame, steps: Sequence[tuple[Any, Any]], grid: Grid, min_presence: float) -> Keep:
    number = {(str(acquisition), int(revision)): step for step, (acquisition, revision) in enumerate(steps)}
    keep = np.ones((len(steps), grid.shape[0] // grid.core_px, grid.shape[1] // grid.core_px), dtype=np.bool_)
    told = traces.dropna(subset=["presence"])
    places = [told["acquisition"], told["revision"], told["tile_y"] // grid.core_px, told["tile_x"] // grid.core_px]
    highest = told.groupby(places)["presence"].max()
    for place, presence in highest.items():
        acquisition, revision, row, column = cast("tuple[str, int, int, int]", place)
        keep[number[acquisition, revision], row, column] = presence >= np.float32(min_presence)
    return keep


def _on_pixels(keep: Keep, like: da.Array, grid: Grid) -> da.Array:
    """`keep` in the shape and chunks of `like` (time, y, x)."""

    def part(_: npt.NDArray[np.uint8], block_info: Any = None) -> Keep:
        (first, last), rows, cols = block_info[0]["array-location"]
        y, x = (np.arange(*span) // grid.core_px for span in (rows, cols))
        return keep[first:last][:, y][:, :, x]

    pixels: da.Array = da.map_blocks(part, like, dtype=np.bool_, meta=np.empty((0, 0, 0), np.bool_))  # type: ignore[no-untyped-call]
    return pixels
