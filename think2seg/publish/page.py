"""What the report page shows, as plain values: the template formats nothing and decides nothing."""

from __future__ import annotations

from dataclasses import dataclass

from think2seg.publish.cartography import Furniture
from think2seg.publish.chart import Chart


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """One large figure."""

    name: str
    value: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One line of small print; `code` for identifiers."""

    name: str
    value: str
    code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The map of one acquisition."""

    label: str
    """Unique among the frames: the day, with the time where two share it."""
    picture: str | None
    """``data:`` URI."""
    present: str
    cloud: str
    hidden: str
    """SVG path data: the mask, what clouds hide, what else was not observed."""
    area: str
    range: str
    observed: str
    share: float
    """Observed percent of the region."""
    at: float
    """Place of the slider's stop, 0 to 1."""
    stop: str
    """Label under the slider; empty where there is no room for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One acquisition in the table, shown on the map or not."""

    label: str
    frame: int | None
    """Place among the page's frames; None where it has none."""
    shown: bool = True
    """Whether the cube shows it; False for what the plan left out."""
    reason: str
    tone: str
    """good, warn, bad or empty."""
    note: str
    area: str
    observed: str
    tiles: str
    revision: str
    prompter: str
    scenes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRow:
    """One block that could not be done."""

    item: str
    block: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What one stage of the run took."""

    name: str
    seconds: str
    percent: float
    """Of the longest stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapView:
    """What all frames share."""

    width: int
    height: int
    """Units of the path data."""
    outside: str
    """SVG path data of what lies outside the region."""
    hatch: float
    """Width of one hatch period in path units."""
    furniture: Furniture
    drawn_at: str
    """Pixel size of the outlines where it is coarser than the cube's; empty where it is not."""

    @property
    def shape(self) -> float:
        """Width over height."""
        return round(self.width / self.height, 4)

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height in pixels of the outlined mask."""
        return self.width // 2, self.height // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The whole page."""

    title: str
    question: str
    summary: str
    stats: tuple[Stat, ...]
    map: MapView | None
    """None where the cube shows nothing yet."""
    frames: tuple[Frame, ...]
    sampled: str
    """How many of the acquisitions have a frame; empty where all have one."""
    chart: Chart
    rows: tuple[Row, ...]
    failures: tuple[FailureRow, ...]
    more_failures: int
    """Failures that the page does not list."""
    redo: str
    """Shell command that tries again."""
    bill: str
    """Heading of the costs."""
    costs: tuple[Stat, ...]
    stages: tuple[Stage, ...]
    notes: tuple[str, ...]
    """Sentences of honesty."""
    facts: tuple[Fact, ...]
    attribution: str
    written: str
    version: str
