"""`think2seg train CONF`: train or reinforce a model as a training file says, resume it, export it."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from think2seg.errors import ConfigError, ModelError
from think2seg.learning.began import begin, beginning
from think2seg.learning.curve import draw_curve
from think2seg.learning.precision import number_format
from think2seg.learning.run import RunFolder, Stage, Trainer
from think2seg.learning.settings import GrpoSettings, PrompterSettings, SegmenterSettings, load_settings
from think2seg.learning.tiny.source import HELD_OUT_SEED, MixedSource
from think2seg.memory import keep_freed_memory
from think2seg.registry import share_weights, weights_digest
from think2seg.samples.labelled import LabelledImage
from think2seg.samples.simulate import simulate

logger = logging.getLogger(__name__)

_PLACES = frozenset({"data.folder", "data.wheels", "runs", "export", "checkpoint_s", "evaluate_s"})
"""Settings that have no part in what comes out, and no place in a model card."""


class Recipe(Protocol):
    """What a kind of model adds to a run."""

    modules: dict[str, nn.Module]
    stages: Sequence[Stage]

    def export(self, folder: Path) -> None:
        """Write the weights folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What a finished training leaves behind."""

    run: Path
    export: Path
    digest: str
    """SHA-256 of the exported weights file; of a reinforcement, the digest that the registry knows the folder by."""
    seconds: float


def train(conf: Path, *, resume: bool = True, overrides: Sequence[str] = ()) -> TrainingResult:
    """Train to the end what the file `conf` describes, and export its weights.

    resume: go on from the last checkpoint of a run of the same name; otherwise forget it.
    overrides: `key.path=value`, e.g. `stage.steps=100` to shorten a schedule.
    Raises ConfigError for a bad file or a run that was begun with something else, ModelError for a checkpoint that does
    not fit or a run that another process trains, TrainingError where going on would teach nothing or do harm.
    """
    settings = load_settings(conf, overrides)
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
    run, command = RunFolder(path=settings.folder), _command(conf, overrides)
    with run.alone():
        if not resume:
            run.clear()
        if isinstance(settings, GrpoSettings):
            from think2seg.learning.grpo import reinforce

            made = reinforce(settings, run, resume=resume, command=command)
            return TrainingResult(run=run.path, export=settings.export, digest=made.digest, seconds=made.seconds)
        return _supervised(settings, run, resume=resume, command=command)


def _supervised(
    settings: SegmenterSettings | PrompterSettings, run: RunFolder, *, resume: bool, command: str
) -> TrainingResult:
    data = training_source(settings).digest()  # whose tiles are not handed to the processes that make batches
    start = weights_digest(settings.start) if settings.start else None
    begin(run, beginning(settings, start=start, data=data), resumes=run.checkpoint.exists())
    recipe = build_recipe(settings, training_source(settings))
    trainer = Trainer(run, recipe.modules, checkpoint_s=settings.checkpoint_s, evaluate_s=settings.evaluate_s)
    trainer.fit(recipe.stages, resume=resume)
    draw_curve(run.entries(), run.path / "curve.png")
    digest = write_export(recipe, settings, run, command=command)
    write_record(run, settings, base=start or "", data=data, digest=digest, seconds=trainer.seconds)
    return TrainingResult(run=run.path, export=settings.export, digest=digest, seconds=trainer.seconds)


def export(conf: Path, *, overrides: Sequence[str] = ()) -> str:
    """Export the weights of the last checkpoint, whether or not the run has ended; returns their SHA-256."""
    settings = load_settings(conf, overrides)
    if isinstance(settings, GrpoSettings):
        raise ConfigError(
            f"{conf.as_posix()} is a reinforcement.",
            "A reinforcement exports its weights when it ends, never from the middle.",
            f"Go on with it: think2seg train {conf.as_posix()}.",
        )
    run = RunFolder(path=settings.folder)
    state = run.load()
    if state is None:
        raise ModelError(
            f"The run {run.path} has no checkpoint.", todo=f"Train it first: think2seg train {conf.as_posix()}."
        )
    recipe = build_recipe(settings, training_source(settings))
    for name, module in recipe.modules.items():
        module.load_state_dict(state["modules"][name])
    return write_export(recipe, settings, run, command=_command(conf, overrides))


def training_source(settings: SegmenterSettings | PrompterSettings) -> MixedSource:
    """The images that a training file asks for."""
    data = settings.data
    return MixedSource(
        real_share=data.real_share,
        folder=data.folder,
        wheels=data.wheels,
        tiles=data.tiles,
        sources=data.sources,
        seed=settings.seed,
    )


def held_out_images(source: MixedSource, n: int) -> dict[str, list[LabelledImage]]:
    """Images for the quick looks of a run: `n` simulated scenes, and as many tiles of every real source."""
    images = {"simulated": [simulate(HELD_OUT_SEED + index) for index in range(n)]}
    for tile in source.cut(split="held_out", seed=1, n=2 * n):
        images.setdefault(tile.source, []).append(tile)
    return images


def build_recipe(settings: SegmenterSettings | PrompterSettings, source: MixedSource) -> Recipe:
    """The recipe of a training file."""
    held_out = held_out_images(source, settings.evaluate_scenes)
    if isinstance(settings, SegmenterSettings):
        from think2seg.learning.tiny.segmenter import SegmenterRecipe

        return SegmenterRecipe(settings, source, held_out)
    from think2seg.learning.tiny.prompter_recipe import PrompterRecipe

    return PrompterRecipe(settings, source, held_out)


def write_export(
    recipe: Recipe, settings: SegmenterSettings | PrompterSettings, run: RunFolder, *, command: str
) -> str:
    """Write the weights folder with its model card; returns the SHA-256 of the weights."""
    from think2seg.learning.tiny.card import model_card

    settings.export.mkdir(parents=True, exist_ok=True)
    recipe.export(settings.export)
    share_weights(settings.export)
    digest = hashlib.sha256((settings.export / "model.safetensors").read_bytes()).hexdigest()
    parameters = sum(p.numel() for p in next(iter(recipe.modules.values())).parameters())
    card = model_card(settings, run.entries(), digest=digest, parameters=parameters, command=command)
    (settings.export / "README.md").write_text(card)
    logger.info("exported %s, sha256 %s", settings.export, digest)
    return digest


def write_record(
    run: RunFolder, settings: SegmenterSettings | PrompterSettings, *, base: str, data: str, digest: str, seconds: float
) -> None:
    """Write `record.json`: what was run on what, how long it took, and what came of it."""
    record: dict[str, Any] = {
        "config": settings.model_dump(mode="json"),
        "computed_in": number_format(settings.bfloat16),
        "data": data,
        "base": base,
        "digest": digest,
        "seconds": round(seconds),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    (run.path / "record.json").write_text(json.dumps(record, indent=2) + "\n")


def _command(conf: Path, overrides: Sequence[str]) -> str:
    kept = [f"--set {override}" for override in overrides if override.partition("=")[0] not in _PLACES]
    return " ".join(["think2seg train", conf.as_posix(), *kept])


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this module; `think2seg train` calls the same functions."""
    parser = argparse.ArgumentParser(prog="python -m think2seg.learning.train", description=__doc__)
    parser.add_argument("conf", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY.PATH=VALUE")
    parser.add_argument("--fresh", action="store_true", help="forget an earlier run of the same name")
    parser.add_argument("--export", action="store_true", help="only export the last checkpoint")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.export:
        export(options.conf, overrides=options.overrides)
    else:
        train(options.conf, resume=not options.fresh, overrides=options.overrides)


if __name__ == "__main__":
    main()
