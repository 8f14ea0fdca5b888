"""Weights summed: the numbers, what is taken along, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from think2seg.errors import ConfigError, ModelError
from think2seg.learning.merge import merge


def folder_of(path: Path, value: float, *, width: int = 3, tokenizer: str = "{}") -> Path:
    """Two shards, a tokenizer, a description with a calibration, and a card."""
    path.mkdir()
    for name in ("a", "b"):
        tensor = torch.full((2, width), value, dtype=torch.float16)
        save_file({name: tensor}, path / f"model-{name}.safetensors", metadata={"format": "pt"})
    (path / "tokenizer.json").write_text(tokenizer)
    (path / "think2seg.json").write_text(json.dumps({"frame_px": 224, "presence": {"scale": 2, "bias": 1}}))
    (path / "README.md").write_text("figures of other weights")
    return path


def test_sums_every_tensor_by_its_share(tmp_path: Path) -> None:
    parts = [(folder_of(tmp_path / str(i), value), share) for i, (value, share) in
             enumerate([(4.0, 1.0), (8.0, 0.5), (2.0, -0.5)])]  # fmt: skip
    merge(parts, tmp_path / "out")
    for name in ("a", "b"):
        tensor = load_file(tmp_path / "out" / f"model-{name}.safetensors")[name]
        assert tensor.dtype == torch.float16
        assert tensor.tolist() == [[7.0] * 3] * 2
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 1, "weights may be read by whom the description may be read"
    assert json.loads((tmp_path / "out" / "think2seg.json").read_text()) == {"frame_px": 224}
    assert not (tmp_path / "out" / "README.md").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1", "2", "out"}


def test_refuses_shares_that_are_not_one_in_all(tmp_path: Path) -> None:
    one, other = folder_of(tmp_path / "a", 1), folder_of(tmp_path / "b", 2)
    with pytest.raises(ConfigError, match=r"shares of 1\.5 in all"):
        merge([(one, 1.0), (other, 0.5)], tmp_path / "out")
    with pytest.raises(ConfigError, match="two or more"):
        merge([(one, 1.0)], tmp_path / "out")
    with pytest.raises(ConfigError, match="exists"):
        merge([(one, 0.5), (other, 0.5)], other)


@pytest.mark.parametrize(
    ("odd", "said"),
    [({"width": 4}, "does not hold the tensors"), ({"tokenizer": "[]"}, "another tokenizer")],
)
def test_refuses_other_models(odd: dict[str, Any], said: str, tmp_path: Path) -> None:
    one, other = folder_of(tmp_path / "a", 1), folder_of(tmp_path / "b", 2, **odd)
    with pytest.raises(ModelError, match=said):
        merge([(one, 0.5), (other, 0.5)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_verb(think2seg: Callable[..., Any], tmp_path: Path) -> None:
    one, other = folder_of(tmp_path / "a", 1), folder_of(tmp_path / "b", 2)
    told = think2seg("models", "merge", str(tmp_path / "out"), f"{one}=0.5", f"{other}=0.5")
    assert (told.code, str(tmp_path / "out") in told.out) == (0, True)
    refused = think2seg("models", "merge", str(tmp_path / "x"), str(one), f"{other}=0.5")
    assert refused.code == 2
    assert "FOLDER=SHARE" in refused.err
