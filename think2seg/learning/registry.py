"""Versions of the prompter, written: register, promote, roll back.

Registering uploads the files first and makes the version last, in one transaction: a version is there whole or not at
all. Promotion and roll-back move several aliases, which MLflow does one by one. So what is going to happen is noted
first, in a tag of the registered model (the *move*), then done step by step, each step such that doing it again changes
nothing, and the note is taken away last. Whoever moves an alias first finishes the move that was begun: killed
between any two steps, the same command again leaves what an undisturbed one would have left. Readers see the champion
of before or of after, for that alias moves in one step. Moves in a registry in a folder wait for each other; behind an
MLflow server, which knows no lock, two people who promote in the same second may undo each other's aliases.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from shutil import copytree
from typing import Literal

from filelock import FileLock, Timeout
from shapely.geometry.base import BaseGeometry

from think2seg.errors import ConfigError, ModelError
from think2seg.learning.card import CARD, Training, model_card, told_by
from think2seg.learning.footprints import read_footprints, write_footprints
from think2seg.learning.verdict import RULE, Limits, Verdict
from think2seg.registry import MODEL, Registry, Version, bundled, share_weights, weights_digest
from think2seg.registry.mlflow import explained, metric_name
from think2seg.registry.store import TAG

EXPERIMENT = "think2seg-registry"
_MOVE = f"{TAG}move"
_WEIGHTS = "weights"
_FOOTPRINTS = "footprints.geojson"
_LOCK = "moves.lock"
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A promotion or roll-back: what the aliases will mean."""

    kind: Literal["promotion", "rollback"]
    champion: int
    previous: int
    because: str
    """What it rests on: a passing verdict, or the reason that a person gave."""
    forced: bool
    at: str
    """UTC, ISO 8601."""

    def sentence(self) -> str:
        """One line for people."""
        return f"champion: {MODEL}/{self.champion}; previous: {MODEL}/{self.previous} ({self.because})"


def register(registry: Registry, folder: Path, training: Training, *, candidate: bool = True) -> Version:
    """Put a folder of weights into the registry; the same weights are never registered twice.

    Of weights that are known, nothing is kept but further footprints.
    In an empty registry the prompter that rides along becomes the champion first.

    Parameters
    ----------
    candidate
        Let the alias `candidate` mean this version; the champion never becomes one.

    Raises
    ------
    ModelError
        The folder holds no weights, or the registry cannot be written.
    """
    digest = weights_digest(folder)
    with explained(registry.uri):
        champion = registry.alias("champion") or first_champion(registry)
        number = _registered(registry, folder, digest, training)
        if candidate and champion.number != number:
            registry.client.set_registered_model_alias(MODEL, "candidate", str(number))
    return registry.named(str(number))


def note_verdict(registry: Registry, version: Version, verdict: Verdict) -> None:
    """Keep what the gate said about a version; a later verdict takes the place of an earlier one."""
    with explained(registry.uri):
        document = json.dumps(verdict.to_dict(), allow_nan=False)
        registry.client.set_model_version_tag(MODEL, str(version.number), f"{TAG}verdict", document)


def known_verdict(
    version: Version, champion: Version, *, frozen_set: str, segmenter: str, limits: Limits
) -> Verdict | None:
    """The verdict that is kept with a version, where it is about that champion, set, segmenter, limits and rule."""
    told = version.document("verdict")
    verdict = Verdict.from_dict(told) if told else None
    if verdict is None:
        return None
    about = (verdict.candidate, verdict.champion, verdict.frozen_set, verdict.segmenter, verdict.limits, verdict.rule)
    return verdict if about == (version.digest, champion.digest, frozen_set, segmenter, limits, RULE) else None


def training_footprints(registry: Registry, version: Version) -> dict[str, BaseGeometry]:
    """Where the samples lie that a version, or one that it goes back to, was trained on; empty where nobody said so."""
    return {
        name if one.number == version.number else f"{name} of {one.name}": place
        for one in _line(registry, version)
        for name, place in _footprints(registry, one.run_id).items()
    }


def _line(registry: Registry, version: Version) -> list[Version]:
    """A version and those that its training goes back to, as far as they are registered."""
    there, line = registry.versions(), list[Version]()
    found: Version | None = version
    while found and found.number not in {one.number for one in line}:
        line.append(found)
        base = found.document("base")
        found = next((one for one in there if base and one.digest.startswith(base)), None)
    return line


def _footprints(registry: Registry, run_id: str) -> dict[str, BaseGeometry]:
    with explained(registry.uri), tempfile.TemporaryDirectory() as folder:
        if not any(one.path == _FOOTPRINTS for one in registry.client.list_artifacts(run_id)):
            return {}
        return read_footprints(Path(registry.client.download_artifacts(run_id, _FOOTPRINTS, folder)))


