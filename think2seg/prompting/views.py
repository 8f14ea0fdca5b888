"""Views: a square of imagery shown as it lies, turned and mirrored, and one mask out of what is drawn of all of them.

Test-time augmentation by the symmetries of the square: answers about the same place err differently, and what half of
them agree upon is right more often than one of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from think2seg.prompting.answers import SETTLED, Status
from think2seg.segmentation import Prompt

VIEWS = (0, 2, 5, 7, 1, 3, 4, 6)
"""The eight symmetries in the order in which they are used: as it lies, upside down, mirrored at either diagonal, …

0 to 3 are quarter turns counter-clockwise; 4 to 7 are the same, mirrored left to right afterwards.
"""

type Mask = npt.NDArray[np.bool_]


def shown[A: np.generic](
    image: np.ndarray[tuple[int, ...], np.dtype[A]], view: int
) -> np.ndarray[tuple[int, ...], np.dtype[A]]:
    """An image (side, side, …) in one of its `VIEWS`."""
    turned = np.rot90(image, view % 4)
    return np.ascontiguousarray(turned[:, ::-1] if view >= 4 else turned)


def returned(prompt: Prompt, view: int, side: float) -> Prompt:
    """A prompt given upon a view of a square of `side` pixels, on the square as it lies."""

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x, y = point
        if view >= 4:
            x = side - x
        for _ in range(view % 4):
            x, y = side - y, x
        return x, y

    box = None
    if prompt.bbox is not None:
        (x0, y0), (x1, y1) = place(prompt.bbox[:2]), place(prompt.bbox[2:])
        box = min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
    return Prompt(
        bbox=box,
        points=tuple(map(place, prompt.points)),
        negative_points=tuple(map(place, prompt.negative_points)),
    )


def iou(one: Mask, other: Mask) -> float:
    """IoU of two masks of one shape; 0 where both are empty."""
    return int(np.count_nonzero(one & other)) / max(1, int(np.count_nonzero(one | other)))


def voters(statuses: Sequence[Status]) -> list[int]:
    """Which of the answers about one square, by their statuses, its mask is voted on by.

    Those that came to an end, and to the commonest; the first alone where none did.
    """
    counted = Counter(status for status in statuses if status in SETTLED)
    if not counted:
        return [0]
    ((commonest, _),) = counted.most_common(1)
    return [number for number, status in enumerate(statuses) if status == commonest]


def needed(n_views: int) -> int:
    """How many of so many views must hold a pixel: at least half."""
    return -(-n_views // 2)


def agreed(masks: Sequence[Mask]) -> Mask:
    """The pixels that at least half of the masks, all of one shape, hold."""
    return np.sum(masks, axis=0) >= needed(len(masks))
