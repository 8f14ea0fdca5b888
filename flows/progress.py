"""How far a run is: an artifact on Prefect's pages, and whoever else watches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import cast
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from think2seg.coordinator import Progress
from think2seg.coordinator.run import OnProgress

_EVERY_S = 2.0
_watcher: ContextVar[OnProgress] = ContextVar("watcher", default=lambda now: None)


@contextmanager
def watched_by(show: OnProgress) -> Iterator[None]:
    """Have the flow runs of this block report to `show` as well: to a progress bar, for example."""
    token = _watcher.set(show)
    try:
        yield
    finally:
        _watcher.reset(token)


class ProgressArtifact:
    """A progress artifact, updated at most every two seconds however fast the blocks come in.

    An API that cannot be reached for a moment does not stop the run.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._watcher = _watcher.get()
        self._artifact: UUID | None = None
        self._next = 0.0

    def __call__(self, now: Progress) -> None:
        """Tell how far the run is."""
        self._watcher(now)
        if time.monotonic() < self._next and now.blocks_done < now.blocks_total:
            return
        share = 100.0 * now.blocks_done / max(1, now.blocks_total)
        try:
            self._publish(share, f"{now.blocks_done} of {now.blocks_total} blocks; now {now.message}")
        except httpx.HTTPError as error:
            get_run_logger().warning(f"The progress artifact was not updated: {error}")
        self._next = time.monotonic() + _EVERY_S

    def _publish(self, share: float, description: str) -> None:
        if self._artifact is None:
            created = create_progress_artifact(share, key=self._key, description=description)
            self._artifact = cast(UUID, created)
        else:
            update_progress_artifact(self._artifact, share, description)