def _add_footprints(registry: Registry, run_id: str, footprints: Mapping[str, BaseGeometry]) -> None:
    """Put footprints beside those that are kept: ground that was seen stays seen."""
    if not footprints:
        return
    held = _footprints(registry, run_id)
    both = {name: held[name].union(place) if name in held else place for name, place in footprints.items()}
    with tempfile.TemporaryDirectory() as folder:
        write_footprints(Path(folder) / _FOOTPRINTS, held | both)
        registry.client.log_artifact(run_id, str(Path(folder) / _FOOTPRINTS))


def promote(registry: Registry, name: str = "candidate", *, force: str = "") -> Move:
    """Make a version the champion, and the champion `previous`.

    Parameters
    ----------
    name
        See `Registry.named`.
    force
        Why it is promoted without a passing verdict; kept with the version.

    Raises
    ------
    ConfigError
        Its verdict does not pass, is about another champion, or there is none, and `force` is empty.
    ModelError
        There is no such version, its weights are gone or changed, or the registry cannot be written.
    """
    with _alone(registry):
        return _promote(registry, name, force)


def _promote(registry: Registry, name: str, force: str) -> Move:
    finished = _settle(registry)
    if finished and finished.kind == "promotion" and _means(registry, name, finished.champion):
        return finished
    version, champion = registry.named(name), registry.alias("champion") or first_champion(registry)
    if version.number == champion.number:
        raise ConfigError(
            f"{version.name} is the champion already.", "A promotion changes the champion.", "There is nothing to do."
        )
    if not force:
        _require_passed(version, champion)
    registry.folder_of(version)
    verdict = version.document("verdict")
    because = force or f"better on {verdict['n_images']} images of the frozen set {verdict['frozen_set'][:12]}"
    return _begin(registry, Move(
        kind="promotion", champion=version.number, previous=champion.number, because=because, forced=bool(force),
        at=_now(),
    ))  # fmt: skip


def roll_back(registry: Registry, *, because: str = "") -> Move:
    """Make `previous` the champion again, and the champion `previous`: twice is as if nothing had happened.

    Raises ModelError when there is no previous version, or its weights are gone or changed.
    """
    with _alone(registry):
        return _roll_back(registry, because)


def _roll_back(registry: Registry, because: str) -> Move:
    finished = _settle(registry)
    if finished and finished.kind == "rollback":
        return finished
    champion, previous = registry.alias("champion"), registry.alias("previous")
    if champion is None or previous is None:
        raise ModelError(
            "There is no previous version to go back to.",
            "The first promotion makes the champion of before the previous one.",
            "Look at `think2seg models list`.",
        )
    registry.folder_of(previous)
    because = because or f"instead of {champion.name}"
    return _begin(registry, Move(
        kind="rollback", champion=previous.number, previous=champion.number, because=because, forced=False, at=_now()
    ))  # fmt: skip


def settle(registry: Registry) -> Move | None:
    """Bring a move that was begun to its end; None where there is none."""
    with _alone(registry):
        return _settle(registry)


def _settle(registry: Registry) -> Move | None:
    with explained(registry.uri):
        held = registry.client.search_registered_models(f"name='{MODEL}'")
        noted = held[0].tags.get(_MOVE) if held else None
        if noted is None:
            return None
        move = Move(**json.loads(noted))
        _finish(registry, move)
    return move


def first_champion(registry: Registry) -> Version:
    """Register the prompter that rides along and let it be the champion, as it was without a registry."""
    folder = bundled("prompter")
    with explained(registry.uri):
        number = _registered(registry, folder, weights_digest(folder), Training())
        if not registry.named(str(number)).promoted:
            _tag(registry, number, "champion_since", _now())
        registry.client.set_registered_model_alias(MODEL, "champion", str(number))
    return registry.named("champion")


@contextmanager
def _alone(registry: Registry) -> Iterator[None]:
    """Keep other processes from moving aliases of a registry in a folder; a killed process keeps no lock."""
    if registry.folder is None:
        yield
        return
    lock = FileLock(registry.folder / _LOCK, timeout=_PATIENCE_S)
    try:
        lock.acquire()
    except Timeout as error:
        raise ModelError(
            f"Another process has been moving aliases of the registry at {registry.uri} for {_PATIENCE_S:g} s.",
            "One promotion or roll-back goes on at a time.",
            "Look whether one hangs, then run this again.",
        ) from error
    except OSError as error:
        raise ModelError(
            f"The registry at {registry.uri} cannot be written: {error}",
            "A promotion or roll-back writes to it.",
            "Check your rights and the disk, and run the same command again.",
        ) from error
    try:
        yield
    finally:
        lock.release()


