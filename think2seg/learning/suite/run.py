"""The parts of the suite, run one after another, and what comes of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from think2seg.config import LocalPrompter, SamSegmenter
from think2seg.errors import ConfigError
from think2seg.learning.evaluate import Outcome, Sample, summarise_by
from think2seg.learning.suite import alone, wetlands
from think2seg.learning.suite.asking import Case, OnProgress, ask_and_draw, balanced_questions, questions_for
from think2seg.learning.suite.baselines import Threshold, baseline_outcomes, fit_thresholds
from think2seg.learning.suite.calibration import Platt, draw_reliability, fit_platt, reliability
from think2seg.learning.suite.sheet import best_and_worst, contact_sheet
from think2seg.learning.suite.tables import Table, compared_table, per_concept_table, summary_table
from think2seg.prompting import Prompter, load_prompter
from think2seg.prompting.folder import DESCRIPTION
from think2seg.registry import prompter_weights, resolve, weights_digest
from think2seg.samples.labelled import LabelledImage, Split
from think2seg.samples.phrasings import phrasings
from think2seg.samples.real import load_tiles
from think2seg.samples.simulate import simulate
from think2seg.segmentation import Segmenter, load_segmenter

PARTS = ("simulated", "wetlands", "real", "segmenter", "sampled")
FIRST_SCENE = 2**31
"""Held-out scenes are numbered from here; training never reaches it."""
CALIBRATION_SCENE = 2**31 + 2**20
"""Scenes from here on fit the correction of presence; none of them is scored."""
WETLAND_QUESTIONS = ("water bodies", "lakes, ponds and rivers", "where would you get wet feet?")
"""The monitor's own question and two phrasings that were never trained on."""
REAL = {"farmland-naip": "farmland", "oam-buildings": "building", "romania": "clearing", "brandenburg": "lake"}
"""Held-out sources beside the wetlands, and what is asked of them."""
ABSENT, UNKNOWN = 0.25, 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult:
    """Everything the suite found."""

    prompter: str
    """Digest of the weights."""
    segmenter: str
    tables: tuple[Table, ...]
    platt: Platt | None
    """Correction of presence, fitted on scenes of its own."""
    out: Path
    """Folder of the tables, pictures and cubes."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "prompter": self.prompter,
            "segmenter": self.segmenter,
            "presence": None if self.platt is None else {"scale": self.platt.scale, "bias": self.platt.bias},
            "tables": [table.to_dict() for table in self.tables],
            "out": str(self.out),
        }

    def markdown(self) -> str:
        """All tables, one after another."""
        head = f"Prompter `{self.prompter}`, segmenter `{self.segmenter}`.\n"
        return "\n\n".join([head, *(table.markdown() for table in self.tables)]) + "\n"


@dataclass(slots=True, kw_only=True)
class _Suite:
    prompter: Prompter
    prompter_path: str
    segmenter: Segmenter
    segmenter_path: str
    out: Path
    data: Path | None
    wheels: Path | None
    scenes: int
    views: int
    on_progress: OnProgress
    tables: list[Table] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    platt: Platt | None = None

    def simulated(self) -> None:
        """Scenes never trained on, asked in words never trained on."""
        images = [simulate(FIRST_SCENE + index) for index in range(self.scenes)]
        samples = balanced_questions(images, seed=0, absent=ABSENT, unknown=UNKNOWN)
        cases = self._asked(samples, "simulated")
        thresholds = self._thresholds([simulate(index) for index in range(self.scenes)])
        outcomes: dict[str, Sequence[Outcome]] = {"pair": [case.outcome for case in cases]}
        outcomes |= baseline_outcomes(samples, thresholds)
        self.tables += [
            compared_table(f"{self.scenes} simulated held-out scenes, held-out phrasings", outcomes),
            per_concept_table(outcomes),
            summary_table("By kind of phrasing", summarise_by(outcomes["pair"], lambda o: o.kind)),
        ]
        self._sheets("simulated", cases)
        self._presence(cases)

    def _asked(self, samples: Sequence[Sample], title: str) -> list[Case]:
        return ask_and_draw(
            samples, self.prompter, self.segmenter, views=self.views, title=title, on_progress=self.on_progress
        )

    def _thresholds(self, images: Sequence[LabelledImage]) -> dict[str, Threshold]:
        self.on_progress("baselines", 0, 1)
        return fit_thresholds(images)

    def _presence(self, cases: Sequence[Case]) -> None:
        """Fit the correction of presence on scenes of its own, and show it on the scored ones."""
        images = [simulate(CALIBRATION_SCENE + index) for index in range(self.scenes)]
        samples = balanced_questions(images, seed=1, absent=ABSENT, unknown=UNKNOWN)
        fitting = self._asked(samples, "presence")
        self.platt = fit_platt(*_presence_of(fitting))
        stated, true = _presence_of(cases)
        raw, corrected = reliability(stated, true), reliability(self.platt(stated), true)
        draw_reliability({"presence as stated": raw, "presence corrected": corrected}, self.out / "presence.png")
        self.tables.append(
            Table(
                title="Presence: P(something is there) against what is",
                columns=("", "expected calibration error", "Brier score"),
                rows=(
                    ("as stated", raw.error, float(np.mean((stated - true) ** 2))),
                    ("corrected", corrected.error, float(np.mean((self.platt(stated) - true) ** 2))),
                ),
            )
        )

    def wetlands(self) -> None:
        """The embedded wetlands' held-out half through the whole chain."""
        scores = wetlands.score_questions(
            WETLAND_QUESTIONS, self.out, prompter=self.prompter_path, segmenter=self.segmenter_path, views=self.views,
            on_progress=self.on_progress,
        )  # fmt: skip
        first = self.out / "wetlands-0.zarr"
        scores += wetlands.score_baselines(first)
        wetlands.draw(first, self.out / "wetlands.png")
        self.tables += [
            Table(
                title="nd-wetlands, held-out half, ten dates, true colour (baselines on the same pixels)",
                columns=("", "mean IoU", "area correlation", "seam ratio"),
                rows=tuple(
                    (s.question, s.mean_iou, s.area_correlation, float("nan") if s.seam_ratio is None else s.seam_ratio)
                    for s in scores
                ),
            ),
            Table(
                title="nd-wetlands by date: IoU, and area in hectares",
                columns=("", "IoU", "area", "reference area"),
                rows=tuple(
                    (date, iou, round(area), round(reference))
                    for date, iou, area, reference in zip(
                        scores[0].dates, scores[0].iou, scores[0].area_ha, scores[0].reference_ha, strict=True
                    )
                ),
            ),
        ]

    def real(self) -> None:
        """Held-out tiles of the other open imagery, as far as it is at hand."""
        rows: dict[str, Sequence[Outcome]] = {}
        for source, concept in REAL.items():
            images = self._tiles(source, "held_out")
            (phrasing, *_) = phrasings(concept, "held_out")
            samples = questions_for(images, phrasing)
            cases = self._asked(samples, source)
            thresholds = self._thresholds(self._tiles(source, "train"))
            rows[f"{source}: pair"] = [case.outcome for case in cases]
            named = baseline_outcomes(samples, thresholds)
            rows |= {f"{source}: {name} ({thresholds[concept]})" if "colour" in name else f"{source}: {name}": found
                     for name, found in named.items()}  # fmt: skip
            self._sheets(source, cases)
        self.tables.append(compared_table("Real held-out tiles, one held-out phrasing of each concept", rows))

    def _tiles(self, source: str, split: Split) -> list[LabelledImage]:
        assert self.data is not None
        tiles = load_tiles(self.data, split=split, seed=1, n=self.scenes // 4, sources=[source], wheels=self.wheels)
        return list(tiles)

    def alone(self) -> None:
        """The segmenter with true boxes and points."""
        images = [simulate(FIRST_SCENE + index) for index in range(self.scenes // 2)]
        if self.data is not None:
            images += load_tiles(self.data, split="held_out", seed=1, n=self.scenes // 2, sources=["naip-wetlands"])
        drawn = alone.draw_alone(images, self.segmenter, on_progress=self.on_progress)
        groups: dict[str, list[alone.DrawnAlone]] = {}
        for one in drawn:
            groups.setdefault(one.source, []).append(one)
            if one.source == "simulated":
                groups.setdefault(f"simulated: {one.concept}", []).append(one)
        curves = {
            source: reliability(np.array([d.score for d in found]), np.array([d.iou for d in found]))
            for source, found in groups.items()
            if ":" not in source
        }
        draw_reliability({f"IoU head, {name}": curve for name, curve in curves.items()}, self.out / "score.png")
        self.tables.append(
            Table(
                title="The segmenter alone, true boxes and points",
                columns=("", "instances", "IoU", "IoU it states", "mean error of what it states"),
                rows=tuple(
                    (name, len(found), float(np.mean([d.iou for d in found])), float(np.mean([d.score for d in found])),
                     float(np.mean([abs(d.score - d.iou) for d in found])))
                    for name, found in sorted(groups.items())
                ),
            )
        )  # fmt: skip

    def sampled(self) -> None:
        """What answers sampled at temperature 1 could teach."""
        images = [simulate(index) for index in range(64)]
        samples = balanced_questions(images, seed=2, absent=ABSENT, unknown=0.0)
        found = alone.sample_answers(
            samples, resolve("prompter", self.prompter_path), self.segmenter, rollouts=8, seed=0,
            on_progress=self.on_progress,
        )  # fmt: skip
        self.tables.append(
            Table(
                title="64 training scenes, 8 answers each at temperature 1",
                columns=("", "mean IoU", "best of 8", "parsed", "questions whose answers vary"),
                rows=(("sampled", found.mean, found.best, found.parse_rate, found.varied),),
            )
        )

    def _sheets(self, name: str, cases: Sequence[Case]) -> None:
        best, worst = best_and_worst(cases)
        contact_sheet(best, self.out / f"{name}-best.png")
        contact_sheet(worst, self.out / f"{name}-worst.png")


def run_suite(
    out: Path,
    *,
    prompter: str = "champion",
    segmenter: str = "bundled",
    parts: Collection[str] = PARTS,
    scenes: int = 400,
    views: int = 1,
    data: Path | None = None,
    wheels: Path | None = None,
    on_progress: OnProgress = lambda *_: None,
) -> SuiteResult:
    """Evaluate a pair of weights and write tables (`report.md`, `report.json`) and pictures into `out`.

    Parameters
    ----------
    prompter, segmenter
        As a monitor's `models.*.path`.
    parts
        Out of `PARTS`; *real* needs `data` and is left out without it.
    scenes
        Simulated scenes to ask about; real tiles and training images of the baselines in proportion.
    views
        In how many views every image is asked about, as `tile.views` of a monitor.
    data, wheels
        Folders as `think2seg.samples.real.load_tiles` takes them.

    Raises
    ------
    ConfigError
        For an unknown part.
    Think2SegError
        When weights or imagery cannot be used.
    """
    if unknown := sorted(set(parts) - set(PARTS)):
        raise ConfigError(f"part {unknown[0]!r}", f"some of {', '.join(PARTS)}", "Name parts of this list.")
    out.mkdir(parents=True, exist_ok=True)
    paths = resolve("prompter", prompter), resolve("segmenter", segmenter)
    digests = [weights_digest(path) for path in paths]
    suite = _Suite(
        prompter=load_prompter(LocalPrompter(path=prompter, batch=8, dtype="float32"), paths[0], digest=digests[0]),
        prompter_path=prompter,
        segmenter=load_segmenter(SamSegmenter(path=segmenter, dtype="float32"), paths[1], digest=digests[1]),
        segmenter_path=segmenter,
        out=out,
        data=data,
        wheels=wheels,
        scenes=scenes,
        views=views,
        on_progress=on_progress,
    )
    steps = {"segmenter": suite.alone, **{name: getattr(suite, name) for name in PARTS if name != "segmenter"}}
    for part in PARTS:
        if part in parts and (part != "real" or data is not None):
            steps[part]()
    result = SuiteResult(
        prompter=digests[0], segmenter=digests[1], tables=tuple(suite.tables), platt=suite.platt, out=out
    )
    (out / "report.md").write_text(result.markdown())
    (out / "report.json").write_text(json.dumps(result.to_dict(), indent=2) + "\n")
    return result


def correctable(prompter: str) -> Path:
    """The folder of a prompter whose presence may be corrected; `prompter` as a monitor's `models.prompter.path`.

    Raises ConfigError for a registered version, ModelError when there are no such weights.
    """
    weights = prompter_weights(LocalPrompter(path=prompter))
    if weights.version:
        raise ConfigError(
            f"--calibrate {prompter}, which is {weights.version}",
            "Registered weights never change.",
            "Calibrate the folder before registering it: --prompter FOLDER.",
        )
    assert weights.path is not None
    return weights.path


def write_calibration(folder: Path, platt: Platt) -> None:
    """Put the correction of presence into a prompter folder's description, on top of the one that is there."""
    path = folder / DESCRIPTION
    description = json.loads(path.read_text())
    before = description.get("presence", {"scale": 1.0, "bias": 0.0})
    description["presence"] = {
        "scale": round(platt.scale * before["scale"], 4),
        "bias": round(platt.scale * before["bias"] + platt.bias, 4),
    }
    path.write_text(json.dumps(description, indent=2) + "\n")


def _presence_of(cases: Sequence[Case]) -> tuple[np.ndarray, np.ndarray]:
    """Stated presence and whether the target is there, of the questions of the vocabulary."""
    told = [case for case in cases if case.reply.presence is not None and case.outcome.concept is not None]
    stated = np.array([case.reply.presence for case in told], np.float64)
    return stated, np.array([float(case.outcome.true > 0) for case in told])
