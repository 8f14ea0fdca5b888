"""A real server, worker and deployment: runs, artifacts, schedules, errors and Ctrl-C, as a user meets them."""

from __future__ import annotations

import json
import os
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import think2seg
from think2seg.config import load_monitor
from think2seg.coordinator import cube_status

if TYPE_CHECKING:
    from .conftest import Orchestra

MONITOR = "conf/monitors/nd-wetlands.yaml"
WAIT_S = 240
NOISE = ("Traceback", "Warning", "WARNING")


@pytest.fixture(scope="module")
def first(orchestra: Orchestra) -> Any:
    """The first run of the general deployment, watched from the command line."""
    parameters = {"monitor": MONITOR, "overrides": orchestra.overrides("a.zarr")}
    settings = [
        f"--param={name}={value if name == 'monitor' else json.dumps(value)}" for name, value in parameters.items()
    ]
    code, output = orchestra.call("deployment", "run", "segment-archive/any", *settings, "--watch")
    assert code == 0, output
    (run,) = orchestra.flow_runs("any", scheduled=False)
    return run


def test_every_deployment_is_there(orchestra: Orchestra) -> None:
    wetlands = orchestra.deployment("nd-wetlands")
    assert wetlands["schedules"][0]["schedule"]["timezone"] == "America/Chicago"
    assert wetlands["global_concurrency_limit"]["limit"] == 1
    assert wetlands["enforce_parameter_schema"]
    assert orchestra.deployment("any")["schedules"] == []


def test_run_fills_the_cube_and_ends_with_a_sentence(orchestra: Orchestra, first: Any) -> None:
    assert first["name"].startswith("nd-wetlands 20")
    assert first["state"]["type"] == "COMPLETED"
    assert first["state"]["message"].startswith("1 acquisition done in ")
    cube = think2seg.open_cube(str(orchestra.folder / "a.zarr"))
    assert [str(time)[:4] for time in cube.time.values] == ["2014"]
    assert (orchestra.folder / "a.html").is_file()


def test_few_task_runs_with_names_for_people(orchestra: Orchestra, first: Any) -> None:
    wanted = {"task_runs": {"flow_run_id": {"any_": [first["id"]]}}}

    def ended() -> list[Any]:
        tasks = orchestra.post("/task_runs/filter", wanted)
        return tasks if len(tasks) >= 4 and all(task["state_type"] == "COMPLETED" for task in tasks) else []

    names = {task["name"] for task in orchestra.until(ended, "four tasks did not complete")}
    assert {"search nd-wetlands", "plan", "report"} < names
    assert any(name.startswith("2014-") for name in names)


def test_artifacts(orchestra: Orchestra, first: Any) -> None:
    found = orchestra.post("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [first["id"]]}}})
    artifacts = {artifact["key"]: artifact for artifact in found}
    assert set(artifacts) == {f"nd-wetlands-{kind}" for kind in ("scenes", "progress", "report", "quicklook")}
    (scene,) = json.loads(artifacts["nd-wetlands-scenes"]["data"])
    assert (scene["time"][:4], scene["reason"], scene["blocks"]) == ("2014", "new", 1)
    assert artifacts["nd-wetlands-progress"]["data"] == 100.0
    assert (orchestra.folder / "a.html").as_uri() in artifacts["nd-wetlands-report"]["data"]
    assert "data:image/" in artifacts["nd-wetlands-quicklook"]["data"]


def test_event_tells_that_the_cube_grew(orchestra: Orchestra, first: Any) -> None:
    wanted = {"filter": {"event": {"prefix": ["think2seg.cube.updated"]}}, "limit": 5}
    (event,) = orchestra.until(lambda: orchestra.post("/events/filter", wanted)["events"], "the event did not come")
    assert event["resource"]["prefect.resource.id"] == "think2seg.monitor.nd-wetlands"
    assert event["payload"]["acquisitions"] == {"done": 1, "skipped": 0, "failed": 0}


def test_schedule_fires_and_finds_nothing_to_do(orchestra: Orchestra, first: Any) -> None:
    schedule = {
        "schedule": {"interval": 60, "anchor_date": (datetime.now(UTC) + timedelta(seconds=12)).isoformat()},
        "active": True,
        "parameters": first["parameters"],
    }
    path = f"/deployments/{orchestra.deployment('any')['id']}/schedules"
    (made,) = orchestra.post(path, [schedule])

    def ended() -> list[Any]:
        runs = orchestra.flow_runs("any", scheduled=True)
        return [run for run in runs if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED")]

    run, *_ = orchestra.until(ended, "the scheduled run did not come")
    orchestra.api.delete(f"{path}/{made['id']}")
    assert run["state"]["message"].startswith("Nothing to do")


def test_errors_are_told_plainly(orchestra: Orchestra) -> None:
    code, output = orchestra.call(MONITOR, "source.datetime=1999-01-01/1999-12-31", module="flows")
    assert code == 2
    assert output.startswith("Error: ")
    assert "Traceback" not in output
    (run,) = orchestra.post("/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["FAILED"]}}}})
    assert "No item of naip" in run["state"]["message"]
    assert "Traceback" not in orchestra.messages(run)


def test_demo_says_where_to_look(orchestra: Orchestra, first: Any) -> None:
    code, output = orchestra.call(*orchestra.overrides("a.zarr"), module="flows.demo")
    assert code == 0, output
    assert "Nothing to do" in output
    assert "Acquisitions: 1. Open water: " in output
    assert "a.html" in output
    assert not any(noise in output for noise in NOISE), output


def test_ctrl_c_leaves_in_good_order(orchestra: Orchestra) -> None:
    overrides = orchestra.overrides("b.zarr")
    process = orchestra.command(MONITOR, *overrides, module="flows")
    assert process.stdout is not None
    seen = process.stdout.readline()
    assert "to do: 1 blocks" in seen
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, seen + rest
    assert rest.endswith("Stopped. Finished blocks are kept: run the same command again to go on.\n")
    assert not any(noise in rest for noise in NOISE), rest
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    (status,) = cube_status(load_monitor(MONITOR, overrides))
    assert status.holder is None
