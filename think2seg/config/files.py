"""Where monitors and archives are found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from think2seg.config.archive import Archive
from think2seg.config.documents import located, nearest, read_document, validate
from think2seg.config.monitor import Monitor
from think2seg.errors import ConfigError


def conf_root() -> Path:
    """Folder of the archives, monitors and templates that ship: package data, else the repository's ``conf``."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "conf"
    return shipped if shipped.is_dir() else package.parent / "conf"


def archive_names() -> tuple[str, ...]:
    """Names that `load_archive` knows."""
    return _names("archives")


def monitor_names() -> tuple[str, ...]:
    """Names that `load_monitor` knows."""
    return _names("monitors")


def load_archive(name_or_path: str | Path) -> Archive:
    """Load an archive by its name in ``conf/archives`` or by the path of a YAML file.

    Raises
    ------
    ConfigError
        If there is no such archive, or a field makes no sense.
    """
    return validate(read_document(_find(name_or_path, "archives")), Archive)


def load_monitor(path: str | Path, overrides: Sequence[str] = ()) -> Monitor:
    """Load a monitor by path, or by its name in ``conf/monitors``.

    Parameters
    ----------
    path
        YAML file or name.
    overrides
        ``a.b=c`` arguments; the value is YAML.

    Raises
    ------
    ConfigError
        If there is no such file, or a field (or the archive it names) makes no sense: with file, line and value.
    """
    document = read_document(_find(path, "monitors"), overrides)
    monitor = validate(document, Monitor)
    try:
        load_archive(monitor.source.archive)
    except ConfigError as error:
        raise located(document, ("source", "archive"), error) from error
    try:
        monitor.region.shape()
    except ConfigError as error:
        raise located(document, ("region",), error) from error
    return monitor


def monitor_schema() -> dict[str, Any]:
    """JSON Schema of a monitor."""
    schema = Monitor.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _names(kind: str) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (conf_root() / kind).glob("*.yaml")))


def _find(name_or_path: str | Path, kind: str) -> Path:
    given = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in given or "\\" in given or given.endswith((".yaml", ".yml")):
        return Path(given)
    names = _names(kind)
    if given in names:
        return conf_root() / kind / f"{given}.yaml"
    raise ConfigError(
        f"{given!r} is neither one of the {kind} that ship nor a path.",
        f"Allowed: {', '.join(names)}, or the path of a YAML file.",
        nearest(given, names) or "Write a path with its .yaml ending.",
    )
