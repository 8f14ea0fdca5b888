"""A reinforcement beside its control, whose rewards are dealt out at random: what learning gains, and what noise.

    think2seg train conf/training/tiny-grpo.yaml
    think2seg train conf/training/tiny-grpo.yaml --set shuffle_rewards=true --set name=control --set export=out/control
    python benchmarks/walks.py runs/tiny-grpo runs/control --png docs/images/walks.png

Both walk from the same weights through the same questions: their sampled answers can be subtracted step by step.
Prints what each gained on the held-out questions, with the 95 % paired bootstrap interval. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

NAMES = ("true rewards", "shuffled rewards")
COLOURS = ("tab:blue", "tab:orange")
SMOOTH = 40
"""Steps of the running mean."""


def main() -> None:
    """Compare two finished runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the training: runs/tiny-grpo")
    parser.add_argument("control", type=Path, help="folder of its control: runs/control")
    parser.add_argument("--png", type=Path, help="draw both")
    given = parser.parse_args()
    records = [json.loads((folder / "record.json").read_text()) for folder in (given.run, given.control)]
    if records[0]["base"] != records[1]["base"] or records[0]["data"] != records[1]["data"]:
        parser.error(f"{given.run} and {given.control} began with other weights or data: nothing to compare.")
    compared = [{one["name"]: one for one in record["compared"]} for record in records]
    table = Table("figure", "images", "before", *(f"{name}: difference (95 % interval)" for name in NAMES), box=None)
    for name, one in compared[0].items():
        table.add_row(name, str(one["n"]), f"{one['champion']:.3f}", *(_interval(its[name]) for its in compared))
    Console(width=140).print(table)
    if given.png:
        draw([_entries(folder) for folder in (given.run, given.control)], compared, given.png)
    print(json.dumps({"gains": {name: its["gIoU"]["difference"] for name, its in zip(NAMES, compared, strict=True)}}))


def draw(logs: Sequence[Sequence[Mapping[str, Any]]], compared: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Gains with their intervals, IoU of the sampled answers, divergence, and the looks on the way."""
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    axes = figure.subplots(2, 2)
    _gains(axes[0, 0], compared)
    _sampled(axes[0, 1], logs)
    _divergence(axes[1, 0], logs)
    _looks(axes[1, 1], logs)
    for one in axes.flat:
        one.grid(alpha=0.3)
        one.legend(fontsize=7, framealpha=0.6)
    figure.savefig(path, dpi=110)


def _gains(axes: Axes, compared: Sequence[Mapping[str, Any]]) -> None:
    names = [name for name in compared[0] if name.startswith("gIoU")]
    for place, (its, label, colour) in enumerate(zip(compared, NAMES, COLOURS, strict=True)):
        middle = np.array([its[name]["difference"] for name in names])
        ends = np.abs(np.array([[its[name]["low"], its[name]["high"]] for name in names]).T - middle)
        axes.errorbar(middle, np.arange(len(names)) + 0.2 * place - 0.1, xerr=ends, fmt="o", color=colour, label=label)
    axes.axvline(0, color="0.4", lw=1)
    axes.set_yticks(range(len(names)), [name.removeprefix("gIoU, ") if "," in name else "all" for name in names])
    axes.invert_yaxis()
    axes.set_title("held-out mask gIoU: gained by the whole walk, 95 % intervals", fontsize=10)


def _sampled(axes: Axes, logs: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    first, second = ({entry["step"]: entry["iou"] for entry in log if "iou" in entry} for log in logs)
    steps = sorted(first.keys() & second.keys())
    apart = np.array([first[step] - second[step] for step in steps])
    axes.plot(steps, np.cumsum(apart) / np.arange(1, len(apart) + 1), color="0.5", label="mean since the first step")
    axes.plot(steps[SMOOTH - 1 :], _running(apart), color="tab:green", label=f"mean of {SMOOTH} steps")
    axes.axhline(0, color="0.4", lw=1)
    axes.set_title("IoU of sampled answers: true rewards less shuffled, same questions", fontsize=10)
    axes.set_xlabel("step", fontsize=8)


def _divergence(axes: Axes, logs: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    for log, label, colour in zip(logs, NAMES, COLOURS, strict=True):
        steps, values = zip(*((entry["step"], entry["kl"]) for entry in log if "kl" in entry), strict=True)
        axes.plot(steps[SMOOTH - 1 :], _running(values), color=colour, label=label)
    axes.set_title(f"KL from the first weights, mean of {SMOOTH} steps", fontsize=10)
    axes.set_xlabel("step", fontsize=8)


def _looks(axes: Axes, logs: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    for log, style in zip(logs, ("-", "--"), strict=True):
        looks = [(entry["step"], entry["held_out"]) for entry in log if "held_out" in entry and "compared" not in entry]
        for number, name in enumerate(name for name in looks[0][1] if "gIoU" in name):
            points = [(step, figures[name]) for step, figures in looks]
            label = name.removesuffix(" gIoU") if style == "-" else None
            axes.plot(*zip(*points, strict=True), style, color=f"C{number}", marker=".", label=label)
    axes.plot([], [], "--", color="0.5", label=NAMES[1])
    axes.set_title("looks on the way: mask gIoU of 100 questions each", fontsize=10)
    axes.set_xlabel("step", fontsize=8)


def _running(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.convolve(np.asarray(values, dtype=np.float64), np.full(SMOOTH, 1 / SMOOTH), mode="valid")


def _interval(figure: Mapping[str, Any]) -> str:
    return f"{figure['difference']:+.3f} ({figure['low']:+.3f} to {figure['high']:+.3f})"


def _entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    main()
