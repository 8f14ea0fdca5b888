"""The suite's figures as tables: on the terminal, in Markdown, and as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable

from think2seg.learning.evaluate import Outcome, Summary, summarise, summarise_by

_SHOWN = {
    "n": "questions",
    "g_iou": "gIoU",
    "c_iou": "cIoU",
    "present_g_iou": "gIoU, present",
    "parse_rate": "parsed",
    "no_target_accuracy": "no-target right",
    "false_empty": "false empty",
    "count_error": "count error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A titled table of text and figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int, ...], ...]

    def markdown(self) -> str:
        """GitHub's dialect, the title in bold."""
        lines = [f"**{self.title}**", "", _line(self.columns), _line("---" for _ in self.columns)]
        return "\n".join([*lines, *(_line(map(shown, row)) for row in self.rows)])

    def rich(self) -> RichTable:
        """For the terminal."""
        table = RichTable(title=self.title, title_justify="left", box=None, pad_edge=False)
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*map(shown, row))
        return table

    def to_dict(self) -> dict[str, object]:
        """Plain data, NaN as None."""
        return {
            "title": self.title,
            "rows": [dict(zip(self.columns, map(_plain, row), strict=True)) for row in self.rows],
        }


def shown(value: str | float | int) -> str:
    """A figure as people read it; nothing for NaN."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3f}"
    return str(value)


def _plain(value: str | float | int) -> str | float | int | None:
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 4)
    return value


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def summary_table(title: str, summaries: Mapping[str, Summary]) -> Table:
    """One row of figures for every name."""
    return Table(
        title=title,
        columns=("", *_SHOWN.values()),
        rows=tuple((name, *(getattr(summary, key) for key in _SHOWN)) for name, summary in summaries.items()),
    )


def compared_table(title: str, outcomes: Mapping[str, Sequence[Outcome]]) -> Table:
    """Overall figures of the pair and of each baseline on the same questions of the vocabulary."""
    known = {name: [o for o in found if o.concept is not None] for name, found in outcomes.items()}
    return summary_table(title, {name: summarise(found) for name, found in known.items()})


def per_concept_table(outcomes: Mapping[str, Sequence[Outcome]]) -> Table:
    """Mask gIoU of every concept, the pair beside the baselines."""
    by_name = {name: summarise_by(found, lambda o: o.concept) for name, found in outcomes.items()}
    pair = next(iter(by_name.values()))
    rows: list[tuple[str | float | int, ...]] = []
    for concept, summary in pair.items():
        others = (s[concept].g_iou if concept in s else float("nan") for s in list(by_name.values())[1:])
        figure = summary.unknown_accuracy if concept == "unknown" else summary.g_iou
        rows.append((concept, summary.n, figure, summary.present_g_iou, summary.no_target_accuracy,
                     summary.count_error, *others))  # fmt: skip
    return Table(
        title="Simulated held-out scenes by concept, held-out phrasings (unknown: share answered so)",
        columns=("", "questions", "gIoU", "gIoU, present", "no-target right", "count error", *list(by_name)[1:]),
        rows=tuple(rows),
    )
