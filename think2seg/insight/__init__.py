"""What a cube says: area over time, what changed where, and why one pixel is what it is."""

from __future__ import annotations

from think2seg.insight.events import Events, events
from think2seg.insight.explain import Explanation, explain
from think2seg.insight.series import Series, SeriesPoint, series

__all__ = ["Events", "Explanation", "Series", "SeriesPoint", "events", "explain", "series"]
