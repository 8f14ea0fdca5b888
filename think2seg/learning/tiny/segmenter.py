"""Training of the small segmenter: prompts as the prompter gives them, masks, and a score that means what it says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from think2seg.learning.optim import Optimisers, Rates
from think2seg.learning.precision import in_bfloat16
from think2seg.learning.run import Metrics, Stage, prefetch
from think2seg.learning.tiny.anchors import FRAME_PX, MIN_AREA_PX, inner_points
from think2seg.learning.tiny.source import Source, batch_generator
from think2seg.samples.labelled import LabelledImage, Mask
from think2seg.segmentation.architecture import (
    FOLDER_FILE,
    WEIGHTS_FILE,
    SamArchitecture,
    build_sam,
    described,
    load_sam_folder,
)
from think2seg.segmentation.attention import quicken_training
from think2seg.segmentation.decoding import EncodedImages, decode_prompts

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from think2seg.learning.settings import SegmenterSettings

BOX_JITTER = 0.06
"""Standard deviation of a box edge, in sides of the box: what the prompter errs by."""
WIDE_JITTER = 0.12
"""The same for the share WIDE_SHARE of prompts that are worse."""
WIDE_SHARE = 0.2
POINT_JITTER_PX = 2.0
NOT_MATRICES = ("pos_embed", "rel_pos", "token", "embeddings", "no_mask", "patch_embed")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskBatch:
    """Images and the instances to draw in them."""

    images: Tensor
    """(b, 3, y, x) uint8."""
    boxes: Tensor
    """(n, 4) float32 xyxy pixels."""
    points: Tensor
    """(n, 2, 2) float32 xy pixels."""
    masks: Tensor
    """(n, y, x) bool."""
    valid: Tensor
    """(b, y, x) bool, pixels whose label counts."""
    owner: Tensor
    """(n,) int64, index of the image of each instance."""
    concepts: tuple[str, ...]


def jittered_prompts(
    mask: Mask, rng: np.random.Generator | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Box (4,) and points (2, 2) of a mask; with a generator they err as the prompter does."""
    ys, xs = np.nonzero(mask)
    box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32)
    points = np.array(inner_points(xs, ys, box.tolist()), np.float32)
    if rng is None:
        return box, points
    sides = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    spread = WIDE_JITTER if rng.random() < WIDE_SHARE else BOX_JITTER
    moved = np.clip(box + rng.normal(0, 1, 4) * np.maximum(spread * sides, 0.7), 0, FRAME_PX)
    low = np.minimum(moved[:2], FRAME_PX - 2)
    box = np.concatenate([low, np.maximum(moved[2:], low + 2)]).astype(np.float32)
    if rng.random() < 0.5:
        drawn = rng.integers(0, len(xs), 2)
        points = np.stack([xs[drawn], ys[drawn]], axis=1).astype(np.float32)
    shaken = points + rng.normal(0, POINT_JITTER_PX, (2, 2)) * (rng.random() < 0.8)
    return box, np.clip(shaken, 0, FRAME_PX).astype(np.float32)


