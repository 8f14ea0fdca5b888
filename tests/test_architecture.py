"""The house: imports point down the list of rooms, and the library knows nothing of its orchestrator."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "think2seg"
# From the bottom up. Rooms on one line stand beside each other and do not import one another.
ROOMS = [
    ("errors", "memory"),
    ("config", "crs"),
    ("samples",),
    ("stac",),
    ("grid",),
    ("imagery",),
    ("plan",),
    ("cube",),
    ("segmentation",),
    ("prompting",),
    ("registry",),
    ("engine",),
    ("cluster",),
    ("coordinator",),
    ("learning",),
    ("insight",),
    ("publish",),
    ("doctor",),
    ("cli",),
    ("__main__",),
]
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parts = path.relative_to(ROOT).with_suffix("").parts[: -node.level]
                module = ".".join((*parts, module)) if module else ".".join(parts)
            yield node.lineno, module
            if module == "think2seg":
                yield from ((node.lineno, f"think2seg.{alias.name}") for alias in node.names)


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    assert room in FLOOR, f"{path} is in no room: give it one in tests/test_architecture.py and docs/"
    for line, module in imports_of(path):
        parts = module.split(".")
        if parts[0] != "think2seg" or len(parts) == 1 or parts[1] == room or parts[1] not in FLOOR:
            continue
        assert FLOOR[parts[1]] < FLOOR[room], f"{path}:{line} imports {module}, which lies above or beside {room}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_library_never_imports_prefect(path: Path) -> None:
    assert not [m for _, m in imports_of(path) if m.split(".")[0] == "prefect"]


def test_opening_a_cube_needs_no_torch() -> None:
    code = "import sys, think2seg; think2seg.open_cube; print('torch' in sys.modules, 'prefect' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.split() == ["False", "False"]
