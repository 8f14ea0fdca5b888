"""The two stages of the prompter's training: dense warm-up of the image tokens, then supervised answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import batched

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2_5_VLForConditionalGeneration

from think2seg.learning.optim import Optimisers, Rates
from think2seg.learning.precision import in_bfloat16
from think2seg.learning.run import Metrics, prefetch
from think2seg.learning.settings import PrompterSettings, StageSettings, WarmUpSettings
from think2seg.learning.tiny.anchors import FRAME_PX, anchor_instances
from think2seg.learning.tiny.dense import DenseHeads, dense_targets
from think2seg.learning.tiny.encode import PackedText, Prefix, PrompterBatch, PrompterBatches
from think2seg.learning.tiny.forward import PackedForward
from think2seg.learning.tiny.source import MixedSource, PlainSource
from think2seg.learning.tiny.vocabulary import Role, Vocabulary
from think2seg.prompting.template import Template
from think2seg.samples.labelled import LabelledImage

TAP = 3
"""Language layer after which the image tokens are supervised densely."""
VISION_WEIGHT = 0.5
PRESENCE_WEIGHT = 1.0
SPREAD_PX = 1.5
"""Standard deviation of the soft targets of coordinate tokens."""
NOT_MATRICES = ("embed", "lm_head")


@dataclass(frozen=True, kw_only=True)
class PrompterModules:
    """The model in training and its throw-away heads."""

    model: Qwen2_5_VLForConditionalGeneration
    language_heads: DenseHeads
    vision_heads: DenseHeads

    @classmethod
    def of(cls, model: Qwen2_5_VLForConditionalGeneration) -> PrompterModules:
        """Fresh heads for a model."""
        width = model.config.text_config.hidden_size
        return cls(
            model=model,
            language_heads=DenseHeads(width, relative=False),
            vision_heads=DenseHeads(width, relative=True),
        )

    def named(self) -> dict[str, nn.Module]:
        """Modules by the names they have in checkpoints."""
        return {"model": self.model, "language_heads": self.language_heads, "vision_heads": self.vision_heads}


class AnswerLoss:
    """Loss of the answers' tokens, averaged for every role separately so that none drowns in another."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._number_ids = torch.from_numpy(vocabulary.number_ids)
        self._number_of_id = torch.from_numpy(vocabulary.number_of_id)
        values = torch.arange(FRAME_PX + 1, dtype=torch.float32)
        self._soft = torch.softmax(-0.5 * ((values[None] - values[:, None]) / SPREAD_PX) ** 2, dim=-1)
        self._entropy = -(self._soft * (self._soft + 1e-12).log()).sum(-1)
        self._has_comma = torch.zeros(len(vocabulary), dtype=torch.int64)
        self._has_comma[self._number_ids[1]] = 1

    def __call__(self, logits: Tensor, labels: Tensor, roles: Tensor) -> tuple[Tensor, Metrics]:
        """Loss for logits (n, vocabulary) float32 and labels, roles (n,)."""
        log_share = logits.log_softmax(-1)
        losses = F.nll_loss(log_share, labels, reduction="none")
        hit = (log_share.detach().argmax(-1) == labels).float()
        structure, decision, presence = (
            _mean(losses[roles == role]) for role in (Role.STRUCTURE, Role.DECISION, Role.PRESENCE)
        )
        coordinate, error = self._coordinates(log_share[roles == Role.COORDINATE], labels[roles == Role.COORDINATE])
        loss = structure + coordinate + decision + PRESENCE_WEIGHT * presence
        return loss, {
            "structure": structure.item(),
            "coordinate": coordinate.item(),
            "decision": decision.item(),
            "presence": presence.item(),
            "coordinate_error_px": error,
            "decision_right": _mean(hit[roles == Role.DECISION]).item(),
            "presence_right": _mean(hit[roles == Role.PRESENCE]).item(),
        }

    def _coordinates(self, log_share: Tensor, labels: Tensor) -> tuple[Tensor, float]:
        """Cross-entropy with a Gaussian around the true value, less its entropy; mean error of the likeliest value."""
        values = self._number_of_id[labels]
        of_kind = log_share.gather(1, self._number_ids[self._has_comma[labels]])
        losses = -(self._soft[values] * of_kind).sum(-1) - self._entropy[values]
        error = (of_kind.detach().argmax(-1) - values).abs().float()
        return _mean(losses), _mean(error).item()


def _mean(values: Tensor) -> Tensor:
    return values.mean() if len(values) else values.sum()


