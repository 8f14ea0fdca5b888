"""One reinforcement from its training file to a weights folder that is compared with the one it started from.

The algorithm is TRL's GRPOTrainer (Shao et al., DeepSeekMath, arXiv 2402.03300): several answers are sampled to each
question, each is rewarded by the masks that a frozen segmenter draws of it, and what was better than its group's mean
becomes likelier. This module gives it questions, the reward and a run folder.
"""

from __future__ import annotations

import json
import logging
import platform
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch
import transformers
from accelerate import PartialState  # type: ignore[import-untyped]
from transformers import PrinterCallback
from trl.trainer.grpo_config import GRPOConfig

from think2seg.learning.began import begin, beginning
from think2seg.learning.card import Training, model_card, told_by
from think2seg.learning.curve import draw_curve
from think2seg.learning.grpo.callbacks import Log, Looks, Stop, Whole, last_checkpoint
from think2seg.learning.grpo.held_out import Validation, compare_folders
from think2seg.learning.grpo.model import MaskTrainer, Start, export_prompter, grpo_config, lora_config
from think2seg.learning.grpo.reward import MaskReward
from think2seg.learning.grpo.tasks import STAGE, TaskSets, remembering, task_rows
from think2seg.learning.grpo.tracking import Tracking, forget
from think2seg.learning.precision import number_format
from think2seg.learning.rewards import Scorer
from think2seg.learning.run import Metrics, RunFolder
from think2seg.learning.settings import GrpoSettings
from think2seg.learning.verdict import Figure
from think2seg.registry import segmenter_named, segmenter_weights, weights_digest
from think2seg.segmentation import Segmenter, load_segmenter

logger = logging.getLogger(__name__)
CHECKPOINTS = "checkpoints"
_PLACES: Any = {"runs": True, "export": True, "data": {"folder", "wheels"}}
"""Settings that are paths of the machine, and no part of a model card."""
_HEAD = "| figure | images | before | after | difference | interval |\n|---|---|---|---|---|---|\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reinforced:
    """What a reinforcement came to."""

    digest: str
    """Digest of the exported weights folder."""
    seconds: float
    """Wall time of the training, resumed parts included."""


def reinforce(settings: GrpoSettings, run: RunFolder, *, resume: bool, command: str) -> Reinforced:
    """Train to the end, export, and compare with the weights that training started from.

    resume: go on from the last whole checkpoint; otherwise forget it. command: what the model card says was run.
    Raises ConfigError where the run was begun with something else, ModelError for weights that cannot be used,
    ImageryError for a sample that cannot be read, TrainingError where going on would teach nothing or do harm.
    """
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)  # TRL's own words
    start = Start.of(settings)
    args = grpo_config(settings, run.path / CHECKPOINTS, max_new_tokens=start.description.max_new_tokens)
    main = PartialState().is_main_process  # known once TRL's configuration has joined the processes
    if not resume and main:
        shutil.rmtree(run.path / CHECKPOINTS, ignore_errors=True)
        forget(run.path)
    PartialState().wait_for_everyone()
    segmenter = _segmenter(settings)
    tasks = _task_sets(settings, start)
    checkpoint = last_checkpoint(run.path / CHECKPOINTS)
    begun = beginning(
        settings,
        prompter=start.digest,
        template=start.template.digest,
        segmenter=segmenter.digest,
        data=tasks.train.digest(),
    )
    if checkpoint is not None or main:
        begin(run, begun, resumes=checkpoint is not None)
    trainer, log, tracking = _trainer(settings, args, run, start, segmenter, tasks)
    if checkpoint is not None and main:
        step = int(checkpoint.name.rpartition("-")[2])
        run.append({"stage": STAGE, "resumed": step, "seconds": round(log.seconds)})
    _fit(trainer, str(checkpoint) if checkpoint else None, tracking)
    seconds = log.seconds
    model = trainer.accelerator.unwrap_model(trainer.model)
    del trainer, log
    if main:
        _finish(
            settings, run, start, segmenter, tasks, model,
            data=begun["data"], command=command, seconds=seconds, tracking=tracking,
        )  # fmt: skip
    PartialState().wait_for_everyone()
    return Reinforced(digest=weights_digest(settings.export), seconds=seconds)


def _segmenter(settings: GrpoSettings) -> Segmenter:
    config = segmenter_named(settings.segmenter)
    weights = segmenter_weights(config)
    return load_segmenter(config, weights.path, digest=weights.digest)


def _task_sets(settings: GrpoSettings, start: Start) -> TaskSets:
    return TaskSets.of(
        settings.data,
        seed=settings.seed,
        frame_px=start.description.frame_px,
        count=(settings.steps or 0) * _questions_a_step(settings),
        validation=settings.evaluate_questions,
        held_out=settings.compare_questions,
    )


