"""The archive flow: search → plan → groups of acquisitions → report, one Prefect task run each."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State

from think2seg.config import Monitor, load_monitor
from think2seg.coordinator import ArchiveRun, Found, Group, RunSummary, find, plan_rows
from think2seg.errors import CatalogError, StoreError, Think2SegError
from think2seg.publish import quicklook_png, report_path, write_run_report

_RETRIES = 2
_RETRY_DELAY_S = 30


def _is_io(_task: object, _run: object, state: State[Any]) -> bool:
    """Retry what the network or the disk did, never what a person wrote."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, OSError | StoreError | CatalogError)


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
    found = find(monitor, since=since, until=until)
    for note in found.notes:
        get_run_logger().info(note)
    return found


@task(task_run_name="plan", cache_policy=NO_CACHE, persist_result=False)
def plan(run: ArchiveRun) -> int:
    """Publish the plan as a table for people; return the number of blocks to do."""
    rows = plan_rows(run.plan)
    create_table_artifact(table=rows, key="scenes", description=f"Every acquisition of {run.monitor.monitor} and why")
    return run.plan.n_blocks


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
def report(run: ArchiveRun, summary: RunSummary) -> None:
    """Write the report beside each cube and link it."""
    for cube in run.plan.cubes:
        if cube.exists:
            path = write_run_report(cube, run, summary, report_path(cube.uri))
            create_link_artifact(key="report", link=path.resolve().as_uri(), link_text=f"Report of {path.stem}")
            image = quicklook_png(cube, run)
            create_image_artifact(key="quicklook", image_url=image, description=f"Latest step of {path.stem}")


def _run_name() -> str:
    parameters = flow_run.parameters
    start = flow_run.scheduled_start_time
    return f"{Path(parameters['monitor']).stem} {start:%Y-%m-%d %H:%M}"


@flow(name="segment-archive", flow_run_name=_run_name, persist_result=False, retries=0)
def segment_archive(
    monitor: str,
    overrides: list[str] | None = None,
    since: date | None = None,
    until: date | None = None,
    allow_changes: bool = False,
) -> State[Any]:
    """Ask a monitor's question of its archive and append the answers to its cube.

    Parameters
    ----------
    monitor
        Path of the monitor's YAML file.
    overrides
        ``key.path=value`` for any field of it, such as ``cube.uri=out/other.zarr``.
    since, until
        Narrow the monitor's time span to these days, both included.
    allow_changes
        Go on although more than 5 % of the finished scenes changed in the catalog.
    """
    asked = load_monitor(Path(monitor), overrides or [])
    found = search(asked, since, until)
    with ArchiveRun(found, allow_changes=allow_changes) as run:
        blocks = plan(run)
        progress = create_progress_artifact(0.0, key="progress", description=f"{blocks} blocks to do")
        groups = run.groups()
        for number, group in enumerate(groups, start=1):
            segment(run, group)
            update_progress_artifact(progress, 100.0 * number / len(groups))
        summary = run.summary()
        report(run, summary)
    emit_event(
        "think2seg.cube.updated" if summary.acquisitions["done"] else "think2seg.cube.unchanged",
        resource={"prefect.resource.id": f"think2seg.monitor.{asked.monitor}"},
        payload=summary.to_dict(),
    )
    message = summary.sentence()
    return Completed(message=message) if summary.exit_code == 0 else Failed(message=message)


def main(arguments: list[str]) -> int:
    """Run the flow on a monitor from the command line: ``python -m flows.segment_archive MONITOR [key=value …]``."""
    try:
        state = segment_archive(arguments[0], overrides=arguments[1:], return_state=True)
    except Think2SegError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0 if state.is_completed() else 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
