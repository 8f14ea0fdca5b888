"""A pair of weights on a labelled dataset: asked in batches, resumable, with intervals, tables and pictures.

Images are seen as the published evaluation sees them: resized to the prompter's square frame, masks by nearest
neighbour. gIoU is the mean of per-question IoU, where a right *nothing here* counts 1; cIoU is the summed intersection
over the summed union, to which an answer that cannot be read adds its truth.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from think2seg.config import LocalPrompter
from think2seg.errors import ConfigError
from think2seg.learning.datasets import Dataset, Item, Odd, dataset_digest
from think2seg.learning.suite.sheet import outlined
from think2seg.learning.suite.tables import Table
from think2seg.prompting import Answer, Ask, Prompter, Reply, answers_of, load_prompter, parse_answer
from think2seg.registry import prompter_weights, segmenter_named, segmenter_weights
from think2seg.samples.labelled import Mask
from think2seg.segmentation import Segmenter, load_segmenter

BATCH = 32
"""Images that are asked about before anything is written down."""
PICTURES = 12
"""Best and worst answers that are drawn, each."""
_RESAMPLES = 1000

type OnProgress = Callable[[str, int, int], None]
type Interval = tuple[float, float, float]
"""A figure and its 95 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What came of one question."""

    item: str
    number: int
    """Position among the item's questions."""
    category: str
    status: str
    instances: int
    intersection_px: int
    union_px: int
    truth_px: int

    @property
    def iou(self) -> float:
        """0 for what cannot be read or is not understood; where nothing is there, 1 for an answer that says so, else 0.

        A change of this rule is a new `think2seg.learning.verdict.RULE`.
        """
        if self.status in ("unparsable", "unknown concept"):
            return 0.0
        if not self.truth_px:
            return float(self.status == "ok" and not self.instances)
        return self.intersection_px / self.union_px

    @property
    def key(self) -> str:
        """Name of the question, good for a file."""
        return f"{self.item}-{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetResult:
    """Figures of a pair on one split."""

    dataset: str
    split: str
    prompter: str
    segmenter: str
    scores: tuple[Score, ...]
    odd: tuple[Odd, ...]

    @property
    def figures(self) -> dict[str, Interval]:
        """gIoU, cIoU, parse rate and no-target accuracy over all questions."""
        return figures(self.scores)

    def tables(self) -> tuple[Table, ...]:
        """All questions, then by category."""
        rows = [(name, *interval) for name, interval in self.figures.items()]
        whole = Table(
            title=f"{self.dataset} {self.split}: {len(self.scores)} questions",
            columns=("figure", "value", "low", "high"),
            rows=tuple(rows),
        )
        names = sorted({score.category for score in self.scores})
        if names in ([], [""]):
            return (whole,)
        groups = {name: [score for score in self.scores if score.category == name] for name in names}
        means = {
            name: {figure: interval[0] for figure, interval in figures(group).items()} for name, group in groups.items()
        }
        by_category = Table(
            title="By category",
            columns=("category", "questions", *next(iter(means.values()))),
            rows=tuple((name or "none", len(groups[name]), *means[name].values()) for name in names),
        )
        return whole, by_category

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "prompter": self.prompter,
            "segmenter": self.segmenter,
            "questions": len(self.scores),
            "tables": [table.to_dict() for table in self.tables()],
            "odd": [asdict(odd) for odd in self.odd],
        }

    def markdown(self) -> str:
        """The result as a page."""
        about = (
            f"Prompter `{self.prompter[:12]}`, segmenter `{self.segmenter[:12]}`; 95 % intervals over resampled images."
        )
        odd = [f"* {one.item}: {one.reason}" for one in self.odd]
        parts = [about, *(table.markdown() for table in self.tables())]
        return "\n\n".join([*parts, *(["**Not used**\n\n" + "\n".join(odd)] if odd else [])]) + "\n"


