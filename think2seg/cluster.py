"""Where engines run: a Dask client, its GPU resources, and a bounded number of work orders in flight."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from multiprocessing import resource_tracker
from typing import Any
from uuid import uuid4

import dask
import distributed
from distributed.client import _wait
from rasterio.errors import NotGeoreferencedWarning

from think2seg import config
from think2seg.cube.receipts import Receipt
from think2seg.engine import Models, RunSpec, execute
from think2seg.errors import ClusterError
from think2seg.memory import WORKING_BYTES, keep_freed_memory
from think2seg.plan import WorkOrder

_CONNECT_S = 15
_LOOK_S, _ALONE_S = 5.0, 300.0
"""How often a run that waits looks for workers, and how long it goes on without any."""
_LOADS = 3
"""How often models are sent to the workers where one of them dies while loading."""
_TORCH_THREADS = 1
"""Per worker: on a CPU only one thread gives the same answer wherever a tile stands in its batch."""
_ENVIRONMENT = "distributed.nanny.pre-spawn-environ"
_ONE_HEAP = {"MALLOC_ARENA_MAX": 1}
"""With a heap for each of its many short-lived threads a worker grows by 0.2 GiB over its first 300 tiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderResult:
    """What came back of one work order."""

    order: WorkOrder
    receipts: tuple[Receipt, ...]
    error: BaseException | None
    """Why the order as a whole failed (every worker that tried it died, for example); None when it was done."""


class _LoadModels(distributed.WorkerPlugin):
    """Loads the models once per worker, also on workers that join later; not again for a run with the same pair."""

    idempotent = True

    def __init__(self, models: config.Models) -> None:
        self._wanted = models
        self._models: Models | None = None
        self._loading = True

    async def setup(self, worker: distributed.Worker) -> None:
        """Load in a thread, so that the worker stays in touch. Where that fails, an order tries again and tells why.

        Pairs of earlier runs make room; a run that still wants its own loads it again. A worker that is closed
        meanwhile has nothing to tell.
        """
        for other in worker.plugins.values():
            if isinstance(other, _LoadModels):
                other._models = None
        # rasters in memory need no georeference, and a file without one is an error of ours
        warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
        with suppress(Exception, asyncio.CancelledError):
            self._models = await asyncio.to_thread(self._load)
        self._loading = False

    def models(self) -> Models:
        """The loaded pair, waited for where another run has begun to load it; raises what `Models.load` does."""
        while self._loading:
            time.sleep(0.05)
        if self._models is None:
            self._models = self._load()
        return self._models

    def _load(self) -> Models:
        models = Models.load(self._wanted, threads=_TORCH_THREADS)
        keep_freed_memory(WORKING_BYTES)
        return models


def _plugin_name(spec: RunSpec) -> str:
    """Name of the pair on a worker: by its digests too, so that changed weights are loaded anew."""
    writer = spec.targets[0].writer
    pair = "\n".join((spec.models.model_dump_json(), writer.prompter, writer.segmenter))
    return f"think2seg-models-{sha256(pair.encode()).hexdigest()[:16]}"


def _execute_on_worker(order: WorkOrder, spec: RunSpec) -> tuple[Receipt, ...]:
    plugin = distributed.get_worker().plugins[_plugin_name(spec)]
    assert isinstance(plugin, _LoadModels)
    return execute(order, spec, plugin.models())


