"""A pair on a labelled dataset, on miniature folders in the published layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from support.standins import DarkPrompter, DarkSegmenter

from think2seg.errors import ConfigError
from think2seg.learning.benchmark import Score, evaluate_dataset, figures
from think2seg.learning.datasets import Dataset, read_dataset, read_earthreason
from think2seg.prompting import Reply, Template

TEMPLATE = Template(name="t", system="s", user="{question}")


def add(
    folder: Path,
    name: str,
    lake: tuple[int, int, int, int] | None,
    questions: Sequence[str] = ("where is water?",),
    *,
    truth: tuple[int, int, int, int] | None = None,
    size: tuple[int, int] = (96, 96),
    **more: Any,
) -> None:
    """One item: a dark rectangle (y0, x0, y1, x1) on light ground, by default the truth itself."""
    for kind in ("images", "labels", "QAs"):
        (folder / "test" / kind).mkdir(parents=True, exist_ok=True)
    image, mask = np.full((*size, 3), 200, np.uint8), np.zeros(size, np.uint8)
    if lake:
        image[lake[0] : lake[2], lake[1] : lake[3]] = 10
    if target := truth or lake:
        mask[target[0] : target[2], target[1] : target[3]] = 255
    Image.fromarray(image).save(folder / "test" / "images" / f"{name}.png")
    Image.fromarray(mask).save(folder / "test" / "labels" / f"{name}.png")
    (folder / "test" / "QAs" / f"{name}.json").write_text(json.dumps({"questions": list(questions), **more}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "EarthReason"
    add(root, "a", (10, 10, 50, 50), category="lake")
    add(root, "b", None, category="nothing")
    add(root, "c", (0, 0, 40, 20), ["where?", "what is wet?", "where?", " "], category="lake", size=(96, 48))
    add(root, "d", (10, 10, 50, 50), truth=(10, 10, 50, 30), category="pond")
    return root


class Counting(DarkPrompter):
    """Counts what it is asked, and mumbles where the question asks for it."""

    asked = 0

    def ask(self, tiles: Sequence[npt.NDArray[np.uint8]], question: str) -> list[Reply]:
        self.asked += len(tiles)
        if question == "mumble":
            return [Reply(text="well", finish="stop", tokens=1, presence=None) for _ in tiles]
        return super().ask(tiles, question)


def pair() -> tuple[Counting, DarkSegmenter]:
    return Counting(digest="p" * 32, template=TEMPLATE), DarkSegmenter(digest="s" * 32)


def test_a_split_is_read_and_what_is_odd_is_told(folder: Path) -> None:
    add(folder, "no-mask", None)
    (folder / "test" / "labels" / "no-mask.png").unlink()
    add(folder, "no-question", None, [])
    add(folder, "no-image", None)
    (folder / "test" / "images" / "no-image.png").unlink()
    (folder / "test" / "QAs" / "b.json").write_text("{")
    dataset = read_earthreason(folder, "test")
    assert [item.id for item in dataset.items] == ["a", "c", "d"]
    assert dataset.items[1].questions == ("where?", "what is wet?")
    reasons: dict[str, list[str]] = {}
    for odd in dataset.odd:
        reasons.setdefault(odd.item, []).append(odd.reason)
    assert reasons["no-mask"] == ["no mask"]
    assert "questions is missing or empty" in reasons["no-question"][0]
    assert len(reasons["no-image"]) == 2
    assert "no question" in reasons["b"][0]


def test_images_are_squeezed_into_the_frame_and_masks_with_them(folder: Path) -> None:
    item = read_earthreason(folder, "test").items[2]
    assert item.pixels(96).shape == (96, 96, 3)
    truth = item.truth(96)
    assert truth[:40, :40].all()
    assert truth.sum() == 40 * 40


def test_figures_tables_and_pictures(folder: Path, tmp_path: Path) -> None:
    prompter, segmenter = pair()
    seen: list[tuple[int, int]] = []
    result = evaluate_dataset(
        read_dataset("earthreason", folder, "test"),
        prompter,
        segmenter,
        tmp_path / "out",
        on_progress=lambda what, done, total: seen.append((done, total)),
    )
    assert seen[-1] == (4, 4)
    by_key = {score.key: score for score in result.scores}
    assert by_key["a-0"].iou == by_key["b-0"].iou == 1
    assert by_key["d-0"].iou == pytest.approx(0.5)
    assert {"c-0", "c-1"} <= by_key.keys()
    value, low, high = result.figures["gIoU"]
    assert value == pytest.approx(np.mean([score.iou for score in result.scores]))
    assert low <= value <= high
    assert result.figures["no-target right"][0] == 1
    document = json.loads((tmp_path / "out" / "result.json").read_text())
    assert document["questions"] == 5
    assert [row["category"] for row in document["tables"][1]["rows"]] == ["lake", "nothing", "pond"]
    assert "By category" in (tmp_path / "out" / "result.md").read_text()
    assert len(list((tmp_path / "out").glob("worst-*.png"))) == 5
    assert (tmp_path / "out" / "worst-01-d-0.png").exists()


def test_an_unreadable_answer_adds_its_truth_to_the_union(tmp_path: Path) -> None:
    add(tmp_path, "a", (0, 0, 48, 96))
    add(tmp_path, "b", (0, 0, 48, 96), ["mumble"])
    result = evaluate_dataset(read_earthreason(tmp_path, "test"), *pair(), tmp_path / "out")
    assert [score.status for score in result.scores] == ["ok", "unparsable"]
    assert result.figures["cIoU"][0] == pytest.approx(0.5, abs=0.02)
    assert result.figures["parsed"][0] == 0.5


@pytest.mark.parametrize("status", ["ok", "truncated", "unknown concept", "unparsable"])
@pytest.mark.parametrize("instances", [0, 1])
def test_only_a_whole_answer_without_instances_says_that_nothing_is_there(status: str, instances: int) -> None:
    absent = Score(item="a", number=0, category="", status=status, instances=instances,
                   intersection_px=0, union_px=0, truth_px=0)  # fmt: skip
    right = status == "ok" and not instances
    assert absent.iou == figures([absent])["no-target right"][0] == right
    drawn = replace(absent, intersection_px=2, union_px=4, truth_px=3)
    assert drawn.iou == (0.5 if status in ("ok", "truncated") else 0)


def test_what_is_known_is_not_asked_again(folder: Path, tmp_path: Path) -> None:
    dataset, out = read_earthreason(folder, "test"), tmp_path / "out"
    first, segmenter = pair()
    whole = evaluate_dataset(dataset, first, segmenter, out)
    log = out / "scores.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:4]) + lines[4][:20])  # killed while it wrote the second question of item c
    again, _ = pair()
    assert evaluate_dataset(dataset, again, segmenter, out) == whole
    assert again.asked == 3, "both questions of item c, and item d"
    third, _ = pair()
    assert evaluate_dataset(dataset, third, segmenter, out) == whole
    assert third.asked == 0
    with pytest.raises(ConfigError, match="another --out"):
        evaluate_dataset(dataset, first, DarkSegmenter(digest="t" * 32), out)


def test_the_same_names_with_other_masks_are_other_data(tmp_path: Path) -> None:
    add(tmp_path / "d", "a", (10, 10, 50, 50))
    add(tmp_path / "e", "a", (10, 10, 50, 50), truth=(10, 10, 50, 30))
    evaluate_dataset(read_earthreason(tmp_path / "d", "test"), *pair(), tmp_path / "out")
    with pytest.raises(ConfigError, match="scores of something else"):
        evaluate_dataset(read_earthreason(tmp_path / "e", "test"), *pair(), tmp_path / "out")


def test_a_kill_while_what_is_known_is_sifted_loses_no_answer(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, log = read_earthreason(folder, "test"), tmp_path / "out" / "scores.jsonl"
    log.parent.mkdir()
    log.touch()
    evaluate_dataset(dataset, *pair(), log.parent)
    held = log.read_text()

    def die(path: Path, *_: object, **__: object) -> None:
        path.open("w").close()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", die)
    with pytest.raises(KeyboardInterrupt):
        evaluate_dataset(dataset, *pair(), log.parent)
    assert log.read_text() == held


def test_an_image_that_cannot_be_read_is_told_and_never_replaced(folder: Path, tmp_path: Path) -> None:
    image = folder / "test" / "images" / "a.png"
    image.write_bytes(image.read_bytes()[:60])
    result = evaluate_dataset(read_earthreason(folder, "test"), *pair(), tmp_path / "out")
    assert [odd.item for odd in result.odd] == ["a"]
    assert "a" not in {score.item for score in result.scores}
    assert "a: cannot be read" in result.markdown()


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_broken_chunk_is_a_file_that_cannot_be_read(folder: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 300), np.uint8)
    for part in ("images", "labels"):
        Image.fromarray(noise).save(folder / "test" / part / "a.png")
    path = folder / "test" / kind / "a.png"
    content = path.read_bytes()
    second = content.rindex(b"IDAT")
    path.write_bytes(content[:second] + b"\0" + content[second + 1 :])
    item = read_earthreason(folder, "test").items[0]
    with pytest.raises(OSError, match=r"a\.png: broken PNG"):
        item.pixels(96) if kind == "images" else item.truth(96)


def test_a_mask_of_another_size_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 200), 255, np.uint8)).save(folder / "test" / "labels" / "a.png")
    result = evaluate_dataset(read_earthreason(folder, "test"), *pair(), tmp_path / "out")
    assert [(odd.item, odd.reason) for odd in result.odd] == [
        ("a", "cannot be read: a.png has 200 × 40 pixels, its image 96 × 96")
    ]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P"])
def test_what_is_transparent_or_not_is_no_part_of_a_mask(folder: Path, mode: str) -> None:
    path = folder / "test" / "labels" / "a.png"
    with Image.open(path) as mask:
        mask.convert(mode).save(path)
    assert read_earthreason(folder, "test").items[0].truth(96).sum() == 40 * 40


def test_what_is_no_dataset_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="splits here: test"):
        read_earthreason(folder, "val")
    with pytest.raises(ConfigError, match="Readers: earthreason"):
        read_dataset("rrsis", folder, "test")
    with pytest.raises(ConfigError, match="can be asked about"):
        evaluate_dataset(Dataset(name="n", split="s", items=(), odd=()), *pair(), tmp_path)


def test_intervals_widen_with_fewer_images() -> None:
    def score(number: int) -> Score:
        covered = number % 3
        return Score(item=str(number), number=0, category="", status="ok", instances=1,
                     intersection_px=covered, union_px=3, truth_px=3)  # fmt: skip

    def scores(n: int) -> list[Score]:
        return [score(number) for number in range(n)]

    few, many = (figures(scores(n))["gIoU"] for n in (9, 900))
    assert few[0] == pytest.approx(many[0]) == pytest.approx(1 / 3)
    assert few[2] - few[1] > 5 * (many[2] - many[1])
    assert figures(scores(9))["cIoU"] == figures(scores(9))["cIoU"]
    assert np.isnan(figures(scores(9))["no-target right"][0])
