"""Which weights a path means."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from think2seg.errors import ModelError
from think2seg.registry import resolve, share_weights, weights_digest


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind in ("prompter", "segmenter"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "model.safetensors").write_bytes(kind.encode())
    monkeypatch.setenv("THINK2SEG_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def test_aliases_mean_the_bundled_pair(weights: Path) -> None:
    assert resolve("prompter", "champion") == weights / "prompter"
    assert resolve("segmenter", "bundled") == weights / "segmenter"


def test_folders_and_files_mean_themselves(weights: Path) -> None:
    assert resolve("prompter", str(weights / "prompter")) == weights / "prompter"
    file = weights / "segmenter" / "model.safetensors"
    assert resolve("segmenter", str(file)) == file


def test_a_missing_pair_says_which_folder_to_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINK2SEG_WEIGHTS", str(tmp_path))
    with pytest.raises(ModelError, match="THINK2SEG_WEIGHTS"):
        resolve("prompter", "champion")


@pytest.mark.parametrize("path", ["no-such-model", "./no/such/folder", "/no/such/folder", "a/b/c"])
def test_a_path_that_is_nothing_is_refused(weights: Path, path: str) -> None:
    with pytest.raises(ModelError, match=r"models\.prompter\.path"):
        resolve("prompter", path)


@pytest.mark.parametrize("path", ["RicardoString/Think2Seg-RS-3B", "RicardoString/Think2Seg-RS-3B@0123abc"])
def test_a_hub_id_offline_says_what_to_download(weights: Path, path: str) -> None:
    with pytest.raises(ModelError, match="download RicardoString/Think2Seg-RS-3B into a folder"):
        resolve("prompter", path)


def test_the_digest_follows_what_decides_answers(weights: Path, tmp_path: Path) -> None:
    folder = weights / "prompter"
    before = weights_digest(folder)
    assert len(before) == 32
    (folder / "README.md").write_text("a card")
    assert weights_digest(folder) == before
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    assert weights_digest(copy) == before
    (folder / "model.safetensors").write_bytes(b"retrained")
    assert weights_digest(folder) != before


def test_an_empty_folder_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no weights"):
        weights_digest(tmp_path)


def test_weights_that_safetensors_wrote_can_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = tmp_path / "shards" / "model.safetensors"
        path.parent.mkdir()
        save_file({"a": torch.zeros(2)}, path)
        path.chmod(0o600)
        share_weights(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [found.name for found in tmp_path.iterdir()] == ["shards"]
