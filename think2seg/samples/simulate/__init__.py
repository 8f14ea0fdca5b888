"""Simulated scenes: seeded, quick to draw, with the exact mask of every instance."""

from think2seg.samples.simulate.canvas import CONCEPTS
from think2seg.samples.simulate.scene import HELD_OUT_FROM, simulate

__all__ = ["CONCEPTS", "HELD_OUT_FROM", "simulate"]
