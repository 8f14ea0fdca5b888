"""Training files: what `conf/training/*.yaml` may say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from think2seg.errors import ConfigError


class Strict(BaseModel):
    """Base of every section: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(Strict):
    """What the training images are made of."""

    real_share: float = Field(0.25, ge=0, le=1)
    """Share of real tiles among the images of a batch; the rest is simulated."""
    folder: Path | None = None
    """Folder of real imagery as `think2seg.samples.real.load_tiles` takes it; None for simulated scenes only."""
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


class AnswerSettings(StageSettings):
    """The stage of supervised answers."""

    questions: int = Field(2, ge=1)
    """Questions asked of each image."""
    absent: float = Field(0.25, ge=0, le=1)
    """Share of questions for something that is not there."""
    unknown: float = Field(0.08, ge=0, le=1)
    """Share of questions outside the vocabulary."""


class TrainingSettings(Strict):
    """What every training file says."""

    name: str
    seed: int = 0
    threads: int = Field(2, ge=1)
    workers: int = Field(1, ge=0)
    """Background processes that make batches; 0 makes them in the training process."""
    bfloat16: bool = True
    runs: Path = Path("runs")
    export: Path
    """Weights folder written at the end."""
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
    warm_up: StageSettings
    answers: AnswerSettings


type Settings = SegmenterSettings | PrompterSettings
_ADAPTER: TypeAdapter[SegmenterSettings | PrompterSettings] = TypeAdapter(
    Annotated[SegmenterSettings | PrompterSettings, Field(discriminator="kind")]
)


def load_settings(path: Path, overrides: Iterable[str] = ()) -> SegmenterSettings | PrompterSettings:
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
