"""Weights out of weights: a sum of several trainings of one model, each with its share, without training.

Half of each of two trainings is a model soup (M. Wortsman et al., Model soups, 2022); one training in full, with half
of what an earlier one changed taken back, is task arithmetic (G. Ilharco et al., Editing models with task arithmetic,
2023).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Self

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from think2seg.errors import ConfigError, ModelError
from think2seg.learning.card import CARD
from think2seg.prompting.folder import forget_calibration
from think2seg.registry import share_weights

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
    folders = [_Folder.of(folder) for folder, _ in parts]
    first, *others = folders
    for other in others:
        if other.shapes != first.shapes:
            raise ModelError(
                f"{other.path} does not hold the tensors that {first.path} holds.", "Only one model's trainings add."
            )
        if other.tokenizer != first.tokenizer:
            raise ModelError(f"{other.path} has another tokenizer than {first.path}.", "Its tokens mean other words.")
    shares = [share for _, share in parts]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as draft:
        merged = Path(draft) / out.name
        copytree(first.path, merged, ignore=ignore_patterns(CARD, "*.safetensors"))
        for shard in sorted(set(first.shards.values())):
            names = [name for name, its in first.shards.items() if its == shard]
            save_file({name: _sum(name, folders, shares) for name in names}, merged / shard, metadata={"format": "pt"})
        share_weights(merged)
        forget_calibration(merged)
        merged.rename(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """What a weights folder holds, by the headers of its files."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    """Of every tensor, by its name."""
    shards: Mapping[str, str]
    """The name of the file that each tensor lies in."""
    tokenizer: bytes | None

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read the headers; raises ModelError when there are none."""
        shapes: dict[str, tuple[int, ...]] = {}
        shards: dict[str, str] = {}
        for file in sorted(path.glob("*.safetensors")):
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    shapes[name], shards[name] = tuple(opened.get_slice(name).get_shape()), file.name
        if not shards:
            raise ModelError(f"{path} holds no *.safetensors.", "Only folders of safetensors add.")
        tokenizer = path / "tokenizer.json"
        return cls(
            path=path,
            shapes=shapes,
            shards=shards,
            tokenizer=tokenizer.read_bytes() if tokenizer.is_file() else None,
        )

    def tensor(self, name: str) -> Tensor:
        """One tensor, read alone."""
        with safe_open(self.path / self.shards[name], "pt") as opened:
            found: Tensor = opened.get_tensor(name)
            return found


def _sum(name: str, folders: Sequence[_Folder], shares: Sequence[float]) -> Tensor:
    """The sum of a tensor times the shares, in the dtype of the first."""
    tensors = [folder.tensor(name) for folder in folders]
    total = sum(share * tensor.double() for share, tensor in zip(shares, tensors, strict=True))
    assert isinstance(total, Tensor)
    return total.to(tensors[0].dtype).contiguous()
