"""Contact sheets: answers drawn over their images, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont
from scipy import ndimage

from think2seg.learning.suite.asking import Case
from think2seg.samples.labelled import Image, Mask

ANSWERED, TRUE = (255, 60, 60), (0, 230, 230)
CAPTION_PX = 30


def outlined(image: Image, answered: Mask, truth: Mask) -> Image:
    """The image with the outline of the truth in cyan and that of the answer in red, (y, x, 3) uint8."""
    picture = image.copy()
    for mask, colour in ((truth, TRUE), (answered, ANSWERED)):
        picture[mask & ~ndimage.binary_erosion(mask, border_value=1)] = colour
    return picture


def best_and_worst(cases: Sequence[Case], *, n: int = 20) -> tuple[list[Case], list[Case]]:
    """The `n` best answers of questions whose target is there, and the `n` worst of all."""
    known = [case for case in cases if case.outcome.concept is not None]
    present = sorted((case for case in known if case.outcome.true), key=lambda case: -case.outcome.iou)
    return present[:n], sorted(known, key=lambda case: case.outcome.iou)[:n]


def contact_sheet(cases: Sequence[Case], path: Path, *, columns: int = 5) -> None:
    """Write a PNG of the cases, each with its question and IoU; nothing for no cases."""
    if not cases:
        return
    tiles = [_tile(case) for case in cases]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[start : start + columns], axis=1) for start in range(0, len(tiles), columns)]
    PilImage.fromarray(np.concatenate(rows)).save(path, optimize=True)


def _tile(case: Case) -> npt.NDArray[np.uint8]:
    picture = outlined(case.sample.image.image, case.mask, case.truth)
    canvas = PilImage.new("RGB", (picture.shape[1] + 2, picture.shape[0] + CAPTION_PX), "white")
    canvas.paste(PilImage.fromarray(picture), (1, CAPTION_PX))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    outcome = case.outcome
    pen.text((3, 1), case.sample.question.phrasing.text[:42], fill="black", font=font)
    pen.text(
        (3, 14),
        f"IoU {outcome.iou:.2f}   {outcome.predicted} named, {outcome.true} there   {outcome.source}",
        fill="black",
        font=font,
    )
    return np.asarray(canvas)
