"""How weights came about, and the model card that tells it: first what the hub reads, then what people do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from shapely.geometry.base import BaseGeometry

from think2seg.config.digests import content_digest
from think2seg.errors import ConfigError

CARD = "README.md"
_FRONT_MATTER = re.compile(r"\A---\n.*?^---\n+", re.DOTALL | re.MULTILINE)
DEFAULT_LICENCE = "apache-2.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What is told of how weights came about; all of it plain data."""

    data: str = ""
    """Digest of the training data."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The training file, resolved."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Figures on validation data, by name."""
    base: str = ""
    """Hub id, or digest, of the weights that training started from."""
    licence: str = DEFAULT_LICENCE
    """As the hub names it."""
    footprints: Mapping[str, BaseGeometry] = field(default_factory=dict)
    """Where the training samples lie (WGS 84), by their names; empty where they lie nowhere."""


def training_of(
    record: Path | None, *, footprints: Mapping[str, BaseGeometry], base: str = "", licence: str | None = None
) -> Training:
    """What the ``record.json`` of a training run tells, with the last figures of the log beside it.

    footprints: ground of the training beside that of the reviewed samples which the record names.
    base: hub id or digest of the weights that training started from; empty for what the record says.
    licence: that of the weights; None for what the training file says.
    Raises ConfigError when the record cannot be read, SampleError when reviewed samples that it names are not there.
    """
    if record is None:
        return Training(base=base, licence=licence or DEFAULT_LICENCE, footprints=footprints)
    try:
        told = json.loads(record.read_bytes())
        data, config = told["data"], dict(told["config"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            f"{record} is no record of a training: {error!r}",
            "think2seg train leaves record.json in its run folder.",
            "",
        ) from error
    return Training(
        data=data if isinstance(data, str) else content_digest(data),
        config=config,
        metrics=_last_figures(record.with_name("log.jsonl")),
        base=base or told.get("base", ""),
        licence=licence or config.get("licence", DEFAULT_LICENCE),
        footprints={**_reviewed_ground(config), **footprints},
    )


def _reviewed_ground(config: Mapping[str, Any]) -> Mapping[str, BaseGeometry]:
    """Name → footprint (WGS 84) of the reviewed samples that a training file learnt from."""
    from think2seg.learning.review import training_ground

    store = config.get("data", {}).get("reviewed")
    return training_ground(Path(store)) if store else {}


def _last_figures(log: Path) -> dict[str, float]:
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    looks = [entry["held_out"] for entry in map(json.loads, lines) if "held_out" in entry]
    return {name: float(value) for name, value in looks[-1].items() if value == value} if looks else {}


def model_card(name: str, digest: str, training: Training, *, told: str = "") -> str:
    """Markdown with Hugging Face's metadata in front.

    Parameters
    ----------
    told
        A card that the weights came with; its text follows the generated one, its metadata does not.
    """
    rows = "\n".join(f"| {figure} | {value:.4g} |" for figure, value in training.metrics.items())
    parts = [
        f"---\n{yaml.safe_dump(_metadata(name, training), sort_keys=False, allow_unicode=True)}---",
        f"# {name}",
        "Answers questions about Earth-observation images with boxes and points, from which a segmenter draws masks.",
        f"* weights digest `{digest}`\n* training data `{training.data or 'not told'}`",
        f"## Figures\n\n| figure | value |\n|---|---|\n{rows}" if rows else "",
        f"## Training\n\n```json\n{json.dumps(training.config, indent=2)}\n```" if training.config else "",
        f"## What came with the weights\n\n{_lowered(told)}" if told else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def told_by(folder: Path) -> str:
    """The card that lies in a folder of weights; empty where there is none."""
    card = folder / CARD
    return card.read_text(encoding="utf-8") if card.is_file() else ""


def _metadata(name: str, training: Training) -> dict[str, Any]:
    results = [
        {"type": figure, "name": figure, "value": round(float(value), 4)} for figure, value in training.metrics.items()
    ]
    metadata: dict[str, Any] = {
        "license": training.licence,
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["earth-observation", "segmentation", "think2seg"],
    }
    if "/" in training.base:
        metadata["base_model"] = training.base
    if results:
        task = {"type": "image-segmentation"}
        data = {"type": "think2seg", "name": training.data or "not told"}
        metadata["model-index"] = [{"name": name, "results": [{"task": task, "dataset": data, "metrics": results}]}]
    return metadata


def _lowered(card: str) -> str:
    """A card's text two headings lower, without its metadata."""
    text = _FRONT_MATTER.sub("", card)
    return re.sub(r"^(#{1,4}) ", r"##\1 ", text, flags=re.MULTILINE).strip()
