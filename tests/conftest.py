"""Fixtures for all rooms."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from support.standins import Standins

hypothesis.settings.register_profile("suite", derandomize=True)
hypothesis.settings.register_profile("search")
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job inherits as ignored
os.environ.pop("COLUMNS", None)  # which the processes of pytest-xdist find set to 80
os.environ["THINK2SEG_REGISTRY"] = os.path.join(os.devnull, "registry")  # whatever lies in the working directory

_LONGEST = ("flows", "coordinator", "learning")
"""Rooms whose files go first, so that no process is left alone with them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes run the suite, each takes whole files; all flows go to one, with one Prefect server."""
    items.sort(key=lambda item: item.path.parent.name not in _LONGEST)
    for item in items:
        together = item.path.parent if item.path.parent.name == "flows" else item.path
        item.add_marker(pytest.mark.xdist_group(str(together.relative_to(item.config.rootpath))))


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``prompter/`` and ``segmenter/``: small weights that really find lakes.

    Torch is kept to one thread, with which answers do not depend on the batch.
    """
    import torch
    from support.weights import pair_folder

    torch.set_num_threads(1)
    folder = pair_folder(tmp_path_factory.mktemp("pair"))
    if folder is None:
        pytest.skip("no small weights at hand: set THINK2SEG_WEIGHTS to a folder with prompter/ and segmenter/")
    return folder


@pytest.fixture(scope="session")
def scheduler() -> Iterator[str]:
    """Address of a Dask cluster of two workers, threads of this process: nothing has to be imported anew."""
    import distributed

    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        memory_limit=0,
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def by_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standins]:
    """Models by rule in the place of the bundled pair, for workers of this process."""
    from support.standins import standins

    with standins(tmp_path / "weights", monkeypatch) as pair:
        yield pair


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a registry without a version: MLflow makes its tables but once."""
    pytest.importorskip("mlflow")
    from think2seg.registry import open_registry

    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THINK2SEG_REGISTRY", str(folder))
        assert open_registry().versions() == ()
    return folder


@pytest.fixture
def registry_folder(empty_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that `THINK2SEG_REGISTRY` names in this test, and a bundled prompter of fake weights."""
    from support.registries import copy_of, make_weights

    make_weights(tmp_path / "bundled" / "prompter", "bundled")
    make_weights(tmp_path / "bundled" / "segmenter", "draws")
    monkeypatch.setenv("THINK2SEG_WEIGHTS", str(tmp_path / "bundled"))
    monkeypatch.setenv("THINK2SEG_CACHE", str(tmp_path / "cache"))
    folder = copy_of(empty_registry, tmp_path / "registry")
    monkeypatch.setenv("THINK2SEG_REGISTRY", str(folder))
    return folder
