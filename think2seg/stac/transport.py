"""Reading catalog documents, patiently, from HTTP and from disk."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from requests import PreparedRequest, RequestException, Response
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from think2seg.errors import CatalogError
from think2seg.stac.hrefs import is_url, redacted

_ADVICE = {
    401: "Check the credentials that this catalog wants.",
    403: "Check the credentials that this catalog wants.",
    404: "Check the URL in `source.catalog`.",
    429: "The catalog asks for fewer requests: run again later.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a catalog is waited for."""

    retries: int = 6
    backoff_s: float = 0.5
    """Waits are 0, 2, 4, … times this, unless the server says Retry-After."""
    timeout_s: float = 60.0


PATIENT = Patience()
MAX_DOCUMENT_BYTES = 256 * 2**20
"""Largest catalog document that is read, unpacked."""
_PIECE_BYTES = 2**20


class HttpError(CatalogError):
    """A catalog that keeps answering with an error."""

    def __init__(self, given: str, allowed: str = "", todo: str = "", *, status: int | None = None) -> None:
        super().__init__(given, allowed, todo)
        self.status = status


class Transport:
    """Reads JSON documents; every failure is a CatalogError that names the document."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        retry = Retry(
            total=patience.retries,
            status_forcelist=[429, 500, 502, 503, 504],
            allowed_methods=None,
            respect_retry_after_header=True,
            backoff_factor=patience.backoff_s,
            raise_on_status=False,
        )
        self._io = StacApiIO(timeout=patience.timeout_s, max_retries=retry)
        for scheme in ("https://", "http://"):
            self._io.session.mount(scheme, _BoundedAdapter(patience.timeout_s, max_retries=retry))

    def read(
        self,
        href: str,
        *,
        method: str = "GET",
        parameters: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Read the JSON object at a URL or path.

        Raises
        ------
        HttpError
            If the server cannot be reached, or keeps answering with an error.
        CatalogError
            If the file cannot be read, or what comes is no JSON object.
        """
        text = self._request(href, method, parameters, headers) if is_url(href) else _file_text(href)
        return _json_object(text, redacted(href))

    def _request(
        self, href: str, method: str, parameters: dict[str, Any] | None, headers: dict[str, str] | None
    ) -> str:
        if not href.lower().startswith(("http://", "https://")):
            raise CatalogError(f"The catalog document {redacted(href)!r} is not at an http or https URL.")
        try:
            return self._io.request(href, method=method, parameters=parameters, headers=headers)
        except APIError as error:
            status = getattr(error, "status_code", None)
            if status is None:
                problem = f"cannot be reached: {_one_line(str(error))}"
            else:
                tries = f" after {self._patience.retries + 1} tries" if status in (429, 500, 502, 503, 504) else ""
                problem = f"answers with HTTP {status}{tries}: {_one_line(str(error))}"
            raise HttpError(
                f"The catalog at {redacted(href)} {problem}.",
                "A STAC API or a static STAC catalog that answers.",
                _ADVICE.get(status or 0, "Check the network and the URL in `source.catalog`, then run again."),
                status=status,
            ) from error


class _BoundedAdapter(HTTPAdapter):
    """Reads answers of a bounded size in a bounded time, whatever their headers say."""

    def __init__(self, timeout_s: float, **options: Any) -> None:
        super().__init__(**options)
        self._deadline_s = 10 * timeout_s

    def send(self, request: PreparedRequest, stream: bool = False, **options: Any) -> Response:  # type: ignore[override]
        response = super().send(request, stream=True, **options)
        stated = response.headers.get("Content-Length", "0")
        if stated.isdigit() and int(stated) > MAX_DOCUMENT_BYTES:
            response.close()
            raise RequestException(f"an answer of {int(stated):,} bytes, of at most {MAX_DOCUMENT_BYTES:,}")
        response._content = self._body(response)
        response._content_consumed = True  # type: ignore[attr-defined]
        return response

    def _body(self, response: Response) -> bytes:
        started, body = time.monotonic(), bytearray()
        for piece in response.iter_content(_PIECE_BYTES):
            body += piece
            if len(body) > MAX_DOCUMENT_BYTES or time.monotonic() - started > self._deadline_s:
                response.close()
                raise RequestException(
                    f"an answer that does not end: {len(body):,} bytes in {time.monotonic() - started:.0f} s"
                )
        return bytes(body)


def _file_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(
            f"The catalog document {path} cannot be read: {error}.",
            "A STAC catalog, collection, item or item collection as JSON.",
            "Check the path in `source.catalog`.",
        ) from error


def _json_object(text: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        start = text.lstrip()[:200].lower()
        what = "an HTML page" if start.startswith("<") and "<" in start else "not JSON"
        raise CatalogError(
            f"The catalog document at {where} is {what}: it begins with {_one_line(text)!r}.",
            "A STAC catalog, collection, item or item collection as JSON.",
            "Open the address in a browser: a login page, a proxy or an outage often stands behind this.",
        ) from error
    if not isinstance(data, dict):
        raise CatalogError(
            f"The catalog document at {where} is a JSON {type(data).__name__}, not an object.",
            "A STAC catalog, collection, item or item collection.",
        )
    return data


def _one_line(text: str, chars: int = 80) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= chars else f"{flat[: chars - 1]}…"