def _questions_a_step(settings: GrpoSettings) -> int:
    """Questions of one step, those of all processes together."""
    answers = settings.update.answers * settings.update.passes * PartialState().num_processes
    return int(answers // settings.rollouts.per_question)


def _trainer(
    settings: GrpoSettings, args: GRPOConfig, run: RunFolder, start: Start, segmenter: Segmenter, tasks: TaskSets
) -> tuple[MaskTrainer, Log, Tracking | None]:
    """TRL's trainer with our questions, reward and callbacks."""
    frame_px, task = start.description.frame_px, remembering(tasks.train)
    scorer = Scorer(segmenter, frame_px=frame_px, unknown_reasoning=start.description.unknown_reasoning)
    model, processor = start.load(settings)
    trainer = MaskTrainer(
        frame_px=frame_px if settings.rollouts.engine == "local" else None,
        model=model,
        processing_class=processor,
        reward_funcs=MaskReward(scorer, task, shuffle_seed=settings.seed if settings.shuffle_rewards else None),
        args=args,
        train_dataset=task_rows(task, tasks.train, start.template, frame_px=frame_px),
        peft_config=lora_config(settings.lora) if settings.lora else None,
    )
    tracked = settings.track and trainer.accelerator.is_main_process
    parameters = settings.model_dump(mode="json")
    tracking = Tracking.of(run.path, settings.name, parameters=parameters) if tracked else None
    seconds_before = max((entry.get("seconds", 0) for entry in run.entries()), default=0)
    log = Log(
        run,
        tracking.log if tracking else _untracked,
        questions=_questions_a_step(settings),
        seconds_before=seconds_before,
    )
    validation = Validation(trainer, tasks.validation, scorer, start.template, frame_px=frame_px)
    trainer.remove_callback(PrinterCallback)
    for callback in (log, Looks(validation, log, every=settings.evaluate_steps), Whole(), Stop(settings.stop)):
        trainer.add_callback(callback)
    return trainer, log, tracking


def _untracked(step: int, figures: Metrics) -> None:
    """Keep figures nowhere but in the run's log."""


def _fit(trainer: MaskTrainer, checkpoint: str | None, tracking: Tracking | None) -> None:
    ended = False
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
        ended = True
    finally:
        if tracking and not ended:
            tracking.end("FAILED")


def _finish(
    settings: GrpoSettings,
    run: RunFolder,
    start: Start,
    segmenter: Segmenter,
    tasks: TaskSets,
    model: Any,
    *,
    data: str,
    command: str,
    seconds: float,
    tracking: Tracking | None,
) -> None:
    """Export, compare, and write what the run leaves behind; the card comes last, with the comparison's figures."""
    name = settings.export.name
    export_prompter(model, start, settings.export, card=f"# {settings.name}\n")
    digest = weights_digest(settings.export)
    logger.info("exported %s, digest %s", settings.export, digest)
    figures = compare_folders(start.folder, settings.export, tasks.held_out, segmenter, template=settings.template)
    held_out = {one.name: one.candidate for one in figures}
    run.append({"stage": STAGE, "compared": [asdict(one) for one in figures], "held_out": held_out})
    config = settings.model_dump(mode="json", exclude=_PLACES)
    training = Training(data=data, config=config, metrics=held_out, base=start.digest, licence=settings.licence)
    told = f"{comparison_text(figures)}\n\n```\n{command}\n```\n\n{told_by(start.folder)}"
    (settings.export / "README.md").write_text(model_card(name, digest, training, told=told), encoding="utf-8")
    draw_curve([entry for entry in run.entries() if "compared" not in entry], run.path / "curve.png")
    _write_record(settings, run, start, figures, data=data, digest=digest, seconds=seconds)
    if tracking:
        tracking.log(settings.steps or 0, {f"{one.name} difference": one.difference for one in figures})
        tracking.end("FINISHED", run.path / "curve.png", run.path / "record.json")


def comparison_text(figures: Sequence[Figure]) -> str:
    """Old against new weights as a Markdown table."""
    rows = "\n".join(
        f"| {one.name} | {one.n} | {one.champion:.3f} | {one.candidate:.3f} | {one.difference:+.3f} | "
        f"{one.low:+.3f} to {one.high:+.3f} |"
        for one in figures
    )
    return (
        "## Before and after reinforcement\n\nHeld-out questions, answered greedily and drawn; 95 % paired bootstrap "
        f"intervals over images.\n\n{_HEAD}{rows}"
    )


def _write_record(
    settings: GrpoSettings,
    run: RunFolder,
    start: Start,
    figures: Sequence[Figure],
    *,
    data: str,
    digest: str,
    seconds: float,
) -> None:
    record = {
        "config": settings.model_dump(mode="json"),
        "computed_in": number_format(settings.bfloat16),
        "data": data,
        "base": start.digest,
        "digest": digest,
        "compared": [asdict(one) for one in figures],
        "seconds": round(seconds),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "trl": version("trl")},
    }
    (run.path / "record.json").write_text(json.dumps(record, indent=2) + "\n")
