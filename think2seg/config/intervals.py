"""Time intervals as monitors and catalogs write them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

type Interval = tuple[datetime | None, datetime | None]
"""Beginning and end, UTC, both included; None on an open side."""


def parse_interval(text: str) -> Interval:
    """Parse ``2009-01-01/2020-12-31``, ``2020-08-31`` or ``2020-08-31T17:00:00Z/..``.

    A day as the end means its last microsecond; a time without a zone is UTC.

    Raises
    ------
    ValueError
        If a side is neither a day, a time nor ``..``, or the end is before the beginning.
    """
    sides = [side.strip() for side in text.split("/")]
    if len(sides) > 2:
        raise ValueError("an interval has two sides: BEGINNING/END, such as 2009-01-01/..")
    begin, end = _moment(sides[0], time.min), _moment(sides[-1], time.max)
    if begin is not None and end is not None and end < begin:
        raise ValueError(f"the end {sides[-1]} is before the beginning {sides[0]}")
    return begin, end


def format_interval(interval: Interval) -> str:
    """Write an interval as STAC APIs expect it."""
    return "/".join(".." if side is None else side.isoformat().replace("+00:00", "Z") for side in interval)


def _moment(text: str, missing: time) -> datetime | None:
    if text in ("", ".."):
        return None
    try:
        moment = datetime.combine(date.fromisoformat(text), missing)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"{text!r} is neither a day such as 2020-08-31, a time nor '..'") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
