"""One run at a time: a lease with a heartbeat, and an epoch that fences off whoever lost it.

Every run that takes the lease creates the next epoch file, exclusively. A run holds the lease while its epoch is the
highest. Whether a holder is alive is judged without trusting clocks across machines: its heartbeat must change while
one looks on for the time to live. A process that died on this very machine is recognised at once.

A run may sleep through its time to live (stopped, swapped out, on a machine that was suspended) and wake up anywhere,
just before a write included. So whatever a later run could disagree about is written through a `Fence`.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import psutil

from think2seg.cube.store import CubeStore, shown
from think2seg.errors import LeaseError, StoreError

FOLDER = "_records/lease"
_ASIDE = f"{FOLDER}/aside"
_held_here: set[str] = set()
"""Tokens of the leases that this process holds: one that it could not give back, on a full disk, is not among them."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who took an epoch of the lease."""

    epoch: int
    machine: str
    """Host name, boot and process namespace: equal on two processes that can see each other's ids."""
    pid: int
    started: float
    """When the process started, as `_started` tells: a process id alone may be used again."""
    since: str
    """UTC, ISO 8601."""
    command: str
    token: str = field(default_factory=lambda: uuid4().hex)
    """Tells this lease from every other one."""

    @property
    def host(self) -> str:
        """Host name."""
        return self.machine.partition("/")[0]


@dataclass(frozen=True, slots=True)
class _Beat:
    count: int
    released: bool
    sealed: bool = True
    """Whether the holder shut out the one before it, where that had not released the lease."""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True, slots=True)
