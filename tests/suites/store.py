"""What every store must do for a cube: inherit from `StoreSuite` and provide the fixture `uri`."""

from __future__ import annotations

import asyncio
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from support.archive_run import BLOCKS, acquisition, moment, run, scene

from think2seg.cube import check_cube, open_cube
from think2seg.cube.store import CubeStore


class StoreSuite:
    @pytest.fixture
    def store(self, uri: str) -> CubeStore:
        return CubeStore(uri, create=True)

    def test_missing_object_is_none(self, store: CubeStore) -> None:
        assert store.get("a/b") is None
        assert store.is_empty()

    def test_put_replaces(self, store: CubeStore) -> None:
        store.put("a/b", b"one")
        store.put("a/b", b"two")
        assert store.get("a/b") == b"two"
        assert not store.is_empty()

    def test_create_never_replaces(self, store: CubeStore) -> None:
        assert store.create("a/b", b"one")
        assert not store.create("a/b", b"two")
        assert store.get("a/b") == b"one"

    def test_of_many_creators_one_wins(self, store: CubeStore) -> None:
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda number: store.create("x", str(number).encode()), range(32)))
        assert sum(won) == 1
        assert store.get("x") == str(won.index(True)).encode()

    def test_delete_is_idempotent(self, store: CubeStore) -> None:
        store.put("a/b", b"one")
        store.delete("a/b")
        store.delete("a/b")
        assert store.get("a/b") is None

    def test_copy(self, store: CubeStore) -> None:
        store.put("a/b", b"one")
        store.copy("a/b", "c/d")
        store.put("a/b", b"two")
        assert store.get("c/d") == b"one"

    def test_move_replaces_and_happens_once(self, store: CubeStore) -> None:
        store.put("a/b", b"one")
        store.put("c/d", b"two")
        assert store.move("a/b", "c/d")
        assert (store.get("a/b"), store.get("c/d")) == (None, b"one")
        assert not store.move("a/b", "c/d")
        assert store.get("c/d") == b"one"

    def test_keys_are_listed_by_whole_segments(self, store: CubeStore) -> None:
        for key in ("a/2/x", "a/10/x", "a/1", "ab/1", "b"):
            store.put(key, b"")
        assert store.list_keys("a") == ["a/1", "a/10/x", "a/2/x"]
        assert store.list_keys("a/1") in ([], ["a/1"])
        assert store.list_keys("none") == []
        assert store.list_keys() == sorted(["a/2/x", "a/10/x", "a/1", "ab/1", "b"])

    def test_pickled_store_sees_the_same_objects(self, store: CubeStore) -> None:
        store.put("a", b"one")
        assert pickle.loads(pickle.dumps(store)).get("a") == b"one"

    def test_zarr_sees_the_same_objects(self, store: CubeStore) -> None:
        array = zarr.create_array(store.zarr(), name="n", shape=(4,), chunks=(2,), dtype="uint8")
        array[:] = [1, 2, 3, 4]
        assert store.list_keys("n") == ["n/c/0", "n/c/1", "n/zarr.json"]
        again = zarr.open_array(store.zarr(read_only=True), path="n", mode="r")
        assert np.array_equal(again[:], [1, 2, 3, 4])

    def test_read_only_view_refuses(self, store: CubeStore) -> None:
        view = store.zarr(read_only=True)
        with pytest.raises(ValueError, match="read"):
            asyncio.run(view.delete("x"))

    def test_every_write_is_announced_first(self, store: CubeStore, uri: str) -> None:
        seen: list[tuple[str, bool]] = []
        heard = CubeStore(uri, lambda key: seen.append((key, store.get(key) is not None)))
        heard.put("a", b"")
        heard.create("b", b"")
        heard.copy("a", "c")
        zarr.create_array(heard.zarr(), name="n", shape=(2,), chunks=(2,), dtype="uint8")[:] = 1
        assert ("a", False) in seen
        assert {"a", "b", "c", "n/zarr.json", "n/c/0"} == {key for key, _ in seen}
        assert not any(existed for key, existed in seen if key != "n/zarr.json")

    def test_a_whole_cube_lives_here(self, uri: str) -> None:
        first, second = acquisition("2014-07-20"), acquisition("2009-08-18")
        run(uri, [first])
        changed = acquisition("2014-07-20", scene("item-2014-07-20", moment("2014-07-20"), BLOCKS[:1], version="2"))
        run(uri, [changed, second])
        cube = open_cube(uri, revisions="all")
        assert cube["revision"].values.tolist() == [0, 0, 1]
        assert cube["time"].dt.year.values.tolist() == [2009, 2014, 2014]
        assert check_cube(uri) == []
