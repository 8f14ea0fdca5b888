"""Objects under one cube URI: a folder, an object store, or memory.

Everything the cube writes goes through this one door, so that errors are explained in one place and a test can observe
(or refuse, or die before) each single write.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit, urlunsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, MemoryStore, from_url
from zarr.core.buffer import Buffer
from zarr.storage import ObjectStore

from think2seg.errors import StoreError

if TYPE_CHECKING:
    from obstore.store import ClientConfig

type BeforeWrite = Callable[[str], None]
"""Called with an object's key before it is put, copied or moved to, or deleted."""

_CLIENT: ClientConfig = {"timeout": "60s", "connect_timeout": "10s"}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_memory: dict[str, MemoryStore] = {}


class CubeStore:
    """Reads and writes the objects of one cube. Picklable; small objects only, each written whole.

    Parameters
    ----------
    uri
        A path, a ``file://`` URL, ``memory://NAME`` (this process only) or any URL that obstore opens (``s3://…``,
        ``gs://…``, ``az://…``); credentials come from the environment and are never part of it, and so does the
        endpoint of another S3-compatible server (``AWS_ENDPOINT_URL``).
    before_write
        Called with the key before every single change to the store.
    create
        Make the folder where it is missing; object stores need none.

    Raises
    ------
    StoreError
        The URI cannot be opened.
    """

    def __init__(self, uri: str | Path, before_write: BeforeWrite | None = None, *, create: bool = False) -> None:
        self.uri = str(local_path(uri) or uri)
        self.before_write = before_write
        with self._explained("open", ""):
            self._objects = _open(self.uri, create)

    def __reduce__(self) -> tuple[type[Self], tuple[str, BeforeWrite | None]]:
        return type(self), (self.uri, self.before_write)

    def __repr__(self) -> str:
        return f"CubeStore({shown(self.uri)!r})"

    def get(self, key: str) -> bytes | None:
        """Return an object's bytes, or None where there is no such object."""
        with self._explained("read", key):
            try:
                return bytes(obstore.get(self._objects, key).bytes())
            except FileNotFoundError:
                return None

    def put(self, key: str, data: bytes) -> None:
        """Write an object atomically, replacing what was there."""
        self._announce(key)
        with self._explained("write", key):
            obstore.put(self._objects, key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless there is one; False if there was. Of two callers exactly one gets True."""
        self._announce(key)
        with self._explained("write", key):
            try:
                obstore.put(self._objects, key, data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def copy(self, source: str, target: str) -> None:
        """Copy one object inside the store."""
        self._announce(target)
        with self._explained("copy", source):
            obstore.copy(self._objects, source, target)

    def move(self, source: str, target: str) -> bool:
        """Move one object, replacing what was there; False, and nothing changed, where there is no such object.

        In a folder this is one indivisible step. Object stores copy on their side and delete then: the copy is one.
        """
        self._announce(target)
        with self._explained("move", source):
            try:
                obstore.rename(self._objects, source, target)
            except FileNotFoundError:
                return False
        return True

    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""
        self._announce(key)
        with self._explained("delete", key):
            try:
                obstore.delete(self._objects, key)
            except FileNotFoundError:
                return

    def list_keys(self, prefix: str = "") -> list[str]:
        """All keys below a prefix of whole path segments, sorted."""
        with self._explained("list", prefix):
            batches = obstore.list(self._objects, prefix=prefix or None)
            return sorted(entry["path"] for batch in batches for entry in batch)

    def is_empty(self) -> bool:
        """Whether there is no object at all."""
        with self._explained("list", ""):
            return next((False for batch in obstore.list(self._objects, chunk_size=1) if batch), True)

    def zarr(self, *, read_only: bool = False) -> ObjectStore[Any]:
        """View the same objects as a zarr store."""
        return _AnnouncingStore(self._objects, read_only=read_only, before_write=self.before_write)

    def _announce(self, key: str) -> None:
        if self.before_write is not None:
            self.before_write(key)

    @contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        with explained(self.uri, verb, key):
            yield


@contextmanager
def explained(uri: str, verb: str, key: str = "") -> Iterator[None]:
    """Turn what a store raises inside the block into `StoreError`.

    Parameters
    ----------
    uri
        The cube's URI.
    verb
        What was being done, for people: read, write, list.
    key
        The object it concerns; empty for the whole store.
    """
    try:
        yield
    except StoreError:
        raise
    except (BaseError, OSError) as error:
        what = f"{key!r} in {shown(uri)}" if key else shown(uri)
        cause = str(error).partition("\n")[0]
        raise StoreError(f"Cannot {verb} {what}: {cause}", todo=_way_on(cause)) from error


def shown(uri: str) -> str:
    """Return a URI as it may appear in messages: without user information and query string."""
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def sibling_uri(uri: str, digest: str) -> str:
    """URI beside a cube's own for the answers of other weights, named by the beginning of their digest."""
    stem, dot, suffix = uri.rstrip("/").rpartition(".zarr")
    return f"{stem}-{digest[:8]}.zarr" if dot and not suffix else f"{uri.rstrip('/')}-{digest[:8]}"


class _AnnouncingStore(ObjectStore[Any]):
    """An obstore-backed zarr store that announces its writes."""

    def __init__(self, store: Any, *, read_only: bool, before_write: BeforeWrite | None) -> None:
        super().__init__(store, read_only=read_only)
        self.before_write = before_write

    def with_read_only(self, read_only: bool = False) -> _AnnouncingStore:
        return _AnnouncingStore(self.store, read_only=read_only, before_write=self.before_write)

    async def set(self, key: str, value: Buffer) -> None:
        if self.before_write is not None:
            self.before_write(key)
        await super().set(key, value)


def local_path(uri: str | Path) -> Path | None:
    """Return the absolute path of a local URI, None for any other."""
    text = str(uri)
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    return None if "://" in text else Path(text).expanduser().resolve()


def _open(uri: str, create: bool) -> Any:
    scheme, separator, name = uri.partition("://")
    if not separator:
        return LocalStore(uri, mkdir=create, automatic_cleanup=True)
    if scheme == "memory":
        return _memory.setdefault(name, MemoryStore())
    plain_http = any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS)
    return from_url(uri, client_options={**_CLIENT, "allow_http": plain_http})


def _way_on(cause: str) -> str:
    lowered = cause.lower()
    if "no space" in lowered or "os error 28" in lowered or "quota" in lowered:
        return "Free some space, or set cube.uri to a place that has it, and run again: finished blocks are kept."
    if "permission" in lowered or "read-only" in lowered or "os error 13" in lowered or "os error 30" in lowered:
        return "Make the place writable for this user, or set cube.uri to one that is, and run again."
    if "credential" in lowered or "401" in lowered or "403" in lowered or "expired" in lowered:
        return "Renew the credentials in the environment and run again: finished blocks are kept."
    return "Check that the place exists and can be reached, and run again: finished blocks are kept."