class Fence:
    """Writes that cannot happen any more once a later run has taken the lease. Picklable.

    Objects are put aside under the run's epoch, then the lease is looked at, then each object is moved into place. Who
    takes the lease removes what earlier epochs put aside before doing anything else: a move that comes late finds
    nothing to move, however long the process slept before it.
    """

    store: CubeStore
    epoch: int

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Write objects, one after the other in the order given.

        Raises
        ------
        LeaseError
            A later run took the lease; the objects that were not in place by then never will be.
        """
        for key, data in objects.items():
            self.store.put(_aside_key(self.epoch, key), data)
        check_epoch(self.store, self.epoch)
        for key in objects:
            if not self.store.move(_aside_key(self.epoch, key), key):
                check_epoch(self.store, self.epoch)  # passes where two workers of this run wrote the same block


class Lease:
    """The right to publish to one cube. Use as a context manager, or call `release`.

    A daemon thread renews the heartbeat; `check` is called before every write that must not come from a run that lost
    its lease.
    """

    def __init__(self, store: CubeStore, holder: Holder, ttl_s: float, *, seized: bool = False) -> None:
        self.store, self.holder, self.ttl_s = store, holder, ttl_s
        self.seized = seized
        """Whether the holder before never gave the lease back, and may be asleep rather than dead: until the ledger is
        sealed against it."""
        self._beats = 0
        self._renewed = time.monotonic()
        _held_here.add(holder.token)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="think2seg-lease", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(
        cls, store: CubeStore, ttl_s: float = 30.0, *, say: Callable[[str], None] = lambda message: None
    ) -> Self:
        """Take the lease, waiting up to `ttl_s` where it must be found out whether its holder is alive.

        Parameters
        ----------
        store
            The cube's store.
        ttl_s
            Seconds without a heartbeat after which a holder counts as dead.
        say
            Called with one sentence when there is something to wait for.

        Raises
        ------
        LeaseError
            Another run holds the lease; the message says who and since when.
        """
        while True:
            epochs = _epochs(store)
            last = max(epochs, default=0)
            seized = last > 0 and not _wait_until_free(store, last, ttl_s, say)
            holder = _self(last + 1)
            if not store.create(_epoch_key(holder.epoch), json.dumps(asdict(holder)).encode()):
                continue
            if max(_epochs(store)) != holder.epoch:
                store.delete(_epoch_key(holder.epoch))
                continue
            _remove_aside(store, holder.epoch)
            for old in epochs:
                store.delete(_epoch_key(old))
                store.delete(_beat_key(old))
            return cls(store, holder, ttl_s, seized=seized)

    @property
    def epoch(self) -> int:
        """Number that every later holder exceeds."""
        return self.holder.epoch

    @property
    def fence(self) -> Fence:
        """Writes that only the holder of this lease can do."""
        return Fence(self.store, self.epoch)

    def check(self) -> None:
        """Make sure that this run still holds the lease.

        Raises
        ------
        LeaseError
            It does not, or could not renew it in time.
        """
        if self._stop.is_set():
            raise LeaseError("This run gave its lease back", "Only the holder of the lease may write.", "Run again.")
        if time.monotonic() - self._renewed > self.ttl_s:
            self._renew()
        check_epoch(self.store, self.epoch)

    def release(self) -> None:
        """Give the lease back. Harmless when it was lost, or when the store takes no more writes."""
        self._stop.set()
        self._thread.join()
        _held_here.discard(self.holder.token)
        try:
            if self.epoch in _epochs(self.store):
                beat = _Beat(self._beats + 1, released=True, sealed=not self.seized)
                self.store.put(_beat_key(self.epoch), beat.to_json())
        except StoreError as error:
            logger.warning("the lease could not be given back, the next run finds out that it is free: %s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _run(self) -> None:
        while True:
            try:
                self._renew()
            except LeaseError:
                return  # `check` tells the run, where it can stop
            except StoreError as error:
                logger.warning("the lease could not be renewed, trying again: %s", error)
            if self._stop.wait(self.ttl_s / 6):
                return

    def _renew(self) -> None:
        check_epoch(self.store, self.epoch)
        self._beats += 1
        self.store.put(_beat_key(self.epoch), _Beat(self._beats, released=False).to_json())
        self._renewed = time.monotonic()


def check_epoch(store: CubeStore, epoch: int) -> None:
    """Make sure that no later run took the lease.

    Raises
    ------
    LeaseError
        One did.
    """
    last = max(_epochs(store), default=0)
    if last != epoch:
        who = _holder(store, last)
        raise LeaseError(
            f"This run lost its lease on {shown(store.uri)}" + (f" to {_describe(who)}" if who else ""),
            "Only the holder of the lease may write.",
            "Nothing is lost: run again when the other run has ended; finished blocks are kept.",
        )


def current_holder(store: CubeStore) -> Holder | None:
    """Who holds the lease now; None where it is free. A dead holder counts until someone takes over."""
    last = max(_epochs(store), default=0)
    return None if not last or _beat(store, last).released else _holder(store, last)


def _wait_until_free(store: CubeStore, epoch: int, ttl_s: float, say: Callable[[str], None]) -> bool:
    """Return once the epoch's holder released it in good order (True) or counts as dead (False).

    Raises `LeaseError` where it shows a sign of life.
    """
    holder, seen = _holder(store, epoch), _beat(store, epoch)
    if seen.released or (holder is not None and _dead_here(holder)):
        return seen.released and seen.sealed
    if holder is None:
        raise LeaseError(f"The lease on {shown(store.uri)} changed hands just now", todo="Run again.")
    if (holder.machine, holder.pid) == (_machine(), os.getpid()):
        if holder.token in _held_here:
            raise _held(store, holder)
        return False
    say(f"waiting up to {ttl_s:.0f} s to see whether {_describe(holder)} is alive")
    deadline = time.monotonic() + ttl_s
    while time.monotonic() < deadline:
        time.sleep(min(0.5, ttl_s / 20))
        beat = _beat(store, epoch)
        if beat.released or _dead_here(holder):
            return beat.released and beat.sealed
        if beat != seen or max(_epochs(store), default=0) != epoch:
            raise _held(store, holder)
    return False


def _remove_aside(store: CubeStore, epoch: int) -> None:
    """Remove what epochs before this one put aside."""
    for key in store.list_keys(_ASIDE):
        if int(key.removeprefix(f"{_ASIDE}/")[:8]) < epoch:
            store.delete(key)


def _held(store: CubeStore, holder: Holder) -> LeaseError:
    return LeaseError(
        f"Another run is writing to {shown(store.uri)}: {_describe(holder)}",
        "One run at a time may write to a cube.",
        "Wait for it to end, or stop it; then run again.",
    )


def _describe(holder: Holder) -> str:
    return f"process {holder.pid} on {holder.host} ({holder.command}), since {holder.since}"


def _dead_here(holder: Holder) -> bool:
    """Whether the holder ran on this machine and its process is gone."""
    if holder.machine != _machine():
        return False
    started = _started(holder.pid)
    return started is None or abs(started - holder.started) > 1.0


def _started(pid: int) -> float | None:
    """When a process started, on a scale that setting the clock does not shift; None where it is gone.

    On Linux in clock ticks since the machine's start; elsewhere seconds since 1970, as the kernel noted them.
    """
    try:
        if not Path("/proc/self/stat").exists():
            return float(psutil.Process(pid).create_time())
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else float(numbers[18])


def _self(epoch: int) -> Holder:
    process = psutil.Process()
    return Holder(
        epoch=epoch,
        machine=_machine(),
        pid=process.pid,
        started=_started(process.pid) or 0.0,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        command=process.name(),
    )


def _machine() -> str:
    parts = [socket.gethostname()]
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if boot.exists():
        parts.append(boot.read_text().strip())
    if namespace.is_symlink():
        parts.append(os.readlink(namespace))
    return "/".join(parts)


def _aside_key(epoch: int, key: str) -> str:
    return f"{_ASIDE}/{epoch:08d}-{key.replace('/', '~')}"


def _epoch_key(epoch: int) -> str:
    return f"{FOLDER}/epoch-{epoch:08d}.json"


def _beat_key(epoch: int) -> str:
    return f"{FOLDER}/heartbeat-{epoch:08d}.json"


def _epochs(store: CubeStore) -> list[int]:
    names = (key.rpartition("/")[2] for key in store.list_keys(FOLDER))
    return [int(name[6:14]) for name in names if name.startswith("epoch-")]


def _holder(store: CubeStore, epoch: int) -> Holder | None:
    data = store.get(_epoch_key(epoch))
    return Holder(**json.loads(data)) if data is not None else None


def _beat(store: CubeStore, epoch: int) -> _Beat:
    data = store.get(_beat_key(epoch))
    return _Beat(**json.loads(data)) if data is not None else _Beat(-1, False)
