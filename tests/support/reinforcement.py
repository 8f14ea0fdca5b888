"""A reinforcement of the small pair that takes a few seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def training_file(folder: Path, pair: Path, name: str = "few", **sections: Any) -> Path:
    """Write a training file for `pair` into `folder`: two questions of three answers a step.

    sections: keys that take the place of the file's own; those of `update` are merged.
    """
    document: dict[str, Any] = {
        "kind": "grpo",
        "name": name,
        "runs": str(folder / "runs"),
        "export": str(folder / name),
        "threads": 1,
        "bfloat16": False,
        "prompter": str(pair / "prompter"),
        "segmenter": str(pair / "segmenter"),
        "steps": 2,
        "data": {"real_share": 0.0},
        "rollouts": {"per_question": 3, "max_new_tokens": 40},
        "evaluate_steps": 100,
        "evaluate_questions": 2,
        "compare_questions": 3,
        "track": False,
    }
    document |= sections
    document["update"] = {"rate": 1e-3, "rise": 0, "answers": 6} | sections.get("update", {})
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
