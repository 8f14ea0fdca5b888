"""What a run would do: search once, look at the cubes, plan. Nothing is written and no model is loaded."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from functools import partial
from itertools import batched
from typing import Any

import shapely

from think2seg.config import Archive, Models, Monitor, load_archive
from think2seg.cube import CubeSpec, CubeStore, Ledger, find_cube, find_store, is_cube, read_ledger, read_spec
from think2seg.cube.store import shown
from think2seg.errors import ConfigError, CubeError, NothingFound
from think2seg.grid import Block, Grid, Zone, blocks_of, zones
from think2seg.imagery import estimate_bytes, resampling_note
from think2seg.plan import BlockState, HeldStep, Plan, PlanLine, make_plan
from think2seg.prompting import template_for
from think2seg.registry import Weights, pinned, prompter_weights, segmenter_weights
from think2seg.stac.scenes import Acquisition
from think2seg.stac.search import SearchResult, search

_PENDING = BlockState.PENDING


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A monitor and what its catalog says exists."""

    monitor: Monitor
    models: Models
    """The monitor's, an alias replaced by the version that it meant: a promotion does not change a run in progress."""
    archive: Archive
    result: SearchResult
    seconds: float
    """Wall time of the search."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the search left out or repaired, one sentence each."""
        return self.result.notes


@dataclass(frozen=True, slots=True, kw_only=True)
class CubePlan:
    """The plan of one cube: one question in one zone."""

    uri: str
    zone: Zone
    spec: CubeSpec
    prompter: str
    segmenter: str
    """Digests of the weights that will answer and draw."""
    registered: bool
    """Whether the prompter is a registered promotion, which may follow another one in the same cube."""
    plan: Plan
    blocks: tuple[Block, ...]
    """Blocks that touch the region."""
    exists: bool
    """Whether the cube is there already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """Everything one run would do."""

    found: Found
    cubes: tuple[CubePlan, ...]

    @property
    def monitor(self) -> Monitor:
        """The monitor that asks."""
        return self.found.monitor

    @property
    def n_blocks(self) -> int:
        """Blocks to do over all cubes."""
        return sum(len(line.blocks) for cube in self.cubes for line in cube.plan.lines)

    def reasons(self) -> dict[str, int]:
        """Plan reason → acquisitions, over all cubes."""
        return dict(Counter(line.reason.value for cube in self.cubes for line in cube.plan.lines))

    def totals(self) -> dict[str, Any]:
        """Figures of the whole plan, ready for JSON."""
        work = [line for cube in self.cubes for line in cube.plan.work]
        return {
            "monitor": self.monitor.monitor,
            "monitor_hash": self.monitor.hash,
            "cubes": [cube.uri for cube in self.cubes],
            "reasons": self.reasons(),
            "blocks": self.n_blocks,
            "tiles": sum(line.tiles for line in work),
            "bytes": sum(line.bytes_to_read for line in work),
        }

    def sentence(self) -> str:
        """One line for people."""
        totals = self.totals()
        counts = ", ".join(f"{number} {reason}" for reason, number in totals["reasons"].items()) or "no acquisition"
        return (
            f"{counts}; to do: {totals['blocks']} blocks, up to {totals['tiles']} tiles, "
            f"{totals['bytes'] / 1e6:.1f} MB to read."
        )


def find(monitor: Monitor, *, since: date | None = None, until: date | None = None) -> Found:
    """Search the monitor's catalog, once.

    Parameters
    ----------
    since, until
        Narrow the monitor's time span to these days, both included. Without `since`, a monitor with a look-back
        searches from its newest held acquisition minus that many days.

    Raises
    ------
    ConfigError, CatalogError
        If the archive is unknown, the span is empty, or the search fails or finds nothing. A repeated run that looks
        back and finds nothing has nothing to do, which is no error.
    ModelError
        If the prompter's alias means nothing in the registry.
    """
    started = time.monotonic()
    archive, models = load_archive(monitor.source.archive), pinned(monitor.models)
    looked_back = None if since else _look_back(monitor)
    low = datetime.combine(since, clock.min, UTC) if since else looked_back
    high = datetime.combine(until, clock.max, UTC) if until else None
    try:
        result = search(monitor, archive, since=low, until=high)
    except NothingFound as nothing:
        if looked_back is None:
            raise
        interval = (looked_back, high or monitor.source.interval[1])
        result = SearchResult(acquisitions=(), interval=interval, notes=(nothing.given,), dropped={})
    seconds = time.monotonic() - started
    return Found(monitor=monitor, models=models, archive=archive, result=result, seconds=seconds)


def plan_run(
    found: Found, *, retry_quarantined: bool = False, allow_changes: bool = False, backfill: bool = False
) -> RunPlan:
    """Plan every cube of the monitor against what it holds.

    Parameters
    ----------
    retry_quarantined, allow_changes, backfill
        See `think2seg.plan.make_plan`.

    Raises
    ------
    CubeError
        If there is something else at a cube's URI, or a cube of another identity.
    CatalogError
        If more than 5 % of the finished scenes changed and `allow_changes` is off.
    ConfigError
        If the region needs several cubes and `cube.uri` names one, or the budget is less than one block.
    """
    monitor, archive = found.monitor, found.archive
    parts = _zones(monitor, archive, _native(found))
    names = [zone.grid.zone for zone in parts]
    if len({cube_uri(monitor, name, monitor.asked[0]) for name in names}) < len(names):
        raise ConfigError(
            f"The region lies in {len(names)} zones ({', '.join(names)}), and cube.uri = {monitor.cube.uri!r} is one.",
            "Each zone has a cube of its own: {zone} in the URI is replaced by its name.",
            "Put {zone} into cube.uri, or choose one grid.crs for the whole region.",
        )
    _check_questions(monitor)
    decide = partial(make_plan, retry_quarantined=retry_quarantined, allow_changes=allow_changes, backfill=backfill)
    cubes = [
        _plan_cube(found, zone, question, partial(decide, budget_tiles=_budget_tiles(monitor, zone.grid, len(parts))))
        for zone in parts
        for question in monitor.asked
    ]
    return RunPlan(found=found, cubes=tuple(cubes))


def plan_rows(plan: RunPlan) -> list[dict[str, Any]]:
    """One row per acquisition and cube: time, acquisition, reason, blocks, tiles, bytes, scenes, note."""
    return [
        {
            "time": line.time.isoformat(),
            "acquisition": line.id,
            "reason": line.reason.value,
            "blocks": len(line.blocks),
            "tiles": line.tiles,
            "bytes": line.bytes_to_read,
            "revision": line.revision,
            "scenes": [scene.id for scene in line.acquisition.scenes] if line.acquisition else [],
            "note": line.note,
            "cube": cube.uri,
        }
        for cube in plan.cubes
        for line in cube.plan.lines
    ]


def cube_uri(monitor: Monitor, zone: str, question: str) -> str:
    """Return the URI of the monitor's cube of a question in a zone, its places filled in."""
    words = "".join(c if c.isalnum() else " " for c in question.lower()).split()
    return monitor.cube.uri.format(question="-".join(words) or "question", zone=zone)


