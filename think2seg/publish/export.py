"""A cube as other tools take it: a static STAC collection, an item an acquisition, arrays as COGs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from hashlib import file_digest
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pystac
import rasterio
import rasterio.shutil
import shapely
import xarray as xr
from pystac.extensions.classification import Bitfield, Classification, ClassificationExtension
from rasterio.windows import Window

from think2seg.cube import CubeSpec, Entry, open_cube
from think2seg.cube.layout import identity_digest
from think2seg.errors import CubeError
from think2seg.grid import Grid
from think2seg.insight.records import read_records, shown_entries

ASSETS = ("mask", "score", "quality")
COLLECTION = "collection.json"
_DRAFT = ".draft"
_NODATA = {"mask": 255, "score": 255, "quality": None}
_COLOURS = {0: (235, 235, 235), 1: (31, 119, 180)}
"""RGB of absent and present; TIFF has no transparent colours but its nodata."""
_COG = {"driver": "COG", "compress": "deflate", "predictor": "yes", "overview_resampling": "nearest"}
_BIG = {"bigtiff": "if_safer"}
_PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
_FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
_VERSION = "https://stac-extensions.github.io/version/v1.2.0/schema.json"

type OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export did."""

    collection: Path
    written: tuple[str, ...]
    """Acquisitions written, in time order."""
    kept: tuple[str, ...]
    """Acquisitions that lay there already, in this revision."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {"collection": str(self.collection), "written": list(self.written), "kept": list(self.kept)}

    def sentence(self) -> str:
        """What was done, for people."""
        there = f", {len(self.kept)} lay there already" if self.kept else ""
        return f"{len(self.written)} acquisitions exported{there}."


def export_cube(
    uri: str | Path,
    out: Path,
    *,
    since: date | None = None,
    until: date | None = None,
    on_progress: OnProgress = lambda *_: None,
) -> Exported:
    """Write the latest revision of a cube's acquisitions as ``out/ACQUISITION/{mask,score,quality}.tif`` and STAC.

    Run again, it adds what is new, and writes again what has a later revision; an acquisition's folder appears whole
    or not at all. Memory holds one row of blocks of one array.

    Parameters
    ----------
    uri
        The cube.
    out
        A folder; made if need be.
    since, until
        First and last day (UTC) to export; default all.

    Raises
    ------
    CubeError, StoreError
        There is no cube at the URI, or it cannot be read; no acquisition lies between the days; `out` holds the export
        of another cube.
    OSError
        If a file cannot be written.
    """
    cube = open_cube(uri)
    records = read_records(uri, cube)
    chosen = [
        (step, entry)
        for step, entry in enumerate(shown_entries(cube, records))
        if (since is None or entry.held.time.date() >= since) and (until is None or entry.held.time.date() <= until)
    ]
    if not chosen:
        raise CubeError(
            f"The cube has no acquisition from {since or 'its first day'} to {until or 'its last'}.",
            "Days of its acquisitions: `think2seg series CUBE` lists them.",
            "Ask for other days.",
        )
    identity = identity_digest(records.spec.identity)
    _require_same(out, identity)
    out.mkdir(parents=True, exist_ok=True)
    written, kept = [], []
    for number, (step, entry) in enumerate(chosen):
        on_progress("exporting", number, len(chosen))
        if _lies_there(out, entry):
            kept.append(entry.held.acquisition)
        else:
            _write_step(out, cube, step, entry, records.spec)
            written.append(entry.held.acquisition)
    collection = _collection(out, records.spec, identity)
    on_progress("exporting", len(chosen), len(chosen))
    return Exported(collection=collection, written=tuple(written), kept=tuple(kept))


def _require_same(out: Path, identity: str) -> None:
    path = out / COLLECTION
    if path.exists() and json.loads(path.read_bytes()).get("think2seg:identity") != identity:
        raise CubeError(
            f"{path} was not exported from this cube.", "A folder of its own for each cube.", "Name another folder."
        )


def _document(out: Path, acquisition: str) -> Path:
    return out / acquisition / f"{acquisition}.json"


def _lies_there(out: Path, entry: Entry) -> bool:
    """Whether an acquisition was exported in this revision, as it was published."""
    path = _document(out, entry.held.acquisition)
    if not path.exists():
        return False
    told = json.loads(path.read_bytes())["properties"]
    return bool((told["version"], told["created"]) == (str(entry.held.revision), _utc(entry.published)))


def _write_step(out: Path, cube: xr.Dataset, step: int, entry: Entry, spec: CubeSpec) -> None:
    """Write the folder of one acquisition, in the place of that of an earlier revision."""
    name = entry.held.acquisition
    draft = out / _DRAFT
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    for array in ASSETS:
        strips = (cube[array][step, rows].to_numpy() for rows in _rows(spec.grid))
        _write_cog(draft / f"{array}.tif", strips, spec.grid, array, str(cube[array].dtype))
    (draft / f"{name}.json").write_text(_text(_item(cube, entry, spec, draft)), encoding="utf-8")
    shutil.rmtree(out / name, ignore_errors=True)
    draft.rename(out / name)


def _rows(grid: Grid) -> Iterator[slice]:
    """Rows of the grid, one row of blocks at a time."""
    return (slice(top, top + grid.block_px) for top in range(0, grid.shape[0], grid.block_px))


def _write_cog(path: Path, strips: Iterator[npt.NDArray[Any]], grid: Grid, array: str, dtype: str) -> None:
    """strips: (y, x) each, one row of blocks after another."""
    height, width = grid.shape
    profile = {"height": height, "width": width, "count": 1, "dtype": dtype, "crs": grid.crs,
               "transform": grid.transform, "nodata": _NODATA[array]}  # fmt: skip
    plain, top = path.with_suffix(".plain.tif"), 0
    with rasterio.open(plain, "w", driver="GTiff", tiled=True, compress="deflate", **_BIG, **profile) as target:
        for strip in strips:
            target.write(strip, 1, window=Window(0, top, width, len(strip)))
            top += len(strip)
        if array == "mask":
            target.write_colormap(1, _COLOURS)
    rasterio.shutil.copy(plain, path, **_COG, **_BIG)
    plain.unlink()


def _item(cube: xr.Dataset, entry: Entry, spec: CubeSpec, folder: Path) -> pystac.Item:
    held, grid = entry.held, spec.grid
    region = shapely.from_wkt(entry.region) if entry.region else shapely.box(*grid.bbox_wgs84)
    item = pystac.Item(
        held.acquisition,
        shapely.geometry.mapping(region),
        list(region.bounds),
        held.time,
        {
            "title": f"{spec.question}, {held.time:%Y-%m-%d}",
            "created": _utc(entry.published),
            "version": str(held.revision),
            **{name: value for name, value in cube.attrs.items() if name in ("proj:code", "proj:wkt2")},
            "proj:shape": list(grid.shape),
            "proj:transform": list(grid.transform)[:6],
            "think2seg:question": spec.question,
            "think2seg:model_version": entry.model_version,
            "think2seg:observed_fraction": round(entry.observed_px / max(entry.region_px, 1), 6),
            "think2seg:scenes": sorted(held.scenes),
        },
        stac_extensions=[_PROJECTION, _FILE, _VERSION],
    )
    for array in ASSETS:
        content = folder / f"{array}.tif"
        with content.open("rb") as stream:
            checksum = f"1220{file_digest(stream, 'sha256').hexdigest()}"
        about = {"title": cube[array].attrs["long_name"], "media_type": pystac.MediaType.COG, "roles": ["data"]}
        described = {"data_type": str(cube[array].dtype), "nodata": _NODATA[array]}
        extra = {name: value for name, value in described.items() if value is not None}
        extra |= {"file:size": content.stat().st_size, "file:checksum": checksum}
        item.add_asset(array, pystac.Asset(f"./{array}.tif", extra_fields=extra, **about))
    _classify(item, cube)
    return item


def _classify(item: pystac.Item, cube: xr.Dataset) -> None:
    """Say in STAC's words what the cube's attributes say of the values of mask and quality."""
    told = cube["mask"].attrs
    ClassificationExtension.ext(item.assets["mask"], add_if_missing=True).classes = [
        Classification.create(value=value, name=name, description=name.replace("_", " "), nodata=value == 255)
        for value, name in zip(told["flag_values"], told["flag_meanings"].split(), strict=True)
    ]
    told = cube["quality"].attrs
    ClassificationExtension.ext(item.assets["quality"]).bitfields = [
        Bitfield.create(offset=int(value).bit_length() - 1, length=1, name=name, classes=_yes_or_no(name))
        for value, name in zip(told["flag_masks"], told["flag_meanings"].split(), strict=True)
    ]


def _yes_or_no(name: str) -> list[Classification]:
    said = name.replace("_", " ")
    return [Classification.create(value=0, name=f"no_{name}", description=f"no {said}"),
            Classification.create(value=1, name=name, description=said)]  # fmt: skip


def _collection(out: Path, spec: CubeSpec, identity: str) -> Path:
    """Write the collection of all items that lie in the folder, and link them with it."""
    items = [pystac.Item.from_file(str(path)) for path in sorted(out.glob("*/*.json")) if path.stem == path.parent.name]
    items.sort(key=lambda item: (str(item.datetime), item.id))
    collection = pystac.Collection(
        "-".join(re.findall(r"\w+", spec.question.lower())) or "answers",
        f"Where the answer to “{spec.question}” is, over time. {spec.attribution}".strip(),
        pystac.Extent.from_items(items),
        title=spec.title or spec.question,
        catalog_type=pystac.CatalogType.SELF_CONTAINED,
        license="other",
        extra_fields={"think2seg:identity": identity},
    )
    for item in items:
        item.clear_links()
    collection.add_items(items)
    collection.normalize_hrefs(str(out))
    collection.make_all_asset_hrefs_relative()
    for item in items:
        _replace(_document(out, item.id), item)
    _replace(out / COLLECTION, collection)
    return out / COLLECTION


def _replace(path: Path, thing: pystac.Item | pystac.Collection) -> None:
    """Write a document whole or not at all, and only where it says something new."""
    text = _text(thing)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _text(thing: pystac.Item | pystac.Collection) -> str:
    return json.dumps(thing.to_dict(include_self_link=False), indent=2) + "\n"


def _utc(moment: Any) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}"