def _means(registry: Registry, name: str, number: int) -> bool:
    """Whether a name means that version; a finished promotion leaves no candidate."""
    if name == "candidate" and registry.alias("candidate") is None:
        return True
    return registry.named(name).number == number


def _begin(registry: Registry, move: Move) -> Move:
    with explained(registry.uri):
        registry.client.set_registered_model_tag(MODEL, _MOVE, json.dumps(asdict(move)))
        _finish(registry, move)
    return move


def _finish(registry: Registry, move: Move) -> None:
    """The steps of a move, in an order in which every beginning of them is harmless; each may be done again."""
    client, champion = registry.client, str(move.champion)
    _tag(registry, move.champion, "champion_since", move.at)
    _tag(registry, move.champion, "moved", json.dumps(asdict(move)))
    client.set_registered_model_alias(MODEL, "previous", str(move.previous))
    client.set_registered_model_alias(MODEL, "champion", champion)
    if move.kind == "rollback":
        _tag(registry, move.previous, "rolled_back", json.dumps({"at": move.at, "because": move.because}))
    candidate = registry.alias("candidate")
    if candidate is not None and candidate.number == move.champion:
        client.delete_registered_model_alias(MODEL, "candidate")
    client.delete_registered_model_tag(MODEL, _MOVE)


def _require_passed(version: Version, champion: Version) -> None:
    told = version.document("verdict")
    todo = f"Run `think2seg models compare {version.number} champion`, or give --force REASON."
    if told is None:
        raise ConfigError(
            f"Nobody has compared {version.name} with the champion.", "A promotion needs a passing verdict.", todo
        )
    if (told["candidate"], told["champion"]) != (version.digest, champion.digest):
        raise ConfigError(
            f"The verdict on {version.name} compares it with {told['champion'][:12]}; the champion is "
            f"{champion.name} ({champion.digest[:12]}).",
            "A promotion needs a passing verdict against the champion of now.",
            todo,
        )
    if told.get("rule", 1) != RULE:
        raise ConfigError(
            f"The verdict on {version.name} rests on an older rule of scoring.",
            "A promotion needs a passing verdict under the rule of now.",
            todo,
        )
    if not told["passed"]:
        raise ConfigError(
            "\n".join((f"The gate refuses {version.name}.", *told["reasons"])),
            "A promotion needs a passing verdict.",
            "Train further, or give --force REASON.",
        )


def _registered(registry: Registry, folder: Path, digest: str, training: Training) -> int:
    """The number of the version with these weights: known, or new, its files and their card uploaded before it."""
    client = registry.client
    for known in registry.versions():
        if known.digest == digest:
            _add_footprints(registry, known.run_id, training.footprints)
            return known.number
    if not client.search_registered_models(f"name='{MODEL}'"):
        client.create_registered_model(MODEL, description="Prompters of think2seg")
    run_id = _run(registry, digest)
    run = client.get_run(run_id)
    with tempfile.TemporaryDirectory() as draft:
        whole = Path(copytree(folder, Path(draft) / _WEIGHTS))
        share_weights(whole)
        (whole / CARD).write_text(model_card(MODEL, digest, training, told=told_by(folder)), encoding="utf-8")
        client.log_artifacts(run_id, str(whole), _WEIGHTS)
    _add_footprints(registry, run_id, training.footprints)
    for name, value in training.metrics.items():
        client.log_metric(run_id, metric_name(name), float(value))
    client.set_terminated(run_id)
    tags = {
        "digest": digest,
        "data": json.dumps(training.data),
        "training": json.dumps(training.config),
        "metrics": json.dumps(training.metrics),
        "base": json.dumps(training.base),
    }
    made = client.create_model_version(
        MODEL,
        source=f"{run.info.artifact_uri}/{_WEIGHTS}",
        run_id=run_id,
        tags={f"{TAG}{name}": value for name, value in tags.items()},
    )
    return int(made.version)


def _run(registry: Registry, digest: str) -> str:
    """The MLflow run that holds the files of these weights: the one that an interrupted registration left, or a new."""
    client = registry.client
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        place = str(registry.folder / "artifacts") if registry.folder else None
        experiment = client.create_experiment(EXPERIMENT, artifact_location=place)
    else:
        experiment = found.experiment_id
    left = client.search_runs([experiment], filter_string=f"tags.`{TAG}digest` = '{digest}'", max_results=1)
    if left:
        return str(left[0].info.run_id)
    return str(client.create_run(experiment, tags={f"{TAG}digest": digest}, run_name=digest[:12]).info.run_id)


def _tag(registry: Registry, number: int, name: str, value: str) -> None:
    registry.client.set_model_version_tag(MODEL, str(number), f"{TAG}{name}", value)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
