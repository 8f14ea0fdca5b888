"""Work order → batched answers → batched masks → blocks: the loop inside a worker.

    read ─ cut into looks ─ ask ─ parse ─ draw ─ stitch ─ write, one receipt per block

`execute` does a whole order; tiles of all its blocks share batches. What a pixel becomes does not depend on the order
that its block came in with, on a CPU in float32 with one thread bit for bit.
"""

from __future__ import annotations

from think2seg.engine.spec import Models, RunSpec
from think2seg.engine.work import execute, write_failed

__all__ = ["Models", "RunSpec", "execute", "write_failed"]
