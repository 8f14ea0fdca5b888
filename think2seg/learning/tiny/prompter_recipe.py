"""Model, stages, quick looks and export of the small prompter."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration

from think2seg.learning.evaluate import Sample, ask_with, evaluate_pair, summarise, summarise_by
from think2seg.learning.run import Metrics, Stage
from think2seg.learning.settings import PrompterSettings
from think2seg.learning.tiny.anchors import FRAME_PX, anchor_instances
from think2seg.learning.tiny.answers import MAX_INSTANCES, choose_questions, corpus
from think2seg.learning.tiny.architecture import PrompterArchitecture, build_processor, build_prompter
from think2seg.learning.tiny.encode import Prefix
from think2seg.learning.tiny.prompter import (
    AnswerStage,
    PolishStage,
    PrompterModules,
    WarmUpStage,
    evaluate_dense,
    stage_batches,
)
from think2seg.learning.tiny.source import MixedSource
from think2seg.learning.tiny.vocabulary import UNKNOWN_REASONING, Vocabulary, build_tokenizer
from think2seg.prompting.template import Template, load_template
from think2seg.samples.labelled import LabelledImage, Split
from think2seg.samples.phrasings import QUESTION_CONCEPTS

MAX_NEW_TOKENS = 24 + 12 * MAX_INSTANCES
"""Enough for the longest answer that is taught."""


class PrompterRecipe:
    """What `think2seg.learning.train` needs to train a small prompter."""

    def __init__(
        self, settings: PrompterSettings, source: MixedSource, held_out: Mapping[str, list[LabelledImage]]
    ) -> None:
        self._settings = settings
        self._held_out = held_out
        self._template = load_template(settings.template)
        architecture = PrompterArchitecture.from_mapping(settings.architecture)
        if settings.start is None:
            self._vocabulary = run_vocabulary(settings.folder / "tokenizer.json", self._template)
            model = build_prompter(architecture, self._vocabulary, seed=settings.seed)
        else:
            self._vocabulary = Vocabulary(Tokenizer.from_file(str(settings.start / "tokenizer.json")))
            model = Qwen2_5_VLForConditionalGeneration.from_pretrained(settings.start, dtype=torch.float32)
        self._processor = build_processor(self._vocabulary, patch_px=architecture.patch_px)
        self._modules = PrompterModules.of(model)
        self.modules = self._modules.named()
        self._prefix = Prefix.of(self._template.system, self._vocabulary)
        warm_up, answers, *polish = stage_batches(settings, source, self._vocabulary, self._template)
        common = (self._modules, self._prefix, settings)
        stages: list[Stage] = [
            WarmUpStage(*common, warm_up, settings.warm_up, self._look_at_cells),
            AnswerStage(*common, answers, settings.answers, self._look_at_answers),
        ]
        for batches in polish:
            assert settings.polish is not None
            stages.append(PolishStage(*common, batches, settings.polish, self._look_at_answers))
        self.stages: Sequence[Stage] = stages

    def _look_at_cells(self) -> Metrics:
        """How well the image tokens of held-out images know their cells."""
        return {
            f"{name}_{figure}": value
            for name, images in self._held_out.items()
            for figure, value in evaluate_dense(self._modules, self._prefix, images).items()
        }

    def _look_at_answers(self) -> Metrics:
        """Box figures of answers on held-out images: trained phrasings, then held-out ones, then real tiles."""
        scenes = self._held_out["simulated"]
        sets: dict[str, list[Sample]] = {
            "simulated": questions_about(scenes, split="train"),
            "unseen_phrasings": questions_about(scenes, split="held_out"),
        }
        for name, images in self._held_out.items():
            sets.setdefault(name, questions_about(images, split="held_out"))
        model = self._modules.model.eval()
        ask = ask_with(model, self._processor, self._template, max_new_tokens=MAX_NEW_TOKENS)
        figures: Metrics = {}
        for name, samples in sets.items():
            outcomes = evaluate_pair(samples, ask, None, unknown_reasoning=UNKNOWN_REASONING)
            summary = summarise(outcomes)
            for figure in ("g_iou", "present_g_iou", "parse_rate", "no_target_accuracy", "count_error"):
                figures[f"{name}_{figure}"] = getattr(summary, figure)
            if name == "simulated":
                per_concept = summarise_by((o for o in outcomes if o.true), lambda outcome: outcome.concept)
                figures |= {f"g_iou_{concept.replace(' ', '_')}": s.g_iou for concept, s in per_concept.items()}
            if name == "unseen_phrasings":
                figures |= {"unknown_accuracy": summary.unknown_accuracy, "false_unknown": summary.false_unknown}
        return {name: value for name, value in figures.items() if not np.isnan(value)}

    def export(self, folder: Path) -> None:
        """Write a prompter folder in half precision, complete with processor, chat template and description."""
        copy.deepcopy(self._modules.model).half().save_pretrained(folder)
        self._processor.save_pretrained(folder)
        description = {
            "frame_px": FRAME_PX,
            "template": self._settings.template,
            "footprint_m": list(self._settings.footprint_m),
            "concepts": list(QUESTION_CONCEPTS),
            "unknown_reasoning": UNKNOWN_REASONING,
            "max_new_tokens": MAX_NEW_TOKENS,
        }
        (folder / "think2seg.json").write_text(json.dumps(description, indent=2) + "\n")


def run_vocabulary(path: Path, template: Template) -> Vocabulary:
    """The vocabulary of a run, learnt once and kept beside its checkpoint: new phrasings would renumber it."""
    if path.exists():
        return Vocabulary(Tokenizer.from_file(str(path)))
    tokenizer = build_tokenizer(corpus(template))
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return Vocabulary(tokenizer)


def questions_about(
    images: Sequence[LabelledImage], *, split: Split, seed: int = 0, absent: float = 0.2, unknown: float = 0.08
) -> list[Sample]:
    """One question about each image, the same for the same seed."""
    rng = np.random.default_rng(seed)
    samples = []
    for image in images:
        anchored = anchor_instances(image.instances)
        (question,) = choose_questions(
            image, anchored, rng, n=1, absent_share=absent, unknown_share=unknown, split=split
        )
        samples.append(Sample(image=image, question=question))
    return samples
