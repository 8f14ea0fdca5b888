"""The review loop: a random sample of a cube for people to judge, and what comes of their verdicts."""

from __future__ import annotations

from think2seg.learning.review.figures import Figures, read_figures
from think2seg.learning.review.package import draw_sample
from think2seg.learning.review.store import training_ground
from think2seg.learning.review.take_in import Imported, import_review

__all__ = ["Figures", "Imported", "draw_sample", "import_review", "read_figures", "training_ground"]
