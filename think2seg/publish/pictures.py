"""Imagery small enough to travel inside a page."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Quicklook = Callable[[str], NDArray[np.uint8] | None]
"""Acquisition id → (y, x, 3) uint8 picture of the whole cube, at any size; None where there is none."""

LONGEST_PX = 1100
"""Longer side of the pictures on a page."""
_QUALITIES = (80, 70, 60, 50)
_SMALLEST_PX = 320


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Part of a picture, as fractions of its height and width."""

    top: float = 0.0
    left: float = 0.0
    bottom: float = 1.0
    right: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How a set of pictures is compressed to fit a budget."""

    longest_px: int
    quality: int


def choose_encoding(samples: Sequence[NDArray[np.uint8]], *, pictures: int, budget_bytes: int) -> Encoding:
    """Find the best encoding with which `pictures` like `samples` fit into `budget_bytes`.

    Parameters
    ----------
    samples
        A few (y, x, 3) uint8 pictures, at most the largest size wanted.
    pictures
        How many pictures the page will hold.
    budget_bytes
        Bytes for all of them, base64 included.
    """
    longest = max(max(sample.shape[:2]) for sample in samples)
    while True:
        for quality in _QUALITIES:
            encoding = Encoding(longest_px=longest, quality=quality)
            mean = sum(len(data_uri(sample, encoding)) for sample in samples) / len(samples)
            if mean * pictures <= budget_bytes:
                return encoding
        if longest <= _SMALLEST_PX:
            return encoding
        longest = max(_SMALLEST_PX, int(longest * 0.75))


def data_uri(picture: NDArray[np.uint8], encoding: Encoding) -> str:
    """(y, x, 3) uint8 picture as a WebP ``data:`` URI."""
    buffer = BytesIO()
    fitted(picture, encoding.longest_px).save(buffer, "WEBP", quality=encoding.quality, method=4)
    return "data:image/webp;base64," + b64encode(buffer.getvalue()).decode("ascii")


def fitted(picture: NDArray[np.uint8], longest_px: int) -> Image.Image:
    """Reduce (y, x, 3) uint8 to at most `longest_px` on its longer side; never enlarge."""
    image = Image.fromarray(picture)
    scale = longest_px / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def crop(picture: NDArray[np.uint8], window: Window) -> NDArray[np.uint8]:
    """Cut a window out of a (y, x, 3) picture; at least one pixel remains."""
    height, width = picture.shape[:2]
    top, left = round(window.top * height), round(window.left * width)
    bottom, right = max(top + 1, round(window.bottom * height)), max(left + 1, round(window.right * width))
    return picture[top:bottom, left:right]


def encode_all(
    acquisitions: Sequence[str], quicklook: Quicklook, window: Window, *, longest_px: int, budget_bytes: int
) -> Iterator[str | None]:
    """Yield a ``data:`` URI per acquisition, None where the quicklook has nothing; one picture in memory at a time.

    The encoding is chosen on the first, middle and last acquisition, so all dates look alike.
    """

    def picture(acquisition: str) -> NDArray[np.uint8] | None:
        raw = quicklook(acquisition)
        return None if raw is None else np.asarray(fitted(crop(raw, window), longest_px))

    probes = sorted({0, len(acquisitions) // 2, len(acquisitions) - 1}) if acquisitions else []
    seen = {acquisitions[i]: picture(acquisitions[i]) for i in probes}
    samples = [sample for sample in seen.values() if sample is not None]
    encoding = (
        choose_encoding(samples, pictures=len(acquisitions), budget_bytes=budget_bytes)
        if samples
        else Encoding(longest_px=longest_px, quality=_QUALITIES[-1])
    )
    for acquisition in acquisitions:
        one = seen[acquisition] if acquisition in seen else picture(acquisition)
        yield None if one is None else data_uri(one, encoding)
