"""A Prefect API for one command, for people who run none of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STARTS_WITHIN_S = 120
_STOPS_WITHIN_S = 10


@contextmanager
def prefect_api(home: Path) -> Iterator[dict[str, str]]:
    """Yield an environment in which Prefect finds an API; start a private server under `home` unless one is set.

    The server outlives everything that runs in the block, so no client meets a closed door at its exit, and is gone
    after it. Its output goes to ``server.log`` in `home`.

    Raises
    ------
    RuntimeError
        If the server does not answer within two minutes; the message names its log.
    """
    if os.environ.get("PREFECT_API_URL"):
        yield dict(os.environ)
        return
    home = home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    env = os.environ | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "DO_NOT_TRACK": "1",
    }
    log = home / "server.log"
    with log.open("w") as sink:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(
            command, env=env | {"PREFECT_UI_ENABLED": "false"}, stdout=sink, stderr=sink, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}/api"
            _wait_until_healthy(server, url, log)
            yield env | {"PREFECT_API_URL": url}
        finally:
            _stop(server)


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    give_up = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < give_up:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"The Prefect server did not start; its output is in {log}.")


def _stop(server: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, sign)
            server.wait(_STOPS_WITHIN_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
