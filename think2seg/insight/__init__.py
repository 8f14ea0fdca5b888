"""What a cube says: area over time, and why one pixel is what it is."""

from __future__ import annotations

from think2seg.insight.explain import Explanation, explain
from think2seg.insight.series import Series, SeriesPoint, series

__all__ = ["Explanation", "Series", "SeriesPoint", "explain", "series"]
