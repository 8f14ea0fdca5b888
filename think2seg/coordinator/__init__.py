"""One run: search, lease, plan, dispatch of work orders, receipts, publication."""

from __future__ import annotations

from think2seg.coordinator.groups import Group
from think2seg.coordinator.prepare import CubePlan, Found, RunPlan, cube_uris, find, plan_rows, plan_run
from think2seg.coordinator.redraw import RedrawSummary, run_redraw
from think2seg.coordinator.redraw_plan import RedrawPlan, plan_redraw
from think2seg.coordinator.run import ArchiveRun, Progress, run_archive
from think2seg.coordinator.shadow import run_shadow
from think2seg.coordinator.status import CubeStatus, cube_status, missing_sources
from think2seg.coordinator.summary import RunSummary

__all__ = [
    "ArchiveRun",
    "CubePlan",
    "CubeStatus",
    "Found",
    "Group",
    "Progress",
    "RedrawPlan",
    "RedrawSummary",
    "RunPlan",
    "RunSummary",
    "cube_status",
    "cube_uris",
    "find",
    "missing_sources",
    "plan_redraw",
    "plan_rows",
    "plan_run",
    "run_archive",
    "run_redraw",
    "run_shadow",
]
