"""What a review says about a cube: agreement of its units, accuracy of its pixels, area found and area there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from think2seg.cube import CubeStore
from think2seg.errors import CubeError
from think2seg.learning.review.accuracy import Estimate, joined, of_units, share
from think2seg.learning.review.manifest import Manifest
from think2seg.learning.review.returned import Judged

FOLDER = "_records/reviews"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Design-based estimates for everything the cube showed when the sample was drawn."""

    review: str
    """Digest of the review folder."""
    imported: datetime
    drawn: int
    population: int
    acquisitions: tuple[str, ...]
    accepted: int
    rejected: int
    unsure: int
    not_judged: int
    without_mask: int
    """Rejected, and not redrawn: what is there is not known."""
    agreement: Estimate | None
    """Share of the units that reviewers accept."""
    overall: Estimate | None
    users: Estimate | None
    """Of the ground that the map calls present, the share that is."""
    producers: Estimate | None
    """Of the ground where something is present, the share that the map has."""
    mapped_m2: float
    """Mean over the acquisitions, of what was observed."""
    area_m2: Estimate | None
    """The same, corrected for the map's errors."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return dict(json.loads(_ADAPTER.dump_json(self)))

    def sentences(self) -> tuple[str, ...]:
        """For people."""
        judged = self.accepted + self.rejected
        first = (
            f"People judged {judged} of {self.drawn} units that were drawn at random from {self.population:,} "
            f"(tiles × dates, {len(self.acquisitions)} dates)"
        )
        first += f", and were unsure about {self.unsure}." if self.unsure else "."
        told = [first]
        if self.agreement is not None:
            told.append(f"They accept {_percent(self.agreement)} of the map's answers.")
        if self.overall is not None:
            parts = [f"{_percent(self.overall)} of the ground is mapped rightly"]
            if self.users is not None:
                parts.append(f"{_percent(self.users)} of what is mapped is there (user's accuracy)")
            if self.producers is not None:
                parts.append(f"{_percent(self.producers)} of what is there is mapped (producer's accuracy)")
            told.append(f"{'; '.join(parts)}.")
        if self.area_m2 is not None:
            one = self.area_m2
            told.append(
                f"On an average date {self.mapped_m2 / 1e6:.3g} km² are mapped; corrected for errors it is "
                f"{one.value / 1e6:.3g} km² ({one.low / 1e6:.3g} to {one.high / 1e6:.3g})."
            )
        if self.without_mask:
            told.append(
                f"{self.without_mask} rejected units were not redrawn: accuracy and area of the ground need their "
                "masks, and are not stated."
            )
        told.append("Intervals are 95 %, after Olofsson et al. (2014).")
        return tuple(told)


def figures_of(manifest: Manifest, digest: str, judged: Sequence[Judged]) -> Figures:
    """Estimates from what came back; None where too little did.

    Units that nobody judged, or was sure about, count as missing at random within their stratum; strata with fewer than
    two judged units are joined with a neighbour.
    """
    count = {name: sum(one.verdict == name for one in judged) for name in ("accept", "reject", "unsure", None)}
    lacking = sum(one.verdict == "reject" and one.truth is None for one in judged)
    known = [one for one in judged if one.verdict in ("accept", "reject")]
    sizes = np.asarray([stratum.size for stratum in manifest.strata], np.float64)
    dates = max(1, len(manifest.acquisitions))
    observed, mapped = (sum(getattr(s, name) for s in manifest.strata) for name in ("observed_m2", "mapped_m2"))
    agreement = matrix = None
    if len(known) >= min(2, manifest.population):
        stratum, sizes = joined(np.asarray([one.unit.stratum for one in known], np.int64), sizes)
        accepted = np.asarray([one.verdict == "accept" and not one.redrawn for one in known], np.float64)
        agreement = share(accepted, np.ones(len(known)), stratum, sizes)
        if not lacking:
            seen = np.asarray([_seen(manifest, one) for one in known])
            matrix = of_units(seen, stratum, sizes, mapped=np.asarray([observed - mapped, mapped]))
    return Figures(
        review=digest,
        imported=datetime.now(UTC),
        drawn=len(judged),
        population=manifest.population,
        acquisitions=manifest.acquisitions,
        accepted=count["accept"],
        rejected=count["reject"],
        unsure=count["unsure"],
        not_judged=count[None],
        without_mask=lacking,
        agreement=agreement,
        overall=matrix.overall if matrix else None,
        users=matrix.users[1] if matrix else None,
        producers=matrix.producers[1] if matrix else None,
        mapped_m2=mapped / dates,
        area_m2=_scaled(matrix.areas[1], 1 / dates) if matrix else None,
    )


def remember(store: CubeStore, figures: Figures) -> None:
    """Keep the figures beside the cube, in place of earlier ones of the same review. Raises StoreError."""
    store.put(f"{FOLDER}/{figures.review[:16]}.json", _ADAPTER.dump_json(figures, indent=1))


def read_figures(store: CubeStore) -> tuple[Figures, ...]:
    """Figures of all reviews of a cube, the latest last.

    Raises
    ------
    CubeError
        When a file is damaged.
    """
    found = []
    for key in store.list_keys(FOLDER):
        try:
            found.append(_ADAPTER.validate_json(store.get(key) or b""))
        except ValidationError as error:
            raise CubeError(f"{key} is damaged.", "What `think2seg review import` wrote.", "Import again.") from error
    return tuple(sorted(found, key=lambda figures: figures.imported))


_ADAPTER = TypeAdapter(Figures)


def _seen(manifest: Manifest, one: Judged) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(2, 2) m² of a unit: absent and present on the map by absent and present in truth."""
    truth = one.truth
    assert truth is not None
    rows = slice(one.unit.row, one.unit.row + manifest.grid.core_px)
    pixel_m2 = np.broadcast_to(manifest.grid.pixel_area_m2[rows], truth.shape)
    return np.asarray([[pixel_m2[(one.mapped == m) & (truth == t)].sum() for t in (0, 1)] for m in (0, 1)])


def _scaled(one: Estimate, factor: float) -> Estimate:
    return Estimate(
        value=one.value * factor, standard_error=one.standard_error * factor, low=one.low * factor,
        high=one.high * factor,
    )  # fmt: skip


def _percent(one: Estimate) -> str:
    return f"{100 * one.value:.0f}\u202f% ({100 * one.low:.0f} to {100 * one.high:.0f})"
