"""Every monitor has its deployment, and the two say the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule

from flows.import_review import import_review
from flows.retrain_prompter import retrain_prompter
from flows.segment_archive import is_degraded, segment_archive
from think2seg.config import load_monitor
from think2seg.coordinator import RunSummary

ROOT = Path(__file__).resolve().parents[2]
MONITORS = sorted((ROOT / "conf/monitors").glob("*.yaml"))
ALL: dict[str, Any] = {
    one["name"]: one for one in yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text())["deployments"]
}
RETRAININGS = {name: one for name, one in ALL.items() if "retrain" in one["entrypoint"]}
DEPLOYMENTS = {name: one for name, one in ALL.items() if "segment_archive" in one["entrypoint"]}


def test_every_monitor_is_deployed_and_nothing_else() -> None:
    assert set(DEPLOYMENTS) == {path.stem for path in MONITORS} | {"any"}


@pytest.mark.parametrize("path", MONITORS, ids=lambda path: path.stem)
def test_deployment_of_a_monitor(path: Path) -> None:
    monitor, deployment = load_monitor(path), DEPLOYMENTS[path.stem]
    assert monitor.monitor == path.stem
    assert segment_archive.validate_parameters(deployment["parameters"])["monitor"] == f"conf/monitors/{path.name}"
    assert deployment["concurrency_limit"]["limit"] == 1
    (schedule,) = deployment["schedules"]
    assert monitor.schedule is not None
    assert (schedule["cron"], schedule["timezone"]) == (monitor.schedule.cron, monitor.schedule.timezone)
    assert CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])


def test_a_review_is_taken_in_by_a_deployment_of_its_own() -> None:
    assert ALL["import"]["entrypoint"] == f"flows/import_review.py:{import_review.fn.__name__}"
    assert set(ALL) == {*DEPLOYMENTS, *RETRAININGS, "import"}


def test_retraining_runs_weekly_on_demand_and_when_something_happened() -> None:
    assert set(RETRAININGS) == {"weekly", "on-demand"}
    for deployment in RETRAININGS.values():
        assert deployment["entrypoint"] == f"flows/retrain_prompter.py:{retrain_prompter.fn.__name__}"
        parameters = retrain_prompter.validate_parameters(deployment["parameters"])
        assert all((ROOT / path).is_file() for path in (parameters["config"], *parameters["monitors"]))
        assert deployment["work_pool"]["work_queue_name"] == "retraining"
    (schedule,) = RETRAININGS["weekly"]["schedules"]
    assert CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
    reviewed, degraded = RETRAININGS["on-demand"]["triggers"]
    assert (reviewed["expect"], reviewed["parameters"]) == (["think2seg.labels.reviewed"], {"samples": "out/samples"})
    assert (degraded["expect"], degraded["parameters"]) == (["think2seg.quality.degraded"], {})


@pytest.mark.parametrize(
    ("flow", "required"), [(segment_archive, ["monitor"]), (retrain_prompter, []), (import_review, ["folder"])]
)
def test_form_of_parameters_explains_itself(flow: Any, required: list[str]) -> None:
    schema = flow.parameters.model_dump()
    assert schema.get("required", []) == required
    assert all(field["description"] for field in schema["properties"].values())


def probes(blocks: int, alarms: int, blocks_before: int, alarms_before: int) -> dict[str, int]:
    return {
        "blocks": blocks,
        "false_alarms": alarms,
        "blocks_before": blocks_before,
        "false_alarms_before": alarms_before,
    }


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_entrypoint_is_the_flow(name: str) -> None:
    file, _, function = DEPLOYMENTS[name]["entrypoint"].partition(":")
    assert (ROOT / file).is_file()
    assert function == segment_archive.fn.__name__


@pytest.mark.parametrize(
    ("changes", "degraded"),
    [
        ({}, False),
        ({"unparsable_tiles": 5}, False),
        ({"unparsable_tiles": 6}, True),
        ({"tiles": {"done": 19}, "unparsable_tiles": 19}, False),
        ({"probes": probes(20, 1, 200, 10)}, False),
        ({"probes": probes(20, 10, 200, 10)}, True),
        ({"probes": probes(20, 0, 200, 100)}, False),
        ({"probes": probes(20, 20, 0, 0)}, False),
        ({"probes": probes(0, 0, 200, 10)}, False),
    ],
)
def test_what_calls_for_a_retraining(changes: dict[str, Any], degraded: bool) -> None:
    summary = RunSummary(
        monitor="ponds",
        monitor_hash="",
        cubes=(),
        acquisitions={"done": 1, "skipped": 0, "failed": 0},
        blocks={},
        tiles={"done": 100},
        failures=(),
        seconds={"total": 1.0},
        square_km=1.0,
        seam_ratio=None,
    )
    assert is_degraded(replace(summary, **changes)) is degraded
