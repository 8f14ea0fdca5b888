"""From one pixel to the instance, the prompt, the reasoning and the scenes behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import Point

from think2seg.crs import transformer
from think2seg.cube import open_cube
from think2seg.cube.ledger import Entry
from think2seg.cube.records import decode, table_key
from think2seg.errors import ConfigError
from think2seg.grid import Block, Grid, Tile
from think2seg.imagery import Quality
from think2seg.insight.records import Records, read_records, shown_entries

_MEANINGS = {0: "absent", 1: "present", 255: "not observed"}
_QUALITY_WORDS = {
    Quality.NODATA: "the imagery has no data here",
    Quality.CLOUD: "cloud",
    Quality.SHADOW: "shadow of a cloud",
    Quality.FAILED: "the imagery could not be read, or the models failed",
    Quality.TRUNCATED: "the answer was cut off before it covered this place",
    Quality.UNPARSABLE: "the answer could not be read",
    Quality.UNKNOWN_CONCEPT: "the prompter does not know what was asked for",
    Quality.GATED: "not asked: a gate judged that nothing changed",
    Quality.OVER_BUDGET: "not asked: the budget was used up",
    Quality.OUTSIDE: "outside the region",
    Quality.SNOW: "snow",
    Quality.SATURATED: "a saturated pixel",
}
QUARTERS = ("0", "1", "2", "3")
"""Parts in which a tile is asked again."""
_NEAREST = 3
"""How many dates an error names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedInstance:
    """The object that a pixel belongs to."""

    number: int
    """Position in the answer, from 0."""
    score: float | None
    """Predicted IoU of the segmenter, 0 to 1."""
    area_m2: float | None
    bbox_px: tuple[float, ...]
    """(min_x, min_y, max_x, max_y) in pixels of the cube."""
    points_px: tuple[tuple[float, ...], ...]
    bbox_map: tuple[float, ...]
    points_map: tuple[tuple[float, ...], ...]
    """The same in the cube's CRS."""
    polygon_wkt: str
    """WGS 84; empty where nothing was drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedAnswer:
    """What the prompter was asked of the pixel's tile, and what it said."""

    part: str
    """Sub-tile, where the tile was asked again in four parts, or a further view of the tile; else empty."""
    status: str
    prompt: str
    answer: str
    reasoning: str
    presence: float | None
    """Probability that the tile holds anything at all, as the prompter put it."""
    tokens: int | None
    scenes: tuple[str, ...]
    """Ids of the STAC items that the tile was read from."""
    views: int = 1
    """In how many views the tile was asked about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Everything that led to one pixel of one acquisition."""

    question: str
    lon: float
    lat: float
    x: float
    y: float
    """Position in the cube's CRS."""
    crs: str
    pixel: tuple[int, int]
    """(y, x) in the cube."""
    acquisition: str
    time: datetime
    revision: int
    answered_in: int
    """Revision that asked; lower than `revision` where the block was copied from it."""
    scenes: tuple[str, ...]
    value: str
    """``present``, ``absent`` or ``not observed``."""
    quality: tuple[str, ...]
    """Why it was not observed, and what else was noted, in words."""
    block: tuple[int, int]
    state: str
    """What became of the block."""
    tile: str
    answer: ExplainedAnswer | None
    instance: ExplainedInstance | None
    failures: tuple[str, ...]
    """What went wrong in the block."""
    prompter: str
    segmenter: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self) | {"time": self.time.isoformat()}

    def render(self) -> str:
        """Text for people, safe to print: control characters of models and catalogs are shown, not obeyed."""
        from think2seg.insight.words import explain_in_words

        return explain_in_words(self)


