"""Drawing: segment-anything and SAM 2 checkpoints behind one protocol.

Nothing here needs torch until a segmenter is loaded.
"""

from __future__ import annotations

from pathlib import Path

from think2seg.config import Sam2Segmenter as Sam2SegmenterConfig
from think2seg.config import Segmenter as SegmenterConfig
from think2seg.segmentation.protocol import Drawn, Prompt, Segmenter

__all__ = ["Drawn", "Prompt", "Segmenter", "load_segmenter"]


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
