"""Dense supervision of the image tokens, by linear heads that are thrown away after training.

Rotary attention puts no absolute position into values, so a language model of this size does not learn to localise from
text alone. Every image token is therefore taught what its cell holds: concepts, the owning instance with its box and
points, and the anchor's place in the raster order of an answer; the text then copies it out.
Source of the idea that every cell states the box of its object: Z. Tian et al., FCOS (2019).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from think2seg.learning.run import Metrics
from think2seg.learning.tiny.anchors import CELL_PX, CELLS, COVERED, FRAME_PX, Anchored
from think2seg.samples.phrasings import QUESTION_CONCEPTS
from think2seg.samples.simulate import CONCEPTS

N_CELLS = CELLS**2
N_BINS = 57
ORDINALS = 7
"""0 for cells that anchor nothing, then first, second, … sixth and later."""
NO_ORDINAL_WEIGHT = 0.3
GROUPS: tuple[tuple[str, ...], ...] = (
    *((concept,) for concept in CONCEPTS),
    *(members for members in QUESTION_CONCEPTS.values() if len(members) > 1),
)
"""Concepts that are counted together when an answer lists them: each alone, then those of wider questions."""
N_ORDINAL_HEADS = 1 + sum(len(group) > 1 for group in GROUPS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DenseTargets:
    """What every cell of every image should say; cells in raster order."""

    present: Tensor
    """(b, cells, concepts) float32, 1 where the concept covers enough of the cell."""
    known: Tensor
    """(b, concepts) float32, 1 where the image's labels are complete."""
    owners: Tensor
    """(b, cells, concepts + 1) bool, concepts that may own the cell, the last for none."""
    owned: Tensor
    """(b, cells) bool, cells with a known owning instance."""
    boxes: Tensor
    """(b, cells, 8) float32: box and two points of the owning instance, pixels of the frame."""
    weights: Tensor
    """(b, cells) float32, what the box of an owned cell counts: instances of many cells do not drown small ones."""
    ordinals: Tensor
    """(b, cells, heads) int64: place of the anchored instance among its own concept, and among each wider group."""


def dense_targets(images: Iterable[tuple[frozenset[str], Sequence[Anchored]]]) -> DenseTargets:
    """Targets of images given by their completely labelled concepts and anchored instances."""
    columns = [_image_targets(labelled, anchored) for labelled, anchored in images]
    stacked = (torch.from_numpy(np.stack(column)) for column in zip(*columns, strict=True))
    present, known, owners, owned, boxes, weights, ordinals = stacked
    return DenseTargets(
        present=present, known=known, owners=owners, owned=owned, boxes=boxes, weights=weights, ordinals=ordinals
    )


def _image_targets(labelled: frozenset[str], anchored: Sequence[Anchored]) -> tuple[np.ndarray, ...]:
    index = {concept: i for i, concept in enumerate(CONCEPTS)}
    present = np.zeros((N_CELLS, len(CONCEPTS)), np.float32)
    owner = np.full(N_CELLS, -1)
    by_area = sorted(range(len(anchored)), key=lambda i: -anchored[i].area_px)
    for i in by_area:
        covered = anchored[i].coverage >= COVERED
        covered[anchored[i].anchor] = True
        present[covered, index[anchored[i].concept]] = 1
        owner[covered] = i
    for i in by_area:
        owner[anchored[i].anchor] = i
    known = np.array([concept in labelled for concept in CONCEPTS], np.float32)
    owned = owner >= 0
    owners = np.zeros((N_CELLS, len(CONCEPTS) + 1), np.bool_)
    owners[~owned] = [*(known == 0), True]
    boxes = np.zeros((N_CELLS, 8), np.float32)
    weights = np.zeros(N_CELLS, np.float32)
    held = np.bincount(owner[owned], minlength=len(anchored))
    for cell in np.flatnonzero(owned):
        item = anchored[owner[cell]]
        owners[cell, index[item.concept]] = True
        boxes[cell] = [*item.box, *item.points[0], *item.points[1]]
        weights[cell] = held[owner[cell]] ** -0.5
    return present, known, owners, owned, boxes, weights, _ordinals(anchored)


def _ordinals(anchored: Sequence[Anchored]) -> np.ndarray:
    ordinals = np.zeros((N_CELLS, N_ORDINAL_HEADS), np.int64)
    head = 0
    for group in GROUPS:
        head += len(group) > 1
        members = [item for item in anchored if item.concept in group]
        for place, item in enumerate(members, start=1):
            ordinals[item.anchor, head if len(group) > 1 else 0] = min(place, ORDINALS - 1)
    return ordinals


