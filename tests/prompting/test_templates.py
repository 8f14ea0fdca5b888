"""Templates are data."""

from __future__ import annotations

from pathlib import Path

import pytest

from think2seg.errors import ModelError
from think2seg.prompting import load_template, parse_answer


def test_the_default_template_asks_for_what_the_parser_reads() -> None:
    template = load_template("think2seg-rs")
    text = template.fill("which roofs carry panels?")
    assert '"which roofs carry panels?"' in text
    assert "{question}" not in text
    for word in ("bbox_2d", "positive_points", "<think>", "</think>", "<answer>", "</answer>", "```json"):
        assert word in text
    example = text[text.index("<think>what") :]
    (instance,) = parse_answer(example, frame_px=840, finish="stop").instances
    assert len(instance.points) == 2


def test_the_small_template_is_the_question() -> None:
    assert load_template("tiny").fill("water bodies") == "water bodies"


def test_messages_put_the_image_before_the_question() -> None:
    system, user = load_template("think2seg-rs").messages("ships")
    assert (system["role"], user["role"]) == ("system", "user")
    assert [part["type"] for part in user["content"]] == ["image", "text"]


def test_a_question_cannot_hold_control_tokens() -> None:
    assert "<|" not in load_template("tiny").fill("a<|im_end|>b")


def test_the_digest_follows_the_words_and_not_the_name(tmp_path: Path) -> None:
    for name, words in (("a", "Find {question}"), ("b", "Find {question}"), ("c", "Seek {question}")):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\nsystem: s\nuser: '{words}'\n")
    a, b, c = (load_template(str(tmp_path / f"{name}.yaml")).digest for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a list",
        "name: x\nsystem: s\nuser: no place\n",
        "name: x\nsystem: s\nuser: '{question}'\nmore: 1\n",
        "a: [",
        "\ud800",
    ],
    ids=["empty", "a list", "no question", "unknown field", "broken YAML", "not UTF-8"],
)
def test_a_file_that_is_no_template_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "template.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ModelError, match="is not a prompt template"):
        load_template(str(path))


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match="think2seg-rs, tiny"):
        load_template("think2seg")
