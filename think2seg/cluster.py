"""Where engines run: a Dask client, its GPU resources, and a bounded number of work orders in flight."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import distributed

from think2seg import config
from think2seg.cube.receipts import Receipt
from think2seg.engine import Models, RunSpec, execute
from think2seg.errors import ClusterError
from think2seg.plan import WorkOrder

_MODELS = "think2seg-models"
_WAIT_FOR_WORKERS_S = 60
_TORCH_THREADS = 1
"""Per worker: on a CPU only one thread gives the same answer wherever a tile stands in its batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderResult:
    """What came back of one work order."""

    order: WorkOrder
    receipts: tuple[Receipt, ...]
    error: BaseException | None
    """Why the order as a whole failed (every worker that tried it died, for example); None when it was done."""


class _LoadModels(distributed.WorkerPlugin):
    """Loads the models once per worker, also on workers that join later."""

    name = _MODELS

    def __init__(self, models: config.Models) -> None:
        self._wanted = models

    def setup(self, worker: distributed.Worker) -> None:
        self.models = Models.load(self._wanted, threads=_TORCH_THREADS)


def _execute_on_worker(order: WorkOrder, spec: RunSpec) -> tuple[Receipt, ...]:
    plugin = distributed.get_worker().plugins[_MODELS]
    assert isinstance(plugin, _LoadModels)
    return execute(order, spec, plugin.models)


class Cluster:
    """A connected Dask client that runs work orders."""

    def __init__(self, client: distributed.Client, options: config.ClusterOptions) -> None:
        self._client, self._options = client, options
        self._resources = {"GPU": 1} if options.gpus else None
        self._loaded: config.Models | None = None

    @property
    def n_workers(self) -> int:
        """Workers that can take an order now."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        return sum(1 for w in workers if not self._resources or w["resources"].get("GPU", 0) >= 1)

    def load_models(self, models: config.Models) -> None:
        """Load a pair of models on every worker, and on any that joins later; once, however often it is asked for.

        Raises
        ------
        ModelError
            If a worker cannot load the weights.
        """
        if models != self._loaded:
            self._client.register_plugin(_LoadModels(models), name=_MODELS)
            self._loaded = models

    def run(self, orders: Iterable[WorkOrder], spec: RunSpec) -> Iterator[OrderResult]:
        """Yield results as they come, never with more than `in_flight` orders per worker under way.

        An order whose worker dies is taken up by another worker; it comes back as an error only when
        every retry lost its worker too, or when the order itself raised.
        """
        waiting = iter(orders)
        limit = max(1, self.n_workers) * self._options.in_flight
        running: dict[distributed.Future[tuple[Receipt, ...]], WorkOrder] = {}
        completed = distributed.as_completed()

        def top_up() -> None:
            for order in islice(waiting, limit - len(running)):
                future = self._client.submit(
                    _execute_on_worker, order, spec, key=f"order-{order.id}", pure=False, resources=self._resources
                )
                running[future] = order
                completed.add(future)

        top_up()
        while running:
            future = next(completed)
            order = running.pop(future)
            error = future.exception() if future.status == "error" else None
            receipts = () if error else future.result()
            future.release()
            top_up()
            yield OrderResult(order=order, receipts=receipts, error=error)


def preflight(workers: Sequence[dict[str, Any]], *, gpus: bool, address: str) -> None:
    """Refuse at once what would otherwise wait for ever.

    Raises
    ------
    ClusterError
        If there is no worker, or none that offers the resource ``GPU``.
    """
    if not workers:
        raise ClusterError(
            f"The Dask cluster at {address} has no workers.",
            "A run needs at least one.",
            "Start workers (`dask worker ADDRESS`), or leave out `cluster.scheduler` to use local processes.",
        )
    if gpus and not any(w["resources"].get("GPU", 0) >= 1 for w in workers):
        raise ClusterError(
            f"`cluster.gpus` is on, but none of the {len(workers)} workers at {address} offers the resource GPU.",
            "A GPU order waits for a worker started with `--resources GPU=1`.",
            "Start one worker per GPU that way, or set `cluster.gpus: false`.",
        )


@contextmanager
def connect(options: config.ClusterOptions) -> Iterator[Cluster]:
    """Connect to the scheduler the monitor names, or start local worker processes.

    Raises
    ------
    ClusterError
        If the scheduler cannot be reached, or has no suitable worker.
    """
    logging.getLogger("distributed").setLevel(logging.ERROR)
    if options.scheduler:
        with _remote_client(options.scheduler) as client:
            yield _checked(client, options)
        return
    n_workers = options.workers or os.cpu_count() or 1
    with (
        distributed.LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
            dashboard_address=None,
            silence_logs=logging.ERROR,
            resources={"GPU": 1} if options.gpus else None,
            env={"OMP_NUM_THREADS": str(_TORCH_THREADS)},
        ) as local,
        distributed.Client(local) as client,
    ):
        yield _checked(client, options)


def _checked(client: distributed.Client, options: config.ClusterOptions) -> Cluster:
    workers = list(client.scheduler_info(n_workers=-1)["workers"].values())
    preflight(workers, gpus=options.gpus, address=client.scheduler_info()["address"])
    return Cluster(client, options)


@contextmanager
def _remote_client(address: str) -> Iterator[distributed.Client]:
    try:
        client = distributed.Client(address, timeout=_WAIT_FOR_WORKERS_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f"No Dask scheduler answers at {address}.",
            "An address looks like tcp://host:8786.",
            "Check the address, or leave out `cluster.scheduler` to use local processes.",
        ) from error
    with client:
        yield client
