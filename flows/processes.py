"""What the processes of a run are spared."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec


@contextmanager
def main_module_kept_back() -> Iterator[None]:
    """Keep processes spawned in this block from importing this process's main module.

    In a deployed run that is Prefect's engine, of which Dask's workers need nothing. A spawned process never imports
    a main module that is called ``__main__``.
    """
    main = sys.modules["__main__"]
    spec = main.__spec__
    main.__spec__ = ModuleSpec("kept_back.__main__", None)
    try:
        yield
    finally:
        main.__spec__ = spec
