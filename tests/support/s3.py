"""A real S3-compatible server on this machine: moto, over HTTP."""

from __future__ import annotations

import logging
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest

SECRET = "planted-s3-secret-2f7c"


@contextmanager
def s3_server() -> Iterator[str]:
    """Serve S3; yields the endpoint. The environment names it, with credentials, until the end.

    One request at a time: S3 decides `If-None-Match: *` indivisibly, moto looks first and writes then.
    """
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=False, request_handler=MotoRequestHandler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
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
    server.shutdown()
    thread.join()


def new_bucket(endpoint: str) -> str:
    """Make a bucket of its own; returns its URL."""
    name = f"cubes-{uuid.uuid4().hex[:12]}"
    request = urllib.request.Request(f"{endpoint}/{name}", method="PUT", headers={"Authorization": "AWS tester:x"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    return f"s3://{name}/monitors/water.zarr"
