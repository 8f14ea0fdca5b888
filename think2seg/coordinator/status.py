"""What a monitor's cubes hold, and who is writing to them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from think2seg.config import Monitor
from think2seg.coordinator.prepare import cube_uris, find
from think2seg.cube import (
    CubeStore,
    Finding,
    current_holder,
    is_cube,
    missing_scenes,
    read_ledger,
    read_unpublished,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeStatus:
    """State of one cube, as a reader finds it."""

    uri: str
    exists: bool
    steps: int = 0
    """Published steps, all revisions."""
    acquisitions: int = 0
    first: str | None = None
    last: str | None = None
    """Earliest and latest acquisition time, ISO 8601 UTC."""
    published: str | None = None
    """Time of the last publication."""
    blocks: dict[str, int] | None = None
    """Block state → count over the latest revisions."""
    waiting: int = 0
    """Finished blocks that are not published yet."""
    holder: str | None = None
    """The run that holds the lease."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    def render(self) -> str:
        """A few lines for people."""
        if not self.exists:
            return f"{self.uri}: no cube yet"
        blocks = ", ".join(f"{number} {state}" for state, number in (self.blocks or {}).items()) or "none"
        span = f"{self.first[:10]} to {self.last[:10]}" if self.first and self.last else "no acquisition yet"
        return "\n".join(
            (
                self.uri,
                f"  {self.acquisitions} acquisitions in {self.steps} steps, {span}",
                f"  blocks: {blocks}" + (f"; {self.waiting} finished and not published yet" if self.waiting else ""),
                f"  last published: {self.published or 'never'}",
                f"  being written by {self.holder}" if self.holder else "  no run is writing",
            )
        )


def cube_status(monitor: Monitor) -> tuple[CubeStatus, ...]:
    """Look at every cube of a monitor; nothing is written."""
    return tuple(_status(uri) for uri in cube_uris(monitor))


def missing_sources(uri: str, monitor: Monitor) -> list[Finding]:
    """Search a monitor's catalog for the scenes that its cube at `uri` was made from.

    Raises
    ------
    CatalogError
        The catalog cannot be searched.
    """
    found = find(monitor.model_copy(update={"source": monitor.source.model_copy(update={"lookback_days": None})}))
    scenes = (scene for acquisition in found.result.acquisitions for scene in acquisition.scenes)
    return missing_scenes(uri, {scene.fingerprint for scene in scenes})


def _status(uri: str) -> CubeStatus:
    if not is_cube(uri):
        return CubeStatus(uri=uri, exists=False)
    store = CubeStore(uri)
    ledger = read_ledger(store)
    latest = ledger.latest.values()
    times = sorted(entry.held.time for entry in latest)
    holder = current_holder(store)
    return CubeStatus(
        uri=uri,
        exists=True,
        steps=len(ledger.entries),
        acquisitions=len(times),
        first=times[0].isoformat() if times else None,
        last=times[-1].isoformat() if times else None,
        published=ledger.entries[-1].published.isoformat() if ledger.entries else None,
        blocks=dict(Counter(state.value for entry in latest for state in entry.held.states.values())),
        waiting=len(read_unpublished(store, len(ledger.entries))),
        holder=f"process {holder.pid} on {holder.host}, since {holder.since}" if holder else None,
    )
