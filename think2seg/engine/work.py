"""One work order from imagery to receipts."""

from __future__ import annotations

import numpy as np

from think2seg.cube.receipts import Failure, Receipt
from think2seg.engine.ask import Asking
from think2seg.engine.draw import Drawing
from think2seg.engine.read import read_ahead
from think2seg.engine.spec import Models, RunSpec
from think2seg.engine.stitch import unread
from think2seg.engine.timings import Timings
from think2seg.imagery import Quality
from think2seg.plan import BlockJob, BlockState, WorkOrder


def execute(order: WorkOrder, spec: RunSpec, models: Models, *, timings: Timings | None = None) -> tuple[Receipt, ...]:
    """Read, ask, draw and write every block of `order`; receipts in the order the blocks were finished.

    Three stages run beside each other: threads that read ahead, the prompter in this thread, the segmenter in another.
    Tiles of different blocks share batches, and jobs that stand next to each other and ask about the same block share
    its reading, its images' encodings and the prompter's view of them. A block whose imagery cannot be read is written
    as failed.

    Parameters
    ----------
    timings
        Adds up what the stages took, where given.

    Raises
    ------
    ModelError
        When the models are not those of the run, or cannot answer at all.
    CubeError, LeaseError, StoreError
        As `BlockWriter.write_block` does.
    """
    models.check(spec)
    timings = timings or Timings()
    asking = Asking(models.prompter, tuple(target.question for target in spec.targets), timings)
    drawing = Drawing(spec, models, timings)
    return tuple(drawing.written(asking.answered(read_ahead(order.jobs, spec))))


def write_failed(job: BlockJob, spec: RunSpec, *, reason: str, message: str) -> Receipt:
    """Write a block that no worker could do as failed; parameters as in `Failure`, errors as in `execute`."""
    region = spec.grid.region_mask(spec.region, job.block)
    stitched = unread(np.where(region, 0, Quality.OUTSIDE).astype(np.uint16))
    return spec.targets[job.question].writer.write_block(
        job,
        mask=stitched.mask,
        score=stitched.score,
        quality=stitched.quality,
        state=BlockState.FAILED,
        tiles={"failed": len(spec.grid.tiles(job.block))},
        failures=(Failure(item="", block=job.block, reason=reason, message=message),),
    )
