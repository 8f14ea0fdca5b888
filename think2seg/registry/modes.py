"""Who may read weights: safetensors creates its files for their owner alone, whatever the umask says."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path


def share_weights(folder: Path) -> None:
    """Give the weights files of a folder the mode that the umask gives to any new file there."""
    with tempfile.TemporaryDirectory(dir=folder) as draft:
        fresh = Path(draft) / "fresh"
        fresh.touch()
        for path in folder.rglob("*.safetensors"):
            shutil.copymode(fresh, path)
