"""A reinforcement that is killed goes on from its last whole checkpoint, and ends as one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.reinforcement import training_file

pytest.importorskip("trl")

from think2seg.learning.grpo.callbacks import WHOLE
from think2seg.learning.run import RunFolder
from think2seg.learning.train import train

STEPS = 2


def killed_after_a_checkpoint(conf: Path, run: Path) -> None:
    """Train in a process of its own and kill it once its first step is safe and its second is under way."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "think2seg.learning.train", str(conf)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        mark = run / "checkpoints" / "checkpoint-1" / WHOLE
        while not mark.exists():
            assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_a_killed_reinforcement_resumes_to_the_weights_of_an_uninterrupted_one(pair: Path, tmp_path: Path) -> None:
    rollouts = {"per_question": 3, "max_new_tokens": 40, "engine": "local"}
    few = {"steps": STEPS, "checkpoint_steps": 1, "compare_questions": 2, "evaluate_questions": 1}
    sections: dict[str, Any] = {**few, "rollouts": rollouts}
    conf = training_file(tmp_path, pair, "cut", **sections)
    run = RunFolder(path=tmp_path / "runs" / "cut")
    killed_after_a_checkpoint(conf, run.path)
    assert not (tmp_path / "cut").exists()
    (run.path / "checkpoints" / "checkpoint-9").mkdir()  # as a kill in the middle of writing leaves it

    resumed = train(conf)
    entries = run.entries()
    (at,) = [entry["resumed"] for entry in entries if "resumed" in entry]
    assert 1 <= at < STEPS
    assert entries[-1]["held_out"]

    whole = train(training_file(tmp_path, pair, "whole", **sections))
    cut, uncut = (load_file(one.export / "model.safetensors") for one in (resumed, whole))
    torch.testing.assert_close(cut, uncut, rtol=0, atol=0)

    again = train(conf)
    assert again.digest == resumed.digest
