"""A Dask scheduler and two workers in processes of their own, for runs that lose one of them."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

import distributed
from support.victims import serve, start, work

_PATIENCE_S = 120.0


class Gang:
    """The processes around one run."""

    def __init__(self, case: Any) -> None:
        self.case = case
        self.weights = str(case.world.folder / "weights")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"

    def __enter__(self) -> Self:
        self.scheduler = start(serve, self.address)
        self.workers: list[BaseProcess] = []
        self.add_worker()
        self.add_worker()
        with distributed.Client(self.address, timeout=_PATIENCE_S, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=_PATIENCE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill_all()

    def add_worker(self) -> None:
        """Start one more worker."""
        self.workers.append(start(work, self.address, self.weights))

    def coordinator(self) -> BaseProcess:
        """Start the run; returns once it has begun to write."""
        process: BaseProcess = self.case.start(scheduler=self.address)
        return process

    def kill(self, process: BaseProcess) -> int:
        """Kill a process; 0 where it had ended before."""
        with suppress(ProcessLookupError):
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                return int(process.exitcode == -signal.SIGKILL)
        return 0

    def kill_worker(self) -> int:
        """Kill one worker."""
        return self.kill(self.workers.pop(0))

    def kill_scheduler(self) -> int:
        """Kill the scheduler."""
        return self.kill(self.scheduler)

    def kill_all(self, *first: BaseProcess) -> int:
        """Kill everything at once; counts as one kill where the first was still there."""
        everyone = [*first, self.scheduler, *self.workers]
        alive = bool(first) and first[0].is_alive()
        for process in everyone:
            if process.is_alive() and process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        for process in everyone:
            process.join()
        time.sleep(0)
        return int(alive)
