"""Errors made for people, told without the traceback that Prefect adds."""

from __future__ import annotations

import logging

from think2seg.errors import Think2SegError


class PlainErrors(logging.Filter):
    """Turns the record of a `Think2SegError` into its three sentences; any other error keeps its traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite `record` if it tells of a `Think2SegError`; keep every record."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, Think2SegError):
            record.msg, record.args, record.exc_info, record.exc_text = str(error), (), None, None
        return True


def tell_errors_plainly() -> None:
    """Filter what Prefect logs about flow runs and task runs; repeating it changes nothing."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        if not any(isinstance(known, PlainErrors) for known in logger.filters):
            logger.addFilter(PlainErrors())
