"""What a run asks of its workers, and the models that each of them loads once."""

from __future__ import annotations

from dataclasses import dataclass, field

from shapely.geometry.base import BaseGeometry

from think2seg import config
from think2seg.cube.writer import BlockWriter
from think2seg.errors import ModelError
from think2seg.grid import Grid
from think2seg.prompting import Prompter, load_prompter
from think2seg.registry import prompter_weights, segmenter_weights
from think2seg.segmentation import Segmenter, load_segmenter


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A question and the cube that its answers go to."""

    question: str
    writer: BlockWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Everything a worker needs beside the order itself and the models. Picklable."""

    targets: tuple[Target, ...]
    """What is asked of the same tiles; `BlockJob.question` counts them."""
    grid: Grid
    region: BaseGeometry
    """WGS 84; pixels outside it are not observed, tiles wholly outside it are not asked about."""
    archive: config.Archive
    models: config.Models
    gates: config.Gates = field(default_factory=config.Gates)
    prefetch_bytes: int = 256_000_000
    """Imagery that may wait for the prompter."""
    views: int = 1
    """In how many views every tile is asked about."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Models:
    """The loaded pair."""

    prompter: Prompter
    segmenter: Segmenter

    @classmethod
    def load(cls, wanted: config.Models, *, threads: int | None = None) -> Models:
        """Load the pair that a monitor describes.

        Parameters
        ----------
        threads
            Threads of torch in this process. One makes answers on a CPU independent of how tiles are batched, bit for
            bit, and several single-threaded workers are faster than one with several threads.

        Raises
        ------
        ModelError
            When the weights cannot be found, loaded or run on this machine.
        """
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        prompter, segmenter = prompter_weights(wanted.prompter), segmenter_weights(wanted.segmenter)
        return cls(
            prompter=load_prompter(wanted.prompter, prompter.path, digest=prompter.digest),
            segmenter=load_segmenter(wanted.segmenter, segmenter.path, digest=segmenter.digest),
        )

    def check(self, spec: RunSpec) -> None:
        """Refuse to answer with other weights than the run was planned with.

        Raises ModelError naming the model that differs, as happens when a folder is changed while a run is under way.
        """
        for kind, loaded, planned in [
            pair
            for target in spec.targets
            for pair in (
                ("prompter", self.prompter.digest, target.writer.prompter),
                ("segmenter", self.segmenter.digest, target.writer.segmenter),
            )
        ]:
            if loaded != planned:
                raise ModelError(
                    f"This worker's {kind} has the digest {loaded}, the run was planned with {planned}.",
                    "All workers of a run need the same weights.",
                    f"Put the same files at models.{kind}.path on every machine, restart the workers, and run again.",
                )
