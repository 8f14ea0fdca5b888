"""The picture of a run: every logged figure over the images seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NOT_CURVES = {"stage", "step", "images", "seconds", "gradient", "resumed", "held_out"}


def draw_curve(entries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw one small plot for each figure of the log, its stages in turn, into a PNG."""
    from matplotlib.figure import Figure

    names = sorted({name for entry in entries for name in entry if name not in NOT_CURVES})
    if not names:
        return
    columns = 4
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.3 * rows), layout="constrained")
    for index, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, index)
        for stage in dict.fromkeys(entry["stage"] for entry in entries):
            points = [(e["images"], e[name]) for e in entries if e["stage"] == stage and name in e]
            if points:
                axes.plot(*zip(*points, strict=True), label=stage)
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=7)
    figure.supxlabel("images seen")
    figure.savefig(path, dpi=110)
