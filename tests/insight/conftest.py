from __future__ import annotations

from pathlib import Path

import pytest
from support.cubes import build_cube, three_dates


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube of three dates: clear, cloudy, and one whose failed block was mended by a revision."""
    uri = tmp_path_factory.mktemp("insight") / "lake.zarr"
    build_cube(uri, three_dates())
    return uri
