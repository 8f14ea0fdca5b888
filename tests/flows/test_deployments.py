"""Every monitor has its deployment, and the two say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule

from flows.segment_archive import segment_archive
from think2seg.config import load_monitor

ROOT = Path(__file__).resolve().parents[2]
MONITORS = sorted((ROOT / "conf/monitors").glob("*.yaml"))
DEPLOYMENTS: dict[str, Any] = {
    one["name"]: one for one in yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text())["deployments"]
}


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


def test_form_of_parameters_explains_itself() -> None:
    schema = segment_archive.parameters.model_dump()
    assert schema["required"] == ["monitor"]
    assert all(field["description"] for field in schema["properties"].values())


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_entrypoint_is_the_flow(name: str) -> None:
    file, _, function = DEPLOYMENTS[name]["entrypoint"].partition(":")
    assert (ROOT / file).is_file()
    assert function == segment_archive.fn.__name__
