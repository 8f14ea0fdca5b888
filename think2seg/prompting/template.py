"""Prompt templates: the words around a question, kept as data in ``conf/prompts/*.yaml``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from think2seg.config import conf_root
from think2seg.errors import ModelError

PLACEHOLDER = "{question}"
_CONTROL_TOKEN = re.compile(r"<\|")


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The system turn and the text of the user turn, which follows the image."""

    name: str
    system: str
    user: str
    """Holds ``{question}`` once or more."""

    @property
    def digest(self) -> str:
        """Content hash of what the model reads; the name does not count."""
        return sha256(f"{self.system}\0{self.user}".encode()).hexdigest()[:32]

    def fill(self, question: str) -> str:
        """Text of the user turn for `question`, which cannot open or close a turn of its own."""
        return self.user.replace(PLACEHOLDER, _CONTROL_TOKEN.sub("< |", question))

    def messages(self, question: str) -> list[dict[str, Any]]:
        """Chat messages in the form processors take: the system turn, then image and text of the user."""
        content = [{"type": "image"}, {"type": "text", "text": self.fill(question)}]
        return [{"role": "system", "content": self.system}, {"role": "user", "content": content}]


class _TemplateFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    system: str
    user: str

    @field_validator("user")
    @classmethod
    def _asks_the_question(cls, text: str) -> str:
        if PLACEHOLDER not in text:
            raise ValueError(f"the user turn must hold {PLACEHOLDER}")
        return text


def load_template(name_or_path: str) -> Template:
    """Read a template by its name in ``conf/prompts`` or from a YAML file.

    Raises ModelError when there is no such template or the file is not one.
    """
    path = _template_path(name_or_path)
    try:
        fields = _TemplateFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{path} is not a prompt template: {error}",
            f"A template is a YAML mapping with name, system and user, and user holds {PLACEHOLDER}.",
            "Compare it with conf/prompts/think2seg-rs.yaml.",
        ) from error
    return Template(name=fields.name, system=fields.system, user=fields.user)


def _template_path(name_or_path: str) -> Path:
    folder = conf_root() / "prompts"
    for path in (Path(name_or_path), folder / f"{name_or_path}.yaml"):
        if path.is_file():
            return path
    names = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
    raise ModelError(
        f"There is no prompt template {name_or_path!r}.",
        f"Allowed: {names}, or the path of a YAML file.",
        "Correct models.prompter.template.",
    )
