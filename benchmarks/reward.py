"""Rewarding 16 answers to each image: our scorer against one that works as the published training code is described.

The reference runs the segmenter of the library as it is, encodes the image anew for every answer that has instances
and decodes one instance a call (defect 1 of the published training in the project's contract). Questions and images are
those that `conf/training/tiny-grpo.yaml` trains on, the answers are what the bundled prompter says to them at
temperature 1. Both reward the same answers, alternating in one run, and must give the same rewards.

    OMP_NUM_THREADS=1 python benchmarks/reward.py
    OMP_NUM_THREADS=1 python benchmarks/reward.py --vit-b --images 1 --repeats 1       about ten minutes

Last line: one JSON object with the ratio of their times. Loading and asking are counted for neither. What encoding
costs beside decoding depends on the segmenter: 3 M parameters when it is the bundled one, 94 M with --vit-b, a
segment-anything ViT-B whose weights are random, as published trainings use it or larger ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from reference_loop import draw
from rich.console import Console
from rich.table import Table
from segment_anything import SamPredictor, sam_model_registry

from think2seg.learning.evaluate import ask_folder
from think2seg.learning.grpo.tasks import DrawnTasks
from think2seg.learning.rewards import Reward, Scorer, Target, form_reward, iou_reward, valid_reward
from think2seg.learning.tiny.source import MixedSource
from think2seg.prompting.folder import PrompterDescription, read_description
from think2seg.registry import resolve
from think2seg.segmentation.architecture import load_sam_folder
from think2seg.segmentation.sam import SamSegmenter, load_checkpoint

ROLLOUTS = 16
ABSENT = 0.25
SEED = 0
LARGEST_GAP = 0.02


def groups(n: int) -> tuple[list[Target], list[list[str]]]:
    """Training questions, and for each of them 16 sampled answers."""
    scenes = MixedSource(real_share=0, folder=None, wheels=None, tiles=0, sources=None, seed=SEED)
    tasks = DrawnTasks(images=scenes, seed=SEED, absent=ABSENT, count=n)
    ask = ask_folder(resolve("prompter", "bundled"), temperature=1.0)
    torch.manual_seed(SEED)
    asked = [tasks[number] for number in range(n)]
    texts = [ask([task.target.image] * ROLLOUTS, [task.question] * ROLLOUTS) for task in asked]
    return [task.target for task in asked], texts


class Reference:
    """One encoding for every answer, one decoder call for every instance."""

    def __init__(self, said: PrompterDescription, scorer: Scorer, segmenter: Path) -> None:
        self._said, self._scorer = said, scorer
        self._predictor = SamPredictor(load_sam_folder(segmenter) if segmenter.is_dir() else load_checkpoint(segmenter))

    def score(self, targets: Sequence[Target], texts: Sequence[Sequence[str]]) -> list[list[Reward]]:
        """As `Scorer.score`."""
        return [[self._reward(target, text) for text in group] for target, group in zip(targets, texts, strict=True)]

    def _reward(self, target: Target, text: str) -> Reward:
        mask = draw(self._predictor, self._said, target.image, text)
        iou = iou_reward(mask, target, self._scorer.parse(text))
        return Reward(iou=iou, valid=valid_reward(text), form=form_reward(text))


def main() -> None:
    """Run both, alternating, and print the table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--vit-b", action="store_true", help="a ViT-B of random weights as the segmenter")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        compare(vit_b(Path(folder)) if options.vit_b else resolve("segmenter", "bundled"), options)


def vit_b(folder: Path) -> Path:
    """A checkpoint of a segment-anything ViT-B as it comes to the world."""
    torch.manual_seed(SEED)
    torch.save(sam_model_registry["vit_b"]().state_dict(), folder / "vit_b.pth")
    return folder / "vit_b.pth"


def compare(path: Path, options: argparse.Namespace) -> None:
    """Reward with the segmenter at `path` both ways."""
    said = read_description(resolve("prompter", "bundled"))
    segmenter = SamSegmenter(path, digest="", dtype="float32", device="cpu")
    scorer = Scorer(segmenter, frame_px=said.frame_px, unknown_reasoning=said.unknown_reasoning)
    targets, texts = groups(options.images)
    ways: dict[str, Callable[[Sequence[Target], Sequence[Sequence[str]]], list[list[Reward]]]] = {
        "reference": Reference(said, scorer, path).score,
        "ours": scorer.score,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, list[list[Reward]]] = {}
    for _ in range(options.repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            found[name] = way(targets, texts)
            seconds[name].append(time.perf_counter() - started)
    gaps = [abs(a.total - b.total) for x, y in zip(*found.values(), strict=True) for a, b in zip(x, y, strict=True)]
    assert max(gaps) < LARGEST_GAP, f"the two disagree by up to {max(gaps):.3f}"
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    table = Table("", "seconds", "answers/s", "largest gap", box=None)
    for name, value in medians.items():
        table.add_row(name, f"{value:.2f}", f"{options.images * ROLLOUTS / value:.1f}", f"{max(gaps):.4f}")
    Console().print(table)
    instances = [len(scorer.parse(text).instances) for group in texts for text in group]
    print(f"{np.mean(instances):.1f} instances an answer; {np.mean(np.array(instances) == 0):.0%} have none")
    print(json.dumps({"ratios": {"reward_vs_reference": round(medians["reference"] / medians["ours"], 2)}}))


if __name__ == "__main__":
    main()
