"""What people sent back: verdicts and redrawn masks, checked row by row before anything is believed."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from think2seg.crs import canonical_crs
from think2seg.errors import ConfigError, SampleError
from think2seg.learning.review.manifest import MASKS, PACKAGE, UNITS, VERDICTS, Manifest, ReviewUnit
from think2seg.learning.review.store import refuse
from think2seg.samples.labelled import Split

_VERDICTS = ("accept", "reject", "unsure")
_SPLITS: Mapping[str, Split] = {"train": "train", "held_out": "held_out"}
_MARKUP = re.compile(r"<\s*[a-zA-Z/!?]|javascript:|&#", re.IGNORECASE)
_LONGEST = 500
_SLACK_PX = 1.0
"""A polygon may leave its unit by this much: people snap to what they see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What somebody said of a unit, in one of the two places."""

    verdict: str | None
    comment: str
    split: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """A unit as it came back."""

    unit: ReviewUnit
    verdict: str | None
    """accept, reject, unsure, or None where nobody looked."""
    comment: str
    split: Split | None
    """Named by hand; else None."""
    mapped: npt.NDArray[np.uint8]
    """(core_px, core_px) uint8 of 0, 1, 255: what the cube has."""
    drawn: npt.NDArray[np.bool_]
    """(core_px, core_px) bool: what the layer of masks has."""

    @property
    def redrawn(self) -> bool:
        """Whether the mask was changed where anything was observed."""
        return bool((self.drawn != (self.mapped == 1))[self.mapped != 255].any())

    @property
    def truth(self) -> npt.NDArray[np.bool_] | None:
        """The mask that the reviewer stands for; None where it is not known."""
        stands = self.verdict == "accept" or (self.verdict == "reject" and self.redrawn)
        return self.drawn & (self.mapped != 255) if stands else None


def read_return(folder: Path, manifest: Manifest, digest: str, verdicts: Path | None = None) -> tuple[Judged, ...]:
    """Read and check a review folder that came back; one entry per unit of the sample, in its order.

    Raises
    ------
    SampleError
        With every row that cannot be used, and why.
    """
    units, masks = (_layer(folder / PACKAGE, name, manifest) for name in (UNITS, MASKS))
    told = folder / VERDICTS if verdicts is None else verdicts
    if verdicts is not None and not verdicts.is_file():
        raise SampleError(f"{verdicts} is missing", f"The {VERDICTS} that the page downloads.")
    found: list[str] = []
    in_layer = _said_in_layer(units, manifest, found)
    in_file = _said_in_file(told, manifest, digest, found) if told.is_file() else {}
    polygons = _polygons(masks, manifest, found)
    refuse(found, str(folder))
    judged = []
    for unit in manifest.units:
        one = _judged(folder, manifest, unit, in_layer.get(unit.id), in_file.get(unit.id), polygons.get(unit.id, []))
        found += [one] if isinstance(one, str) else _inconsistent(one)
        judged += [] if isinstance(one, str) else [one]
    refuse(found, str(folder))
    return tuple(judged)


def _layer(path: Path, name: str, manifest: Manifest) -> gpd.GeoDataFrame:
    try:
        frame = gpd.read_file(path, layer=name, engine="pyogrio")
    except (DataSourceError, DataLayerError) as error:
        there = ", ".join(gpd.list_layers(path)["name"]) if path.is_file() else "no such file"
        raise SampleError(f"{path}: no layer {name}", f"Layers {UNITS} and {MASKS}; here: {there}.") from error
    if not isinstance(frame, gpd.GeoDataFrame) or frame.crs is None:
        raise SampleError(
            f"{path}, layer {name}: it has no coordinate reference system",
            f"{manifest.grid.crs}, as it was written.",
            "Set the layer's CRS and save it again.",
        )
    try:
        given = canonical_crs(frame.crs.to_wkt())
    except ConfigError:
        given = str(frame.crs.name)
    if given != manifest.grid.crs:
        raise SampleError(
            f"{path}, layer {name}: its coordinate reference system is {given}",
            f"{manifest.grid.crs}, as it was written.",
            "Save the layer in that CRS.",
        )
    if "unit" not in frame.columns:
        raise SampleError(f"{path}, layer {name}: the column unit is missing", "The columns as they were written.")
    return frame


def _said_in_layer(frame: gpd.GeoDataFrame, manifest: Manifest, found: list[str]) -> dict[str, Said]:
    said: dict[str, Said] = {}
    for row, record in enumerate(frame.to_dict("records"), 1):
        where = f"layer {UNITS}, row {row} (unit {_shown(record['unit'])})"
        values = {name: _text(record.get(name)) for name in ("verdict", "comment", "split")}
        one = Said(
            verdict=values["verdict"].lower() or None, comment=values["comment"], split=values["split"].lower() or None
        )
        found += [f"{where}: {reason}" for reason in _faults(record["unit"], one, manifest, said)]
        shape = record["geometry"]
        unit = manifest.by_id.get(str(record["unit"]))
        if unit is not None and (shape is None or not _alike(shape, manifest.footprint(unit), manifest)):
            found.append(f"{where}: its footprint was moved or reshaped")
        said.setdefault(str(record["unit"]), one)
    found += [f"layer {UNITS}: unit {unit} is missing" for unit in manifest.by_id if unit not in said]
    return said


def _said_in_file(path: Path, manifest: Manifest, digest: str, found: list[str]) -> dict[str, Said]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        review, rows = str(document["review"]), list(document["verdicts"])
    except (ValueError, LookupError, TypeError) as error:
        raise SampleError(f"{path} is no file of verdicts", "The file that the page downloads.") from error
    if review != digest:
        raise SampleError(
            f"{path} belongs to another review ({_shown(review[:12])})",
            f"This folder is {digest[:12]}.",
            "Download the verdicts from the page in this folder.",
        )
    said: dict[str, Said] = {}
    for row, record in enumerate(rows, 1):
        values: Mapping[str, Any] = record if isinstance(record, dict) else {}
        where = f"{path.name}, row {row} (unit {_shown(values.get('unit'))})"
        one = Said(verdict=_text(values.get("verdict")).lower() or None, comment=_text(values.get("comment")))
        found += [f"{where}: {reason}" for reason in _faults(values.get("unit"), one, manifest, said)]
        said.setdefault(str(values.get("unit")), one)
    return said


def _faults(unit: object, said: Said, manifest: Manifest, before: Mapping[str, Said]) -> Iterator[str]:
    if not isinstance(unit, str) or unit not in manifest.by_id:
        yield "no such unit in this review"
        return
    if unit in before:
        yield "the unit is there twice"
    if said.verdict is not None and said.verdict not in _VERDICTS:
        yield f"verdict {_shown(said.verdict)}; allowed: {', '.join(_VERDICTS)}, or nothing"
    if said.split is not None and said.split not in _SPLITS:
        yield f"split {_shown(said.split)}; allowed: {', '.join(_SPLITS)}, or nothing"
    if _MARKUP.search(said.comment):
        yield "the comment holds HTML or a script; plain text alone is allowed"
    if len(said.comment) > _LONGEST or any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in said.comment):
        yield f"the comment is longer than {_LONGEST} characters, or holds control characters"


def _polygons(frame: gpd.GeoDataFrame, manifest: Manifest, found: list[str]) -> dict[str, list[BaseGeometry]]:
    polygons: dict[str, list[BaseGeometry]] = {}
    for row, record in enumerate(frame.to_dict("records"), 1):
        where = f"layer {MASKS}, row {row} (unit {_shown(record['unit'])})"
        unit, shape = manifest.by_id.get(str(record["unit"])), record["geometry"]
        if unit is None:
            found.append(f"{where}: no such unit in this review")
        elif shape is None or shape.is_empty:
            found.append(f"{where}: an empty mask; delete the row where nothing is there")
        elif not shape.is_valid:
            found.append(f"{where}: the polygon crosses itself ({shapely.is_valid_reason(shape)})")
        else:
            reach = _SLACK_PX * manifest.grid.resolution
            if not manifest.footprint(unit).buffer(reach, join_style="mitre").covers(shape):
                found.append(f"{where}: a mask of another size than its unit: it reaches beyond the footprint")
            polygons.setdefault(unit.id, []).append(shape)
    return polygons


def _judged(
    folder: Path, manifest: Manifest, unit: ReviewUnit, layer: Said | None, file: Said | None,
    polygons: list[BaseGeometry],
) -> Judged | str:  # fmt: skip
    both = [said.verdict for said in (layer, file) if said is not None and said.verdict is not None]
    if len(set(both)) > 1:
        return f"unit {unit.id}: the layer {UNITS} says {both[0]}, {VERDICTS} says {both[1]}"
    geobox, drawn = manifest.geobox(unit), np.zeros(manifest.geobox(unit).shape.yx, np.bool_)
    if polygons:
        drawn = np.asarray(rasterize(polygons, out_shape=drawn.shape, transform=geobox.transform), np.bool_)
    comments = [said.comment for said in (layer, file) if said is not None and said.comment]
    return Judged(
        unit=unit,
        verdict=both[0] if both else None,
        comment="\n".join(dict.fromkeys(comments)),
        split=_SPLITS.get(layer.split or "") if layer else None,
        mapped=manifest.mapped(folder, unit),
        drawn=drawn,
    )


def _inconsistent(one: Judged) -> list[str]:
    where = f"unit {one.unit.id}"
    if one.verdict is None and one.redrawn:
        return [f"{where}: its mask was redrawn, but there is no verdict; say accept once the mask is right"]
    nothing = not (one.drawn & (one.mapped != 255)).any()
    if one.verdict == "accept" and nothing and (one.mapped == 1).any():
        return [f"{where}: an empty mask where present is claimed; say reject where the map is wrong"]
    return []


def _alike(shape: BaseGeometry, box: BaseGeometry, manifest: Manifest) -> bool:
    return bool(shapely.hausdorff_distance(shape, box) < _SLACK_PX * manifest.grid.resolution / 2)


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else "" if value is None or value != value else str(value)


def _shown(value: object) -> str:
    """Text of others, as one short line without control characters."""
    text = "".join(c if unicodedata.category(c)[0] != "C" else "\ufffd" for c in str(value))
    return text if len(text) <= 60 else text[:57] + "…"