class Cluster:
    """A connected Dask client that runs work orders."""

    def __init__(self, client: distributed.Client, options: config.ClusterOptions) -> None:
        self._client, self._options = client, options
        self._resources = {"GPU": 1} if options.gpus else None

    @property
    def n_workers(self) -> int:
        """Workers that can take an order now."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        return sum(1 for w in workers if not self._resources or w["resources"].get("GPU", 0) >= 1)

    def load_models(self, spec: RunSpec) -> None:
        """Load a run's pair of models on every worker, and on any that joins later; once, however often it is asked.

        Where that fails, orders come back with the reason. A worker that dies meanwhile is done without.

        Raises
        ------
        ClusterError
            If the scheduler is lost.
        """
        for left in reversed(range(_LOADS)):
            try:
                self._client.register_plugin(_LoadModels(spec.models), name=_plugin_name(spec))
                return
            except OSError as error:  # a worker died meanwhile, or the scheduler did
                if not left:
                    raise _lost("The connection to the Dask cluster was lost while models were loaded.") from error

    def run(self, orders: Iterable[WorkOrder], spec: RunSpec) -> Iterator[OrderResult]:
        """Yield results as they come, never with more than `in_flight` orders per worker under way.

        An order whose worker dies is taken up by another worker; it comes back as an error only when
        every retry lost its worker too, or when the order itself raised.

        Raises
        ------
        ClusterError
            If the scheduler is lost, or all workers are and do not come back.
        """
        waiting = iter(orders)
        limit = max(1, self.n_workers) * self._options.in_flight
        running: dict[distributed.Future[tuple[Receipt, ...]], WorkOrder] = {}

        def top_up() -> None:
            for order in islice(waiting, limit - len(running)):
                key = f"order-{order.id}-{uuid4().hex[:12]}"  # others may use the same scheduler
                future = self._client.submit(
                    _execute_on_worker, order, spec, key=key, pure=False, resources=self._resources
                )
                running[future] = order

        top_up()
        while running:
            done = [_result(running.pop(future), future) for future in self._done(running)]
            top_up()
            yield from done

    def _done(self, running: Iterable[distributed.Future[Any]]) -> list[distributed.Future[Any]]:
        """Wait for the first futures to end; not for ever where no worker is left."""
        alone_s = 0.0
        while True:
            try:
                # what `distributed.wait` does, which knows no client but the process's default one
                found = self._client.sync(_wait, list(running), timeout=_LOOK_S, return_when="FIRST_COMPLETED")
                return list(found.done)
            except CancelledError as error:
                raise _lost("The connection to the Dask scheduler was lost.") from error
            except TimeoutError:
                alone_s = 0 if self.n_workers else alone_s + _LOOK_S
                if alone_s >= _ALONE_S:
                    raise _lost(f"All Dask workers are gone, and none came back for {alone_s:.0f} s.") from None


def _result(order: WorkOrder, future: distributed.Future[tuple[Receipt, ...]]) -> OrderResult:
    """What an order that ended brought; its future is released."""
    error = future.exception() if future.status == "error" else None
    receipts = () if error else future.result()
    future.release()
    return OrderResult(order=order, receipts=receipts, error=error)


def _lost(what: str) -> ClusterError:
    return ClusterError(what, "", "Nothing is lost: finished blocks are kept. Run again when the cluster is up.")


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
    gpus = _gpus(options.workers) if options.gpus else []
    with ExitStack() as stack:
        environment = dask.config.get(_ENVIRONMENT) | _ONE_HEAP
        with _interrupts_kept_back(), dask.config.set({_ENVIRONMENT: environment}):
            local = _LocalCluster(
                gpus,
                n_workers=0 if gpus else options.workers or os.cpu_count() or 1,
                threads_per_worker=1,
                processes=True,
                memory_limit=0,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.ERROR,
                resources={"GPU": 1} if gpus else None,
                env={"OMP_NUM_THREADS": str(_TORCH_THREADS)},
            )
            stack.enter_context(local)
        yield _checked(stack.enter_context(distributed.Client(local, set_as_default=False)), options)


class _LocalCluster(distributed.LocalCluster):
    """Worker processes on this machine; with `gpus`, one for each of them, which sees no other."""

    def __init__(self, gpus: Sequence[str], **options: Any) -> None:
        self._gpus = list(gpus)
        super().__init__(**options)  # type: ignore[no-untyped-call]
        if gpus:
            self.scale(len(gpus))  # type: ignore[no-untyped-call]
            self.wait_for_workers(len(gpus))

    def new_worker_spec(self) -> dict[Any, dict[str, Any]]:
        """Name and start options of the next worker."""
        ((name, spec),) = super().new_worker_spec().items()  # type: ignore[no-untyped-call]
        if not self._gpus:
            return {name: spec}
        options = spec["options"]
        env = {**options["env"], "CUDA_VISIBLE_DEVICES": self._gpus[len(self.worker_spec)]}
        return {name: {**spec, "options": {**options, "env": env}}}


def _gpus(wanted: int | None) -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` calls the GPUs of this machine that local workers get; `wanted`, else all.

    Raises ClusterError when there are fewer.
    """
    import torch

    there = torch.cuda.device_count()
    if there < (wanted or 1):
        raise ClusterError(
            f"`cluster.gpus` is on: at least {wanted or 1} GPUs are needed here, and there are {there}.",
            "Each local worker has a GPU of its own.",
            "Set cluster.workers to what is there, `cluster.gpus: false`, or name a cluster in `cluster.scheduler`.",
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(there)]
    return names[: wanted or there]


@contextmanager
def _interrupts_kept_back() -> Iterator[None]:
    """Hold back Ctrl-C, which a terminal sends to all processes, from this one for now and from its children for good.

    Threads and processes inherit what is blocked where they are started: the run stops its workers itself.
    """
    resource_tracker.ensure_running()  # where it starts, multiprocessing lets the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _checked(client: distributed.Client, options: config.ClusterOptions) -> Cluster:
    workers = list(client.scheduler_info(n_workers=-1)["workers"].values())
    preflight(workers, gpus=options.gpus, address=client.scheduler_info()["address"])
    return Cluster(client, options)


@contextmanager
def _remote_client(address: str) -> Iterator[distributed.Client]:
    try:
        client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f"No Dask scheduler answers at {address}.",
            "An address looks like tcp://host:8786.",
            "Check the address, or leave out `cluster.scheduler` to use local processes.",
        ) from error
    with client:
        yield client