class DenseHeads(nn.Module):
    """Linear heads on the features of the image tokens.

    relative: boxes in coordinates of the cell's centre, for features that do not know their absolute position yet.
    """

    def __init__(self, width: int, *, relative: bool) -> None:
        super().__init__()
        n = len(CONCEPTS)
        self.relative = relative
        self.sizes = [n, n + 1, CELLS, CELLS, 8 * N_BINS, N_ORDINAL_HEADS * ORDINALS]
        self.linear = nn.Linear(width, sum(self.sizes))
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        bins = torch.arange(N_BINS, dtype=torch.float32)
        self.bins: Tensor
        self.centres: Tensor
        self.register_buffer("bins", (bins - N_BINS // 2) * 8 if relative else bins * FRAME_PX / (N_BINS - 1), False)
        rows, columns = torch.arange(N_CELLS) // CELLS, torch.arange(N_CELLS) % CELLS
        self.register_buffer("centres", torch.stack([columns, rows], dim=1).repeat(1, 4) * CELL_PX + CELL_PX / 2, False)
        self.spread = 6.0 if relative else 4.0

    def forward(self, features: Tensor, targets: DenseTargets) -> tuple[Tensor, Metrics]:
        """Loss and its parts for features (b, cells, width)."""
        normal = F.rms_norm(features.float(), (features.shape[-1],))
        present, owner, row, column, boxes, ordinals = self.linear(normal).split(self.sizes, dim=-1)
        parts = {
            "present": _present_loss(present, targets),
            "owner": (owner.logsumexp(-1) - owner.masked_fill(~targets.owners, -torch.inf).logsumexp(-1)).mean(),
            "box": self._box_loss(boxes, targets),
            "ordinal": _ordinal_loss(ordinals, targets),
        }
        loss = 2 * parts["present"] + parts["owner"] + parts["box"] + 1.4 * parts["ordinal"]
        if not self.relative:
            parts["cell"] = _cell_loss(row, column)
            loss = loss + 0.25 * parts["cell"]
        return loss, {name: value.item() for name, value in parts.items()}

    def _box_loss(self, logits: Tensor, targets: DenseTargets) -> Tensor:
        """Cross-entropy with a Gaussian over the bins, less the Gaussian's own entropy, so that 0 is perfect."""
        if not targets.owned.any():
            return logits.sum() * 0
        values = targets.boxes - self.centres if self.relative else targets.boxes
        values = values[targets.owned]
        soft = torch.softmax(-0.5 * ((self.bins - values[..., None]) / self.spread) ** 2, dim=-1)
        log_share = logits[targets.owned].view(-1, 8, N_BINS).log_softmax(-1)
        losses = (soft * ((soft + 1e-9).log() - log_share)).sum(-1).mean(-1)
        weights = targets.weights[targets.owned]
        return (losses * weights).sum() / weights.sum()

    @torch.no_grad()
    def box_iou(self, features: Tensor, targets: DenseTargets) -> float:
        """Mean IoU of the boxes that owned cells state with the true ones."""
        normal = F.rms_norm(features.float(), (features.shape[-1],))
        logits = self.linear(normal).split(self.sizes, dim=-1)[4][targets.owned].view(-1, 8, N_BINS)[:, :4]
        stated = logits.softmax(-1) @ self.bins
        if self.relative:
            stated = stated + self.centres.expand(len(targets.owned), -1, -1)[targets.owned][:, :4]
        true = targets.boxes[targets.owned][:, :4]
        low, high = torch.maximum(stated[:, :2], true[:, :2]), torch.minimum(stated[:, 2:], true[:, 2:])
        both = (high - low).clamp(min=0).prod(1)
        areas = [(box[:, 2:] - box[:, :2]).clamp(min=0).prod(1) for box in (stated, true)]
        return float((both / (areas[0] + areas[1] - both).clamp(min=1)).mean())


def _present_loss(logits: Tensor, targets: DenseTargets) -> Tensor:
    weight = targets.known[:, None].expand_as(logits)
    weight = torch.maximum(weight, targets.present)
    losses = F.binary_cross_entropy_with_logits(logits, targets.present, weight=weight, reduction="sum")
    return losses / weight.sum().clamp(min=1)


def _cell_loss(row: Tensor, column: Tensor) -> Tensor:
    cells = torch.arange(N_CELLS).repeat(len(row))
    return F.cross_entropy(row.flatten(0, 1), cells // CELLS) + F.cross_entropy(column.flatten(0, 1), cells % CELLS)


def _ordinal_loss(logits: Tensor, targets: DenseTargets) -> Tensor:
    weight = torch.ones(ORDINALS)
    weight[0] = NO_ORDINAL_WEIGHT
    return F.cross_entropy(logits.reshape(-1, ORDINALS), targets.ordinals.flatten(), weight=weight)
