"""The picture of a run: what it finds where it was not trained, and every logged figure, over the images seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

NOT_CURVES = {"stage", "step", "images", "seconds", "gradient", "resumed", "held_out"}
_MOST_HELD_OUT = 6
"""Figures of the first plot: a segmenter or prompter in training is looked at in some forty ways."""
_SMOOTH = 20
"""Entries of the running mean that stands over the single ones."""


def draw_curve(entries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw held-out figures in one small plot, and every figure that moves in one of its own, into a PNG."""
    from matplotlib.figure import Figure

    found = {name: [entry[name] for entry in entries if name in entry] for name in _names(entries)}
    names = [name for name, values in found.items() if min(values) < max(values)]
    looks = _looks(entries)
    if not names and not looks:
        return
    columns = 4
    rows = -(-(len(names) + bool(looks)) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.3 * rows), layout="constrained")
    plots = iter([figure.add_subplot(rows, columns, index + 1) for index in range(len(names) + bool(looks))])
    if looks:
        axes = next(plots)
        for name, points in looks.items():
            axes.plot(*zip(*points, strict=True), marker=".", label=name.replace("_", " "))
        axes.legend(fontsize=6)
        axes.set_title("held out", fontsize=9)
    for name in names:
        axes = next(plots)
        for stage in dict.fromkeys(entry["stage"] for entry in entries):
            points = [(e["images"], e[name]) for e in entries if e["stage"] == stage and name in e]
            if points:
                seen, values = zip(*points, strict=True)
                (line,) = axes.plot(seen, values, alpha=0.35)
                axes.plot(seen, _running_mean(values), color=line.get_color(), label=stage)
        axes.set_title(name.replace("_", " "), fontsize=9)
    for axes in figure.axes:
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    figure.axes[-1].legend(fontsize=7)
    figure.supxlabel("images seen")
    figure.savefig(path, dpi=110)


def _names(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({name for entry in entries for name in entry if name not in NOT_CURVES})


def _looks(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Held-out figure → (images seen by then, value)."""
    seen = accumulate((entry.get("images", 0) for entry in entries), max)
    told = [(images, entry["held_out"]) for images, entry in zip(seen, entries, strict=True) if entry.get("held_out")]
    names = list(dict.fromkeys(name for _, figures in told for name in figures))[:_MOST_HELD_OUT]
    return {name: [(images, figures[name]) for images, figures in told if name in figures] for name in names}


def _running_mean(values: Sequence[float]) -> list[float]:
    """The mean of each value and those before it, as many as are there."""
    windows = (values[max(0, end - _SMOOTH) : end] for end in range(1, len(values) + 1))
    return [sum(window) / len(window) for window in windows]
