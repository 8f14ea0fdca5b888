"""The engine against a loop in the style of the published evaluation, on the bundled pair: same models, tiles and run.

The loop is written from a description of what that evaluation does: batches of 20 tiles as they come through plain
`generate`, then, once all text is there, the segmenter of the library as it is, each image encoded once and each
instance decoded by a call of its own; one process. It may use one thread or all cores, whichever is faster. The engine
runs as a worker of a run does: one process per core with one thread each. Both answer every tile alike, or this fails.

    OMP_NUM_THREADS=1 python benchmarks/engine.py

prints a table and, as its last line, one JSON object. Loading the models is counted for neither.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.errors import NotGeoreferencedWarning
from reference_loop import MONITOR, QUESTIONS, Key, ReferenceWorker, Took
from rich.console import Console
from rich.table import Table

from think2seg.config import load_monitor
from think2seg.coordinator import CubePlan, find, plan_run
from think2seg.cube.cube import open_or_create
from think2seg.cube.layout import NOT_OBSERVED
from think2seg.cube.receipts import Receipt
from think2seg.cube.writer import BlockWriter
from think2seg.engine import Models, RunSpec, Target, Timings, execute
from think2seg.memory import WORKING_BYTES, keep_freed_memory
from think2seg.plan import BlockJob, WorkOrder

MOST_DIFFERING = 1e-5
"""Share of pixels whose logit may lie so near the threshold that another order of additions turns them."""
MANY_TILES = 1000
REFERENCE, ONE, TWO = "reference", "engine, one question", "engine, two questions"


@dataclass(slots=True, kw_only=True)
class Keeping:
    """A writer that also keeps masks and answers, to be compared."""

    inner: BlockWriter
    masks: dict[Key, npt.NDArray[np.uint8]] = field(default_factory=dict)
    texts: dict[Key, str] = field(default_factory=dict)

    @property
    def prompter(self) -> str:
        """Digest of the prompter."""
        return self.inner.prompter

    @property
    def segmenter(self) -> str:
        """Digest of the segmenter."""
        return self.inner.segmenter

    def write_block(self, job: BlockJob, **content: Any) -> Receipt:
        """As `BlockWriter.write_block`."""
        grid = self.inner.spec.grid
        for tile in grid.tiles(job.block):
            core = content["mask"][tile.y : tile.y + grid.core_px, tile.x : tile.x + grid.core_px]
            self.masks[job.acquisition.id, tile.id] = core.copy()
        for row in content["traces"]:
            if not row["part"]:
                self.texts[job.acquisition.id, row["tile"]] = row["answer"]
        for row in content["traces"]:
            if row["part"]:  # its answer could not be read, so it was asked in parts, which the reference does not do
                self.masks[job.acquisition.id, row["tile"]][:] = NOT_OBSERVED
        return self.inner.write_block(job, **content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measurement."""

    wall_s: float
    cpu_s: float
    busy: float = 0.0
    """Share of the wall time during which a model computes, mean over processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a process holds, bytes."""

    tiles: int
    """Asked about so far."""
    peak: int
    """Largest resident size so far."""
    live: int
    """In use within glibc's heap, where what leaks would stay and the peak, taken beforehand, would not yet tell."""


_MALL_INFO = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)


class _MallInfo(ctypes.Structure):
    """What ``mallinfo2`` of glibc returns."""

    _fields_ = [(name, ctypes.c_size_t) for name in _MALL_INFO]


def _live_bytes() -> int:
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _MallInfo
    found = mallinfo()
    return int(found.uordblks + found.hblkhd)


def plan_of(folder: Path, question: str) -> CubePlan:
    """The sample monitor's plan for a cube of a question."""
    monitor = load_monitor(MONITOR, [f"cube.uri={folder}/{{question}}.zarr", f"question={question}"])
    return plan_run(find(monitor)).cubes[0]


def spec_of(folder: Path, n_questions: int, n_steps: int) -> RunSpec:
    """A run over the sample monitor's tiles."""
    monitor = load_monitor(MONITOR)
    targets, planned = [], None
    for question in QUESTIONS[:n_questions]:
        planned = plan_of(folder, question)
        cube = open_or_create(planned.uri, planned.spec, prompter=planned.prompter, segmenter=planned.segmenter)
        targets.append(Target(question=question, writer=cube.writer(n_steps)))
    assert planned is not None
    found = find(monitor)
    return RunSpec(
        targets=tuple(targets), grid=planned.zone.grid, region=planned.zone.region, archive=found.archive,
        models=monitor.models,
    )  # fmt: skip


