"""Traces and instances: the tables beside the cube.

A **trace** is one row per answer, an **instance** one row per object of an answer. Workers stage the rows of a block;
publication merges them into one GeoParquet file per acquisition and revision, which DuckDB, GeoPandas and the like read
as they stand::

    SELECT * FROM 'CUBE/_records/instances/*/*.parquet'

Every file holds all rows of its revision, those of blocks copied from an earlier one included: keep the highest
`revision` of each `acquisition` and nothing is counted twice.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from shapely.geometry.base import BaseGeometry

from think2seg.cube.store import CubeStore
from think2seg.errors import CubeError
from think2seg.grid import Block

STAGING = "_records/staging"
TABLES = ("traces", "instances")

_BLOCK_FIELDS = [
    pa.field("acquisition", pa.string(), nullable=False),
    pa.field("revision", pa.int32(), nullable=False),
    pa.field("time", pa.timestamp("ms", tz="UTC"), nullable=False),
    pa.field("answered_in", pa.int32(), nullable=False),
    pa.field("block_row", pa.int32(), nullable=False),
    pa.field("block_col", pa.int32(), nullable=False),
]
"""Filled by the writer. `answered_in` is the revision that asked; it is lower than `revision` in copied blocks."""

TRACE_FIELDS = [
    pa.field("tile", pa.string(), nullable=False),
    pa.field("part", pa.string()),
    pa.field("tile_y", pa.int32(), nullable=False),
    pa.field("tile_x", pa.int32(), nullable=False),
    pa.field("status", pa.string(), nullable=False),
    pa.field("question", pa.string(), nullable=False),
    pa.field("prompt", pa.string()),
    pa.field("answer", pa.string()),
    pa.field("reasoning", pa.string()),
    pa.field("finish", pa.string()),
    pa.field("tokens", pa.int32()),
    pa.field("presence", pa.float32()),
    pa.field("instances", pa.int32(), nullable=False),
    pa.field("template", pa.string()),
    pa.field("prompter", pa.string(), nullable=False),
    pa.field("segmenter", pa.string(), nullable=False),
    pa.field("items", pa.list_(pa.string())),
    pa.field("seconds_prompt", pa.float32()),
    pa.field("seconds_segment", pa.float32()),
]
"""One row per answer. `tile` is `Tile.id`; `part` names the sub-tile (``0``–``3``) of a tile that was asked again or
a further view (``v1``–``v7``) of one that is asked about in several, else empty; `tile_y`, `tile_x`: upper-left pixel
of the tile's core in the whole cube; `items`: ids of the STAC items that it was read from."""

INSTANCE_FIELDS = [
    pa.field("tile", pa.string(), nullable=False),
    pa.field("part", pa.string()),
    pa.field("number", pa.int32(), nullable=False),
    pa.field("score", pa.float32()),
    pa.field("area_px", pa.int64()),
    pa.field("area_m2", pa.float64()),
    pa.field("bbox_px", pa.list_(pa.float64())),
    pa.field("points_px", pa.list_(pa.list_(pa.float64()))),
    pa.field("negative_points_px", pa.list_(pa.list_(pa.float64()))),
    pa.field("bbox_map", pa.list_(pa.float64())),
    pa.field("points_map", pa.list_(pa.list_(pa.float64()))),
    pa.field("geometry", pa.binary()),
]
"""One row per object. `number` counts the instances of one answer from 0; `…_px` are pixels of the whole cube
(x right, y down, xyxy boxes), `…_map` are the grid's CRS; `geometry` is the polygon in WGS 84 (a shapely geometry or
WKB when handed to the writer), null where nothing was drawn."""

_FIELDS = {"traces": TRACE_FIELDS, "instances": INSTANCE_FIELDS}

type Row = Mapping[str, Any]


