"""Memory of a process: looked at in one of its own, as the setting is for good."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
MIB = 2**20
PROGRAM = """
from pathlib import Path
from think2seg.memory import keep_freed_memory

def held(kind="VmRSS"):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))

before = held()
{first}
taken = held()
for mib in (1, 30, 7, 40, 3, 20):
    pieces = [bytearray(b"x") * (mib * 2**20), bytearray(b"x") * 100_000]
    del pieces
print(taken - before, held() - before, held("VmHWM") - before)
"""


def test_a_process_takes_what_it_will_work_with_and_keeps_it() -> None:
    taken, held, peak = _run("keep_freed_memory(64 * 2**20)")
    assert taken == pytest.approx(64 * MIB, abs=MIB)
    assert held == pytest.approx(taken, abs=MIB)
    assert peak == pytest.approx(taken, abs=MIB)


def test_freed_memory_is_kept_and_nothing_taken_unless_asked() -> None:
    taken, held, peak = _run("keep_freed_memory()")
    assert taken < MIB
    assert held == pytest.approx(peak, abs=MIB)


def test_without_it_memory_goes_back() -> None:
    _, held, peak = _run("")
    assert held < peak - 20 * MIB


def _run(first: str) -> list[int]:
    program = PROGRAM.format(first=first)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return [int(value) for value in done.stdout.split()]
