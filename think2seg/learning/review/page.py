"""The page on which a sample is judged: one HTML file, no outside parts, nothing shown that is not escaped."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from io import BytesIO

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from rasterio.features import shapes

from think2seg.learning.review.manifest import VERDICTS, Manifest, ReviewUnit, dump

_TEMPLATES = files("think2seg.learning.review") / "templates"
_QUALITY = 88


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One unit as the page shows it."""

    id: str
    date: str
    says: str
    """What the map says, in words."""
    picture: str | None
    """``data:`` URI of the tile with its halo."""
    no_image: str
    outline: str
    unseen: str
    """SVG path data in pixels of the tile: the mask's edge, what was not observed."""
    scenes: tuple[str, ...]


def render(
    manifest: Manifest,
    masks: Mapping[str, npt.NDArray[np.uint8]],
    pictures: Mapping[str, npt.NDArray[np.uint8] | str],
) -> str:
    """HTML of a review.

    Parameters
    ----------
    masks
        Unit → (core_px, core_px) uint8 of 0, 1, 255.
    pictures
        Unit → (tile_px, tile_px, 3) uint8, or why there is none.
    """
    script = _template("review.js")
    digest = b64encode(sha256(script.encode()).digest()).decode("ascii")
    environment = Environment(
        loader=FunctionLoader(_template), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("review.html.j2").render(
        question=manifest.question,
        cards=[_card(manifest, unit, masks[unit.id], pictures[unit.id]) for unit in manifest.units],
        review=sha256(dump(manifest)).hexdigest(),
        verdicts=VERDICTS,
        side=manifest.grid.tile_px,
        halo=manifest.grid.halo_px,
        core=manifest.grid.core_px,
        licence=manifest.licence,
        style=Markup(_template("review.css")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def _card(
    manifest: Manifest, unit: ReviewUnit, mask: npt.NDArray[np.uint8], picture: npt.NDArray[np.uint8] | str
) -> Card:
    halo = manifest.grid.halo_px
    seen, present = np.count_nonzero(mask != 255), np.count_nonzero(mask == 1)
    share = f"{100 * present / seen:.0f}\u202f%" if present * 100 >= seen else "less than 1\u202f%"
    return Card(
        id=unit.id,
        date=f"{unit.time:%-d %B %Y}",
        says=f"on {share} of this tile" if present else "nowhere on this tile",
        picture=None if isinstance(picture, str) else _data_uri(picture),
        no_image=unit.no_image,
        outline=_path(mask == 1, halo),
        unseen=_path(mask == 255, halo),
        scenes=unit.scenes,
    )


def _data_uri(picture: npt.NDArray[np.uint8]) -> str:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=_QUALITY)
    return "data:image/webp;base64," + b64encode(buffer.getvalue()).decode("ascii")


def _path(mask: npt.NDArray[np.bool_], halo_px: int) -> str:
    """Closed rings along the pixel edges of a (y, x) bool core; holes are rings, too."""
    parts: list[str] = []
    for outline, _ in shapes(mask.astype(np.uint8), mask=mask):
        for ring in outline["coordinates"]:
            points = " ".join(f"{x + halo_px:g},{y + halo_px:g}" for x, y in ring[:-1])
            parts.append(f"M{points}Z")
    return "".join(parts)


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
