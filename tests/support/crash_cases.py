"""A small cube in trouble, and what it must have in common with one that nobody disturbed."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from support.archive_run import contents
from support.miniature import Archive, area, monitor_file, pixels
from support.standins import make_folders
from support.victims import At, Errand, Record, run, start, step_of

from think2seg.cube import CubeStore, check_cube, read_ledger, read_unpublished
from think2seg.cube.layout import DATA
from think2seg.cube.records import TABLES, decode, table_key

OLD, LATE, NEW = "2014-07-20", "2010-06-29", "2020-08-31"
BLOCKS = 5
"""Two late ones, one changed, two new."""
_PATIENCE_S = 240.0
_MOST_RUNS = 4


@dataclass(frozen=True, slots=True)
class World:
    """What all cases have in common."""

    folder: Path
    steps: dict[str, int]
    """Step of the protocol → how often an undisturbed run does it."""
    expected: dict[str, Any]
    """What `described` says of its cube."""
    used: Counter[str] = field(default_factory=Counter)
    """Steps that cases have chosen, so that in the end each has its turn."""

    @classmethod
    def build(cls, folder: Path) -> World:
        """Make the archive, the cube that all cases begin with, and what it becomes undisturbed."""
        make_folders(folder / "weights")
        archive = Archive.of(folder / "archive", [OLD])
        archive.put(OLD, name="patch", cols=1)
        world = cls(folder, {}, {})
        assert world.case("prepared").run() == 0
        archive.put(OLD, np.flip(pixels(OLD), axis=2), name="patch", cols=1)
        archive.put(LATE)
        archive.put(NEW)
        whole = world.case("whole")
        assert whole.run(before_write=Record(str(folder / "writes.txt"))) == 0, whole.log()
        assert whole.summary()["blocks"]["done"] == BLOCKS
        steps = Counter(map(step_of, (folder / "writes.txt").read_text().splitlines()))
        assert check_cube(whole.cube) == []
        return cls(folder, dict(steps), described(whole.cube))

    def case(self, name: str, seed: int = 0) -> Case:
        """A folder of its own with a copy of the prepared cube, where there is one yet."""
        folder = self.folder / name
        folder.mkdir()
        prepared = self.folder / "prepared" / "cube.zarr"
        if prepared.exists():
            shutil.copytree(prepared, folder / "cube.zarr")
        return Case(self, folder, random.Random(seed))


@dataclass(slots=True)
class Case:
    """One cube in trouble."""

    world: World
    folder: Path
    random: random.Random
    kills: int = 0
    troubles: int = 0
    runs: int = 0
    losses: list[str] = field(default_factory=list)
    place: Path | None = None
    """Where the cube is instead of in `folder`."""

    @property
    def cube(self) -> Path:
        return (self.place or self.folder) / "cube.zarr"

    @property
    def outcome(self) -> Path:
        return self.folder / "outcome.json"

    def errand(self, **values: Any) -> Errand:
        catalog = self.world.folder / "archive" / "catalog.json"
        region = {"kind": "geometry", "geometry": area(cols=2, rows=1)}
        monitor = monitor_file(self.folder, catalog, self.cube, region=region, cluster={"order_blocks": 1})
        given = {"monitor": str(monitor), "weights": str(self.world.folder / "weights"), "outcome": str(self.outcome)}
        return Errand(**(given | values))

    def start(self, **values: Any) -> Any:
        self.outcome.unlink(missing_ok=True)
        return start(run, self.errand(**values))

    def run(self, **values: Any) -> int | None:
        return ended(self.start(**values))

    def summary(self) -> dict[str, Any]:
        return dict(json.loads(self.outcome.read_text()))

    def log(self) -> str:
        return Path(f"{self.outcome}.log").read_text()[-4000:]

    def wait(self, process: Any) -> None:
        """Wait for a random moment of a run, or for its end."""
        target = len(receipts(self.cube)) + self.random.randrange(BLOCKS + 1)
        until(lambda: len(receipts(self.cube)) >= target or not process.is_alive())
        time.sleep(self.random.uniform(0.0, 0.3))

    def any_step(self, word: str = "") -> At:
        """A point to die at, just before any step of the protocol, or one with a word in its name."""
        steps = sorted(step for step in self.world.steps if word in step)
        step = min(steps, key=lambda step: (self.world.used[step], self.random.random()))
        self.world.used[step] += 1
        return At(step, self.random.randrange(self.world.steps[step]), "kill")

    def finish(self, **values: Any) -> None:
        """Repeat the run until it is done, and see what the trouble has cost."""
        before, left = seen(self.cube), receipts_left(self.cube)
        code = None
        while code != 0:
            self.runs += 1
            code = self.run(**values)
            if self.runs == _MOST_RUNS:
                break
        if code != 0:
            self.losses.append(f"not done after {self.runs} runs: exit code {code}, {self.log()}")
            return
        after = CubeStore(self.cube)
        if gone := [key for key, data in before.items() if after.get(key) != data]:
            self.losses.append(f"of what readers saw these are gone or changed: {gone}")
        if self.runs == 1 and (reused := self.summary()["blocks"]["reused"]) < left:
            self.losses.append(f"{left} blocks had their receipts, {reused} of them were taken over")

    def differences(self) -> tuple[str, ...]:
        if not self.cube.exists():
            return ("there is no cube",)
        held, expected = described(self.cube), self.world.expected
        return tuple(sorted(key for key in held.keys() | expected.keys() if held.get(key) != expected.get(key)))


def seen(cube: Path) -> dict[str, bytes]:
    """Every object of the steps that readers see, but for those that go on with each step."""
    store = CubeStore(cube)
    root = json.loads(store.get("zarr.json") or b"{}")
    shown = root["consolidated_metadata"]["metadata"]["mask"]["shape"][0] if root else 0
    keys = [key for step in range(shown) for array in (*DATA, "state") for key in store.list_keys(f"{array}/c/{step}")]
    keys += [f"_records/receipts/{step:06d}.jsonl" for step in range(shown)]
    for entry in read_ledger(store).entries[:shown]:
        keys += [table_key(table, entry.held.acquisition, entry.held.revision) for table in TABLES]
    return {key: store.get(key) or b"" for key in keys}


def receipts(cube: Path) -> set[str]:
    """Blocks that have or had a receipt."""
    folder = cube / "_records" / "receipts"
    singles = {f"{path.parent.name}/{path.stem}" for path in folder.glob("*/*.json")}
    bundles = {f"{path.stem}/{n}" for path in folder.glob("*.jsonl") for n in range(path.read_bytes().count(b"\n"))}
    return singles | bundles


def receipts_left(cube: Path) -> int:
    """Blocks that are done and not decided yet."""
    store = CubeStore(cube)
    return len(read_unpublished(store, len(read_ledger(store).entries)))


def described(cube: Path) -> dict[str, Any]:
    """Key → what two equal cubes have in common there."""
    return {key: untimed(key, value) if key.endswith(".parquet") else value for key, value in contents(cube).items()}


def untimed(key: str, data: bytes) -> list[dict[str, Any]]:
    """Rows of a table but for durations."""
    table = decode(key.split("/")[1], data)
    return list(table.drop_columns([name for name in table.column_names if name.startswith("seconds_")]).to_pylist())


def ended(process: Any) -> int | None:
    """Exit code of a process; one that hangs is killed, and has none."""
    process.join(_PATIENCE_S)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return int(process.exitcode)


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)
