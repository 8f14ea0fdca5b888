"""What a run was begun with, so that a run of its name goes on only with the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from think2seg.errors import ConfigError
from think2seg.learning.run import RunFolder
from think2seg.learning.settings import Strict

_NO_PART = frozenset({
    "runs", "export", "data.folder", "data.wheels", "data.earthreason", "data.reviewed", "rollouts.vllm_server",
    "licence", "track", "threads", "workers", "gradient_checkpointing", "rollouts.vllm_memory_share",
    "checkpoint_s", "checkpoint_steps", "evaluate_s", "evaluate_scenes", "evaluate_steps", "evaluate_questions",
    "compare_questions", "stop.patience", "stop.spread", "stop.kl", "stop.parse_rate", "stop.empty",
})  # fmt: skip
"""Settings that are places, means or looks: none of them changes what is learnt."""


def beginning(settings: Strict, **digests: str | None) -> dict[str, Any]:
    """What decides what a training learns, plain and flat: its settings, with `digests` in the place of their names."""
    told = flat(settings.model_dump(mode="json"))
    return {key: value for key, value in told.items() if key not in _NO_PART} | digests


def begin(run: RunFolder, told: Mapping[str, Any], *, resumes: bool) -> None:
    """Note what a run is begun with, in ``began.json``; one that resumes has been begun with the same.

    told: what `beginning` gives. Raises ConfigError, naming what differs.
    """
    path = run.path / "began.json"
    if not resumes:
        run.path.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        draft.replace(path)
        return
    then = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    differs = [
        f"{key}: {then.get(key)!r} then, {told.get(key)!r} now"
        for key in sorted(then.keys() | told.keys())
        if then.get(key) != told.get(key)
    ]
    if differs:
        found = f"something else: {'; '.join(differs)}" if then else "nobody says what"
        raise ConfigError(
            f"The run {run.path} was begun with {found}.",
            "A run goes on with the settings, weights and data that it was begun with.",
            "Put them back; or start over with --fresh, or give another name.",
        )


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