def cube_uris(monitor: Monitor) -> tuple[str, ...]:
    """URIs of a monitor's cubes, without a search: for an automatic CRS these are the UTM zones of its region."""
    archive = load_archive(monitor.source.archive)
    parts = _zones(monitor, archive, native=set())
    return tuple(cube_uri(monitor, zone.grid.zone, question) for zone in parts for question in monitor.asked)


def _check_questions(monitor: Monitor) -> None:
    """Refuse questions that differ in nothing that a URI can show."""
    uris = {question: cube_uri(monitor, "", question) for question in monitor.asked}
    for question, uri in uris.items():
        if alike := [other for other, its in uris.items() if its == uri and other != question]:
            raise ConfigError(
                f"The questions {question!r} and {alike[0]!r} would share one cube.",
                "In a URI a question is its letters and digits.",
                "Word one of them otherwise.",
            )


def _zones(monitor: Monitor, archive: Archive, native: set[str]) -> tuple[Zone, ...]:
    return zones(
        monitor.geometry,
        crs=monitor.grid.crs,
        resolution=monitor.resolution(archive),
        block_px=monitor.cube.block_px,
        footprint_m=monitor.footprint_m(archive),
        halo_m=monitor.halo_m(archive),
        native=native,
    )


def _native(found: Found) -> set[str]:
    """CRS that ``auto`` means: the one that the monitor's cube was created with, else those of the scenes."""
    stores = (find_store(uri) for uri in cube_uris(found.monitor))
    held = {spec.grid.crs for store in stores if store is not None and (spec := read_spec(store)) is not None}
    scenes = (scene for acquisition in found.result.acquisitions for scene in acquisition.scenes)
    return held or {scene.crs for scene in scenes if scene.crs}


def _look_back(monitor: Monitor) -> datetime | None:
    """Where a repeated search begins; None where a question is new to a zone that others have answered for.

    A zone in which no question has found anything yet is left out: it may lie where there are no scenes.
    """
    if monitor.source.lookback_days is None:
        return None
    newest = list[datetime]()
    for uris in batched(cube_uris(monitor), len(monitor.asked)):
        held = [ledger.held for ledger in map(_ledger, uris)]
        if any(held) and not all(held):
            return None
        newest += [max(step.time for step in steps) for steps in held if steps]
    return min(newest) - timedelta(days=monitor.source.lookback_days) if newest else None


def _ledger(uri: str) -> Ledger:
    return read_ledger(CubeStore(uri)) if is_cube(uri) else Ledger()


