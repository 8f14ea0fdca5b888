"""How many requests a server is sent at a time: a bound that gives way while the server asks to wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """A bound on the requests under way, shared by the threads that make them.

    A push-back halves the bound, once for all requests that meet the same one, and holds every further request until
    the server wants to be asked again; each success after that lets it grow by a little, up to `most`.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._bound = float(most)
        self._under_way = 0
        self._held_until = 0.0
        self._changed = threading.Condition()

    @property
    def bound(self) -> int:
        """Requests that may be under way now."""
        return int(self._bound)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a place, and for the end of what the server asked to wait; then hold the place."""
        with self._changed:
            while (wait_s := self._wait_s()) != 0:
                self._changed.wait(wait_s)
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify()

    def push_back(self, wait_s: float) -> None:
        """The server is too busy: fewer requests, and none for `wait_s` seconds."""
        with self._changed:
            now = time.monotonic()
            if now >= self._held_until:
                self._bound = max(1.0, self._bound / 2)
            self._held_until = max(self._held_until, now + wait_s)

    def success(self) -> None:
        """A request was answered."""
        with self._changed:
            if self._bound < self._most:
                self._bound = min(self._most, self._bound + 1 / self._bound)
                self._changed.notify()

    def _wait_s(self) -> float | None:
        """0: go; a number: look again after so many seconds; None: when a place is free."""
        held_s = self._held_until - time.monotonic()
        if held_s > 0:
            return held_s
        return 0 if self._under_way < self.bound else None