def table_of(name: str, rows: Sequence[Row], *, acquisition: str, revision: int, time: Any, block: Block) -> pa.Table:
    """Build the table of one block's rows.

    Parameters
    ----------
    name
        ``traces`` or ``instances``.
    rows
        The columns of `TRACE_FIELDS` or `INSTANCE_FIELDS`; nullable ones may be left out.
    acquisition, revision, time, block
        What the rows belong to.

    Raises
    ------
    CubeError
        A row has an unknown column, lacks a needed one, or holds a value of another type.
    """
    common = {
        "acquisition": acquisition, "revision": revision, "answered_in": revision, "time": time,
        "block_row": block.row, "block_col": block.col,
    }  # fmt: skip
    known = {field.name for field in _FIELDS[name]}
    for row in rows:
        if unknown := sorted(set(row) - known):
            raise CubeError(
                f"A row of {name} has unknown columns {unknown}", f"Known are {sorted(known)}.", "Drop or rename them."
            )
    try:
        table = pa.Table.from_pylist([common | _plain(row) for row in rows], schema=schema_of(name))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise CubeError(
            f"A row of {name} does not fit: {error}", "See the fields in think2seg.cube.records."
        ) from error
    empty = [field.name for field in table.schema if not field.nullable and table[field.name].null_count]
    if empty:
        raise CubeError(f"A row of {name} lacks {', '.join(empty)}", "See the fields in think2seg.cube.records.")
    return table


@cache
def schema_of(name: str) -> pa.Schema:
    """Schema of a table, GeoParquet metadata included for instances."""
    schema = pa.schema(_BLOCK_FIELDS + _FIELDS[name])
    return schema.with_metadata({"geo": json.dumps(_geo_metadata())}) if name == "instances" else schema


def staged_key(name: str, step: int, block: Block) -> str:
    """Return the key of a block's staged rows."""
    return f"{STAGING}/{step:06d}/{block.row:05d}-{block.col:05d}.{name}.parquet"


def table_key(name: str, acquisition: str, revision: int) -> str:
    """Return the key of a published revision's rows."""
    return f"_records/{name}/acquisition={acquisition}/revision={revision}.parquet"


def encode(table: pa.Table) -> bytes:
    """Return a table as Parquet bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def decode(name: str, data: bytes) -> pa.Table:
    """Return the table that `encode` wrote."""
    return pq.ParquetFile(io.BytesIO(data)).read().cast(schema_of(name))


def merge(
    store: CubeStore,
    name: str,
    staged: Iterable[bytes],
    *,
    acquisition: str,
    revision: int,
    base_revision: int | None,
    copied: Iterable[Block],
) -> None:
    """Write the rows of one revision: those staged by its fresh blocks, in order, and those of the blocks it copies."""
    parts = [decode(name, data) for data in staged]
    if base_revision is not None:
        base = store.get(table_key(name, acquisition, base_revision))
        if base is not None:
            parts.append(_of_blocks(decode(name, base), set(copied), revision))
    table = pa.concat_tables([schema_of(name).empty_table(), *parts])
    table = table.sort_by([("block_row", "ascending"), ("block_col", "ascending")])
    store.put(table_key(name, acquisition, revision), encode(table))


def _of_blocks(table: pa.Table, blocks: set[Block], revision: int) -> pa.Table:
    inside = [
        (row, col) in blocks
        for row, col in zip(table["block_row"].to_pylist(), table["block_col"].to_pylist(), strict=True)
    ]
    kept = table.filter(pa.array(inside, pa.bool_()))
    field = kept.schema.field("revision")
    renumbered = pa.array([revision] * kept.num_rows, pa.int32())
    return kept.set_column(kept.schema.get_field_index("revision"), field, pc.cast(renumbered, pa.int32()))


def _plain(row: Row) -> dict[str, Any]:
    geometry = row.get("geometry")
    return {**row, "geometry": geometry.wkb} if isinstance(geometry, BaseGeometry) else dict(row)


def _geo_metadata() -> dict[str, Any]:
    from pyproj import CRS

    column = {"encoding": "WKB", "geometry_types": [], "crs": CRS.from_epsg(4326).to_json_dict()}
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
