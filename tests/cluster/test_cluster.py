"""Work orders on workers that die, refuse, or belong to others as well. No model is loaded here."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import distributed
import psutil
import pytest
from distributed import KilledWorker
from distributed.comm import CommClosedError

from think2seg import cluster
from think2seg.cluster import Cluster, OrderResult, connect, preflight
from think2seg.config import ClusterOptions, Models
from think2seg.errors import ClusterError
from think2seg.memory import WORKING_BYTES, keep_freed_memory
from think2seg.plan import WorkOrder

ADDRESS = "tcp://10.0.0.1:8786"


def orders(*names: str) -> list[WorkOrder]:
    return [WorkOrder(id=name, jobs=()) for name in names]


def said(results: list[OrderResult]) -> dict[str, Any]:
    return {result.order.id: result.receipts for result in results}


@pytest.fixture(scope="module")
def processes() -> Iterator[Cluster]:
    """Two local worker processes; an order may cost two of them."""
    limit = dask.config.set({"distributed.scheduler.allowed-failures": 1})
    with limit, connect(ClusterOptions(workers=2)) as found:
        yield found


def test_an_order_whose_worker_is_killed_is_done_by_another(
    processes: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die_once(order: WorkOrder, marks: Any) -> Any:
        mark = Path(marks) / order.id
        if order.id == "deadly" and not mark.exists():
            mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    monkeypatch.setattr(cluster, "_execute_on_worker", die_once)
    results = list(processes.run(orders("a", "deadly", "b", "c"), str(tmp_path)))  # type: ignore[arg-type]
    assert said(results).keys() == {"a", "deadly", "b", "c"}
    assert [result.error for result in results] == [None] * 4
    assert said(results)["deadly"] != int((tmp_path / "deadly").read_text())


def test_an_order_that_kills_every_worker_comes_back_and_the_others_are_done(
    processes: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(order: WorkOrder, spec: Any) -> Any:
        if order.id == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        return order.id

    monkeypatch.setattr(cluster, "_execute_on_worker", die)
    (lost,) = processes.run(orders("deadly"), None)  # type: ignore[arg-type]
    assert isinstance(lost.error, KilledWorker)
    assert said(list(processes.run(orders("a", "b"), None))) == {"a": "a", "b": "b"}  # type: ignore[arg-type]


def test_an_order_that_raises_comes_back_with_its_error(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(order: WorkOrder, spec: Any) -> Any:
        raise ValueError(f"not {order.id}")

    monkeypatch.setattr(cluster, "_execute_on_worker", refuse)
    with connect(ClusterOptions(scheduler=scheduler)) as found:
        errors = [str(result.error) for result in found.run(orders("a", "b"), None)]  # type: ignore[arg-type]
    assert sorted(errors) == ["not a", "not b"]


def test_no_more_orders_are_under_way_than_allowed(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def waiting() -> Iterator[WorkOrder]:
        for order in orders(*"abcdefghijkl"):
            taken.append(order.id)
            yield order

    monkeypatch.setattr(cluster, "_execute_on_worker", lambda order, spec: order.id)
    with connect(ClusterOptions(scheduler=scheduler, in_flight=2)) as found:
        assert found.n_workers == 2
        for done, _ in enumerate(found.run(waiting(), None), start=1):  # type: ignore[arg-type]
            assert len(taken) < done + 2 * (2 * 2), "as many may be under way, and as many done and not yet looked at"
    assert len(taken) == 12


def test_two_runs_on_one_scheduler_do_not_mix(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their orders have the same names: each begins with step 0, block 0, 0."""
    monkeypatch.setattr(cluster, "_execute_on_worker", lambda order, spec: f"{order.id} of {spec}")

    def run(spec: str) -> dict[str, Any]:
        with connect(ClusterOptions(scheduler=scheduler)) as found:
            return said(list(found.run(orders(*"abcdef"), spec)))  # type: ignore[arg-type]

    with ThreadPoolExecutor(2) as pool:
        for spec, found in zip(("one", "other"), pool.map(run, ("one", "other")), strict=True):
            assert found == {name: f"{name} of {spec}" for name in "abcdef"}


class Deaf:
    """A client in whose hands some connections break while models are sent out."""

    def __init__(self, broken: int) -> None:
        self.broken, self.sent = broken, 0

    def register_plugin(self, plugin: object, name: str) -> None:
        self.broken -= 1
        if self.broken >= 0:
            raise CommClosedError("in <TCP (closed)>: Stream is closed")
        self.sent += 1


def test_workers_have_one_heap(processes: Cluster) -> None:
    found = processes._client.run(lambda: dict(os.environ))
    assert found
    for environment in found.values():
        assert environment["MALLOC_ARENA_MAX"] == "1"
        assert environment["OMP_NUM_THREADS"] == "1"


def test_workers_keep_what_they_free_whatever_dask_says(processes: Cluster) -> None:
    def held_after_freeing() -> float:
        keep_freed_memory()
        before = psutil.Process().memory_info().rss
        bytearray(b"x") * (40 * 2**20)
        return (psutil.Process().memory_info().rss - before) / 2**20

    for environment in processes._client.run(lambda: dict(os.environ)).values():
        assert environment["MALLOC_TRIM_THRESHOLD_"]
    assert all(held > 35 for held in processes._client.run(held_after_freeing).values())


