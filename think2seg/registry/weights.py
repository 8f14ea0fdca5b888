"""Which weights a monitor's model path means, and the digest that tells one set of weights from another."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Literal

from think2seg import config
from think2seg.errors import ModelError

type Kind = Literal["prompter", "segmenter"]

WEIGHTS_VARIABLE = "THINK2SEG_WEIGHTS"
"""Environment variable: a folder with ``prompter/`` and ``segmenter/`` that takes the place of the bundled pair."""
ALIASES = ("champion", "bundled")
_WEIGHTS_SUFFIXES = {".safetensors", ".pth", ".bin", ".json", ".jinja", ".txt", ".model", ".yaml"}
_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One model's weights: where they lie, and which they are."""

    path: Path | None
    """None where they lie behind a server."""
    digest: str


def prompter_weights(wanted: config.Prompter) -> Weights:
    """Find the weights of a monitor's prompter; asks the server which it offers, where there is one.

    Raises ModelError when there are none.
    """
    if isinstance(wanted, config.ServedPrompter):
        from think2seg.prompting.served import served_digest

        return Weights(path=None, digest=served_digest(wanted))
    path = resolve("prompter", wanted.path)
    return Weights(path=path, digest=weights_digest(path))


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
    if path in ALIASES:
        return _bundled(kind, path)
    local = Path(path).expanduser()
    if local.is_dir() or local.is_file():
        return local
    if (hub := _HUB_ID.fullmatch(path)) and not local.parent.is_dir():
        return _from_hub(kind, hub["repo"], hub["revision"])
    raise ModelError(
        f"There are no weights at {path!r} for the {kind}.",
        f"Allowed: {', '.join(ALIASES)}, a folder of weights, a checkpoint file, or a hub id such as owner/name.",
        f"Correct models.{kind}.path.",
    )


def _bundled(kind: Kind, alias: str) -> Path:
    root = Path(os.environ.get(WEIGHTS_VARIABLE) or Path(__file__).parent / "weights")
    if (root / kind).is_dir():
        return root / kind
    raise ModelError(
        f"There is no {alias} {kind}: {root / kind} is not a folder.",
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


def weights_digest(path: Path) -> str:
    """Content hash (32 hex digits) of a checkpoint file, or of a folder's weights, tokenizer and configuration.

    Model cards and pictures do not count. Raises ModelError when there is nothing to hash.
    """
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix in _WEIGHTS_SUFFIXES)
    if not files:
        raise ModelError(
            f"{path} holds no weights.", f"Weights are files ending in {', '.join(sorted(_WEIGHTS_SUFFIXES))}."
        )
    total = sha256()
    for file in files:
        stat = file.stat()
        name = file.name if file == path else file.relative_to(path).as_posix()
        total.update(f"{name}\0{_file_digest(file, stat.st_size, stat.st_mtime_ns)}\n".encode())
    return total.hexdigest()[:32]


@lru_cache(maxsize=256)
def _file_digest(file: Path, size: int, modified_ns: int) -> str:
    """Sha256 of `file`; its size and time are there so that a changed file is read again."""
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()
