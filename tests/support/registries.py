"""A registry of versions in a folder, with small fake weights, and deaths between any two of its steps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from think2seg.learning.verdict import Check, Figure, Limits, Verdict
from think2seg.registry import Registry

WRITES = ("set_", "create_", "delete_", "log_")


class Death(BaseException):
    """The process is gone."""


class Mortal:
    """An MLflow client that dies before its n-th writing call; counts them."""

    def __init__(self, client: Any, dies_at: int = 0) -> None:
        self._client, self._dies_at, self.calls = client, dies_at, 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        real: Callable[..., Any] = getattr(self._client, name)
        if not name.startswith(WRITES):
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self._dies_at:
                raise Death
            return real(*args, **kwargs)

        return call


def mortal(registry: Registry, dies_at: int = 0) -> Registry:
    """The same registry behind a client that dies."""
    return Registry(registry.uri, Mortal(registry.client, dies_at), folder=registry.folder)  # type: ignore[arg-type]


def make_weights(folder: Path, content: str) -> Path:
    """A folder that passes for a prompter's weights."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(content)
    (folder / "think2seg.json").write_text(json.dumps({"frame_px": 96, "template": "tiny"}))
    return folder


def copy_of(folder: Path, target: Path) -> Path:
    """A registry with the state of another; the files of its versions stay where they are."""
    target.mkdir()
    shutil.copyfile(folder / "registry.db", target / "registry.db")
    return target


def aliases(registry: Registry) -> dict[str, int]:
    """Alias → version number."""
    found = {alias: registry.alias(alias) for alias in ("champion", "candidate", "previous")}
    return {alias: version.number for alias, version in found.items() if version}


def verdict(candidate: str, champion: str, *, passed: bool = True) -> Verdict:
    """What the gate may have said."""
    sentence = "Measurably better: gIoU 0.400 to 0.450." if passed else "Measurably worse: gIoU 0.400 to 0.300."
    g_iou = Figure(name="gIoU", champion=0.4, candidate=0.45, difference=0.05, low=0.02, high=float("nan"), n=80)
    return Verdict(
        candidate=candidate,
        champion=champion,
        frozen_set="f" * 32,
        segmenter="5" * 32,
        n_images=80,
        n_questions=80,
        figures=(g_iou,),
        checks=(Check(name="gain", passed=passed, sentence=sentence),),
        limits=Limits(),
    )
