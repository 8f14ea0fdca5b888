"""Rewarding 16 answers to each image: our scorer against one that works as the published training code is described.

The reference encodes the image anew for every answer and decodes one instance a call (docs of the published method,
defects 1 in the project's contract). Both use the bundled segmenter, the same images and answers, alternating in one
run, and must give the same rewards. Last line: one JSON object with the ratio of their times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from think2seg.learning.rewards import Reward, Scorer, Target, form_reward, iou_reward, valid_reward
from think2seg.learning.tiny.anchors import FRAME_PX, anchor_instances
from think2seg.learning.tiny.answers import answer_text
from think2seg.prompting import parse_answer
from think2seg.registry import resolve
from think2seg.samples.simulate import simulate
from think2seg.segmentation.architecture import decode_prompts
from think2seg.segmentation.sam import SamSegmenter

ROLLOUTS = 16


def groups(n: int, seed: int) -> tuple[list[Target], list[list[str]]]:
    """Held-out scenes with lakes, and for each 16 answers whose boxes err as sampled ones do."""
    rng = np.random.default_rng(seed)
    targets, texts = [], []
    for number in range(10_000):
        scene = simulate(2**31 + number)
        lakes = [instance for instance in scene.instances if instance.concept == "lake"]
        if not 1 <= len(lakes) <= 6:
            continue
        targets.append(Target(item=scene.site, image=scene.image, truth=scene.mask_of({"lake"})))
        exact = answer_text("lake", anchor_instances(lakes))
        texts.append([_shaken(exact, rng) for _ in range(ROLLOUTS)])
        if len(targets) == n:
            break
    return targets, texts


def _shaken(text: str, rng: np.random.Generator) -> str:
    head, _, tail = text.partition("[")
    instances = json.loads(f"[{tail.partition('```')[0]}")
    for instance in instances:
        box = np.array(instance["bbox_2d"]) + rng.normal(0, 5, 4)
        instance["bbox_2d"] = [int(value) for value in np.clip(box, 0, FRAME_PX)]
    return f"{head}{json.dumps(instances)}```</answer>"


def reference(sam: torch.nn.Module, targets: Sequence[Target], texts: Sequence[Sequence[str]]) -> list[list[Reward]]:
    """One encoding for every answer, one decoder call for every instance."""
    rewards = []
    for target, group in zip(targets, texts, strict=True):
        row = []
        for text in group:
            with torch.inference_mode():
                pixels = sam.preprocess(torch.from_numpy(target.image.copy()).permute(2, 0, 1)[None])
                embedding = sam.image_encoder(pixels)
                answer = parse_answer(text, frame_px=FRAME_PX, finish="stop")
                union = np.zeros(target.truth.shape, np.bool_)
                for prompt in answer.instances:
                    logits, _ = decode_prompts(
                        sam,
                        embedding,
                        boxes=torch.tensor([prompt.bbox], dtype=torch.float32),
                        points=torch.tensor([prompt.points], dtype=torch.float32),
                    )
                    large = torch.nn.functional.interpolate(logits[None], target.truth.shape, mode="bilinear")[0, 0]
                    union |= (large > 0).numpy()
            row.append(Reward(iou=iou_reward(union, target, answer), valid=valid_reward(text), form=form_reward(text)))
        rewards.append(row)
    return rewards


def main() -> None:
    """Run both, alternating, and print the table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    segmenter = SamSegmenter(resolve("segmenter", "bundled"), digest="", dtype="float32", device="cpu")
    scorer = Scorer(segmenter, frame_px=FRAME_PX)
    targets, texts = groups(options.images, seed=0)
    ways: dict[str, Callable[[], list[list[Reward]]]] = {
        "reference": lambda: reference(segmenter._sam, targets, texts),
        "ours": lambda: scorer.score(targets, texts),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, list[list[Reward]]] = {}
    for _ in range(options.repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            found[name] = way()
            seconds[name].append(time.perf_counter() - started)
    gaps = [abs(a.total - b.total) for x, y in zip(*found.values(), strict=True) for a, b in zip(x, y, strict=True)]
    assert max(gaps) < 0.02, f"the two disagree by up to {max(gaps):.3f}"
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    table = Table("", "seconds", "answers/s", "largest gap", box=None)
    for name, value in medians.items():
        table.add_row(name, f"{value:.2f}", f"{options.images * ROLLOUTS / value:.1f}", f"{max(gaps):.4f}")
    Console().print(table)
    print(json.dumps({"ratios": {"reward_vs_reference": round(medians["reference"] / medians["ours"], 2)}}))


if __name__ == "__main__":
    main()
