"""``nd-wetlands``, one date and one block of it, to a cube with each kind of model that a monitor can name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from support.chat_server import MODEL, LocalBrain, chat_server
from support.checkpoints import published_prompter, published_sam2
from support.miniature import area

from think2seg.config import load_monitor
from think2seg.coordinator import RunSummary, run_archive
from think2seg.cube import check_cube, open_cube, read_instances, read_traces
from think2seg.imagery import Quality
from think2seg.prompting.local import LocalPrompter


@pytest.fixture(autouse=True)
def _weights(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINK2SEG_WEIGHTS", str(pair))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)


def run(cube: Path, scheduler: str, *overrides: str) -> tuple[RunSummary, xr.Dataset]:
    monitor = load_monitor(
        "nd-wetlands",
        [
            f"region={json.dumps({'kind': 'geometry', 'geometry': area(1, 1)})}",
            "source.datetime=2014-07-01/2014-07-31",
            "tile={footprint_m: 960, halo_m: 160}",
            f"cube={{uri: '{cube}', block_px: 128}}",
            f"cluster.scheduler={scheduler}",
            "models.prompter.device=cpu",
            "models.segmenter.device=cpu",
            *overrides,
        ],
    )
    summary = run_archive(monitor)
    assert (summary.exit_code, summary.acquisitions) == (0, {"done": 1, "skipped": 0, "failed": 0})
    assert check_cube(cube) == []
    return summary, open_cube(cube)


def test_weights_in_the_published_layout(tmp_path: Path, scheduler: str) -> None:
    """Random weights ramble to the limit: the tile is asked again in quarters, and nothing of it is called absent."""
    folder = published_prompter(tmp_path / "Think2Seg-RS-3B")
    summary, cube = run(
        tmp_path / "cube.zarr", scheduler, f"models.prompter={{kind: local, path: '{folder}', max_new_tokens: 6}}"
    )
    assert summary.tiles["done"] == 1
    traces = read_traces(tmp_path / "cube.zarr")
    assert traces["part"].tolist() == ["", "0", "1", "2", "3"]
    assert set(traces["finish"]) == {"length"}
    assert "bbox_2d" in traces["prompt"][0]
    assert (cube["mask"] == 255).all()
    assert ((cube["quality"] & int(Quality.TRUNCATED)) != 0).any()


def test_a_sam2_draws(tmp_path: Path, scheduler: str) -> None:
    folder = published_sam2(tmp_path / "sam2.1")
    _, cube = run(tmp_path / "cube.zarr", scheduler, f"models.segmenter={{kind: sam2, path: '{folder}', device: cpu}}")
    assert len(read_instances(tmp_path / "cube.zarr")) > 0
    assert set(np.unique(cube["mask"])) <= {0, 1, 255}
    assert (cube["mask"] == 1).any()


def test_a_served_prompter_makes_the_same_cube_as_the_same_weights_here(
    tmp_path: Path, scheduler: str, pair: Path
) -> None:
    _, here = run(tmp_path / "here.zarr", scheduler)
    prompter = LocalPrompter(pair / "prompter", digest="d", batch=1, dtype="float32", device="cpu")
    template = tmp_path / "template.yaml"
    template.write_text(f"name: t\nsystem: {prompter.template.system}\nuser: '{prompter.template.user}'\n")
    with chat_server(LocalBrain(prompter)) as server:
        served = {
            "kind": "served",
            "url": server.url,
            "model": MODEL,
            "revision": "bundled",
            "concurrency": 2,
            "frame_px": prompter.frame_px,
            "template": str(template),
            "max_new_tokens": 320,
        }
        _, there = run(tmp_path / "there.zarr", scheduler, f"models.prompter={json.dumps(served)}")
    for name in ("mask", "score", "quality"):
        np.testing.assert_array_equal(there[name].values, here[name].values)
    ours, theirs = (read_traces(tmp_path / f"{name}.zarr") for name in ("here", "there"))
    assert theirs["answer"].tolist() == ours["answer"].tolist()
    assert server.url.split("/")[2].encode() not in b"".join(
        path.read_bytes() for path in (tmp_path / "there.zarr").rglob("*.json")
    ), "the place of the server is nobody's business"
