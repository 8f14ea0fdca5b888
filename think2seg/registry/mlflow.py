"""MLflow, opened quietly: no telemetry, no progress bars, no notes about git or migrations."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from think2seg.errors import ModelError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""What a user has set goes first."""


def client_of(uri: str) -> MlflowClient:
    """A client of the MLflow at `uri`; raises ModelError, saying what to install, where there is no MLflow."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import alembic  # noqa: F401  # a folder's database is made with these two
        import sqlalchemy  # noqa: F401
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise ModelError(
            f"The registry needs a package that is not installed: {error}",
            "Without the registry, champion and bundled mean the pair that rides along.",
            "`make setup` installs it (extra `train`); or take THINK2SEG_REGISTRY away.",
        ) from error
    logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())  # others may have opened it
    with explained(uri):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def fetch(uri: str, artifacts: str, target: str) -> str:
    """Download a folder of artifacts of the MLflow at `uri` into `target`; returns where it lies now."""
    from mlflow.artifacts import download_artifacts

    with explained(uri):
        return str(download_artifacts(artifact_uri=artifacts, dst_path=target, tracking_uri=uri))


def metric_name(figure: str) -> str:
    """The name of a figure as MLflow takes it: ``gIoU, lakes`` becomes ``gIoU: lakes``."""
    return re.sub(r"[^\w\-.:/ ]", "", figure.replace(", ", ": ").replace("%", "percent"))


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into ModelError."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise ModelError(
            f"The registry at {uri} does not answer as it should: {error.message}",
            "THINK2SEG_REGISTRY is a folder, or the http(s) address of an MLflow server.",
            "Check that place and your rights there, and run the same command again.",
        ) from error
