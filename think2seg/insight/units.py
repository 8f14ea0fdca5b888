"""Figures and dates as people read them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

TRUSTED_SHARE = 0.8
"""From this observed share on, a date counts as well observed: a curve passes through it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaUnit:
    """A unit of area and how many square metres it holds."""

    name: str
    square_metres: float

    def number(self, area_m2: float) -> str:
        """The figure alone, with three significant digits where they matter: ``3.42``, ``41.7``, ``1,204``."""
        value = area_m2 / self.square_metres
        decimals = 2 if value < 10 else 1 if value < 100 else 0
        return f"{value:,.{decimals}f}" if value else "0"

    def text(self, area_m2: float) -> str:
        """Figure and unit: ``3.42 km²``."""
        return f"{self.number(area_m2)}\u202f{self.name}"


_UNITS = (
    AreaUnit(name="km²", square_metres=1e6),
    AreaUnit(name="ha", square_metres=1e4),
    AreaUnit(name="m²", square_metres=1.0),
)


def area_unit(largest_m2: float) -> AreaUnit:
    """The largest unit of which `largest_m2` holds at least one."""
    return next((unit for unit in _UNITS if largest_m2 >= unit.square_metres), _UNITS[-1])


def percent(fraction: float) -> str:
    """Share as a percentage that never rounds up to 100 or down to 0 by itself: ``99.8 %``, ``<0.1 %``."""
    value = fraction * 100
    if value in (0.0, 100.0):
        return f"{value:.0f}\u202f%"
    if value < 0.1:
        return "<0.1\u202f%"
    if value > 99.9:
        return ">99.9\u202f%"
    return f"{value:.1f}\u202f%" if value < 10 or value > 90 else f"{value:.0f}\u202f%"


def day(time: datetime) -> str:
    """``20 July 2014``."""
    return f"{time.day} {time:%B %Y}"


def duration(seconds: float) -> str:
    """``0.4 s``, ``47 s``, ``3 min 05 s``, ``2 h 14 min``."""
    if seconds < 10:
        return f"{seconds:.1f}\u202fs"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}\u202fs"
    if whole < 3600:
        return f"{whole // 60}\u202fmin {whole % 60:02d}\u202fs"
    return f"{whole // 3600}\u202fh {whole % 3600 // 60:02d}\u202fmin"


def metres(length_m: float) -> str:
    """``500 m``, ``2 km``."""
    return f"{length_m / 1000:g}\u202fkm" if length_m >= 1000 else f"{length_m:g}\u202fm"