def evaluate_dataset(
    dataset: Dataset,
    prompter: Prompter,
    segmenter: Segmenter,
    out: Path,
    *,
    on_progress: OnProgress = lambda what, done, total: None,
) -> DatasetResult:
    """Ask every question of a split, draw the answers, compare; figures, pictures and masks are left in `out`.

    What `out` holds of the same pair and the same questions, images and masks is not asked again.

    Raises
    ------
    ConfigError
        `out` holds the scores of something else, or there is nothing to ask.
    ModelError
        The prompter cannot answer.
    """
    about = {
        "dataset": dataset.name,
        "split": dataset.split,
        "data": dataset_digest(dataset),
        "prompter": prompter.digest,
        "template": prompter.template.digest,
        "segmenter": segmenter.digest,
        "frame_px": prompter.frame_px,
    }
    (out / "masks").mkdir(parents=True, exist_ok=True)
    scores = _known(out / "scores.jsonl", about, dataset.items)
    done = {score.item for score in scores}
    left, odd = [item for item in dataset.items if item.id not in done], list(dataset.odd)
    with (out / "scores.jsonl").open("a", encoding="utf-8") as log:
        for part in batched(left, BATCH):
            fresh = list(_scored(part, prompter, segmenter, out / "masks", odd))
            log.writelines(json.dumps(asdict(score)) + "\n" for score in fresh)
            log.flush()
            scores += fresh
            on_progress(dataset.split, len({score.item for score in scores}), len(dataset.items))
    if not scores:
        raise ConfigError(
            f"Nothing in {dataset.name} {dataset.split} can be asked about.",
            "Items need an image, a mask and a question.",
            "; ".join(f"{one.item}: {one.reason}" for one in odd[:3]),
        )
    result = DatasetResult(
        dataset=dataset.name,
        split=dataset.split,
        prompter=prompter.digest,
        segmenter=segmenter.digest,
        scores=tuple(sorted(scores, key=lambda score: (score.item, score.number))),
        odd=tuple(odd),
    )
    (out / "result.json").write_text(json.dumps(result.to_dict(), indent=2), encoding="utf-8")
    (out / "result.md").write_text(result.markdown(), encoding="utf-8")
    _draw_pictures(result, {item.id: item for item in dataset.items}, prompter.frame_px, out)
    return result


def load_pair(prompter: str, segmenter: str) -> tuple[Prompter, Segmenter]:
    """Load the pair that a command line names; raises ModelError when there are no such weights."""
    asks, draws = LocalPrompter(path=prompter), segmenter_named(segmenter)
    weights, others = prompter_weights(asks), segmenter_weights(draws)
    return (
        load_prompter(asks, weights.path, digest=weights.digest),
        load_segmenter(draws, others.path, digest=others.digest),
    )


def figures(scores: Sequence[Score]) -> dict[str, Interval]:
    """gIoU, cIoU, parse rate and no-target accuracy with 95 % intervals; NaN where there is nothing to average.

    Intervals are percentiles over images drawn with replacement (Efron's bootstrap), the same ones at every call.
    """
    items = {name: number for number, name in enumerate(sorted({score.item for score in scores}))}
    of = np.array([items[score.item] for score in scores])
    absent = np.array([score.truth_px == 0 for score in scores])
    columns = {
        "gIoU": ([score.iou for score in scores], np.ones(len(scores))),
        "cIoU": ([score.intersection_px for score in scores], [score.union_px for score in scores]),
        "parsed": ([score.status != "unparsable" for score in scores], np.ones(len(scores))),
        "no-target right": ([a and s.iou == 1 for a, s in zip(absent, scores, strict=True)], absent),
    }
    weights = np.random.default_rng(0).multinomial(len(items), [1 / len(items)] * len(items), _RESAMPLES)
    return {name: _interval(of, len(items), weights, *map(np.asarray, column)) for name, column in columns.items()}


def _interval(
    of: npt.NDArray[np.intp],
    n_items: int,
    weights: npt.NDArray[np.int64],
    above: npt.NDArray[Any],
    below: npt.NDArray[Any],
) -> Interval:
    """Ratio of sums of `above` over `below`, per question, and its interval under resampled images."""
    sums = [np.bincount(of, weights=part.astype(np.float64), minlength=n_items) for part in (above, below)]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = sums[0].sum() / sums[1].sum()
        resampled = (weights @ sums[0]) / (weights @ sums[1])
    if np.isnan(value):
        return float("nan"), float("nan"), float("nan")
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return float(value), float(low), float(high)


