"""A reinforcement in MLflow: one run of the experiment, gone on with after a kill."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from think2seg.learning.began import flat
from think2seg.learning.run import Metrics
from think2seg.registry import Registry, open_registry
from think2seg.registry.mlflow import explained, metric_name
from think2seg.registry.store import TAG

EXPERIMENT = "think2seg-training"
_NOTE = "mlflow-run"


class Tracking:
    """One run in the MLflow that `THINK2SEG_REGISTRY` names, by default a SQLite file in the folder ``registry``."""

    def __init__(self, registry: Registry, run_id: str) -> None:
        self._registry, self.run_id = registry, run_id

    @classmethod
    def of(cls, folder: Path, name: str, *, parameters: dict[str, Any]) -> Tracking:
        """The run that `folder` has noted, or a new one.

        parameters: nested plain data. Raises ModelError where there is no MLflow or it does not answer.
        """
        registry = open_registry()
        note = folder / _NOTE
        with explained(registry.uri):
            experiment = _experiment(registry)
            known = note.read_text().strip() if note.is_file() else ""
            filter_string = f"attributes.run_id = '{known}'"
            if known and registry.client.search_runs([experiment], filter_string=filter_string):
                registry.client.update_run(known, status="RUNNING")
                return cls(registry, known)
            made = registry.client.create_run(experiment, run_name=name, tags={f"{TAG}run": name})
            for key, value in flat(parameters).items():
                registry.client.log_param(made.info.run_id, key, str(value)[:500])
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(made.info.run_id)
        return cls(registry, made.info.run_id)

    def log(self, step: int, figures: Metrics) -> None:
        """Figures of a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(metric_name(name), value, now, step) for name, value in figures.items() if value == value]
        with explained(self._registry.uri):
            self._registry.client.log_batch(self.run_id, metrics=metrics)

    def end(self, status: Literal["FINISHED", "FAILED"], *files: Path) -> None:
        """Close the run, with files beside its figures."""
        with explained(self._registry.uri):
            for path in files:
                self._registry.client.log_artifact(self.run_id, str(path))
            self._registry.client.set_terminated(self.run_id, status)


def forget(folder: Path) -> None:
    """Let the next run of a folder be a new one."""
    (folder / _NOTE).unlink(missing_ok=True)


def _experiment(registry: Registry) -> str:
    found = registry.client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    place = str(registry.folder / "artifacts") if registry.folder else None
    return str(registry.client.create_experiment(EXPERIMENT, artifact_location=place))
