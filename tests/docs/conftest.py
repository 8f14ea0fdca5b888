from __future__ import annotations

from pathlib import Path

import pytest
from support.cubes import build_cube, spec_of, three_dates


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `make demo` leaves it, with a small cube in the place of the real one."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "out").mkdir()
    build_cube(folder / "out" / "nd-wetlands.zarr", three_dates(), spec_of(title="Water over time"))
    return folder
