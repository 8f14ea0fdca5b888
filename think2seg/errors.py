"""Errors that say what was given, what is allowed and what to do."""

from __future__ import annotations


class Think2SegError(Exception):
    """Base of every error this project raises on purpose.

    Parameters
    ----------
    given
        What was found, with the item, block or key it concerns.
    allowed
        What would have been accepted.
    todo
        What the reader can do about it.
    """

    exit_code = 3

    def __init__(self, given: str, allowed: str = "", todo: str = "") -> None:
        super().__init__(given, allowed, todo)
        self.given, self.allowed, self.todo = given, allowed, todo

    def __str__(self) -> str:
        return "\n".join(part for part in (self.given, self.allowed, self.todo) if part)


class ConfigError(Think2SegError, ValueError):
    """A monitor, archive or option that makes no sense."""

    exit_code = 2


class CatalogError(Think2SegError, OSError):
    """A catalog that cannot be searched, or an item that cannot be trusted."""

    exit_code = 2


class NothingFound(CatalogError):  # noqa: N818  # not an error where a repeated run only looks for news
    """A catalog that works and holds nothing of what was searched for."""


class ImageryError(Think2SegError, OSError):
    """Pixels of one item that cannot be read."""


class CubeError(Think2SegError, ValueError):
    """A store that is not our cube, or a cube of another identity."""

    exit_code = 2


class StoreError(Think2SegError, OSError):
    """A store that refuses to be read or written: missing, full, read-only, expired credentials."""


class LeaseError(Think2SegError, RuntimeError):
    """Another run is writing to the cube, or this run lost its lease."""


class ModelError(Think2SegError, ValueError):
    """Weights that cannot be found, loaded or used."""

    exit_code = 2


class TrainingError(Think2SegError, RuntimeError):
    """A training that cannot go on, or would only make the model worse."""


class SampleError(Think2SegError, ValueError):
    """Reviewed masks, or a store of samples, that cannot be used."""

    exit_code = 2


class ClusterError(Think2SegError, RuntimeError):
    """Workers that are missing, too small or lost."""
