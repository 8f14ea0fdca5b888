"""A candidate beside the champion on a frozen set: both asked, drawn by one segmenter, and judged by the gate.

What was asked stays in a folder, by the digest of the weights: killed anywhere, the same command goes on where it was,
and a champion is asked once for all its challengers.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from PIL import Image as PilImage
from shapely.geometry.base import BaseGeometry

from think2seg.config import LocalPrompter
from think2seg.cube.ledger import model_version
from think2seg.learning.benchmark import DatasetResult, OnProgress, Score, evaluate_dataset, load_pair
from think2seg.learning.datasets import Dataset, dataset_digest, read_dataset
from think2seg.learning.gate import Answered, Contender, Cost, judge, require_apart
from think2seg.learning.registry import known_verdict, note_verdict, training_footprints
from think2seg.learning.suite.asking import balanced_questions, truth_of
from think2seg.learning.verdict import Limits, Verdict, verdict_markdown
from think2seg.prompting import Prompter
from think2seg.prompting.memory import need_of
from think2seg.registry import Registry, Version, prompter_weights, segmenter_named, segmenter_weights
from think2seg.samples.archive import EMBEDDED, catalog_names
from think2seg.samples.real import load_tiles
from think2seg.samples.simulate import HELD_OUT_FROM, simulate
from think2seg.segmentation import Segmenter
from think2seg.segmentation.devices import choose_device

FIRST_SCENE = HELD_OUT_FROM + 50_000_000
"""Simulated scenes of the gate: no training, validation or evaluation looks at these."""
TILES_SEED = 50_000_000
"""Places of the gate's tiles; looks on the way and comparisons at the end of a training cut others."""
ABSENT = 0.35
"""Share of questions about something that is not there."""
ROUNDS = 32
"""Images that each model is timed on. Answers differ in length: over seven images a ratio of 1.1 came out as 1.3."""


