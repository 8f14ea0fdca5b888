"""Labelled datasets on disk, as others publish them: images, questions, masks. A reader is a function in `READERS`.

What is odd about an item (no mask, an image that cannot be read, no question) is told, never replaced by another item.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image as PilImage

from think2seg.errors import ConfigError
from think2seg.samples.labelled import Image, Mask, Split

_CATEGORY_KEYS = ("category", "class", "label")
_MIN_OBSERVED = 0.9
"""A reviewed tile that was seen less than this is left out: what clouds hide would count as absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One image with its mask and everything that is asked about it."""

    id: str
    image: Path
    mask: Path
    questions: tuple[str, ...]
    category: str
    """Empty where the dataset has none."""
    doubt: Path | None = None
    """A mask of the pixels that do not count."""

    def pixels(self, side: int) -> Image:
        """(side, side, 3) uint8, resized by Lanczos whatever the image's shape; OSError when it cannot be read."""
        with _opened(self.image) as picture:
            return np.array(picture.convert("RGB").resize((side, side), PilImage.Resampling.LANCZOS))

    def truth(self, side: int) -> Mask:
        """(side, side) bool, nearest neighbour; true where the mask is not zero, whatever its alpha.

        OSError when it cannot be read, or is not of the image's size.
        """
        return _mask(self.mask, side, self.image)

    def ignored(self, side: int) -> Mask | None:
        """(side, side) bool, true where a pixel does not count; None where all do. OSError as `truth`."""
        return None if self.doubt is None else _mask(self.doubt, side, self.image)


@dataclass(frozen=True, slots=True, kw_only=True)
class Odd:
    """An item that could not be used, or only in part."""

    item: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One split of a dataset."""

    name: str
    split: str
    items: tuple[Item, ...]
    """By id."""
    odd: tuple[Odd, ...]


def read_earthreason(folder: Path, split: str) -> Dataset:
    """EarthReason: ``<split>/images/*``, ``<split>/labels/<id>.png``, ``<split>/QAs/<id>.json`` with ``questions``.

    Beyond that layout, ``<split>/ignored/<id>.png`` may say which pixels do not count.
    Raises ConfigError when there is no such split.
    """
    root = folder / split
    if not (root / "images").is_dir():
        there = ", ".join(sorted(path.parent.name for path in folder.glob("*/images"))) or "none"
        raise ConfigError(
            f"{root} has no folder images.",
            f"EarthReason has SPLIT/images, SPLIT/labels and SPLIT/QAs; splits here: {there}.",
            "Correct the folder or --split.",
        )
    items: list[Item] = []
    odd: list[Odd] = []
    images = sorted(path for path in (root / "images").iterdir() if path.is_file())
    for image in images:
        mask, about = root / "labels" / f"{image.stem}.png", root / "QAs" / f"{image.stem}.json"
        try:
            questions, category = _questions(about)
        except (OSError, ValueError) as error:
            odd.append(Odd(item=image.stem, reason=f"no question: {error}"))
            continue
        if not mask.is_file():
            odd.append(Odd(item=image.stem, reason="no mask"))
            continue
        doubt = root / "ignored" / f"{image.stem}.png"
        items.append(
            Item(
                id=image.stem,
                image=image,
                mask=mask,
                questions=questions,
                category=category,
                doubt=doubt if doubt.is_file() else None,
            )
        )
    odd += _left_over(root, {image.stem for image in images})
    return Dataset(name="earthreason", split=split, items=tuple(items), odd=tuple(odd))


def read_reviewed(folder: Path, split: str) -> Dataset:
    """A store of reviewed samples (`think2seg.learning.review`): split ``train`` or ``held_out``, either may be empty.

    Raises ConfigError for another split, SampleError when the store is damaged.
    """
    from think2seg.learning.review.store import IMAGES, MASKS, read_index

    if split not in get_args(Split.__value__):
        splits = ", ".join(sorted(get_args(Split.__value__)))
        raise ConfigError(f"--split {split}", f"Splits of reviewed samples: {splits}.", "Choose one of these.")
    index = read_index(folder)
    items: list[Item] = []
    odd: list[Odd] = []
    for row in index[index["split"] == split].to_dict("records"):
        name = str(row["sample"])
        if row["observed"] < _MIN_OBSERVED:
            odd.append(Odd(item=name, reason=f"only {row['observed']:.0%} of it was observed"))
            continue
        image, mask = folder / IMAGES / f"{name}.tif", folder / MASKS / f"{name}.tif"
        items.append(Item(id=name, image=image, mask=mask, questions=(str(row["question"]),), category=""))
    return Dataset(name="reviewed", split=split, items=tuple(sorted(items, key=lambda item: item.id)), odd=tuple(odd))


READERS: Mapping[str, Callable[[Path, str], Dataset]] = {"earthreason": read_earthreason, "reviewed": read_reviewed}
"""Name of a dataset → its reader."""


def read_dataset(name: str, folder: Path, split: str) -> Dataset:
    """Read a split; raises ConfigError when there is no such reader or split."""
    if name not in READERS:
        raise ConfigError(f"--dataset {name}", f"Readers: {', '.join(sorted(READERS))}.", "Choose one of these.")
    return READERS[name](folder, split)


def dataset_digest(dataset: Dataset) -> str:
    """Sha256 (32 hex digits) of a split's questions, images and masks; a file that is missing counts as such."""
    total = sha256()
    for item in dataset.items:
        files = (_file_digest(path) for path in (item.image, item.mask, item.doubt) if path)
        total.update(json.dumps([item.id, item.questions, item.category, *files]).encode())
    return total.hexdigest()[:32]


def _file_digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


@contextmanager
def _opened(path: Path) -> Iterator[PilImage.Image]:
    """A picture; OSError when it cannot be read, for which Pillow has a SyntaxError, too."""
    try:
        with PilImage.open(path) as picture:
            yield picture
    except SyntaxError as error:
        raise OSError(f"{path.name}: {error}") from error


def _mask(path: Path, side: int, image: Path) -> Mask:
    """(side, side) bool, nearest neighbour, true where the file is not zero; it has the size of its image."""
    with _opened(path) as picture, _opened(image) as beneath:
        if picture.size != beneath.size:
            sizes = (" × ".join(map(str, one.size)) for one in (picture, beneath))
            raise OSError("{} has {} pixels, its image {}".format(path.name, *sizes))
        bands = picture.getbands()
        values = np.array(picture.resize((side, side), PilImage.Resampling.NEAREST)).reshape(side, side, len(bands))
    found: Mask = (values[..., [band != "A" for band in bands]] != 0).any(axis=-1)
    return found


def _questions(path: Path) -> tuple[tuple[str, ...], str]:
    """Questions and category of an item; ValueError when there is no question."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise ValueError("the file holds no JSON object")
    found = document.get("questions")
    texts = [text.strip() for text in found if isinstance(text, str)] if isinstance(found, list) else []
    questions = tuple(dict.fromkeys(filter(None, texts)))
    if not questions:
        raise ValueError("questions is missing or empty")
    categories = (document.get(key) for key in _CATEGORY_KEYS)
    return questions, next((name for name in categories if isinstance(name, str)), "")


def _left_over(root: Path, images: set[str]) -> Iterator[Odd]:
    """Masks and questions without an image."""
    for kind, suffix in (("labels", ".png"), ("QAs", ".json")):
        for path in sorted((root / kind).glob(f"*{suffix}")):
            if path.stem not in images:
                yield Odd(item=path.stem, reason=f"no image, but {kind}/{path.name}")