def jobs_of(n_tiles: int, folder: Path) -> list[BlockJob]:
    """Jobs over about `n_tiles` tiles of the sample archive, which is gone over as often as that takes."""
    planned = plan_of(folder, QUESTIONS[0])
    once = [(line.acquisition, block) for line in planned.plan.work for block in line.blocks if line.acquisition]
    wanted = -(-n_tiles // (planned.zone.grid.block_px // planned.zone.grid.core_px) ** 2)
    rounds = [once[number % len(once)] for number in range(wanted)]
    return [
        BlockJob(acquisition=acquisition, block=block, step=number // len(once), revision=0)
        for number, (acquisition, block) in enumerate(rounds)
    ]


def orders_of(jobs: Sequence[BlockJob], n_questions: int, blocks_per_order: int) -> Iterator[WorkOrder]:
    """Work orders as a run bundles them, every block asked about with all questions."""
    for start in range(0, len(jobs), blocks_per_order):
        part = jobs[start : start + blocks_per_order]
        yield WorkOrder(id=f"{start}", jobs=tuple(replace(j, question=q) for j in part for q in range(n_questions)))


class EngineWorker:
    """Lives in a process of its own, with one thread of torch, as a worker of a run does."""

    models: Models
    kept: Sequence[Keeping] = ()

    @classmethod
    def start(cls) -> None:
        """Load the pair and answer once, which takes longer than later."""
        warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
        cls.models = Models.load(load_monitor(MONITOR).models, threads=1)
        keep_freed_memory(WORKING_BYTES)
        blank = np.full((192, 192, 3), 90, np.uint8)
        cls.models.prompter.ask([blank], QUESTIONS[0])

    @classmethod
    def run(cls, jobs: Sequence[BlockJob], spec: RunSpec, blocks_per_order: int) -> Took:
        """Do the jobs for every question of `spec`."""
        cls.kept = [Keeping(inner=target.writer) for target in spec.targets]
        targets = tuple(replace(target, writer=kept) for target, kept in zip(spec.targets, cls.kept, strict=True))  # type: ignore[arg-type]
        spec, timings = replace(spec, targets=targets), Timings()
        started, cpu = time.perf_counter(), time.process_time()
        for order in orders_of(jobs, len(spec.targets), blocks_per_order):
            execute(order, spec, cls.models, timings=timings)
        return Took(
            wall_s=time.perf_counter() - started,
            cpu_s=time.process_time() - cpu,
            busy_s=timings.busy_s,
        )

    @classmethod
    def results(cls) -> tuple[dict[Key, npt.NDArray[np.uint8]], dict[Key, str]]:
        """Masks and answers of the last run's first question."""
        return cls.kept[0].masks, cls.kept[0].texts

    @classmethod
    def growth(cls, n_tiles: int, folder: Path, blocks_per_order: int) -> tuple[Memory, Memory]:
        """Memory after a tenth of the tiles and after all."""
        jobs = jobs_of(n_tiles, folder)
        spec = spec_of(folder, 1, jobs[-1].step + 1)
        found, asked = [], 0
        few = -(-len(jobs) // 10)
        for part in (jobs[:few], jobs[few:]):
            for order in orders_of(part, 1, blocks_per_order):
                receipts = execute(order, spec, cls.models)
                asked += sum(sum(receipt.tiles.values()) for receipt in receipts)
            gc.collect()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            found.append(Memory(tiles=asked, peak=peak, live=_live_bytes()))
        return found[0], found[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The processes, and the work that all of them do."""

    engines: Sequence[ProcessPoolExecutor]
    reference: ProcessPoolExecutor
    jobs: Sequence[BlockJob]
    spec: RunSpec
    """Both questions."""
    blocks_per_order: int

    def run_engine(self, n_questions: int) -> Run:
        """The tiles divided among the engines."""
        spec = replace(self.spec, targets=self.spec.targets[:n_questions])
        n, started = len(self.engines), time.perf_counter()
        parts = [self.jobs[number * len(self.jobs) // n : (number + 1) * len(self.jobs) // n] for number in range(n)]
        futures = [
            engine.submit(EngineWorker.run, part, spec, self.blocks_per_order)
            for engine, part in zip(self.engines, parts, strict=True)
        ]
        took = [future.result() for future in futures]
        wall = time.perf_counter() - started
        busy = sum(one.busy_s for one in took) / sum(one.wall_s for one in took)
        return Run(wall_s=wall, cpu_s=sum(one.cpu_s for one in took), busy=busy)

    def run_reference(self, threads: int) -> Run:
        """The tiles in the one process of the reference."""
        started = time.perf_counter()
        took = self.reference.submit(ReferenceWorker.run, self.jobs, self.spec, threads).result()
        return Run(wall_s=time.perf_counter() - started, cpu_s=took.cpu_s)

    def compare(self) -> tuple[int, int, int]:
        """Tiles, pixels compared and pixels that differ; fails where the last runs do not agree."""
        told = self.reference.submit(ReferenceWorker.told).result()
        grid, pixels, differing = self.spec.grid, 0, 0
        core = slice(grid.halo_px, grid.halo_px + grid.core_px)
        for engine in self.engines:
            masks, texts = engine.submit(EngineWorker.results).result()
            for key, text in texts.items():
                said, union = told[key]
                if text != said:
                    raise SystemExit(f"{key} is answered otherwise:\n{text}\n{said}")
                observed = masks[key] != NOT_OBSERVED
                pixels += int(observed.sum())
                differing += int(((masks[key] == 1) != union[core, core])[observed].sum())
        if differing > MOST_DIFFERING * pixels:
            raise SystemExit(f"{differing} of {pixels} pixels differ, more than rounding explains")
        return len(told), pixels, differing


def main() -> None:
    """Measure, print a table, and the ratios as the last line."""
    options, cores = _options(), os.cpu_count() or 1
    os.environ["MALLOC_ARENA_MAX"] = "1"  # as workers of a run are started
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = jobs_of(options.tiles, folder)
        bench = Bench(
            engines=[ProcessPoolExecutor(1, context, EngineWorker.start) for _ in range(cores)],
            reference=ProcessPoolExecutor(1, context, ReferenceWorker.start),
            jobs=jobs,
            spec=spec_of(folder, len(QUESTIONS), jobs[-1].step + 1),
            blocks_per_order=options.order_blocks,
        )
        runs = _alternate(bench, options.repetitions, sorted({1, cores}))
        n_tiles, pixels, differing = bench.compare()
        for pool in [*bench.engines, bench.reference]:
            pool.shutdown()
        growth = None
        if options.memory_tiles:
            with ProcessPoolExecutor(1, context, EngineWorker.start) as pool:
                arguments = (options.memory_tiles, folder / "memory", options.order_blocks)
                growth = pool.submit(EngineWorker.growth, *arguments).result()
    _print_table(runs, n_tiles)
    say = Console(width=120, highlight=False).print
    say(f"{n_tiles} tiles answered alike; {differing} of {pixels:,} pixels compared differ: rounding at the threshold.")
    print(json.dumps(_ratios(runs, growth)))


def _alternate(bench: Bench, repetitions: int, threads: Sequence[int]) -> dict[str, list[Run]]:
    """All measurements in turn, several times over: what else the machine does hits all of them alike."""
    for pool in [*bench.engines, bench.reference]:
        pool.submit(time.perf_counter).result()
    runs: dict[str, list[Run]] = {}
    for _ in range(repetitions):
        for n_threads in threads:
            name = f"{REFERENCE}, {n_threads} thread{'s' if n_threads > 1 else ''}"
            runs.setdefault(name, []).append(bench.run_reference(n_threads))
        runs.setdefault(TWO, []).append(bench.run_engine(2))
        runs.setdefault(ONE, []).append(bench.run_engine(1))
    return runs


def _fastest_reference(runs: dict[str, list[Run]]) -> str:
    return min((name for name in runs if name.startswith(REFERENCE)), key=lambda name: _wall(runs[name]))


def _wall(runs: Sequence[Run]) -> float:
    return median(run.wall_s for run in runs)


def _ratios(runs: dict[str, list[Run]], growth: tuple[Memory, Memory] | None) -> dict[str, Any]:
    """Medians of the ratios within one repetition, so that a slow minute of the machine counts on both sides."""

    def ratio(name: str, other: str, value: str = "wall_s") -> float:
        return median(getattr(a, value) / getattr(b, value) for a, b in zip(runs[name], runs[other], strict=True))

    single = f"{REFERENCE}, 1 thread"
    found: dict[str, Any] = {
        "ratios": {
            "engine_vs_reference": round(ratio(_fastest_reference(runs), ONE), 3),
            "engine_vs_reference_of_one_thread": round(ratio(single, ONE), 3),
            "work_of_reference_vs_engine": round(ratio(single, ONE, "cpu_s"), 3),
            "further_question": round(ratio(TWO, ONE) - 1, 3),
            "busy": round(median(run.busy for run in runs[ONE]), 3),
        }
    }
    if growth:
        first, last = growth
        tiles = last.tiles - first.tiles
        found["bytes_per_tile"] = round((last.peak - first.peak) / tiles)
        found["live_bytes_per_tile"] = round((last.live - first.live) / tiles)
    return found


def _print_table(runs: dict[str, list[Run]], n_tiles: int) -> None:
    table = Table(title=f"{n_tiles} tiles, medians", box=None, title_justify="left")
    for column in ("", "wall s", "tiles/s", "CPU ms a tile", "busy"):
        table.add_column(column, justify="left" if not column else "right")
    for name, some in runs.items():
        wall, busy = _wall(some), median(run.busy for run in some)
        cpu = f"{1000 * median(run.cpu_s for run in some) / n_tiles:.0f}"
        table.add_row(name, f"{wall:.1f}", f"{n_tiles / wall:.2f}", cpu, f"{busy:.0%}" if busy else "")
    Console(width=120).print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=240, help="tiles of one run")
    parser.add_argument("--repetitions", type=int, default=3)
    usual = load_monitor(MONITOR).cluster.order_blocks
    parser.add_argument("--order-blocks", type=int, default=usual, help="blocks per work order")
    parser.add_argument(
        "--memory-tiles", type=int, default=MANY_TILES, help="tiles of the memory's run; 0 leaves it out"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
