"""The flow that takes a review in, and tells the world that there are new labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import State, flow
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.logs import tell_errors_plainly
from think2seg.learning.review import import_review as take_in


def _run_name() -> str:
    return f"{Path(flow_run.parameters['folder']).name} {flow_run.scheduled_start_time:%Y-%m-%d %H:%M}"


@flow(name="import-review", flow_run_name=_run_name, persist_result=False, retries=0)
def import_review(folder: str, store: str = "out/samples", cube: str | None = None) -> State[Any]:
    """Check what came back of a review, add it to the sample store, and emit `think2seg.labels.reviewed`.

    A review that brings nothing new emits no event. Prefect reads the next section into the form of parameters.

    Args:
        folder: What `think2seg review sample` wrote, with verdicts and redrawn masks.
        store: The sample store.
        cube: Where the cube is now, if it was moved.
    """
    tell_errors_plainly()
    done = take_in(Path(folder), Path(store), cube=cube)
    for sentence in done.figures.sentences():
        get_run_logger().info(sentence)
    if done.added:
        resource = {"prefect.resource.id": f"think2seg.samples.{Path(store).name}", "prefect.resource.name": store}
        emit_event("think2seg.labels.reviewed", resource=resource, payload=done.event())
    return Completed(
        message=f"{done.added} samples added, {done.known} were known already, {done.withdrawn} withdrawn."
    )
