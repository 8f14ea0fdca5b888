"""How a worker writes one block: arrays, rows, receipt, in this order."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from think2seg.cube.layout import DATA, NO_LABELS, NOT_OBSERVED, CubeSpec, array_documents, chunk_key, encode_block
from think2seg.cube.lease import Fence
from think2seg.cube.receipts import VOID, Failure, Receipt, receipt_key
from think2seg.cube.records import TABLES, Row, encode, staged_key, table_of
from think2seg.cube.store import CubeStore
from think2seg.errors import CubeError
from think2seg.imagery import BLOCKING, Quality
from think2seg.plan import BlockJob, BlockState

_DTYPES = {"mask": np.uint8, "score": np.uint8, "quality": np.uint16}


@dataclass(frozen=True, kw_only=True)
class BlockWriter:
    """Writes blocks of steps that are not published yet. Picklable: one copy per worker.

    Array shapes in the store end at the published extent; the writer knows the final one and writes beyond.
    """

    store: CubeStore
    spec: CubeSpec
    n_steps: int
    """Length of the time axis once all of the run's steps are published."""
    prompter: str
    segmenter: str
    """Digests of the weights, for the receipts."""
    epoch: int | None = None
    """The run's lease: a worker whose run lost it cannot write any more. None: nobody else writes."""

    def write_block(
        self,
        job: BlockJob,
        *,
        mask: npt.NDArray[np.uint8],
        score: npt.NDArray[np.uint8],
        quality: npt.NDArray[np.uint16],
        state: BlockState,
        traces: Sequence[Row] = (),
        instances: Sequence[Row] = (),
        tiles: Mapping[str, int] | None = None,
        seconds: Mapping[str, float] | None = None,
        failures: Sequence[Failure] = (),
        seam: Mapping[str, float] | None = None,
        audit: Mapping[str, int] | None = None,
    ) -> Receipt:
        """Write one block and return its receipt, which stands in the store when this returns.

        Parameters
        ----------
        job
            Which block of which step.
        mask
            (block_px, block_px) uint8: 0 absent, 1 present, 255 where and only where a blocking quality bit is set.
        score
            (block_px, block_px) uint8: predicted IoU times 254; 255 where nothing was drawn.
        quality
            (block_px, block_px) uint16 of `Quality` bits.
        traces, instances
            Rows as `think2seg.cube.records` describes them.
        tiles, seconds, failures, seam, audit
            As in `Receipt`; the seconds of the write itself are added here.

        Raises
        ------
        CubeError
            The arrays or rows break a rule of the cube.
        LeaseError
            The run lost its lease.
        StoreError
            The store refuses.
        """
        started = time.perf_counter()
        arrays: dict[str, npt.NDArray[Any]] = {"mask": mask, "score": score, "quality": quality}
        observed = self._check(job, arrays)
        key = receipt_key(job.step, job.block)
        with ThreadPoolExecutor(1) as aside:
            rows = aside.submit(_staged_rows, job, traces, instances)
            digests = aside.submit(lambda: {name: array_digest(array) for name, array in arrays.items()})
            objects = {**self._chunks(job, arrays), **rows.result()}
            if self.store.get(key):
                self._put({key: VOID})
            self._put(objects)
        receipt = Receipt(
            step=job.step,
            acquisition=job.acquisition.id,
            revision=job.revision,
            block=job.block,
            attempt=job.attempt,
            fingerprint=job.acquisition.fingerprint,
            prompter=self.prompter,
            segmenter=self.segmenter,
            state=state,
            digests=digests.result(),
            present_px=int(np.count_nonzero(mask == 1)),
            observed_px=observed,
            region_px=int(np.count_nonzero((quality & Quality.OUTSIDE) == 0)),
            tiles=dict(tiles or {}),
            seconds={**(seconds or {}), "write": time.perf_counter() - started},
            failures=tuple(failures),
            seam=dict(seam or {}),
            question=self.spec.question,
            audit=dict(audit or {}),
        )
        self._put({key: receipt.to_json().encode()})
        return receipt

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _documents(self) -> dict[str, dict[str, Any]]:
        documents = array_documents(self.spec, NO_LABELS)
        return {name: documents[name] for name in DATA}

    def _chunks(self, job: BlockJob, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, bytes]:
        documents = self._documents
        return {chunk_key(name, job.step, *job.block): encode_block(documents[name], arrays[name]) for name in DATA}

    def _put(self, objects: Mapping[str, bytes]) -> None:
        if self.epoch is not None:
            Fence(self.store, self.epoch).put(objects)
            return
        for key, data in objects.items():
            self.store.put(key, data)

    def _check(self, job: BlockJob, arrays: Mapping[str, npt.NDArray[Any]]) -> int:
        """Number of observed pixels; CubeError for a block that breaks a rule."""
        what, side, grid = f"Block {tuple(job.block)} of {job.acquisition.id}", self.spec.grid.block_px, self.spec.grid
        if not (0 <= job.step < self.n_steps and job.block.row < grid.rows and job.block.col < grid.cols):
            raise CubeError(
                f"{what} at step {job.step} lies outside the cube",
                f"Steps 0 to {self.n_steps - 1}, {grid.rows} × {grid.cols} blocks.",
            )
        for name, array in arrays.items():
            if array.shape != (side, side) or array.dtype != _DTYPES[name]:
                raise CubeError(
                    f"{what}: {name} is {array.dtype} {array.shape}",
                    f"It must be {_DTYPES[name].__name__} {side, side}.",
                )
        mask, quality = arrays["mask"], arrays["quality"]
        right = np.where((quality & BLOCKING) != 0, mask == NOT_OBSERVED, mask <= 1)
        if not right.all():
            raise CubeError(
                f"{what}: {right.size - int(np.count_nonzero(right))} pixels break the rule of the mask",
                "0 absent, 1 present, and 255 if and only if a blocking quality bit is set.",
            )
        return int(np.count_nonzero(mask <= 1))


def _staged_rows(job: BlockJob, traces: Sequence[Row], instances: Sequence[Row]) -> dict[str, bytes]:
    """The rows of both tables as files, by their keys; CubeError for rows that break a rule."""
    tables = {
        name: table_of(
            name,
            rows,
            acquisition=job.acquisition.id,
            revision=job.revision,
            time=job.acquisition.time,
            block=job.block,
        )
        for name, rows in zip(TABLES, (traces, instances), strict=True)
    }
    return {staged_key(name, job.step, job.block): encode(table) for name, table in tables.items()}


def array_digest(array: npt.NDArray[Any]) -> str:
    """Sha256 of an array's bytes, C order, little endian."""
    return sha256(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()).hexdigest()
