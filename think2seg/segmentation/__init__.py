"""Drawing: segment-anything and SAM 2 checkpoints behind one protocol.

Nothing here needs torch until a segmenter is loaded.
"""

from __future__ import annotations

from pathlib import Path

from think2seg.config import Sam2Segmenter as Sam2SegmenterConfig
from think2seg.config import Segmenter as SegmenterConfig
from think2seg.segmentation.protocol import Drawn, Prompt, Segmenter

__all__ = ["Drawn", "Prompt", "Segmenter", "check_segmenter", "load_segmenter"]


def load_segmenter(config: SegmenterConfig, path: Path | None, *, digest: str) -> Segmenter:
    """Load the segmenter that a monitor describes; `path` and `digest` are what `registry.segmenter_weights` found.

    Raises ModelError when the path holds no segmenter or this machine cannot run it.
    """
    assert path is not None
    if isinstance(config, Sam2SegmenterConfig):
        from think2seg.segmentation.sam2 import Sam2Segmenter

        return Sam2Segmenter(path, digest=digest, dtype=config.dtype, device=config.device)
    from think2seg.segmentation.sam import SamSegmenter

    return SamSegmenter(path, digest=digest, dtype=config.dtype, device=config.device)


def check_segmenter(config: SegmenterConfig, path: Path | None) -> None:
    """Raise ModelError when `path` plainly holds no such segmenter, or its device is not there; loads no weights."""
    from think2seg.segmentation.devices import choose_device

    assert path is not None
    choose_device(config.device)
    if isinstance(config, Sam2SegmenterConfig):
        from think2seg.segmentation.sam2 import read_config

        read_config(path)
    elif path.is_dir():
        from think2seg.segmentation.architecture import described

        described(path)