def explain(uri: str | Path, time: str | date | datetime, lon: float, lat: float) -> Explanation:
    """Walk from a pixel to what led to it.

    Parameters
    ----------
    uri
        The cube.
    time
        Day or time of an acquisition (ISO 8601, UTC), or its id. The latest revision is explained.
    lon, lat
        WGS 84 degrees.

    Raises
    ------
    ConfigError
        The position lies outside the cube, or no single acquisition has this date; the nearest dates are named.
    CubeError, StoreError
        There is no cube at the URI, or it cannot be read.
    """
    cube = open_cube(uri)
    records = read_records(uri, cube)
    entries = shown_entries(cube, records)
    step = find_step(entries, time)
    entry, (row, col) = entries[step], records.grid.pixel_of(lon, lat)
    tile = tile_at(records.grid, row, col)
    answer, instance = _answer(records, entry, tile, (row, col), (lon, lat))
    receipt = next((one for one in records.receipts(entry) if one.block == tile.block), None)
    pixel = cube.isel(time=step, y=row, x=col)
    x, y = transformer("EPSG:4326", records.grid.crs).transform(lon, lat)
    return Explanation(
        question=records.spec.question,
        lon=lon,
        lat=lat,
        x=x,
        y=y,
        crs=records.grid.crs,
        pixel=(row, col),
        acquisition=entry.held.acquisition,
        time=entry.held.time,
        revision=entry.held.revision,
        answered_in=receipt.revision if receipt else entry.held.revision,
        scenes=tuple(entry.held.scenes),
        value=_MEANINGS[int(pixel["mask"])],
        quality=quality_words(int(pixel["quality"])),
        block=(tile.block.row, tile.block.col),
        state=str(entry.held.states.get(tile.block, "outside")),
        tile=tile.id,
        answer=answer,
        instance=instance if int(pixel["mask"]) == 1 else None,
        failures=tuple(f"{one.reason}: {one.message}" for one in receipt.failures) if receipt else (),
        prompter=receipt.prompter if receipt else entry.held.prompter,
        segmenter=receipt.segmenter if receipt else entry.segmenter,
    )


def quality_words(bits: int) -> tuple[str, ...]:
    """Words for every quality bit that is set, in the order of the bits."""
    return tuple(words for flag, words in _QUALITY_WORDS.items() if bits & flag)


