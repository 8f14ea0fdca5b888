"""What the processes of a run are spared."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def main_module_kept_back() -> Iterator[None]:
    """Keep processes spawned in this block from importing this process's main module.

    In a deployed run that is Prefect's engine, of which Dask's workers need nothing.
    """
    main = sys.modules["__main__"]
    spec, file = main.__spec__, main.__dict__.pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file
