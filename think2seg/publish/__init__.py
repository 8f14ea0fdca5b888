"""What leaves the house: the report."""

from __future__ import annotations

from think2seg.publish.quicklook import archive_quicklook
from think2seg.publish.report import write_report
from think2seg.publish.runs import quicklook_png, report_monitor, report_path, write_run_report
from think2seg.publish.sentences import command_of

__all__ = [
    "archive_quicklook",
    "command_of",
    "quicklook_png",
    "report_monitor",
    "report_path",
    "write_report",
    "write_run_report",
]
