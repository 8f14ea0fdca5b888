"""A scripted analyst for the embedded wetlands: judges a review by the reference masks of water, as a person would.

    python benchmarks/analyst.py out/review

Every unit is judged by keyboard on the review's page in a headless Chromium: accepted where map and reference agree
well enough, unsure where clouds or the edge of the imagery hide most of it, else rejected. ``verdicts.json`` is
downloaded from the page, and the rejected units are redrawn in the layer ``masks`` of the GeoPackage, as in QGIS.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.warp import Resampling, reproject

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.chromium import Tab, browser

from think2seg.learning.review.manifest import MASKS, PACKAGE, UNITS, VERDICTS, Manifest, ReviewUnit, load
from think2seg.learning.review.package import outlines
from think2seg.samples.archive import UNSEEN, WETLANDS, catalog_path

AGREES = 0.6
"""Smallest intersection over union of a map that is accepted."""
SCRAP = 0.01
"""Share of a tile of which nobody would make a point."""
SEEN = 0.6
"""Smallest observed share of a unit that can be judged."""
KEYS = {"accept": "a", "reject": "r", "unsure": "u"}


def main() -> None:
    """Judge, download, redraw; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("review", type=Path, help="what `think2seg review sample` wrote of a cube of nd-wetlands")
    folder = parser.parse_args().review
    manifest, _ = load(folder)
    truths = {unit.id: _truth(manifest, unit) for unit in manifest.units}
    verdicts = {unit.id: _verdict(manifest.mapped(folder, unit), truths[unit.id]) for unit in manifest.units}
    with browser() as tab:
        _judge(tab, folder, verdicts)
    rejected = [unit for unit in manifest.units if verdicts[unit.id] == "reject"]
    _redraw(folder, manifest, {unit.id: truths[unit.id] == 1 for unit in rejected})
    print(json.dumps(Counter(verdicts.values()) | Counter(redrawn=len(rejected))))


def _truth(manifest: Manifest, unit: ReviewUnit) -> npt.NDArray[np.uint8]:
    """The reference mask of a unit's date on its core, (core_px, core_px) uint8 of 0, 1, 255."""
    geobox = manifest.geobox(unit)
    (path,) = catalog_path(WETLANDS).parent.glob(f"naip/*_{unit.time:%Y%m%d}/water.tif")
    found = np.full(geobox.shape, UNSEEN, np.uint8)
    with rasterio.open(path) as water:
        reproject(
            rasterio.band(water, 1), found, dst_transform=geobox.transform, dst_crs=str(geobox.crs),
            dst_nodata=UNSEEN, resampling=Resampling.nearest,
        )  # fmt: skip
    return found


def _verdict(mapped: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> str:
    seen = (mapped != UNSEEN) & (truth != UNSEEN)
    if seen.mean() < SEEN:
        return "unsure"
    ours, theirs = (mapped == 1) & seen, (truth == 1) & seen
    either = np.count_nonzero(ours | theirs)
    agree = either <= SCRAP * seen.size or np.count_nonzero(ours & theirs) >= AGREES * either
    return "accept" if agree else "reject"


def _judge(tab: Tab, folder: Path, verdicts: dict[str, str]) -> None:
    """Press a key for every unit that the page shows, then save what its link offers."""
    tab.resize(1280, 900).open((folder / "review.html").resolve().as_uri())
    for _ in verdicts:
        (shown,) = tab.value("[...document.querySelectorAll('.card:not([hidden])')].map(card => card.dataset.unit)")
        tab.press(KEYS[verdicts[shown]])
    tab.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder.resolve()))
    tab.click("#download")
    while not (folder / VERDICTS).is_file():
        tab.value("new Promise(done => setTimeout(done, 50))")
    if tab.errors:
        raise SystemExit("\n".join(tab.errors))


def _redraw(folder: Path, manifest: Manifest, truths: dict[str, npt.NDArray[np.bool_]]) -> None:
    """Put the polygons of `truths` in the place of those that the map has there."""
    path = folder / PACKAGE
    layers = {name: gpd.read_file(path, layer=name) for name in (UNITS, MASKS)}
    masks = layers[MASKS]
    drawn = [
        {"unit": unit.id, "time": unit.time.isoformat(), "question": manifest.question, "geometry": polygon}
        for unit in manifest.units
        if unit.id in truths
        for polygon in outlines(truths[unit.id], manifest.geobox(unit))
    ]
    kept = masks[~masks["unit"].isin(truths)].to_dict("records")
    columns = ["unit", "time", "question", "geometry"]
    layers[MASKS] = gpd.GeoDataFrame([*kept, *drawn], columns=columns, geometry="geometry", crs=masks.crs)
    path.unlink()
    for name, frame in layers.items():
        frame.to_file(path, layer=name, driver="GPKG", geometry_type="MultiPolygon", promote_to_multi=True)


if __name__ == "__main__":
    main()