def find_step(entries: Sequence[Entry], time: str | date | datetime) -> int:
    """Index of the one entry that `time` means: an acquisition id, a time, or a day (UTC, or the id's solar day).

    Raises
    ------
    ConfigError
        No entry, or more than one, has this date.
    """
    ids = [entry.held.acquisition for entry in entries]
    if time in ids:
        return ids.index(str(time))
    asked = _moment(time)
    times = [entry.held.time.replace(microsecond=0) for entry in entries]
    if isinstance(asked, datetime) and times.count(second := asked.replace(microsecond=0)) == 1:
        return times.index(second)
    day = asked.date() if isinstance(asked, datetime) else asked
    found = [
        step
        for step, entry in enumerate(entries)
        if entry.held.time.date() == day or entry.held.acquisition.startswith(f"{day:%Y%m%d}-")
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(
            f"{day} has {len(found)} acquisitions",
            "One of them: " + ", ".join(ids[step] for step in found),
            "Give the acquisition's id, or its time to the second.",
        )
    nearest = sorted(entries, key=lambda entry: abs(entry.held.time.date() - day))[:_NEAREST]
    raise ConfigError(
        f"The cube has no acquisition on {day}",
        "Nearest are " + ", ".join(str(entry.held.time.date()) for entry in nearest) if nearest else "It is empty.",
        "Choose one of these dates; `think2seg series CUBE` lists all.",
    )


def tile_at(grid: Grid, row: int, col: int) -> Tile:
    """The tile whose core holds a pixel (y, x) of the grid."""
    side = grid.block_px
    block = Block(row // side, col // side)
    y, x = row % side, col % side
    return next(
        tile
        for tile in grid.tiles(block)
        if tile.y <= y < tile.y + grid.core_px and tile.x <= x < tile.x + grid.core_px
    )


def _answer(
    records: Records, entry: Entry, tile: Tile, pixel: tuple[int, int], lonlat: tuple[float, float]
) -> tuple[ExplainedAnswer | None, ExplainedInstance | None]:
    """The answer given for a pixel of a tile, and the instance there, the best scored one if there are several."""
    traces = _rows(records, "traces", entry, tile)
    point = Point(lonlat)
    drawn = [row for row in _rows(records, "instances", entry, tile) if row["geometry"] is not None]
    away = {id(row): shapely.from_wkb(row["geometry"]).distance(point) for row in drawn}
    edge = _pixel_deg(records.grid, *pixel)
    hits = [row for row in drawn if away[id(row)] <= edge]
    hits.sort(key=lambda row: (away[id(row)] > 0, -(row["score"] or 0.0)))
    instance = hits[0] if hits else None
    part = (instance["part"] or "") if instance else _part_of(records.grid, tile, pixel)
    trace = next((row for row in traces if (row["part"] or "") == part), traces[0] if traces else None)
    views = sum((row["part"] or "") not in QUARTERS for row in traces)
    return (
        _explained_answer(trace, views) if trace else None,
        _explained_instance(instance) if instance else None,
    )


def _rows(records: Records, table: str, entry: Entry, tile: Tile) -> list[dict[str, Any]]:
    data = records.store.get(table_key(table, entry.held.acquisition, entry.held.revision))
    if data is None:
        return []
    rows: list[dict[str, Any]] = decode(table, data).to_pylist()
    return [row for row in rows if row["tile"] == tile.id]


def _part_of(grid: Grid, tile: Tile, pixel: tuple[int, int]) -> str:
    """Number of the quarter of a tile's core that holds a pixel: 0, 1 above, 2, 3 below."""
    y, x = pixel[0] % grid.block_px - tile.y, pixel[1] % grid.block_px - tile.x
    return str(2 * int(2 * y >= grid.core_px) + int(2 * x >= grid.core_px))


def _pixel_deg(grid: Grid, row: int, col: int) -> float:
    """Diagonal of a pixel in degrees: polygons run along pixel edges, and may be simplified by that much."""
    corners = [grid.transform * (col + step, row + step) for step in (0, 1)]
    (lon0, lat0), (lon1, lat1) = (transformer(grid.crs, "EPSG:4326").transform(*corner) for corner in corners)
    return float(Point(lon0, lat0).distance(Point(lon1, lat1)))


def _explained_answer(row: Mapping[str, Any], views: int) -> ExplainedAnswer:
    return ExplainedAnswer(
        part=row["part"] or "",
        status=row["status"],
        prompt=row["prompt"] or "",
        answer=row["answer"] or "",
        reasoning=row["reasoning"] or "",
        presence=row["presence"],
        tokens=row["tokens"],
        scenes=tuple(row["items"] or ()),
        views=views,
    )


def _explained_instance(row: Mapping[str, Any]) -> ExplainedInstance:
    return ExplainedInstance(
        number=row["number"],
        score=row["score"],
        area_m2=row["area_m2"],
        bbox_px=tuple(row["bbox_px"] or ()),
        points_px=tuple(tuple(point) for point in row["points_px"] or ()),
        bbox_map=tuple(row["bbox_map"] or ()),
        points_map=tuple(tuple(point) for point in row["points_map"] or ()),
        polygon_wkt=shapely.from_wkb(row["geometry"]).wkt,
    )


def _moment(time: str | date | datetime) -> date | datetime:
    """A day, or a time in UTC."""
    if isinstance(time, str):
        try:
            time = date.fromisoformat(time) if len(time) <= len("2014-07-20") else datetime.fromisoformat(time)
        except ValueError as error:
            raise ConfigError(
                f"time {time!r}", "A day such as 2014-07-20, a time such as 2014-07-20T17:00:00Z, or an acquisition id."
            ) from error
    if isinstance(time, datetime):
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return time
