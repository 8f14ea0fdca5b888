from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from support.archive_run import run_and_die

type Die = Callable[..., int]
type Spawn = Callable[..., BaseProcess]


@pytest.fixture(scope="session")
def spawn() -> Spawn:
    """Start a function in a process of its own, forked from one that has all imports done."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.archive_run"])
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])

    def start(function: Callable[..., object], *arguments: Any) -> BaseProcess:
        process = context.Process(target=function, args=arguments)
        process.start()
        return process

    return start


@pytest.fixture(scope="session")
def die(spawn: Spawn) -> Die:
    """Run `run_and_die` in a process of its own; returns its exit code."""

    def run(*arguments: Any) -> int:
        process = spawn(run_and_die, *arguments)
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    return run