def _known(path: Path, about: dict[str, Any], items: Iterable[Item]) -> list[Score]:
    """Scores of whole items that an earlier evaluation left; the file's first line, written here, says of what."""
    head = json.dumps(about) + "\n"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    held, *lines = text.splitlines(keepends=True) or [head]
    if held != head:
        raise ConfigError(
            f"{path} holds scores of something else: {held.strip()}",
            "One folder holds the scores of one pair on the questions, images and masks of one split.",
            "Give another --out.",
        )
    found = [Score(**json.loads(line)) for line in lines if line.endswith("\n")]
    counts = Counter(score.item for score in found)
    whole = {item.id for item in items if counts[item.id] == len(item.questions)}
    kept = [score for score in found if score.item in whole]
    draft = path.with_suffix(".draft")
    draft.write_text(head + "".join(json.dumps(asdict(score)) + "\n" for score in kept), encoding="utf-8")
    draft.replace(path)
    return kept


def _scored(
    items: Sequence[Item], prompter: Prompter, segmenter: Segmenter, masks: Path, odd: list[Odd]
) -> Iterator[Score]:
    side = prompter.frame_px
    readable: list[tuple[Item, npt.NDArray[np.uint8], Mask, Mask | None]] = []
    for item in items:
        try:
            readable.append((item, item.pixels(side), item.truth(side), item.ignored(side)))
        except (OSError, ValueError) as error:
            odd.append(Odd(item=item.id, reason=f"cannot be read: {error}"))
    questions = list(dict.fromkeys(question for item, *_ in readable for question in item.questions))
    asks = [Ask(tile=image, questions=tuple(map(questions.index, item.questions))) for item, image, *_ in readable]
    replies = {(one.ask, one.question): one.reply for one in answers_of(prompter, asks, questions)}
    for index, (item, image, truth, ignored) in enumerate(readable):
        counted = np.ones_like(truth) if ignored is None else ~ignored
        answers = [_answer(replies[index, question], prompter) for question in asks[index].questions]
        prompts = [prompt for answer in answers for prompt in answer.instances]
        drawn = iter(segmenter.draw([image], [prompts])[0])
        for number, answer in enumerate(answers):
            mask = np.zeros((side, side), np.bool_)
            for _ in answer.instances:
                mask |= next(drawn).mask
            score = _score(item, number, answer, mask & counted, truth & counted)
            PilImage.fromarray(mask).save(masks / f"{score.key}.png")
            yield score


def _answer(reply: Reply, prompter: Prompter) -> Answer:
    return parse_answer(
        reply.text, frame_px=prompter.frame_px, finish=reply.finish, unknown_reasoning=prompter.unknown_reasoning
    )


def _score(item: Item, number: int, answer: Answer, mask: Mask, truth: Mask) -> Score:
    return Score(
        item=item.id,
        number=number,
        category=item.category,
        status=answer.status,
        instances=len(answer.instances),
        intersection_px=int(np.count_nonzero(mask & truth)),
        union_px=int(np.count_nonzero(mask | truth)),
        truth_px=int(np.count_nonzero(truth)),
    )


def _draw_pictures(result: DatasetResult, items: dict[str, Item], side: int, out: Path) -> None:
    """Outlines of the best answers whose target is there, and of the worst of all."""
    best = sorted((score for score in result.scores if score.truth_px), key=lambda score: -score.iou)
    worst = sorted(result.scores, key=lambda score: score.iou)
    for kind, chosen in (("best", best), ("worst", worst)):
        for rank, score in enumerate(_named(chosen, items)):
            item = items[score.item]
            with PilImage.open(out / "masks" / f"{score.key}.png") as picture:
                mask = np.array(picture, dtype=np.bool_)
            drawn = outlined(item.pixels(side), mask, item.truth(side))
            PilImage.fromarray(drawn).save(out / f"{kind}-{rank + 1:02d}-{score.key}.png")


def _named(scores: Iterable[Score], items: dict[str, Item]) -> list[Score]:
    return [score for score in scores if score.item in items][:PICTURES]
