"""Reading catalog documents, patiently, from HTTP and from disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
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


class HttpError(CatalogError):
    """A catalog that keeps answering with an error."""

    def __init__(self, given: str, allowed: str = "", todo: str = "", *, status: int | None = None) -> None:
        super().__init__(given, allowed, todo)
        self.status = status


class Transport:
    """Reads JSON documents; every failure is a CatalogError that names the document."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._io = StacApiIO(
            timeout=patience.timeout_s,
            max_retries=Retry(
                total=patience.retries,
                status_forcelist=[429, 500, 502, 503, 504],
                allowed_methods=None,
                respect_retry_after_header=True,
                backoff_factor=patience.backoff_s,
                raise_on_status=False,
            ),
        )

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
