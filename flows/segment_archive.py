"""The archive flow: search → plan → groups of acquisitions → report, one Prefect task run each."""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path
from typing import Any

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.artifacts import publish_reports, publish_scene_table
from flows.logs import tell_errors_plainly
from flows.processes import main_module_kept_back
from flows.progress import ProgressArtifact
from think2seg.config import Monitor, load_monitor
from think2seg.coordinator import ArchiveRun, Found, Group, RunSummary, find
from think2seg.errors import StoreError, Think2SegError
from think2seg.stac.transport import HttpError

_RETRIES = 2
_RETRY_DELAY_S = 30
_MAX_FAILURES_IN_EVENT = 20
_ENOUGH_TILES = 20
_UNREADABLE_SHARE = 0.05
"""Share of unreadable answers, out of enough of them, that calls for a retraining."""


def _is_io(_task: object, _run: object, state: State[Any]) -> bool:
    """Retry what the network or the disk did, never what a person wrote."""
    match state.result(raise_on_failure=False):
        case HttpError(status=status):
            return status is None or status == 429 or status >= 500
        case StoreError():
            return True
        case error:
            return isinstance(error, OSError) and not isinstance(error, Think2SegError)


@task(
    task_run_name="search {monitor.monitor}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=_RETRIES,
    retry_delay_seconds=_RETRY_DELAY_S,
    retry_condition_fn=_is_io,
)
def search(monitor: Monitor, since: date | None, until: date | None) -> Found:
    """Search the catalog, once per run."""
    return find(monitor, since=since, until=until)


@task(task_run_name="plan", cache_policy=NO_CACHE, persist_result=False)
def plan(run: ArchiveRun) -> None:
    """Show people what the run will do, and why."""
    publish_scene_table(run.plan)


@task(
    task_run_name="{group.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=_RETRIES,
    retry_delay_seconds=_RETRY_DELAY_S,
    retry_condition_fn=_is_io,
)
def segment(run: ArchiveRun, group: Group) -> None:
    """Read, ask, draw and write the blocks of some acquisitions, and publish each acquisition when it is whole."""
    run.execute(group)


@task(task_run_name="report", cache_policy=NO_CACHE, persist_result=False)
def report(run: ArchiveRun, monitor: str, overrides: list[str]) -> None:
    """Write the report beside each cube and link it."""
    publish_reports(run, run.summary(), monitor, overrides)


def _run_name() -> str:
    monitor, start = flow_run.parameters["monitor"], flow_run.scheduled_start_time
    return f"{Path(monitor).stem} {start:%Y-%m-%d %H:%M}"


@flow(name="segment-archive", flow_run_name=_run_name, persist_result=False, retries=0)
def segment_archive(
    monitor: str,
    overrides: list[str] | None = None,
    since: date | None = None,
    until: date | None = None,
    retry_quarantined: bool = False,
    allow_changes: bool = False,
) -> State[Any]:
    """Ask a monitor's question of its archive and append the answers to its cube.

    Blocks that failed make the final state Failed; a `Think2SegError` says why nothing could be done. Prefect reads
    the next section into the form of parameters.

    Args:
        monitor: Path of the monitor's YAML file.
        overrides: `key.path=value` for any field of it, such as `cube.uri=out/other.zarr`.
        since: First day to look at, within the monitor's time span.
        until: Last day to look at, within the monitor's time span.
        retry_quarantined: Try failing blocks again that were given up after three tries.
        allow_changes: Go on although more than 5 % of the finished scenes changed in the catalog.
    """
    tell_errors_plainly()
    log = get_run_logger()
    asked = load_monitor(Path(monitor), overrides or [])
    found = search(asked, since, until)
    for note in found.notes:
        log.info(note)
    progress = ProgressArtifact(f"{asked.monitor}-progress")
    with (
        main_module_kept_back(),
        ArchiveRun(
            found, retry_quarantined=retry_quarantined, allow_changes=allow_changes, on_progress=progress
        ) as run,
    ):
        plan(run)
        log.info(run.plan.sentence())
        for group in run.groups():
            started = time.monotonic()
            segment(run, group)
            log.info(f"{group.name} done in {time.monotonic() - started:.0f} s")
        report(run, monitor, overrides or [])
        summary = run.summary()
    log.info(summary.sentence())
    _announce(summary)
    state = Completed if summary.exit_code == 0 else Failed
    return state(message=summary.sentence())


def is_degraded(summary: RunSummary) -> bool:
    """Whether the prompter should be looked after: unreadable answers, or more false alarms than before."""
    asked = summary.tiles["done"]
    unreadable = asked >= _ENOUGH_TILES and summary.unparsable_tiles > _UNREADABLE_SHARE * asked
    return unreadable or summary.has_more_false_alarms


def _announce(summary: RunSummary) -> None:
    payload = summary.to_dict()
    payload["failures"] = payload["failures"][:_MAX_FAILURES_IN_EVENT]
    resource = {
        "prefect.resource.id": f"think2seg.monitor.{summary.monitor}",
        "prefect.resource.name": summary.monitor,
    }
    grew = "updated" if summary.acquisitions["done"] else "unchanged"
    emit_event(f"think2seg.cube.{grew}", resource=resource, payload=payload)
    if is_degraded(summary):
        emit_event("think2seg.quality.degraded", resource=resource, payload=payload)
