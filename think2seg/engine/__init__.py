"""Work order → batched answers → batched masks → blocks: the loop inside a worker.

    read ─ cut into looks ─ ask ─ parse ─ draw ─ stitch ─ write, one receipt per block and question

`execute` does a whole order; tiles of all its blocks share batches. What a pixel becomes does not depend on the order
that its block came in with, on a CPU in float32 with one thread bit for bit.
"""

from __future__ import annotations

from think2seg.engine.spec import Models, RunSpec, Target
from think2seg.engine.timings import Timings
from think2seg.engine.work import execute, write_failed

__all__ = ["Models", "RunSpec", "Target", "Timings", "execute", "write_failed"]
