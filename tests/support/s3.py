"""A real S3-compatible server on this machine: moto, over HTTP."""

from __future__ import annotations

import logging
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SECRET = "planted-s3-secret-2f7c"


@contextmanager
def s3_server() -> Iterator[str]:
    """Serve S3; yields the endpoint. The environment names it, with credentials, until the end."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        yield endpoint
    server.stop()


def new_bucket(endpoint: str) -> str:
    """Make a bucket of its own; returns its URL."""
    name = f"cubes-{uuid.uuid4().hex[:12]}"
    request = urllib.request.Request(f"{endpoint}/{name}", method="PUT", headers={"Authorization": "AWS tester:x"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    return f"s3://{name}/monitors/water.zarr"
