"""Standing questions, asked of an Earth-observation archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from think2seg.cube import open_cube, read_instances, read_traces

__all__ = ["open_cube", "read_instances", "read_traces"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from think2seg import cube

        return getattr(cube, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
