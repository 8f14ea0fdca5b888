"""Pictures of series."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from think2seg.insight.units import TRUSTED_SHARE, area_unit

if TYPE_CHECKING:
    from think2seg.insight.series import Series

_INK, _CURVE, _PAPER = "#1a2226", "#0b6e78", "#ffffff"


def plot_series(series: Series, path: Path) -> None:
    """Draw area over time with the observed share as a band.

    The band runs from "nothing unobserved answers the question" to "all of it does"; the line passes through the well
    observed dates only, the others are hollow points.
    """
    points = series.points
    solid = [point for point in points if point.observed_fraction >= TRUSTED_SHARE]
    hollow = [point for point in points if 0 < point.observed_fraction < TRUSTED_SHARE]
    largest = max((point.area_m2 for point in points), default=0.0)
    unit = area_unit(largest)
    size = unit.square_metres

    figure = Figure(figsize=(9, 4.2), dpi=150, facecolor=_PAPER, layout="constrained")
    axes = figure.subplots()
    axes.fill_between(
        [point.time for point in points],  # type: ignore[arg-type]
        [point.area_low_m2 / size for point in points],
        [point.area_high_m2 / size for point in points],
        color=_CURVE, alpha=0.16, linewidth=0, label="unobserved: all absent to all present",
    )  # fmt: skip
    axes.plot([p.time for p in solid], [p.area_m2 / size for p in solid], "-o", color=_CURVE, ms=5, lw=2, label="area")  # type: ignore[arg-type]
    if hollow:
        axes.plot(
            [p.time for p in hollow], [p.area_m2 / size for p in hollow], "o", color=_CURVE, mfc=_PAPER, ms=5,  # type: ignore[arg-type]
            label=f"less than {TRUSTED_SHARE:.0%} observed",
        )  # fmt: skip
    axes.set_ylim(0, min(max((p.area_high_m2 for p in points), default=1.0), largest * 1.6 or size) / size * 1.05)
    axes.set_ylabel(f"area in {unit.name}", color=_INK)
    axes.set_title(plain(series.title or series.question), loc="left", color=_INK, fontsize=12, fontweight="bold")
    axes.grid(axis="y", color="#e2e1db", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    figure.savefig(path)


def plain(text: str) -> str:
    """`text` with the signs escaped that matplotlib would take for mathematics."""
    return text.replace("$", r"\$")