class _PrompterStage:
    """What both stages share."""

    name = ""

    def __init__(
        self,
        modules: PrompterModules,
        prefix: Prefix,
        settings: PrompterSettings,
        batches: PrompterBatches,
        stage: StageSettings,
        evaluate: Callable[[], Metrics],
    ) -> None:
        self.steps, self.images, self.floor = stage.steps, stage.images, stage.floor
        self._modules = modules
        self._batches = batches
        self._settings = settings
        self._evaluate = evaluate
        self._forward = PackedForward(modules.model, prefix)
        self._loss = AnswerLoss(batches.vocabulary)
        self._heads_only = isinstance(stage, WarmUpSettings) and stage.heads_only
        taught = [module for name, module in modules.named().items() if not (self._heads_only and name == "model")]
        self._bfloat16 = in_bfloat16(settings.bfloat16)
        rates = Rates(**stage.rates.model_dump())
        self.optimisers = Optimisers(taught, rates, is_matrix=_is_matrix, bfloat16=self._bfloat16)

    def batches(self, start: int) -> Iterator[PrompterBatch]:
        """Batches from step `start` on."""
        return prefetch(self._batches, start=start, stop=self.steps, workers=self._settings.workers)

    def evaluate(self) -> Metrics:
        """Figures on held-out scenes."""
        return self._evaluate()

    def _dense_loss(self, features: Tensor, tapped: Tensor, batch: PrompterBatch) -> tuple[Tensor, Metrics]:
        """Loss of both dense heads and its parts."""
        loss, metrics = self._modules.language_heads(tapped, batch.dense)
        vision_loss, vision_metrics = self._modules.vision_heads(features, batch.dense)
        return loss + VISION_WEIGHT * vision_loss, {**metrics, "vision_box": vision_metrics["box"]}

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16)


class WarmUpStage(_PrompterStage):
    """Dense supervision of the image tokens, through the first language layers only."""

    name = "warm-up"

    def update(self, batch: PrompterBatch, scale: float) -> Metrics:
        """One step; returns its losses."""
        self._modules.model.train()
        with self._autocast(), torch.set_grad_enabled(not self._heads_only):
            features = self._forward.image_features(batch.images)
            tapped, _ = self._forward.states(features, None, tap=TAP, layers=TAP)
        loss, metrics = self._dense_loss(features, tapped, batch)
        return {"loss": loss.item(), **metrics, "gradient": self.optimisers.update(loss, scale)}


class AnswerStage(_PrompterStage):
    """Supervised answers, with the dense supervision kept on."""

    name = "answers"

    def update(self, batch: PrompterBatch, scale: float) -> Metrics:
        """One step; returns its losses."""
        if batch.text is None:
            raise ValueError("batches of the answer stage must hold text")
        self._modules.model.train()
        tapped, answers = [], []
        with self._autocast():
            features = self._forward.image_features(batch.images)
            for rows in halves(len(features)):
                text = batch.text.rows(rows)
                image_states, states = self._forward.states(features[rows], text, tap=TAP)
                tapped.append(image_states)
                answers.append(answer_logits(self._modules.model, states, text))
        dense_loss, metrics = self._dense_loss(features, torch.cat(tapped), batch)
        answer_loss, answer_metrics = self._loss(*(torch.cat(parts) for parts in zip(*answers, strict=True)))
        loss = dense_loss + answer_loss
        gradient = self.optimisers.update(loss, scale)
        return {"loss": loss.item(), **metrics, **answer_metrics, "gradient": gradient}


class PolishStage(AnswerStage):
    """The same on another mixture, at lower rates."""

    name = "polish"


def halves(n: int) -> tuple[slice, ...]:
    """The first and the second half of `n` rows: sorted by length, each is padded to its own longest row only."""
    return (slice(0, n // 2), slice(n // 2, n)) if n > 1 else (slice(0, n),)


def answer_logits(
    model: Qwen2_5_VLForConditionalGeneration, states: Tensor, text: PackedText
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (n, vocabulary) float32 of the answers' tokens alone, with their labels and roles (n,)."""
    learnt = text.labels >= 0
    with torch.autocast("cpu", enabled=False):
        logits: Tensor = model.lm_head(states[learnt].float())
    return logits, text.labels[learnt], text.roles[learnt]


def _is_matrix(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and name.startswith("model.") and not any(part in name for part in NOT_MATRICES)


def stage_batches(
    settings: PrompterSettings, source: MixedSource, vocabulary: Vocabulary, template: Template
) -> tuple[PrompterBatches, ...]:
    """Batches of the warm-up, of the answers, and of their polish where there is one."""
    warm_up = PrompterBatches(
        source=PlainSource() if settings.warm_up.plain else source,
        vocabulary=vocabulary,
        template=template,
        seed=settings.seed,
        stage=WarmUpStage.name,
        images=settings.warm_up.images,
        questions=0,
    )
    answers = [
        replace(
            warm_up,
            source=source if stage.real_share is None else replace(source, real_share=stage.real_share),
            stage=kind.name,
            images=stage.images,
            questions=stage.questions,
            absent=stage.absent,
            unknown=stage.unknown,
        )
        for kind, stage in ((AnswerStage, settings.answers), (PolishStage, settings.polish))
        if stage is not None
    ]
    return warm_up, *answers


@torch.no_grad()
def evaluate_dense(modules: PrompterModules, prefix: Prefix, images: Sequence[LabelledImage]) -> Metrics:
    """Mean box IoU that the cells of images state, by the language model's tokens and by the vision tower's."""
    modules.model.eval()
    forward = PackedForward(modules.model, prefix)
    found: list[list[float]] = []
    for part in batched(images, 25):
        targets = dense_targets((image.labelled, anchor_instances(image.instances)) for image in part)
        features = forward.image_features(torch.from_numpy(np.stack([image.image for image in part])))
        tapped, _ = forward.states(features, None, tap=TAP, layers=TAP)
        heads = (modules.language_heads, tapped), (modules.vision_heads, features)
        found.append([head.box_iou(state, targets) for head, state in heads])
    language, vision = np.mean(found, axis=0)
    return {"cell_box_iou": float(language), "vision_cell_box_iou": float(vision)}