def _plan_cube(found: Found, zone: Zone, question: str, decide: Callable[..., Plan]) -> CubePlan:
    """The plan of one cube; `decide` is `make_plan` with the budget, and with what this run was allowed to do."""
    monitor, archive, grid = found.monitor, found.archive, zone.grid
    uri = cube_uri(monitor, grid.zone, question)
    weights = prompter_weights(found.models.prompter)
    spec = _cube_spec(monitor, archive, zone, question, weights)
    prompter, segmenter = weights.digest, segmenter_weights(monitor.models.segmenter).digest
    cube = find_cube(uri, spec, prompter=prompter, segmenter=segmenter, registered=weights.promoted)
    ledger = cube.ledger() if cube else Ledger()
    _check_segmenter(uri, ledger, segmenter)
    blocks = blocks_of(grid, zone.region)

    def estimate(acquisition: Acquisition, n_blocks: int) -> int:
        return estimate_bytes(acquisition, n_blocks, grid, archive)

    plan = decide(
        found.result.acquisitions,
        grid,
        blocks,
        _held(ledger, zone),
        required_bands=archive.needed_bands,
        prompter_digest=prompter,
        n_published=len(ledger.entries),
        estimate=estimate,
        max_cloud=monitor.source.max_cloud_cover,
        window=found.result.interval,
    )
    return CubePlan(
        uri=uri,
        zone=zone,
        spec=spec,
        prompter=prompter,
        segmenter=segmenter,
        registered=weights.promoted,
        plan=Plan(lines=tuple(_with_resampling(line, grid, archive) for line in plan.lines)),
        blocks=blocks,
        exists=cube is not None,
    )


def _budget_tiles(monitor: Monitor, grid: Grid, n_zones: int) -> int | None:
    """Each cube's share of the budget, at least the tiles of one block: a smaller one would never be spent."""
    budget, per_block = monitor.budget.tiles, (grid.block_px // grid.core_px) ** 2
    n_cubes = len(monitor.asked) * n_zones
    if budget is not None and budget < n_cubes * per_block:
        shared = f", and {n_cubes} cubes share it" if n_cubes > 1 else ""
        raise ConfigError(
            f"A budget of {budget} tiles would never be spent: a block has {per_block}{shared}.",
            f"Whole blocks are done: budget.tiles of at least {n_cubes * per_block}.",
            "Raise budget.tiles, or choose a smaller cube.block_px.",
        )
    return None if budget is None else budget // n_cubes


def _check_segmenter(uri: str, ledger: Ledger, segmenter: str) -> None:
    """A promotion changes the prompter of a cube, never its segmenter."""
    if ledger.entries and (last := ledger.entries[-1].segmenter) != segmenter:
        raise CubeError(
            f"Another segmenter wrote to the cube at {shown(uri)}: {last[:12]}, and this run has {segmenter[:12]}.",
            "A registered promotion may change the prompter alone: a curve over time must not bend silently.",
            "Use the former segmenter, or `think2seg redraw` into a cube of its own.",
        )


def _held(ledger: Ledger, zone: Zone) -> tuple[HeldStep, ...]:
    """Latest steps as the planner wants them; blocks into which the region has grown since are pending again."""
    latest = ledger.latest.values()
    grown = {region: _grown(region, zone) for region in {entry.region for entry in latest}}
    return tuple(
        replace(
            _with_pending(entry.held, grown[entry.region]),
            answered_by={block: ledger.origin(entry, block).held.prompter for block in entry.copied},
        )
        for entry in latest
    )


def _with_pending(step: HeldStep, blocks: frozenset[Block]) -> HeldStep:
    if blocks.isdisjoint(step.states):
        return step
    return replace(step, states={**step.states, **dict.fromkeys(blocks & step.states.keys(), _PENDING)})


def _grown(held: str, zone: Zone) -> frozenset[Block]:
    """Blocks with a pixel that lies in the zone's region and not in the one (WKT) that a step was published with."""
    region, grid = zone.region, zone.grid
    before = shapely.from_wkt(held) if held else region
    added = region.difference(before)
    touched = blocks_of(grid, added) if not added.is_empty else ()
    return frozenset(
        block for block in touched if (grid.region_mask(region, block) & ~grid.region_mask(before, block)).any()
    )


def _with_resampling(line: PlanLine, grid: Grid, archive: Archive) -> PlanLine:
    """Add to the note of a line with work which of its scenes are resampled, and by which rule."""
    if line.acquisition is None or not line.blocks:
        return line
    notes = (line.note, resampling_note(line.acquisition, grid, archive))
    return replace(line, note="; ".join(note for note in notes if note))


def _cube_spec(monitor: Monitor, archive: Archive, zone: Zone, question: str, prompter: Weights) -> CubeSpec:
    template = template_for(monitor.models.prompter, prompter.path)
    return CubeSpec(
        question=question,
        grid=zone.grid,
        source={
            "archive": archive.archive,
            "collections": list(monitor.collections(archive)),
            "digest": archive.digest,
        },
        recipe=archive.recipe.model_dump(mode="json"),
        template=template.digest,
        views=monitor.tile.views,
        title=" · ".join(part for part in (monitor.title, question if monitor.questions else "") if part) or question,
        attribution=archive.description,
    )
