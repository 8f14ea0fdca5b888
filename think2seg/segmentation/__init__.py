"""Drawing: segment-anything checkpoints behind one protocol.

Nothing here needs torch until a segmenter is loaded.
"""

from __future__ import annotations

from pathlib import Path

from think2seg.config import SamSegmenter as SamSegmenterConfig
from think2seg.segmentation.protocol import Drawn, Prompt, Segmenter

__all__ = ["Drawn", "Prompt", "Segmenter", "load_segmenter"]


def load_segmenter(config: SamSegmenterConfig, path: Path, *, digest: str) -> Segmenter:
    """Load the segmenter that a monitor describes; `path` and `digest` are the registry's answer to its path.

    Raises ModelError when the path holds no segmenter or this machine cannot run it.
    """
    from think2seg.segmentation.sam import SamSegmenter

    return SamSegmenter(path, digest=digest, dtype=config.dtype, device=config.device)
