"""The versions of the prompter that a registry holds, read: MLflow in a folder or behind a server.

Whoever reads sees an alias either before or after a promotion: each alias moves in one transaction of MLflow's.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from think2seg.errors import ModelError
from think2seg.registry.digests import weights_digest
from think2seg.registry.mlflow import client_of, explained, fetch

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

type Alias = Literal["champion", "candidate", "previous"]

REGISTRY_VARIABLE = "THINK2SEG_REGISTRY"
"""Environment variable: a folder, or the http(s) address of an MLflow server; by default the folder ``registry``."""
MODEL = "think2seg-prompter"
"""Name of the registered model."""
TAG = "think2seg."
"""What the names of our tags begin with."""
MODEL_ALIASES: tuple[Alias, ...] = ("champion", "candidate", "previous")
_CACHE_VARIABLE = "THINK2SEG_CACHE"
_DATABASE = "registry.db"
_NAME = re.compile(rf"(?:(?:models:/)?{MODEL}/)?v?(\d+)")
_DIGEST = re.compile(r"[0-9a-f]{6,32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One registered set of weights."""

    number: int
    digest: str
    source: str
    """Folder or artifact URI of the weights."""
    run_id: str
    registered: datetime
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    """Ours, without `TAG`."""

    @property
    def name(self) -> str:
        """``think2seg-prompter/3``."""
        return f"{MODEL}/{self.number}"

    @property
    def uri(self) -> str:
        """``models:/think2seg-prompter/3``: a path of `models.prompter` that goes on meaning this version."""
        return f"models:/{self.name}"

    @property
    def promoted(self) -> bool:
        """Whether this version is or was the champion."""
        return "champion_since" in self.tags

    def document(self, tag: str) -> Any:
        """A tag's JSON; None where there is no such tag."""
        return json.loads(self.tags[tag]) if tag in self.tags else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        kept = {tag: _plain(text) for tag, text in self.tags.items() if tag != "digest"}
        return {
            "version": self.number,
            "name": self.name,
            "aliases": list(self.aliases),
            "digest": self.digest,
            "registered": self.registered.isoformat(),
            "source": self.source,
            **kept,
        }


class Registry:
    """Versions and aliases of the prompter at one place."""

    def __init__(self, uri: str, client: MlflowClient, *, folder: Path | None = None) -> None:
        """`folder`: where the registry lies, None behind a server."""
        self.uri, self.client, self.folder = uri, client, folder

    def versions(self) -> tuple[Version, ...]:
        """All versions, oldest first."""
        with explained(self.uri):
            aliases = self._aliases
            found: list[ModelVersion] = []
            token = None
            while token is None or token:
                page = self.client.search_model_versions(f"name='{MODEL}'", max_results=1000, page_token=token)
                found, token = [*found, *page], page.token or ""
        ours = [_version(one, aliases) for one in found if f"{TAG}digest" in one.tags]
        return tuple(sorted(ours, key=lambda version: version.number))

    def alias(self, alias: str) -> Version | None:
        """The version that an alias means now."""
        with explained(self.uri):
            aliases = self._aliases
            if alias not in aliases:
                return None
            return _version(self.client.get_model_version(MODEL, str(aliases[alias])), aliases)

    def named(self, name: str) -> Version:
        """The version that an alias, a number, ``think2seg-prompter/3`` or the beginning of a digest means.

        Raises ModelError, with what there is, when it means none or several.
        """
        if name in MODEL_ALIASES:
            found = [one for one in [self.alias(name)] if one]
        else:
            number = _NAME.fullmatch(name)
            found = [one for one in self.versions() if number and one.number == int(number[1])]
            if not found and _DIGEST.fullmatch(name):
                found = [one for one in self.versions() if one.digest.startswith(name)]
        if len(found) == 1:
            return found[0]
        there = ", ".join(" ".join((str(one.number), *one.aliases)) for one in self.versions()) or "none"
        raise ModelError(
            f"{name!r} means {len(found) or 'no'} version{'s' if len(found) > 1 else ''} of {MODEL}.",
            f"Versions in the registry at {self.uri}: {there}.",
            "Give an alias, a number or the beginning of a digest; `think2seg models list` shows them.",
        )

    def folder_of(self, version: Version) -> Path:
        """Folder with the weights of a version, fetched once where they lie behind a server.

        Raises ModelError when they are gone, or not what was registered.
        """
        local = Path(version.source.removeprefix("file://"))
        folder = local if local.is_absolute() else self._fetched(version)
        held = weights_digest(folder) if folder.is_dir() else "nothing"
        if held != version.digest:
            raise ModelError(
                f"{version.name} was registered with the digest {version.digest}, {folder} holds {held}.",
                "Registered weights never change.",
                "Put the files back, or register them as a version of their own (`think2seg models register`).",
            )
        return folder

    @property
    def _aliases(self) -> Mapping[str, int]:
        """Alias → version number; empty where nothing was ever registered."""
        found = self.client.search_registered_models(f"name='{MODEL}'")
        return {alias: int(number) for alias, number in found[0].aliases.items()} if found else {}

    def _fetched(self, version: Version) -> Path:
        folder = _cache() / version.digest
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as draft:
                fetched = Path(fetch(self.uri, version.source, draft))
                try:
                    fetched.rename(folder)
                except OSError:
                    if not folder.is_dir():
                        raise
        return folder


def find_registry() -> Registry | None:
    """The registry that `REGISTRY_VARIABLE` names; None where it is a folder and there is none yet.

    Raises ModelError when there is one and MLflow is not installed, or its address makes no sense.
    """
    where = _where()
    return None if isinstance(where, Path) and not (where / _DATABASE).is_file() else _opened(where)


def open_registry() -> Registry:
    """The registry that `REGISTRY_VARIABLE` names; made where it is a folder and there is none yet."""
    where = _where()
    if isinstance(where, Path):
        where.mkdir(parents=True, exist_ok=True)
    return _opened(where)


def _where() -> Path | str:
    given = os.environ.get(REGISTRY_VARIABLE) or "registry"
    if "://" not in given:
        return Path(given).expanduser().resolve()
    if re.fullmatch(r"https?://[^\s@?#]+", given):
        return given
    raise ModelError(
        f"{REGISTRY_VARIABLE} is no place for a registry: {given.split('://')[0]}://…",
        "A folder, or the http(s) address of an MLflow server, without a password.",
        "Correct it; MLFLOW_TRACKING_TOKEN, or _USERNAME and _PASSWORD, hold what a server asks for.",
    )


def _opened(where: Path | str) -> Registry:
    if isinstance(where, str):
        return Registry(where, client_of(where))
    uri = f"sqlite:///{where / _DATABASE}"
    return Registry(uri, client_of(uri), folder=where)


def _version(found: ModelVersion, aliases: Mapping[str, int]) -> Version:
    number = int(found.version)
    return Version(
        number=number,
        digest=found.tags[f"{TAG}digest"],
        source=found.source or "",
        run_id=found.run_id or "",
        registered=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        aliases=tuple(alias for alias in MODEL_ALIASES if aliases.get(alias) == number),
        tags={tag.removeprefix(TAG): text for tag, text in found.tags.items() if tag.startswith(TAG)},
    )


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _cache() -> Path:
    given = os.environ.get(_CACHE_VARIABLE)
    return Path(given) if given else Path.home() / ".cache" / "think2seg" / "weights"
