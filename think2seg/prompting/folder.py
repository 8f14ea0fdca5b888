"""What a prompter's weights folder says about itself beside the transformers files: ``think2seg.json``.

Folders as published have no such file; the defaults are what they were trained with.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from think2seg.errors import ModelError
from think2seg.prompting.template import Template, load_template

DESCRIPTION = "think2seg.json"
_SMALLEST = 5e-5
"""What a raw presence of 0, which is rounded, may be at most."""


class Calibration(BaseModel):
    """Platt scaling of presence, fitted on held-out tiles: sigmoid(scale · logit(p) + bias)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    scale: PositiveFloat
    bias: float

    def calibrated(self, presence: float) -> float:
        """The probability that stands for a raw `presence`, both in [0, 1]; rounded to 4 decimals."""
        clipped = min(max(presence, _SMALLEST), 1 - _SMALLEST)
        logit = self.scale * math.log(clipped / (1 - clipped)) + self.bias
        return round(1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit)), 4)


class PrompterDescription(BaseModel):
    """The contents of a prompter's ``think2seg.json``."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    frame_px: Annotated[int, Field(ge=28, le=4096)] = 840
    """Side of the square frame that answers refer to."""
    template: str = "think2seg-rs"
    """Name in ``conf/prompts``, or a YAML file in this folder."""
    max_new_tokens: PositiveInt = 2048
    unknown_reasoning: Annotated[str, Field(min_length=1)] | None = None
    """What the reasoning says when the model does not know the concept asked for."""
    presence: Calibration | None = None
    footprint_m: tuple[PositiveFloat, PositiveFloat] | None = None
    """Smallest and largest tile footprint seen in training, metres."""


def read_description(folder: Path) -> PrompterDescription:
    """Read a prompter folder's description; ModelError when it is there but makes no sense."""
    path = folder / DESCRIPTION
    if not path.is_file():
        return PrompterDescription()
    try:
        return PrompterDescription.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ModelError(
            f"{path} does not describe a prompter: {error}",
            f"It may hold {', '.join(PrompterDescription.model_fields)}.",
            "Correct the file, or remove it to use the folder as published weights.",
        ) from error


def forget_calibration(folder: Path) -> None:
    """Take the calibration of presence out of a folder's description: it was fitted to other weights."""
    path = folder / DESCRIPTION
    if path.is_file():
        told = {key: value for key, value in json.loads(path.read_bytes()).items() if key != "presence"}
        path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def folder_template(folder: Path, description: PrompterDescription, override: str | None) -> Template:
    """The template to ask with: `override`, else the folder's own file, else the named one."""
    own = folder / description.template
    return load_template(override or (str(own) if own.is_file() else description.template))
