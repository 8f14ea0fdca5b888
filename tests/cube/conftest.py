from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.archive_run import run_and_die

type Die = Callable[..., int]


@pytest.fixture(scope="session")
def die() -> Die:
    """Run `run_and_die` in a process of its own, forked from one that has all imports done; returns its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.archive_run"])
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])

    def run(*arguments: Any) -> int:
        process = context.Process(target=run_and_die, args=arguments)
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    return run