def test_working_memory_is_taken_once_the_models_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken before, loading would use it up."""
    did: list[str | int] = []
    monkeypatch.setattr(cluster.Models, "load", lambda wanted, threads: did.append("loaded"))
    monkeypatch.setattr(cluster, "keep_freed_memory", did.append)
    cluster._LoadModels(Models())._load()
    assert did == ["loaded", WORKING_BYTES]


class Failing(cluster._LoadModels):
    """Models that cannot be loaded, for a reason that nobody thought of."""

    def _load(self) -> Any:
        raise OSError("stale file handle")


def test_models_that_cannot_be_loaded_end_the_order_that_wants_them(
    scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_LoadModels", Failing)
    monkeypatch.setattr(cluster, "_plugin_name", lambda spec: "failing")
    monkeypatch.setattr(
        cluster, "_execute_on_worker", lambda order, spec: distributed.get_worker().plugins["failing"].models()
    )
    spec: Any = type("Spec", (), {"models": None})
    with connect(ClusterOptions(scheduler=scheduler)) as found:
        found.load_models(spec)
        (result,) = found.run(orders("a"), None)  # type: ignore[arg-type]
    assert "stale file handle" in str(result.error)


def test_models_of_earlier_runs_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster._LoadModels, "_load", lambda self: f"models {self._wanted}")
    first, second = (cluster._LoadModels(name) for name in ("1", "2"))  # type: ignore[arg-type]
    worker: Any = type("Worker", (), {"plugins": {"first": first, "second": second}})
    asyncio.run(first.setup(worker))
    assert first._models is not None
    asyncio.run(second.setup(worker))
    assert (first._models, second._models) == (None, "models 2")
    assert first.models() == "models 1", "a run that goes on has them again"


def test_a_local_worker_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with connect(ClusterOptions(gpus=True)) as found:
        seen = found._client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
        assert sorted(seen.values()) == ["3", "5"]
        assert found.n_workers == 2
    with pytest.raises(ClusterError, match="at least 4 GPUs") as caught, connect(ClusterOptions(gpus=True, workers=4)):
        pass
    assert "cluster.gpus: false" in caught.value.todo


def test_a_worker_that_dies_while_models_are_loaded_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_plugin_name", lambda spec: "pair")
    monkeypatch.setattr(cluster, "_LoadModels", lambda models: models)
    spec: Any = type("Spec", (), {"models": None})
    client: Any = Deaf(2)
    Cluster(client, ClusterOptions()).load_models(spec)
    assert client.sent == 1
    lost: Any = Deaf(9)
    with pytest.raises(ClusterError, match="while models were loaded"):
        Cluster(lost, ClusterOptions()).load_models(spec)


def test_a_scheduler_that_goes_away_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_execute_on_worker", lambda order, spec: order.id)
    local = distributed.LocalCluster(
        n_workers=1, processes=False, protocol="tcp://", host="127.0.0.1", dashboard_address="127.0.0.1:0"
    )
    with local, connect(ClusterOptions(scheduler=local.scheduler_address)) as found:
        results = found.run(orders(*"abcdef"), None)  # type: ignore[arg-type]
        next(results)
        local.close()
        with pytest.raises(ClusterError, match="scheduler was lost") as caught:
            list(results)
    assert "finished blocks are kept" in caught.value.todo


def test_workers_that_are_gone_for_good_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_LOOK_S", 0.2)
    monkeypatch.setattr(cluster, "_ALONE_S", 0.4)
    monkeypatch.setattr(cluster, "_execute_on_worker", lambda order, spec: order.id)
    local = distributed.LocalCluster(
        n_workers=1, processes=False, protocol="tcp://", host="127.0.0.1", dashboard_address="127.0.0.1:0"
    )
    with local, connect(ClusterOptions(scheduler=local.scheduler_address, in_flight=1)) as found:
        results = found.run(orders("a", "b"), None)  # type: ignore[arg-type]
        next(results)
        local.scale(0)
        with pytest.raises(ClusterError, match="All Dask workers are gone"):
            list(results)


def test_what_would_wait_for_ever_is_refused() -> None:
    plain, gpu = {"resources": {}}, {"resources": {"GPU": 1.0}}
    preflight([plain], gpus=False, address=ADDRESS)
    preflight([plain, gpu], gpus=True, address=ADDRESS)
    with pytest.raises(ClusterError, match=f"The Dask cluster at {ADDRESS} has no workers"):
        preflight([], gpus=False, address=ADDRESS)
    with pytest.raises(ClusterError, match="none of the 2 workers") as caught:
        preflight([plain, plain], gpus=True, address=ADDRESS)
    assert "--resources GPU=1" in caught.value.allowed
    assert caught.value.exit_code == 3


def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_CONNECT_S", 0.3)
    with (
        pytest.raises(ClusterError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:1") as caught,
        connect(ClusterOptions(scheduler="tcp://127.0.0.1:1")),
    ):
        pass
    assert caught.value.__cause__ is not None


def test_only_workers_with_a_gpu_count_when_gpus_are_asked_for() -> None:
    local = distributed.LocalCluster(
        n_workers=2,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        resources={"GPU": 1},
    )
    with local, connect(ClusterOptions(scheduler=local.scheduler_address, gpus=True)) as found:
        assert found.n_workers == 2
