"""The evaluation suite of the bundled pair: `think2seg evaluate --suite tiny`.

Held-out simulated scenes under held-out phrasings, the held-out half of the embedded wetlands through the whole chain,
held-out tiles of other open imagery where it is at hand, the segmenter alone with true prompts, calibration, and what
sampled answers could teach reinforcement. Each beside the baselines a user would otherwise use, on the same pixels.
"""

from __future__ import annotations

from think2seg.learning.suite.run import PARTS, SuiteResult, correctable, run_suite, write_calibration

__all__ = ["PARTS", "SuiteResult", "correctable", "run_suite", "write_calibration"]
