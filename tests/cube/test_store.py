from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from obstore.exceptions import GenericError
from suites.store import StoreSuite

from think2seg.cube.store import CubeStore, explained, shown
from think2seg.errors import StoreError


class TestLocalStore(StoreSuite):
    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        return str(tmp_path / "cube.zarr")


class TestMemoryStore(StoreSuite):
    @pytest.fixture
    def uri(self) -> str:
        return f"memory://{uuid.uuid4()}"


def test_file_url_and_relative_path_are_the_same_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    CubeStore("a cube", create=True).put("x", b"1")
    assert CubeStore((tmp_path / "a cube").as_uri()).get("x") == b"1"
    assert CubeStore("a cube").uri == str(tmp_path / "a cube")


def test_reading_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Cannot open"):
        CubeStore(tmp_path / "none").get("x")
    assert not (tmp_path / "none").exists()


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError):
        CubeStore(tmp_path / "file", create=True).put("a", b"")


@pytest.mark.parametrize(
    ("cause", "advice"),
    [
        ("No space left on device (os error 28)", "Free some space"),
        ("Read-only file system (os error 30)", "Make the place writable"),
        ("Permission denied (os error 13)", "Make the place writable"),
        ("Server returned 403: ExpiredToken", "Renew the credentials"),
        ("connection refused", "Check that the place exists"),
    ],
)
def test_store_errors_say_what_to_do(cause: str, advice: str) -> None:
    with (
        pytest.raises(StoreError, match=advice) as caught,
        explained("s3://me:secret@bucket/a?token=secret", "write", "k"),
    ):
        raise GenericError(f"{cause}\n\nDebug source: secret")
    assert "secret" not in str(caught.value)
    assert "s3://bucket/a" in str(caught.value)
    assert isinstance(caught.value.__cause__, GenericError)


def test_full_disk_is_explained(small_disk: Path) -> None:
    store = CubeStore(small_disk / "cube", create=True)
    store.put("small", b"1")
    with pytest.raises(StoreError, match=r"No space left[\s\S]*finished blocks are kept"):
        store.put("large", bytes(2_000_000))
    assert store.get("small") == b"1"
    assert store.get("large") is None


def test_shown_uri_has_no_secrets() -> None:
    assert shown("https://user:password@host/path?sig=abc#x") == "https://host/path"
    assert shown("/a/b?c") == "/a/b?c"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    yield place
    subprocess.run(["umount", place], check=True)
