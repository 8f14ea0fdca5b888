"""A review that came back: figures for the cube, samples for learning, and what an event has to tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from think2seg.crs import to_wgs84
from think2seg.cube import find_store, read_spec
from think2seg.cube.layout import identity_digest
from think2seg.errors import SampleError
from think2seg.learning.review.figures import Figures, figures_of, remember
from think2seg.learning.review.manifest import IMAGES, Manifest, digest_of, load, read_raster
from think2seg.learning.review.returned import Judged, read_return
from think2seg.learning.review.splits import Footprint, freeze, propose, read_held_out, split_of
from think2seg.learning.review.store import Added, Sample, add, problems, read_index, refuse
from think2seg.samples.ground import held_out_ground
from think2seg.samples.labelled import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did."""

    store: str
    """Where the samples are."""
    added: int
    known: int
    """Were there already."""
    withdrawn: int
    """Were there, and are no longer stood for."""
    train: int
    held_out: int
    """Of all samples of this review."""
    left_out: dict[str, int]
    """Reason → units that gave no sample."""
    digest: str
    """Of all that the store holds now."""
    figures: Figures
    note: str
    """What could not be done; else empty."""

    def event(self) -> dict[str, Any]:
        """Payload of the event ``think2seg.labels.reviewed``."""
        return {
            "store": self.store, "digest": self.digest, "added": self.added, "known": self.known,
            "withdrawn": self.withdrawn, "train": self.train, "held_out": self.held_out,
            "review": self.figures.review, "accepted": self.figures.accepted, "rejected": self.figures.rejected,
            "unsure": self.figures.unsure,
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {**self.event(), "left_out": self.left_out, "figures": self.figures.to_dict(), "note": self.note}


def import_review(folder: Path, store: Path, *, verdicts: Path | None = None, cube: str | None = None) -> Imported:
    """Check a review folder that came back, add its samples to a store, and keep its figures beside the cube.

    All or nothing: where any row is refused, nothing is added. Importing again changes nothing but what was judged or
    redrawn since; a sample whose unit is now rejected or unsure is withdrawn.

    Parameters
    ----------
    folder
        What `draw_sample` wrote, with verdicts in its GeoPackage, in its ``verdicts.json``, or in both.
    store
        Folder of the sample store; made where there is none.
    verdicts
        The file of verdicts, where it is not in the folder.
    cube
        Where the cube is now; default where it was.

    Raises
    ------
    SampleError
        With every row that cannot be used, and why.
    StoreError
        The figures cannot be written beside the cube; the samples are kept.
    """
    manifest, digest = load(folder)
    judged = read_return(folder, manifest, digest, verdicts)
    held_out = {**held_out_ground(), **read_held_out(store)}
    area = _new_area(manifest, store, held_out)
    areas = [*held_out.values(), *([area] if area is not None else [])]
    samples, left_out = _samples(folder, manifest, judged, areas)
    withdrawn = {(manifest.identity, one.unit.id) for one in judged if one.verdict and one.truth is None}
    refuse(problems(samples, read_index(store), withdrawn), str(folder))
    if area is not None:
        freeze(store, manifest.identity, area)
    added = add(store, samples, withdrawn)
    figures = figures_of(manifest, digest, judged)
    note = _remember(cube or manifest.cube, manifest, figures)
    return _imported(store, samples, added, left_out, figures, note)


def _imported(
    store: Path, samples: Sequence[Sample], added: Added, left_out: dict[str, int], figures: Figures, note: str
) -> Imported:
    splits = Counter(one.split for one in samples)
    return Imported(
        store=str(store), added=added.added, known=added.known, withdrawn=added.withdrawn, train=splits["train"],
        held_out=splits["held_out"], left_out=left_out, digest=added.digest, figures=figures, note=note,
    )  # fmt: skip


def _new_area(manifest: Manifest, store: Path, held_out: dict[str, BaseGeometry]) -> BaseGeometry | None:
    """What to hold out of a cube that the store meets for the first time, in WGS 84.

    Nothing where a held-out area lies in the cube already, or samples for training lie on what would be held out.
    """
    grid = manifest.grid
    whole = to_wgs84(shapely.box(*grid.geobox.extent.boundingbox), grid.crs)
    if manifest.identity[:16] in held_out or any(whole.intersects(area) for area in held_out.values()):
        return None
    strip = propose(grid, manifest.identity)
    if strip is None:
        return None
    area = to_wgs84(strip, grid.crs)
    near = to_wgs84(strip.buffer(grid.core_px * grid.resolution), grid.crs)
    index = read_index(store)
    return None if index[index["split"] == "train"].intersects(near).any() else area


def _samples(
    folder: Path, manifest: Manifest, judged: Sequence[Judged], held_out: Sequence[BaseGeometry]
) -> tuple[list[Sample], dict[str, int]]:
    samples, left_out, faults = list[Sample](), Counter[str](), list[str]()
    for one in judged:
        if one.truth is None:
            left_out[_why_not(one)] += 1
        elif one.unit.image_sha256 is None:
            left_out["no image"] += 1
        else:
            split = split_of(Footprint(box=manifest.footprint(one.unit), crs=manifest.grid.crs), held_out)
            if one.split == "train" != split:
                faults.append(f"unit {one.unit.id}: split train, but it touches ground that is held out")
            split = one.split or split
            faults += _image_faults(folder, one)
            if split is None:
                left_out["less than one tile away from held-out ground"] += 1
            elif not faults:
                samples.append(_sample(folder, manifest, one, split))
    refuse(faults, str(folder))
    return samples, dict(left_out)


def _why_not(one: Judged) -> str:
    if one.verdict is None:
        return "not judged"
    return "unsure" if one.verdict == "unsure" else "rejected, not redrawn"


def _image_faults(folder: Path, one: Judged) -> Iterator[str]:
    path = folder / IMAGES / f"{one.unit.id}.tif"
    if not path.is_file():
        yield f"unit {one.unit.id}: {IMAGES}/{path.name} is missing"
    elif digest_of(path) != one.unit.image_sha256:
        yield f"unit {one.unit.id}: {IMAGES}/{path.name} is not the image that was judged"


def _sample(folder: Path, manifest: Manifest, one: Judged, split: Split) -> Sample:
    grid, truth = manifest.grid, one.truth
    assert truth is not None
    whole = np.moveaxis(read_raster(folder / IMAGES / f"{one.unit.id}.tif"), 0, -1)
    core = slice(grid.halo_px, grid.halo_px + grid.core_px)
    image = np.ascontiguousarray(whole[core, core])
    if image.shape != (*truth.shape, 3):
        raise SampleError(f"unit {one.unit.id}: an image of {whole.shape}", f"{grid.tile_px} × {grid.tile_px}, RGB.")
    return Sample(
        image=image, mask=truth, observed=float((one.mapped != 255).mean()), question=manifest.question,
        footprint=manifest.footprint(one.unit).bounds, crs=grid.crs, gsd_m=float(np.mean(grid.gsd_m)),
        cube=manifest.identity, unit=one.unit.id, split=split, redrawn=one.redrawn,
        source=f"reviewed:{manifest.source}", licence=manifest.licence,
    )  # fmt: skip


def _remember(uri: str, manifest: Manifest, figures: Figures) -> str:
    """Keep the figures beside the cube; says why where it is not there."""
    store = find_store(uri)
    spec = read_spec(store) if store is not None else None
    if store is None or spec is None:
        return f"There is no cube at {uri}: its report will not state these figures. Name its place with --cube."
    if identity_digest(spec.identity) != manifest.identity:
        raise SampleError(f"--cube {uri}: another cube than the sample was drawn from.", "", "Name the right one.")
    remember(store, figures)
    return ""