def encode_masks(
    images: Iterable[LabelledImage], *, instances: int, rng: np.random.Generator | None = None
) -> MaskBatch:
    """Up to `instances` instances of every image; a generator chooses and jitters them, None takes the first."""
    pixels, valid, boxes, points, masks, owner, concepts = [], [], [], [], [], [], []
    for index, image in enumerate(images):
        large = [i for i in image.instances if np.count_nonzero(i.mask) >= MIN_AREA_PX]
        order = range(len(large)) if rng is None else rng.permutation(len(large))
        for chosen in list(order)[:instances]:
            box, pair = jittered_prompts(large[chosen].mask, rng)
            boxes.append(box)
            points.append(pair)
            masks.append(large[chosen].mask)
            owner.append(index)
            concepts.append(large[chosen].concept)
        pixels.append(np.ascontiguousarray(image.image.transpose(2, 0, 1)))
        valid.append(np.ones(image.image.shape[:2], np.bool_) if image.ignore is None else ~image.ignore)
    return MaskBatch(
        images=torch.from_numpy(np.stack(pixels)),
        boxes=torch.from_numpy(np.stack(boxes)),
        points=torch.from_numpy(np.stack(points)),
        masks=torch.from_numpy(np.stack(masks)),
        valid=torch.from_numpy(np.stack(valid)),
        owner=torch.tensor(owner),
        concepts=tuple(concepts),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskBatches:
    """Makes the batch of a step; picklable, so that a background process can do it."""

    source: Source
    seed: int
    images: int
    instances: int

    def __call__(self, step: int) -> MaskBatch:
        """The batch of `step`: images without an instance are drawn again."""
        rng = batch_generator(self.seed, "segmenter", step)
        chosen: list[LabelledImage] = []
        while len(chosen) < self.images:
            image = self.source.draw(rng)
            if any(np.count_nonzero(i.mask) >= MIN_AREA_PX for i in image.instances):
                chosen.append(image)
        return encode_masks(chosen, instances=self.instances, rng=rng)


def draw(sam: Sam, batch: MaskBatch) -> tuple[Tensor, Tensor]:
    """Mask logits (n, h, w) and predicted IoU (n,) of every instance of a batch, float32."""
    images = EncodedImages.of(sam, sam.image_encoder(sam.preprocess(batch.images.float())))
    logits, scores = decode_prompts(sam, images.at(batch.owner), boxes=batch.boxes, points=batch.points)
    return logits.float(), scores.float()


def mask_iou(logits: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
    """IoU (n,) of the drawn masks with the true ones at full resolution, over valid pixels."""
    drawn = F.interpolate(logits[:, None], masks.shape[-2:], mode="bilinear")[:, 0] > 0
    both = (drawn & masks & valid).flatten(1).sum(1)
    either = ((drawn | masks) & valid).flatten(1).sum(1)
    return both / either.clamp(min=1)


def mask_loss(logits: Tensor, scores: Tensor, batch: MaskBatch) -> tuple[Tensor, Metrics]:
    """Focal-like loss × 10, dice, and the squared error of the predicted IoU.

    Source of the focal form: T.-Y. Lin et al., Focal loss (2017), with the weight |p − t|^1.5.
    """
    size = logits.shape[-2:]
    truth = F.interpolate(batch.masks[:, None].float(), size, mode="bilinear", antialias=True)[:, 0]
    weight = F.interpolate(batch.valid[:, None].float(), size, mode="bilinear", antialias=True)[batch.owner, 0]
    share = logits.sigmoid()
    cross = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * (share - truth).abs() ** 1.5
    focal = (cross * weight).mean((1, 2))
    overlap = (share * truth * weight).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (((share + truth) * weight).sum((1, 2)) + 1)
    iou = mask_iou(logits.detach(), batch.masks, batch.valid[batch.owner])
    calibration = F.mse_loss(scores, iou)
    loss = (10 * focal + dice).mean() + calibration
    return loss, {
        "loss": loss.item(),
        "focal": focal.mean().item(),
        "dice": dice.mean().item(),
        "iou": iou.mean().item(),
        "score_error": (scores.detach() - iou).abs().mean().item(),
    }


class SegmenterStage:
    """The one stage of the segmenter's training."""

    name = "segmenter"

    def __init__(
        self, sam: Sam, settings: SegmenterSettings, source: Source, held_out: Mapping[str, list[LabelledImage]]
    ) -> None:
        self.steps = settings.stage.steps
        self.images = settings.stage.images
        self.floor = settings.stage.floor
        self._sam = sam
        self._settings = settings
        self._held_out = held_out
        self._batches = MaskBatches(source=source, seed=settings.seed, images=self.images, instances=settings.instances)
        self._bfloat16 = in_bfloat16(settings.bfloat16)
        rates = Rates(**settings.stage.rates.model_dump())
        self.optimisers = Optimisers([sam], rates, is_matrix=_is_matrix, bfloat16=self._bfloat16)

    def batches(self, start: int) -> Iterator[MaskBatch]:
        """Batches from step `start` on."""
        return prefetch(self._batches, start=start, stop=self.steps, workers=self._settings.workers)

    def update(self, batch: MaskBatch, scale: float) -> Metrics:
        """One step; returns its losses."""
        self._sam.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
            logits, scores = draw(self._sam, batch)
        loss, metrics = mask_loss(logits, scores, batch)
        return {**metrics, "gradient": self.optimisers.update(loss, scale)}

    def evaluate(self) -> Metrics:
        """Mean IoU with true prompts of every held-out set, and the error of the predicted IoU."""
        return {
            f"{name}_{figure}": value
            for name, images in self._held_out.items()
            for figure, value in evaluate_segmenter(self._sam, images).items()
        }


class SegmenterRecipe:
    """Model, stage and export of the segmenter."""

    def __init__(
        self, settings: SegmenterSettings, source: Source, held_out: Mapping[str, list[LabelledImage]]
    ) -> None:
        torch.manual_seed(settings.seed)
        if settings.start is None:
            self._architecture = SamArchitecture.from_mapping(settings.architecture)
            self._sam = build_sam(self._architecture.to_mapping())
        else:
            self._sam = load_sam_folder(settings.start)
            self._architecture = SamArchitecture.from_mapping(described(settings.start)["architecture"])
        quicken_training(self._sam.image_encoder)
        self.modules: dict[str, nn.Module] = {"sam": self._sam}
        self.stages: Sequence[Stage] = [SegmenterStage(self._sam, settings, source, held_out)]

    def export(self, folder: Path) -> None:
        """Write a segmenter folder in half precision."""
        weights = {name: value.half().contiguous() for name, value in self._sam.state_dict().items()}
        save_file(weights, folder / WEIGHTS_FILE)
        description = {
            "kind": "sam",
            "image_px": self._architecture.image_px,
            "architecture": self._architecture.to_mapping(),
        }
        (folder / FOLDER_FILE).write_text(json.dumps(description, indent=2) + "\n")


def _is_matrix(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and not any(part in name for part in NOT_MATRICES)


@torch.no_grad()
def evaluate_segmenter(sam: Sam, images: list[LabelledImage], *, batch_size: int = 20) -> Metrics:
    """Mean IoU with true boxes and points, overall and per concept, and the mean error of the predicted IoU."""
    sam.eval()
    drawable = [image for image in images if any(np.count_nonzero(i.mask) >= MIN_AREA_PX for i in image.instances)]
    ious: list[Tensor] = []
    errors: list[Tensor] = []
    concepts: list[str] = []
    for start in range(0, len(drawable), batch_size):
        batch = encode_masks(drawable[start : start + batch_size], instances=8)
        logits, scores = draw(sam, batch)
        iou = mask_iou(logits, batch.masks, batch.valid[batch.owner])
        ious.append(iou)
        errors.append((scores - iou).abs())
        concepts.extend(batch.concepts)
    if not ious:
        return {}
    all_ious = torch.cat(ious).numpy()
    names = np.array(concepts)
    figures = {"iou": float(all_ious.mean()), "score_error": float(torch.cat(errors).mean())}
    if len(set(concepts)) == 1:
        return figures
    per_concept = {name: float(all_ious[names == name].mean()) for name in sorted(set(concepts))}
    return {**figures, **{f"iou_{name.replace(' ', '_')}": value for name, value in per_concept.items()}}
