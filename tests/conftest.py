"""Fixtures for all rooms."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``prompter/`` and ``segmenter/``: small weights that really find lakes.

    Torch is kept to one thread, with which answers do not depend on the batch.
    """
    import torch
    from support.weights import pair_folder

    torch.set_num_threads(1)
    folder = pair_folder(tmp_path_factory.mktemp("pair"))
    if folder is None:
        pytest.skip("no small weights at hand: set THINK2SEG_WEIGHTS to a folder with prompter/ and segmenter/")
    return folder
