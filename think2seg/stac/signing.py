"""Short-lived read tokens for Azure blob storage, fetched where and when an href is read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from threading import Lock
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from think2seg.config.archive import Archive
from think2seg.errors import ImageryError
from think2seg.stac.hrefs import redacted

_BLOB_HOST = ".blob.core.windows.net"
_RENEW_BEFORE = timedelta(minutes=5)
_TIMEOUT_S = 30.0


def patch_url(archive: Archive) -> Callable[[str], str] | None:
    """Return what signs an href just before it is read, or None where the archive's hrefs need no signature.

    The signer, with its tokens, is shared by a process; tokens never reach a message or log.
    """
    return None if archive.signing is None else _signer(archive.signing.endpoint)


@cache
def _signer(endpoint: str) -> TokenSigner:
    """One signer per process and endpoint, so that tokens are fetched once, not once per read."""
    return TokenSigner(endpoint)


class TokenSigner:
    """Signs blob hrefs with one shared-access token per container, renewed before it expires."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._tokens: dict[tuple[str, str], tuple[str, datetime]] = {}
        self._lock = Lock()
        self._session = requests.Session()
        retry = Retry(total=6, status_forcelist=[429, 500, 502, 503, 504], backoff_factor=0.5)
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))

    def __call__(self, href: str) -> str:
        """Return `href` with a token; hrefs outside blob storage are returned as they are.

        Raises
        ------
        ImageryError
            If no token can be had.
        """
        parts = urlsplit(href)
        account, _, _ = (parts.hostname or "").partition(".")
        container = parts.path.strip("/").partition("/")[0]
        if not (parts.hostname or "").endswith(_BLOB_HOST) or not container:
            return href
        return parts._replace(query=self._token(account, container), fragment="").geturl()

    def _token(self, account: str, container: str) -> str:
        with self._lock:
            token, expiry = self._tokens.get((account, container), ("", datetime.min.replace(tzinfo=UTC)))
            if datetime.now(UTC) + _RENEW_BEFORE >= expiry:
                token, expiry = self._fetch(f"{self._endpoint}/{account}/{container}")
                self._tokens[account, container] = token, expiry
            return token

    def _fetch(self, url: str) -> tuple[str, datetime]:
        try:
            response = self._session.get(url, timeout=_TIMEOUT_S)
            response.raise_for_status()
            answer = response.json()
            return str(answer["token"]), datetime.fromisoformat(answer["msft:expiry"])
        except (requests.RequestException, KeyError, TypeError, ValueError) as error:
            raise ImageryError(
                f"No read token can be had from {redacted(url)}: {type(error).__name__}.",
                "An answer with `token` and `msft:expiry`.",
                "Check the network and `signing.endpoint` of the archive, then run again.",
            ) from None
