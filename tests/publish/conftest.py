from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from support.cubes import GRID, build_cube, spec_of, three_dates

from think2seg.plan import PlanLine, Reason
from think2seg.publish import write_report

MARKUP = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'{{7*7}}</style>"
"""What a hostile catalog, model or person might plant."""
RUN = {
    "monitor": "lake", "monitor_hash": "4be1c0ffee", "seam_ratio": 1.05, "square_km": 1.5, "exit_code": 3,
    "seconds": {"total": 61.0, "search": 0.5, "read": 9.0, "prompt": 40.0, "segment": 10.0, "write": 1.0},
    "tiles": {"done": 68, "cloud": 0, "failed": 8, "gated": 0},
}  # fmt: skip


def picture(acquisition: str) -> npt.NDArray[np.uint8]:
    """A made-up landscape over the whole grid."""
    height, width = GRID.shape
    rows, cols = np.mgrid[:height, :width]
    shade = (40 * np.sin(rows / 9 + len(acquisition)) + 40 * np.cos(cols / 13) + 110).astype(np.uint8)
    return np.stack([shade, shade + 20, shade - 20], axis=-1)


@pytest.fixture(scope="session")
def steps_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Report of three dates with clouds, a failure and a plan that left something out."""
    folder = tmp_path_factory.mktemp("report")
    spec = spec_of(title="A lake that grows", attribution="Made up, no licence needed.")
    lines = build_cube(folder / "lake.zarr", three_dates(), spec)
    gone = PlanLine(
        id="20210903-aircraft", time=datetime(2021, 9, 3, 17, tzinfo=UTC), reason=Reason.MISSING_BANDS,
        acquisition=None, blocks=(), tiles=0, bytes_to_read=0, step=None, revision=0,
        note="item m_2021 lacks band blue",
    )  # fmt: skip
    return write_report(
        folder / "lake.zarr", folder / "lake.html", quicklook=picture, run=RUN, plan=[*lines, gone],
        command="think2seg run conf/monitors/lake.yaml",
    )  # fmt: skip


@pytest.fixture(scope="session")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Report of a cube whose every text holds markup."""
    folder = tmp_path_factory.mktemp("hostile")
    spec = replace(spec_of(question=MARKUP, title=MARKUP, attribution=MARKUP), source={MARKUP: MARKUP})
    steps = [replace(step, scenes=(MARKUP,), reasoning=MARKUP) for step in three_dates()]
    steps[2] = replace(steps[2], failures=dict.fromkeys(steps[2].failures, MARKUP))
    lines = build_cube(folder / "c.zarr", steps, spec)
    noted = [replace(line, note=MARKUP) for line in lines]
    return write_report(
        folder / "c.zarr", folder / "c.html", quicklook=lambda acquisition: None, run=RUN | {"monitor": MARKUP},
        plan=noted, command=f"think2seg run {MARKUP}",
    )  # fmt: skip


@pytest.fixture(scope="session")
def quicklook() -> Callable[[str], npt.NDArray[np.uint8]]:
    return picture
