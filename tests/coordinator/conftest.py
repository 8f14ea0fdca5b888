from __future__ import annotations

from pathlib import Path

import pytest
from support.miniature import Archive, Miniature
from support.standins import Standins


@pytest.fixture
def world(tmp_path: Path, scheduler: str, by_rule: Standins) -> Miniature:
    """Three dates over two rows and three columns of blocks, a region of two by two, and models by rule."""
    return Miniature(tmp_path, Archive.of(tmp_path / "archive"), scheduler)
