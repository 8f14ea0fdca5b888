"""The retraining flow: train → register → gate → shadow run → (approval) → promotion, one Prefect task run each."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from prefect import State, flow, get_client, pause_flow_run, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.sync import concurrency
from prefect.events import emit_event
from prefect.input import RunInput
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.logs import tell_errors_plainly
from flows.processes import main_module_kept_back
from think2seg.config import load_monitor
from think2seg.coordinator import cube_uris, run_shadow
from think2seg.errors import ConfigError, TrainingError
from think2seg.insight.overlap import Overlap, shadow_overlap
from think2seg.learning.card import training_of
from think2seg.learning.comparison import compare_versions, held_out_set
from think2seg.learning.datasets import read_dataset
from think2seg.learning.registry import promote, register
from think2seg.learning.verdict import SCENES, Verdict, verdict_markdown
from think2seg.registry import Registry, Version, open_registry
from think2seg.samples.ground import held_out_ground

ONE_AT_A_TIME = "think2seg-retraining"
"""Prefect's global concurrency limit that keeps two retrainings from running at once, whatever started them."""
_WEEK_S = 7 * 86400
_UNTOLD_LINES = 40
"""Last lines of a failed training that its error repeats."""


class Approval(RunInput):
    """What a person decides about a candidate that passed the gate."""

    promote: bool
    because: str = ""


@task(task_run_name="train {name}", cache_policy=NO_CACHE, persist_result=False)
def train(name: str, config: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Train in a process of its own, which takes its memory with it; killed anywhere, the next try resumes."""
    told = [f"name={name}", f"export=runs/{name}/prompter", "prompter=champion", *overrides]
    command = [sys.executable, "-m", "think2seg", "train", config, "--json"]
    command += [word for override in told for word in ("--set", override)]
    log, last = get_run_logger(), list[str]()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in map(str.rstrip, process.stderr):
                log.info(line)
                last = [*last[1 - _UNTOLD_LINES :], line]
            document = process.stdout.read()
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise TrainingError(
            f"The training of {name} ended with exit code {process.returncode}.\n" + "\n".join(last),
            "",
            "Mend what it says; the next run of the same name resumes from its last checkpoint.",
        )
    return dict(json.loads(document))


@task(task_run_name="register", cache_policy=NO_CACHE, persist_result=False)
def register_candidate(registry: Registry, run: Path, export: Path) -> Version:
    """Put the new weights into the registry as the candidate."""
    return register(registry, export, training_of(run / "record.json", footprints={}))


@task(task_run_name="gate {version.number}", cache_policy=NO_CACHE, persist_result=False)
def gate(registry: Registry, version: Version, frozen_set: str | None, scenes: int, out: Path) -> Verdict:
    """Judge the candidate against the champion on the frozen set, and publish the verdict with every figure."""
    frozen = read_dataset("earthreason", Path(frozen_set), "val") if frozen_set else held_out_set(out, scenes)
    footprints = {} if frozen_set else held_out_ground()
    verdict = compare_versions(registry, version, registry.named("champion"), frozen, out, footprints=footprints)
    create_markdown_artifact(verdict_markdown(verdict), key="think2seg-verdict", description=f"Gate on {version.name}")
    return verdict


@task(task_run_name="shadow {monitor}", cache_policy=NO_CACHE, persist_result=False)
def shadow(monitor: str, overrides: list[str], version: Version, last: int) -> list[Overlap]:
    """Answer a monitor's last acquisitions with the candidate, beside its cubes, and publish how far they agree."""
    asked = load_monitor(Path(monitor), overrides)
    with main_module_kept_back():
        run_shadow(asked, version, last=last)
    found = [one for uri in cube_uris(asked) if (one := shadow_overlap(uri, version.digest))]
    create_markdown_artifact(
        "\n\n".join(one.markdown() for one in found) or "The candidate and the cube share no acquisition.",
        key=f"{asked.monitor}-shadow",
        description=f"{version.name} beside the cubes of {asked.monitor}",
    )
    return found


def _run_name() -> str:
    return f"{Path(flow_run.parameters['config']).stem} {flow_run.scheduled_start_time:%Y-%m-%d %H:%M}"


@flow(name="retrain-prompter", flow_run_name=_run_name, persist_result=False, retries=0)
def retrain_prompter(
    config: str = "conf/training/tiny-grpo.yaml",
    overrides: list[str] | None = None,
    samples: str | None = None,
    name: str | None = None,
    frozen_set: str | None = None,
    scenes: int = SCENES,
    monitors: list[str] | None = None,
    monitor_overrides: list[str] | None = None,
    last: int = 3,
    approve: bool = False,
) -> State[Any]:
    """Train the champion further and promote the result if it is measurably better.

    A candidate that the gate refuses completes the run, for that is the gate's work; nothing is promoted then. Prefect
    reads the next section into the form of parameters.

    Args:
        config: A training file of kind grpo.
        overrides: `key.path=value` for any field of it.
        samples: Store of reviewed samples to learn from, too; default what the training file says.
        name: Names the training, and draws its questions: other names ask others. A run of a name that was
            interrupted resumes. Default: from the scheduled time.
        frozen_set: Folder of the gate's frozen set in EarthReason's layout; default: simulated scenes and as many
            tiles of the embedded imagery's held-out part.
        scenes: How many scenes.
        monitors: Monitors whose last acquisitions the candidate answers beside their cubes before it is promoted.
        monitor_overrides: `key.path=value` for each of the monitors.
        last: Acquisitions of a shadow run.
        approve: Wait for a person to approve the promotion, up to a week.
    """
    tell_errors_plainly()
    log = get_run_logger()
    started = flow_run.scheduled_start_time
    name = name or f"{Path(config).stem}-{started:%Y%m%d-%H%M%S}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ConfigError(f"name: {name!r}", "Letters, digits, '.', '_' and '-' only: it names a folder.", "Rename it.")
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(ONE_AT_A_TIME, 1)
    with concurrency(ONE_AT_A_TIME, occupy=1, strict=True):
        registry = open_registry()
        reviewed = [f"data.reviewed={samples}"] if samples else []
        questions = f"seed={crc32(name.encode()) % 2**31}"
        trained = train(name, config, [questions, *reviewed, *(overrides or [])])
        version = register_candidate(registry, Path(trained["run"]), Path(trained["export"]))
        verdict = gate(registry, version, frozen_set, scenes, Path(trained["run"]) / "gate")
        if not verdict.passed:
            _announce("refused", version, {"reasons": list(verdict.reasons)})
            return Completed(message=f"{version.name} is refused. {' '.join(verdict.reasons)}")
        overlaps = [
            one for monitor in monitors or [] for one in shadow(monitor, monitor_overrides or [], version, last)
        ]
        for one in overlaps:
            log.info(one.sentence())
        if approve:
            decided = pause_flow_run(wait_for_input=Approval, timeout=_WEEK_S)
            if not decided.promote:
                _announce("declined", version, {"because": decided.because})
                return Completed(message=f"{version.name} passed the gate and was not approved: {decided.because}")
        move = promote(registry, str(version.number))
        _announce("promoted", version, {"overlaps": [one.to_dict() for one in overlaps]})
        return Completed(message=move.sentence())


def _announce(what: str, version: Version, payload: dict[str, Any]) -> None:
    resource = {"prefect.resource.id": f"think2seg.model.{version.number}", "prefect.resource.name": version.name}
    emit_event(f"think2seg.model.{what}", resource=resource, payload={"digest": version.digest, **payload})
