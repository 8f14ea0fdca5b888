"""Which weights a monitor's model path means."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from think2seg import config
from think2seg.errors import ModelError
from think2seg.registry.digests import weights_digest
from think2seg.registry.store import MODEL, MODEL_ALIASES, Version, find_registry

type Kind = Literal["prompter", "segmenter"]

WEIGHTS_VARIABLE = "THINK2SEG_WEIGHTS"
"""Environment variable: a folder with ``prompter/`` and ``segmenter/`` that takes the place of the bundled pair."""
ALIASES = ("champion", "bundled")
_PIN = re.compile(rf"models:/{MODEL}/\d+")
_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One model's weights: where they lie, and which they are."""

    path: Path | None
    """None where they lie behind a server."""
    digest: str
    version: str | None = None
    """Name in the registry, ``think2seg-prompter/3``; None for weights that do not come from there."""
    promoted: bool = False
    """Whether they are or were the registry's champion: only such may follow other weights in a cube."""


def prompter_weights(wanted: config.Prompter) -> Weights:
    """Find the weights of a monitor's prompter; asks the server which it offers, where there is one.

    Raises ModelError when there are none.
    """
    if isinstance(wanted, config.ServedPrompter):
        from think2seg.prompting.served import served_digest

        return Weights(path=None, digest=served_digest(wanted))
    if version := _version(wanted.path):
        found, folder = version
        return Weights(path=folder, digest=found.digest, version=found.name, promoted=found.promoted)
    path = resolve("prompter", wanted.path)
    return Weights(path=path, digest=weights_digest(path))


def pinned(models: config.Models) -> config.Models:
    """The same models, the prompter's alias replaced by the version that it means now.

    A run pins its models when it is planned, so that it keeps what it started with while aliases move. Raises
    ModelError when an alias means nothing.
    """
    prompter = models.prompter
    if isinstance(prompter, config.ServedPrompter) or prompter.path not in MODEL_ALIASES:
        return models
    version = _version(prompter.path)
    path = version[0].uri if version else "bundled"
    return models.model_copy(update={"prompter": prompter.model_copy(update={"path": path})})


def segmenter_weights(wanted: config.Segmenter) -> Weights:
    """Find the weights of a monitor's segmenter; raises ModelError when there are none."""
    path = resolve("segmenter", wanted.path)
    return Weights(path=path, digest=weights_digest(path))


def segmenter_named(text: str) -> config.Segmenter:
    """The segmenter that a command line names: ``KIND:PATH``, or a path whose kind its own files tell.

    Raises ModelError when there are no such weights.
    """
    kind, colon, path = text.partition(":")
    if colon and kind in ("sam", "sam2"):
        return config.Sam2Segmenter(kind="sam2", path=path) if kind == "sam2" else config.SamSegmenter(path=path)
    about = resolve("segmenter", text) / "config.json"
    told = json.loads(about.read_bytes()) if about.is_file() else {}
    if str(told.get("model_type", "")).startswith("sam2"):
        return config.Sam2Segmenter(kind="sam2", path=text)
    return config.SamSegmenter(path=text)


def resolve(kind: Kind, path: str) -> Path:
    """Where the weights called `path` lie: an alias, a folder, a checkpoint file or a hub id (``owner/name@revision``).

    Raises ModelError when there are none; the message says which folder to fill.
    """
    if kind == "prompter" and (version := _version(path)):
        return version[1]
    if path in ALIASES:
        return bundled(kind)
    local = Path(path).expanduser()
    if local.is_dir() or local.is_file():
        return local
    if (hub := _HUB_ID.fullmatch(path)) and not local.parent.is_dir():
        return _from_hub(kind, hub["repo"], hub["revision"])
    raise ModelError(
        f"There are no weights at {path!r} for the {kind}.",
        f"Allowed: {', '.join(_allowed(kind))}, a folder of weights, a checkpoint file, or a hub id: owner/name.",
        f"Correct models.{kind}.path.",
    )


def _allowed(kind: Kind) -> tuple[str, ...]:
    return (*MODEL_ALIASES, "bundled", f"models:/{MODEL}/NUMBER") if kind == "prompter" else ALIASES


def _version(path: str) -> tuple[Version, Path] | None:
    """The registered version that a prompter's path means, and its folder; None where the registry is not meant.

    A champion that was never promoted is the bundled pair's prompter. Raises ModelError when there is no such version.
    """
    if path not in MODEL_ALIASES and not _PIN.fullmatch(path):
        return None
    registry = find_registry()
    if path == "champion" and (registry is None or registry.alias(path) is None):
        return None
    if registry is None:
        raise ModelError(
            f"models.prompter.path is {path!r}, and there is no registry yet.",
            "THINK2SEG_REGISTRY names a folder, or an MLflow server; by default it is the folder registry.",
            "Register weights first: think2seg models register FOLDER",
        )
    version = registry.named(path)
    return version, registry.folder_of(version)


def bundled(kind: Kind) -> Path:
    """Folder of the bundled prompter or segmenter; raises ModelError, saying what to fill, where there is none."""
    root = Path(os.environ.get(WEIGHTS_VARIABLE) or Path(__file__).parents[1] / "weights")
    if (root / kind).is_dir():
        return root / kind
    raise ModelError(
        f"There is no bundled {kind}: {root / kind} is not a folder.",
        f"{WEIGHTS_VARIABLE} may name a folder that holds prompter/ and segmenter/.",
        f"Fill that folder, or set models.{kind}.path to a folder of weights.",
    )


def _from_hub(kind: Kind, repo: str, revision: str | None) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        pinned = f" --revision {revision}" if revision else ""
        raise ModelError(
            f"The weights {repo!r} are neither on this machine nor to be had from the hub: {error}",
            f"Without a network, weights come from a folder, or from the hub's cache in {constants.HF_HUB_CACHE}.",
            f"Where there is a network, download {repo} into a folder (`hf download {repo}{pinned} --local-dir "
            f"FOLDER`), copy it to this machine, and let models.{kind}.path name it.",
        ) from error
