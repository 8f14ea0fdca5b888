"""Weights out of weights: a sum of several trainings of one model, each with its share, without training.

Half of each of two trainings is a model soup (M. Wortsman et al., Model soups, 2022); one training in full, with half
of what an earlier one changed taken back, is task arithmetic (G. Ilharco et al., Editing models with task arithmetic,
2023).
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from shutil import copytree, ignore_patterns

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from think2seg.errors import ConfigError, ModelError
from think2seg.learning.card import CARD
from think2seg.prompting.folder import DESCRIPTION

_TOLERANCE = 1e-6


def merge(parts: Sequence[tuple[Path, float]], out: Path) -> None:
    """Write the sum of weights folders times their shares into the new folder `out`.

    Tensors are summed in float64 and keep their dtype. All else is the first folder's, but for the model card and the
    calibration of presence, which was fitted to other weights.

    Raises
    ------
    ConfigError
        When there are fewer than two folders, shares do not add up to 1, or `out` exists.
    ModelError
        When a folder holds no safetensors, or other tensors or another tokenizer than the first.
    """
    total = sum(share for _, share in parts)
    if len(parts) < 2 or not math.isclose(total, 1, abs_tol=_TOLERANCE):
        raise ConfigError(f"{len(parts)} folders with shares of {total:g} in all", "two or more, and 1 in all",
                          "Give FOLDER=SHARE of each, such as old=0.5 new=0.5.")  # fmt: skip
    if out.exists():
        raise ConfigError(f"{out} exists", "a new folder", "Give another name, or remove it.")
    first = parts[0][0]
    held = [_tensors(folder) for folder, _ in parts]
    for (folder, _), names in zip(parts[1:], held[1:], strict=True):
        if names != held[0]:
            raise ModelError(
                f"{folder} does not hold the tensors that {first} holds.", "Only one model's trainings add."
            )
        if _tokenizer(folder) != _tokenizer(first):
            raise ModelError(f"{folder} has another tokenizer than {first}.", "Its tokens mean other words.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as draft:
        merged = Path(draft) / out.name
        copytree(first, merged, ignore=ignore_patterns(CARD, "*.safetensors"))
        for file in sorted(first.glob("*.safetensors")):
            tensors = load_file(file)
            sums = {name: _sum(name, parts).to(tensor.dtype).contiguous() for name, tensor in tensors.items()}
            save_file(sums, merged / file.name, metadata={"format": "pt"})
        _forget_calibration(merged / DESCRIPTION)
        merged.rename(out)


def _tensors(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a folder."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            shapes |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    if not shapes:
        raise ModelError(f"{folder} holds no *.safetensors.", "Only folders of safetensors add.")
    return shapes


def _tokenizer(folder: Path) -> bytes | None:
    path = folder / "tokenizer.json"
    return path.read_bytes() if path.exists() else None


def _sum(name: str, parts: Sequence[tuple[Path, float]]) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for folder, share in parts:
        total = total + share * _tensor(name, folder).double()
    return total


def _tensor(name: str, folder: Path) -> torch.Tensor:
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            if name in opened.keys():  # noqa: SIM118
                found: torch.Tensor = opened.get_tensor(name)
                return found
    raise KeyError(name)


def _forget_calibration(path: Path) -> None:
    if path.exists():
        description = json.loads(path.read_text())
        description.pop("presence", None)
        path.write_text(json.dumps(description, indent=2) + "\n")
