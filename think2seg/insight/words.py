"""An explanation as text for people."""

from __future__ import annotations

import textwrap
import unicodedata
from typing import TYPE_CHECKING

from think2seg.insight.explain import QUARTERS
from think2seg.insight.units import area_unit

if TYPE_CHECKING:
    from think2seg.insight.explain import ExplainedAnswer, ExplainedInstance, Explanation

_WIDTH = 76


def explain_in_words(found: Explanation) -> str:
    """Sections from the pixel down to the scenes and weights; control characters are shown as ``\\x1b``."""
    row, col = found.pixel
    verdict = found.value + (f" ({'; '.join(found.quality)})" if found.quality else "")
    copied = f", copied from revision {found.answered_in}" if found.answered_in != found.revision else ""
    lines = [
        f"{found.question!r} at {found.lat:.5f}, {found.lon:.5f} on {found.time:%Y-%m-%d}: {verdict}",
        "",
        _field("pixel", f"row {row}, column {col}; x {found.x:.2f}, y {found.y:.2f} in {_name(found.crs)}"),
        _field("acquisition", f"{found.acquisition}, revision {found.revision}{copied}"),
        _field("scenes", ", ".join(found.scenes)),
        _field("block, tile", f"row {found.block[0]}, column {found.block[1]} ({found.state}); {found.tile}"),
    ]
    lines += [_field("failure", failure) for failure in found.failures]
    lines += _instance_lines(found.instance) if found.instance else []
    lines += _answer_lines(found.answer) if found.answer else ["", "This tile was not asked."]
    lines += ["", _field("prompter", found.prompter), _field("segmenter", found.segmenter)]
    return visible("\n".join(lines))


def visible(text: str) -> str:
    """`text` with every control and direction character but the line break spelled out: no terminal obeys them."""
    return "".join(c.encode("unicode_escape").decode("ascii") if _is_control(c) else c for c in text)


def _is_control(character: str) -> bool:
    return character != "\n" and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co")


def _instance_lines(instance: ExplainedInstance) -> list[str]:
    area = "" if instance.area_m2 is None else area_unit(instance.area_m2).text(instance.area_m2)
    score = "" if instance.score is None else f"predicted IoU {instance.score:.2f}"
    return [
        "",
        _field("instance", ", ".join(filter(None, (f"number {instance.number}", area, score)))),
        _field("box", f"{_numbers(instance.bbox_px, '.1f')} px"),
        _field("", f"{_numbers(instance.bbox_map, '.9g')} on the map"),
        _field("points", ", ".join(_numbers(point, ".1f") for point in instance.points_px) + " px"),
    ]


def _answer_lines(answer: ExplainedAnswer) -> list[str]:
    which = f", one of {answer.views} views of the tile" if answer.views > 1 else ""
    if answer.part in QUARTERS:
        which = f", part {answer.part} of the tile asked again in four"
    presence = "" if answer.presence is None else f", presence {answer.presence:.2f}"
    return [
        "",
        _field("answer", f"{answer.status}{presence}{which}"),
        *_block("prompt", answer.prompt),
        *_block("reasoning", answer.reasoning),
        *_block("raw answer", answer.answer),
    ]


def _field(name: str, text: str) -> str:
    return f"{name:<13}{text}"


def _block(name: str, text: str) -> list[str]:
    """A heading and the text below it, wrapped and indented; nothing for an empty text."""
    wrapped = [
        line
        for paragraph in text.splitlines()
        for line in textwrap.wrap(paragraph, _WIDTH, break_on_hyphens=False) or [""]
    ]
    return ["", name, *(f"  {line}" for line in wrapped)] if wrapped else []


def _numbers(values: tuple[float, ...], form: str) -> str:
    return "[" + ", ".join(format(value, form) for value in values) + "]"


def _name(crs: str) -> str:
    return crs if len(crs) < 40 else "the cube's CRS"
