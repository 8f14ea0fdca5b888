"""The command line as a user has it, in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.miniature import Archive, Miniature
from support.standins import Standins

from think2seg.cli import main


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document that stdout is."""
        return json.loads(self.out)


type Think2Seg = Callable[..., Outcome]


@pytest.fixture
def think2seg(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Think2Seg:
    """Run ``think2seg …``."""

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["think2seg", *map(str, words)])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def world(tmp_path: Path, scheduler: str, by_rule: Standins) -> Miniature:
    """Two dates, a region of two by two blocks, and models by rule."""
    return Miniature(tmp_path, Archive.of(tmp_path / "archive", ("2014-07-20", "2020-08-31")), scheduler)
