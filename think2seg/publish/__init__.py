"""What leaves the house: the report, and cubes as other tools take them."""

from __future__ import annotations

from think2seg.publish.export import Exported, export_cube
from think2seg.publish.quicklook import archive_quicklook
from think2seg.publish.report import write_report
from think2seg.publish.runs import quicklook_png, report_monitor, report_path, write_run_report
from think2seg.publish.sentences import command_of

__all__ = [
    "Exported",
    "archive_quicklook",
    "command_of",
    "export_cube",
    "quicklook_png",
    "report_monitor",
    "report_path",
    "write_report",
    "write_run_report",
]
