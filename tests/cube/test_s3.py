"""A cube behind the S3 protocol: the same suite as any store, over HTTP to a real server on this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from suites.store import StoreSuite
from support.archive_run import PROMPTER, SEGMENTER, SPEC, acquisition, contents, run
from support.s3 import SECRET, new_bucket, s3_server

import think2seg.cube.ledger
from think2seg.cube import CubeStore, Lease, current_holder, open_cube, open_or_create
from think2seg.errors import LeaseError, StoreError


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def uri(endpoint: str) -> str:
    return new_bucket(endpoint)


class TestS3(StoreSuite):
    """The bucket is a real one, spoken to in S3."""


def test_a_cube_in_a_bucket_equals_one_in_a_folder(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(think2seg.cube.ledger, "COMPACT_AFTER", 2)
    days = [acquisition("2009-08-18"), acquisition("2014-07-20")]
    run(uri, days)
    run(tmp_path / "cube", days)
    assert contents(uri) == contents(tmp_path / "cube")
    assert CubeStore(uri).list_keys("_records/ledger") == ["_records/ledger/00000001-00000002.jsonl"]
    plain = xr.open_zarr(CubeStore(uri).zarr(read_only=True), consolidated=True)
    assert np.array_equal(plain["mask"].values, open_cube(tmp_path / "cube")["mask"].values)
    assert plain["spatial_ref"].attrs["GeoTransform"]


def test_one_lease_in_a_bucket(uri: str) -> None:
    store = CubeStore(uri)
    with Lease.acquire(store, ttl_s=5) as lease:
        lease.check()
        assert current_holder(CubeStore(uri)) == lease.holder
        with pytest.raises(LeaseError, match="Another run is writing"):
            Lease.acquire(CubeStore(uri), ttl_s=0.2)
    with Lease.acquire(store, ttl_s=5) as later:
        assert later.epoch > lease.epoch
        with pytest.raises(LeaseError, match="lease"):
            lease.check()


def test_refused_credentials_are_told_and_not_shown(endpoint: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(StoreError) as caught:
        open_or_create("s3://no-such-bucket-here/cube.zarr", SPEC, prompter=PROMPTER, segmenter=SEGMENTER)
    assert "s3://no-such-bucket-here/cube.zarr" in str(caught.value)
    assert SECRET not in f"{caught.value!r}{caught.value.__cause__!r}{caplog.text}"
