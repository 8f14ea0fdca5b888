"""How people ask: phrasings of questions over the concepts, and of questions the vocabulary does not cover."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal, get_args

from think2seg.errors import ConfigError
from think2seg.samples import _held_out_phrasings as held_out
from think2seg.samples import _phrasing_tables as tables
from think2seg.samples.labelled import Split

type Kind = Literal["direct", "synonym", "implicit", "standing"]

QUESTION_CONCEPTS: Mapping[str, tuple[str, ...]] = {
    "water": ("lake", "river"),
    "lake": ("lake",),
    "river": ("river",),
    "building": ("building",),
    "forest": ("forest",),
    "clearing": ("clearing",),
    "road": ("road",),
    "sports field": ("sports field",),
    "runway": ("runway",),
    "ship": ("ship",),
    "farmland": ("farmland",),
    "solar farm": ("solar farm",),
    "burnt area": ("burnt area",),
}
"""What a question may ask for, and the base concepts whose instances answer it."""

_NOUNS: Mapping[str, tuple[str, str]] = {
    "water": ("water body", "water bodies"),
    "lake": ("lake", "lakes"),
    "river": ("river", "rivers"),
    "building": ("building", "buildings"),
    "forest": ("forest", "forests"),
    "clearing": ("clearing", "clearings"),
    "road": ("road", "roads"),
    "sports field": ("sports field", "sports fields"),
    "runway": ("runway", "runways"),
    "ship": ("ship", "ships"),
    "farmland": ("field", "fields"),
    "solar farm": ("solar farm", "solar farms"),
    "burnt area": ("burnt area", "burnt areas"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrasing:
    """One way to put a question."""

    text: str
    concept: str | None
    """A key of `QUESTION_CONCEPTS`; None where the right answer is *I do not know this concept*."""
    kind: Kind
    """*direct* names the concept, *synonym* names it otherwise, *implicit* does not name it, *standing* is the short
    form of a monitor."""
    split: Split


def noun(concept: str) -> tuple[str, str]:
    """Singular and plural of a question concept, as the reasoning sentence says it."""
    if concept not in _NOUNS:
        raise ConfigError(f"concept {concept!r}", f"one of {', '.join(_NOUNS)}", "Ask for a concept of this list.")
    return _NOUNS[concept]


@cache
def phrasings(concept: str | None, split: Split) -> tuple[Phrasing, ...]:
    """The phrasings of one concept (None: outside the vocabulary) on one side of the split."""
    if concept is not None:
        noun(concept)
    return tuple(found for found in PHRASINGS if found.concept == concept and found.split == split)


@cache
def by_kind(concept: str | None, split: Split) -> tuple[tuple[Phrasing, ...], ...]:
    """The phrasings of one concept, those of each kind together."""
    found = phrasings(concept, split)
    kinds = sorted({phrasing.kind for phrasing in found})
    return tuple(tuple(phrasing for phrasing in found if phrasing.kind == kind) for kind in kinds)


def _named() -> Iterator[Phrasing]:
    for concept, (singular, plural) in tables.NAMES.items():
        for template in (*tables.DIRECT, *tables.ASKED):
            text = template.format(one=singular, many=plural)
            yield Phrasing(text=text, concept=concept, kind="direct", split="train")
    for concept, synonyms in tables.SYNONYMS.items():
        for synonym, template in product(synonyms, tables.ASKED):
            yield Phrasing(text=template.format(many=synonym), concept=concept, kind="synonym", split="train")


def _outside() -> Iterator[Phrasing]:
    for name, template in product(tables.OUTSIDE, tables.ASKED):
        yield Phrasing(text=template.format(many=name), concept=None, kind="direct", split="train")


def _written() -> Iterator[Phrasing]:
    for standing, texts in tables.STANDING.items():
        for text in texts:
            yield Phrasing(text=text, concept=standing, kind="standing", split="train")
    for concept, patterns in (*tables.IMPLICIT.items(), (None, tables.OUTSIDE_IMPLICIT)):
        for text in (text for pattern in patterns for text in spelled_out(pattern)):
            yield Phrasing(text=text, concept=concept, kind="implicit", split="train")


def spelled_out(pattern: str) -> Iterator[str]:
    """Every text that a pattern with alternatives, `(a|b)`, stands for."""
    parts = (part.split("|") for part in re.split(r"[()]", pattern))
    return ("".join(chosen) for chosen in product(*parts))


def _held_out() -> Iterator[Phrasing]:
    kinds: tuple[Kind, ...] = get_args(Kind.__value__)
    for concept, texts in held_out.HELD_OUT.items():
        for kind, text in zip(kinds, texts, strict=True):
            yield Phrasing(text=text, concept=concept, kind=kind, split="held_out")
    for text, kind in held_out.HELD_OUT_MORE:
        yield Phrasing(text=text, concept="water", kind=kind, split="held_out")
    for text, kind in held_out.HELD_OUT_OUTSIDE:
        yield Phrasing(text=text, concept=None, kind=kind, split="held_out")


def _unique() -> tuple[Phrasing, ...]:
    """All phrasings once; a held-out text is never a training text as well."""
    unique = {found.text.casefold(): found for found in (*_named(), *_written(), *_outside(), *_held_out())}
    return tuple(unique.values())


PHRASINGS: tuple[Phrasing, ...] = _unique()
"""Every phrasing, each text once."""
