"""What a run leaves on Prefect's pages for people: the scene table, the report and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.artifacts import create_image_artifact, create_link_artifact, create_table_artifact

from think2seg.coordinator import ArchiveRun, CubePlan, RunPlan, RunSummary, plan_rows
from think2seg.publish import quicklook_png, report_path, write_run_report
from think2seg.publish.sentences import command_of

_MAX_ROWS = 500


def publish_scene_table(plan: RunPlan) -> None:
    """Publish every acquisition with its reason; of a long plan, those with work and then the latest of the rest."""
    rows = plan_rows(plan)
    chosen = sorted(rows, key=lambda row: (row["blocks"] > 0, row["time"]))[-_MAX_ROWS:]
    note = f" ({len(chosen)} of {len(rows)} shown)" if len(chosen) < len(rows) else ""
    create_table_artifact(
        table=[_row(row) for row in sorted(chosen, key=lambda row: str(row["time"]))],
        key=f"{plan.monitor.monitor}-scenes",
        description=f"What **{plan.monitor.monitor}** does with each acquisition, and why{note}. {plan.sentence()}",
    )


def publish_reports(run: ArchiveRun, summary: RunSummary, monitor: str, overrides: list[str]) -> None:
    """Write the report beside each cube and publish a link to it, with a picture of the newest acquisition."""
    for cube in run.plan.cubes:
        path = report_path(cube.uri)
        if not cube.exists or (path.exists() and not summary.acquisitions["done"] + summary.acquisitions["failed"]):
            continue
        write_run_report(cube, run, summary, path, command=command_of(monitor, overrides))
        key = _key(run, cube)
        text = f"Report of {path.stem}"
        create_link_artifact(link=path.resolve().as_uri(), link_text=text, key=f"{key}-report", description=text)
        create_image_artifact(
            image_url=quicklook_png(cube, run), key=f"{key}-quicklook", description=f"Newest acquisition in {path.stem}"
        )


def _key(run: ArchiveRun, cube: CubePlan) -> str:
    """Artifact keys have a history of their own, so each cube has its own."""
    name = run.monitor.monitor
    return name if len(run.plan.cubes) == 1 else f"{name}-{cube.zone.grid.zone}"


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "time": row["time"][:16].replace("T", " "),
        "acquisition": row["acquisition"],
        "reason": row["reason"],
        "blocks": row["blocks"],
        "tiles": row["tiles"],
        "MB": round(row["bytes"] / 1e6, 1),
        "scenes": ", ".join(row["scenes"]),
        "note": row["note"],
        "cube": Path(row["cube"]).name,
    }