def compare(
    candidate: Prompter,
    champion: Prompter,
    segmenter: Segmenter,
    frozen: Dataset,
    out: Path,
    *,
    memory_bytes: tuple[int, int],
    training: Dataset | None = None,
    limits: Limits | None = None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Verdict:
    """Ask both models everything, judge, and leave ``verdict.json`` and ``verdict.md`` in `out`.

    Parameters
    ----------
    memory_bytes
        What the candidate and the champion need.
    training
        Images that the candidate was trained on, to see what it learned by heart; costs as much again.

    Raises
    ------
    ConfigError
        There is nothing to ask, or `out` holds the answers to something else.
    ModelError
        A model cannot answer.
    """
    sides = []
    seconds = timed((candidate, champion), frozen)
    for prompter, latency_s, memory in zip((candidate, champion), seconds, memory_bytes, strict=True):
        results: list[DatasetResult] = []
        for dataset in (frozen, *([training] if training else [])):
            pair = model_version(prompter.digest, segmenter.digest)
            folder = out / pair / f"{dataset.name}-{dataset.split}-{dataset_digest(dataset)[:12]}"
            results.append(evaluate_dataset(dataset, prompter, segmenter, folder, on_progress=on_progress))
        sides.append(
            Contender(
                digest=prompter.digest,
                answered=answered(results[0].scores),
                cost=Cost(latency_s=latency_s, memory_bytes=memory),
                on_training=answered(results[1].scores) if training else (),
            )
        )
    told = {"frozen_set": dataset_digest(frozen), "segmenter": segmenter.digest}
    verdict = judge(sides[0], sides[1], **told, limits=limits)
    (out / "verdict.json").write_text(json.dumps(verdict.to_dict(), indent=2, allow_nan=False), encoding="utf-8")
    (out / "verdict.md").write_text(verdict_markdown(verdict), encoding="utf-8")
    return verdict


def compare_versions(
    registry: Registry,
    ours: Version,
    theirs: Version,
    frozen: Dataset,
    out: Path,
    *,
    segmenter: str = "bundled",
    footprints: Mapping[str, BaseGeometry] | None = None,
    training: Dataset | None = None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Verdict:
    """The verdict that the registry keeps on two versions and a set; else a new one, which it keeps from then on.

    Parameters
    ----------
    footprints
        Where the samples of the frozen set lie (WGS 84); none of them may touch a training sample of `ours`.
    training
        As for `compare`; a verdict that is known may lack its figures, so it is worked out again.

    Raises
    ------
    ConfigError, ModelError
        As for `compare`; footprints of training and gate touch.
    """
    if footprints:
        require_apart(training_footprints(registry, ours), footprints)
    draws = segmenter_weights(segmenter_named(segmenter)).digest
    asked = {"frozen_set": dataset_digest(frozen), "segmenter": draws}
    known = known_verdict(ours, theirs, **asked, limits=Limits())
    if known and training is None:
        return known
    (candidate, pen), (champion, _) = (load_pair(version.uri, segmenter) for version in (ours, theirs))
    memory = memory_of(ours.uri), memory_of(theirs.uri)
    verdict = compare(
        candidate, champion, pen, frozen, out, memory_bytes=memory, training=training, on_progress=on_progress
    )
    note_verdict(registry, ours, verdict)
    return verdict


def answered(scores: Sequence[Score]) -> tuple[Answered, ...]:
    """Scores as the gate wants them; something was drawn where nothing is when the union has pixels."""
    return tuple(
        Answered(
            key=score.key,
            image=score.item,
            category=score.category,
            iou=score.iou,
            parsed=score.status != "unparsable",
            false_alarm=None if score.truth_px else score.union_px > 0,
        )
        for score in scores
    )


def timed(prompters: Sequence[Prompter], frozen: Dataset, rounds: int = ROUNDS) -> list[float]:
    """Mean seconds of an answer of each prompter, over images from the whole set.

    They answer in turns, so that a busy machine slows all alike. The first image is not counted where there are others:
    what is done once takes longer. Images that cannot be read are passed over.
    """
    seconds: list[list[float]] = [[] for _ in prompters]
    apart = max(1, len(frozen.items) // (rounds + 1))
    for item in frozen.items[::apart][: rounds + 1]:
        try:
            shown = [item.pixels(prompter.frame_px) for prompter in prompters]
        except (OSError, ValueError):
            continue
        for prompter, pixels, found in zip(prompters, shown, seconds, strict=True):
            started = time.perf_counter()
            prompter.ask([pixels], item.questions[0])
            found.append(time.perf_counter() - started)
    return [fmean(found[1:] or found) if found else float("nan") for found in seconds]


def memory_of(path: str) -> int:
    """Bytes that a prompter's weights and one batch of its answers need on this machine; raises ModelError."""
    wanted = LocalPrompter(path=path)
    weights = prompter_weights(wanted).path
    assert weights is not None
    need = need_of(wanted, weights, choose_device(wanted.device))
    if need is not None:
        return need.total
    return sum(file.stat().st_size for file in weights.rglob("*") if file.is_file())


def held_out_set(folder: Path, n: int) -> Dataset:
    """What no training sees, one question about each image, written once in EarthReason's layout.

    n: simulated scenes, and as many tiles of the embedded imagery's held-out part.
    """
    root = folder / f"gate-{n}"
    done = root / "done"
    if not done.is_file():
        for kind in ("images", "labels", "ignored", "QAs"):
            (root / "gate" / kind).mkdir(parents=True, exist_ok=True)
        scenes = (simulate(FIRST_SCENE + number) for number in range(n))
        tiles = load_tiles(EMBEDDED, split="held_out", seed=TILES_SEED, n=n, sources=catalog_names())
        numbers: Counter[str] = Counter()
        for sample in balanced_questions([*scenes, *tiles], seed=0, absent=ABSENT, unknown=0.0):
            source = sample.image.source
            name = f"{source}-{numbers[source]:04d}"
            numbers[source] += 1
            layers = {"images": sample.image.image, "labels": truth_of(sample), "ignored": sample.image.ignore}
            for kind, pixels in layers.items():
                if pixels is not None:
                    PilImage.fromarray(pixels).save(root / "gate" / kind / f"{name}.png")
            about = {"questions": [sample.question.phrasing.text], "category": sample.question.phrasing.concept}
            (root / "gate" / "QAs" / f"{name}.json").write_text(json.dumps(about))
        done.write_text("")
    return read_dataset("earthreason", root, "gate")
