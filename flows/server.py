"""A Prefect API for one command, for people who run none of their own."""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STARTS_WITHIN_S = 300
_STOPS_WITHIN_S = 10


@contextmanager
def prefect_api(home: Path) -> Iterator[dict[str, str]]:
    """Yield an environment in which Prefect finds an API: the one of ``PREFECT_API_URL``, or a private one.

    The private server keeps its database and its log, ``server.log``, under `home`. It outlives everything that runs
    in the block, so no client meets a closed door at its exit, and is gone after it, even if this process is killed.

    Raises
    ------
    RuntimeError
        If the server does not answer within five minutes; the message names its log.
    """
    if _answers(os.environ.get("PREFECT_API_URL")):
        yield dict(os.environ)
        return
    home = home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    env = os.environ | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
        "DO_NOT_TRACK": "1",
    }
    log = home / "server.log"
    with log.open("w") as sink:
        server = subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(port)],
            env=env | {"PREFECT_SERVER_UI_ENABLED": "false"},
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
        try:
            _wait_until_healthy(server, url, log)
            yield env | {"PREFECT_API_URL": url}
        finally:
            _stop(server)


def serve(port: int) -> None:
    """Run ``prefect server start`` in this process until its standard input ends, as it does when the parent dies."""

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.argv = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    runpy.run_module("prefect", run_name="__main__")


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    give_up = time.monotonic() + _STARTS_WITHIN_S
    while server.poll() is None and time.monotonic() < give_up:
        if _answers(url):
            return
        time.sleep(0.2)
    raise RuntimeError(f"The Prefect server did not start; its output is in {log}.")


def _answers(url: str | None) -> bool:
    if not url:
        return False
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None
    server.stdin.close()
    try:
        server.wait(_STOPS_WITHIN_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    serve(int(sys.argv[1]))
