"""What drawing an archive again would do: every acquisition of a cube with its reason. Nothing is written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from think2seg import config
from think2seg.config import Archive, Monitor, load_archive
from think2seg.coordinator.redrawn import Memory
from think2seg.cube import CubeSpec, CubeStore, Entry, Ledger, find_cube, find_store, read_ledger, read_spec
from think2seg.cube.publish import published_extent
from think2seg.cube.store import local_path, shown, sibling_uri
from think2seg.errors import ConfigError, CubeError
from think2seg.grid import Block
from think2seg.plan import BlockState, PlanLine, Reason
from think2seg.registry import Weights, segmenter_weights
from think2seg.stac.scenes import Acquisition
from think2seg.stac.search import search

_A_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedrawPlan:
    """What a redraw would do. Nothing is written and no model is loaded for it."""

    cube: str
    into: str
    segmenter: config.Segmenter
    weights: Weights
    store: CubeStore
    spec: CubeSpec
    ledger: Ledger
    """Of the first cube, as far as readers see it."""
    archive: Archive
    acquisitions: Mapping[str, Acquisition]
    """What the catalog has now, by id."""
    lines: tuple[PlanLine, ...]
    """In time order."""
    instances: Mapping[str, int]
    """Acquisition id → objects to draw, of lines with work."""

    @property
    def work(self) -> tuple[PlanLine, ...]:
        """Lines that ask for work, in step order."""
        return tuple(line for line in self.lines if line.blocks)

    def memory(self, acquisition: str) -> Memory:
        """What the first cube keeps of the latest revision of an acquisition."""
        return Memory(self.store, self.spec, self.ledger, self.ledger.latest[acquisition])

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "cube": self.cube,
            "into": self.into,
            "segmenter": self.weights.digest,
            "reasons": dict(Counter(line.reason.value for line in self.lines)),
            "blocks": sum(len(line.blocks) for line in self.work),
            "instances": sum(self.instances.values()),
            "acquisitions": [
                {
                    "acquisition": line.id,
                    "time": line.time.isoformat(),
                    "reason": line.reason.value,
                    "blocks": len(line.blocks),
                    "instances": self.instances.get(line.id, 0),
                    "note": line.note,
                }
                for line in self.lines
            ],
        }

    def sentence(self) -> str:
        """One line for people."""
        plain = self.to_dict()
        reasons = ", ".join(f"{count} {reason}" for reason, count in plain["reasons"].items()) or "no acquisition"
        return f"{reasons}; to do: {plain['blocks']} blocks, {plain['instances']} instances, into {self.into}"


def plan_redraw(
    uri: str | Path, segmenter: config.Segmenter, *, into: str | Path | None = None, monitor: Monitor | None = None
) -> RedrawPlan:
    """Plan to draw the latest revision of every acquisition of a cube again.

    Parameters
    ----------
    segmenter
        Who draws.
    into
        Where the masks go; default beside the cube, its name followed by the beginning of the segmenter's digest.
    monitor
        The monitor that filled the cube, where its archive or catalog is not one that ships.

    Raises
    ------
    CubeError
        There is no cube at `uri`, or another one at `into`.
    ConfigError, CatalogError
        The imagery's catalog is not known, or cannot be searched.
    ModelError
        There are no such weights.
    """
    store = find_store(uri)
    spec = read_spec(store) if store is not None else None
    if store is None or spec is None:
        raise CubeError(f"There is no cube at {shown(str(uri))}", "A folder or URL that `think2seg run` wrote.")
    weights = segmenter_weights(segmenter)
    target = sibling_uri(store.uri, weights.digest) if into is None else str(local_path(into) or into)
    if target == store.uri:
        raise ConfigError(
            f"--into {shown(target)} is the cube itself.",
            "Masks of other weights go into a cube of their own: a curve over time must not bend silently.",
            "Leave out --into, or name another place.",
        )
    ledger = read_ledger(store)
    ledger = replace(ledger, entries=ledger.entries[: published_extent(store, spec)])
    archive, found = imagery_of(spec, ledger, monitor)
    plan = RedrawPlan(
        cube=store.uri, into=target, segmenter=segmenter, weights=weights, store=store, spec=spec, ledger=ledger,
        archive=archive, acquisitions=found, lines=(), instances={},
    )  # fmt: skip
    held = find_cube(target, spec, prompter="", segmenter=weights.digest, registered=True)
    lines = redraw_lines(plan, held.ledger() if held is not None else Ledger())
    instances = {line.id: sum(map(plan.memory(line.id).n_instances, line.blocks)) for line in lines if line.blocks}
    return replace(plan, lines=lines, instances=instances)


def redraw_lines(plan: RedrawPlan, target: Ledger) -> tuple[PlanLine, ...]:
    """What happens to every acquisition of the first cube, given what the other one holds.

    Raises CubeError when another segmenter drew the other cube.
    """
    if others := {entry.segmenter for entry in target.entries} - {plan.weights.digest}:
        raise CubeError(
            f"Another segmenter ({min(others)[:12]}) drew the cube at {shown(plan.into)}",
            f"This one is {plan.weights.digest[:12]}; each has a cube of its own.",
            "Leave out --into, or name another place.",
        )
    step = len(target.entries)
    lines: list[PlanLine] = []
    for entry in sorted(plan.ledger.latest.values(), key=lambda entry: (entry.held.time, entry.held.acquisition)):
        line = _line(entry, plan.acquisitions.get(entry.held.acquisition), target.latest.get(entry.held.acquisition))
        if line.blocks:
            line, step = replace(line, step=step), step + 1
        lines.append(line)
    return tuple(lines)


def _line(entry: Entry, acquisition: Acquisition | None, drawn: Entry | None) -> PlanLine:
    held = entry.held
    wanted = tuple(sorted(block for block, state in held.states.items() if state is not BlockState.PENDING))
    again = drawn is None or _is_stale(drawn, entry)
    if drawn is not None and not again:
        wanted = tuple(block for block in wanted if is_lost(drawn, block) and not is_lost(entry, block))
    line = PlanLine(id=held.acquisition, time=held.time, reason=Reason.DONE, acquisition=None)
    if not wanted:
        return line
    if acquisition is None:
        return replace(line, reason=Reason.GONE, note="no longer in the catalog: its pixels cannot be read")
    fingerprints = set(held.scenes.values())
    scenes = tuple(scene for scene in acquisition.scenes if scene.fingerprint in fingerprints)
    if {scene.fingerprint for scene in scenes} != fingerprints:
        return replace(line, reason=Reason.CHANGED, note="other pixels than the prompter saw; run the monitor first")
    pending = tuple(sorted(held.states.keys() - set(wanted))) if again else ()
    return replace(
        line,
        reason=Reason.NEW if drawn is None else Reason.CHANGED if again else Reason.RETRY,
        acquisition=replace(acquisition, scenes=scenes),
        blocks=wanted,
        over_budget=pending,
        revision=0 if drawn is None else drawn.held.revision + 1,
    )


def _is_stale(drawn: Entry, entry: Entry) -> bool:
    """Whether the masks of a step were drawn from another revision than `entry`; failed ones are drawn again anyway.

    What was drawn decides: a revision may have been published while the one before it was drawn. Only one that differs
    in none of this, such as a backfill of copied blocks, is known by its time alone.
    """
    was, now = drawn.held, entry.held
    return (
        (set(was.scenes.values()), was.prompter, drawn.region) != (set(now.scenes.values()), now.prompter, entry.region)
        or any(was.states.get(block) not in (BlockState.FAILED, state) for block, state in now.states.items())
        or drawn.published < entry.published
    )


def is_lost(entry: Entry, block: Block) -> bool:
    """Whether a block of a step failed."""
    return entry.held.states.get(block) is BlockState.FAILED


def region_of(entry: Entry, spec: CubeSpec) -> BaseGeometry:
    """The region (WGS 84) that a step was published with."""
    region: BaseGeometry = shapely.from_wkt(entry.region) if entry.region else shapely.box(*spec.grid.bbox_wgs84)
    return region


def imagery_of(spec: CubeSpec, ledger: Ledger, monitor: Monitor | None) -> tuple[Archive, Mapping[str, Acquisition]]:
    """The archive behind a cube, and what its catalog has of the cube's acquisitions."""
    name = monitor.source.archive if monitor else str(spec.source["archive"])
    archive = load_archive(name)
    todo = "Name the monitor that filled the cube: --monitor MONITOR.yaml"
    if archive.digest != spec.source["digest"]:
        raise ConfigError(
            f"The archive {name!r} is another one than the cube was filled from, or has been changed.",
            f"The cube was filled from {spec.source['archive']!r}.",
            todo,
        )
    catalog = monitor.source.catalog if monitor else None
    if catalog is None and archive.endpoint is None:
        given = f"The archive {name!r} has no catalog of its own, and a cube does not remember where its imagery lay."
        raise ConfigError(given, "A monitor's `source.catalog` says it.", todo)
    if not ledger.entries:
        return archive, {}
    times = [entry.held.time for entry in ledger.entries]
    region = region_of(ledger.entries[-1], spec)
    source = {
        "archive": name,
        "catalog": catalog,
        "collections": spec.source["collections"],
        "datetime": f"{min(times) - _A_DAY:%Y-%m-%d}/{max(times) + _A_DAY:%Y-%m-%d}",
    }
    asked = Monitor.model_validate(
        {
            "monitor": "redraw",
            "question": spec.question,
            "region": {"kind": "geometry", "geometry": json.loads(shapely.to_geojson(region))},
            "source": source,
            "cube": {"uri": "unused"},
        }
    )
    return archive, {acquisition.id: acquisition for acquisition in search(asked, archive).acquisitions}
