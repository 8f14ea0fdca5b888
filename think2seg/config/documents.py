"""YAML documents that know the line of every value, and errors that point at it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from think2seg.errors import ConfigError

type KeyPath = tuple[str | int, ...]

_MISTAKES_SHOWN = 5
_VALUE_CHARS = 60


class Part(BaseModel):
    """Base of every section of a document: immutable, and no field that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, use_attribute_docstrings=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Plain data of one YAML file, and where each value came from."""

    source: str
    data: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    """Key path → 1-based line."""
    overrides: dict[KeyPath, str] = field(default_factory=dict)
    """Key path → the ``--set`` argument that gave its value."""

    def origin(self, path: KeyPath) -> str:
        """Say where the value at `path` (or its nearest parent) stands."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.overrides:
                return f"--set {self.overrides[path[:length]]}"
            if path[:length] in self.lines:
                return f"{self.source}, line {self.lines[path[:length]]}"
        return self.source


def nearest(name: str, allowed: Sequence[str]) -> str:
    """Return a sentence naming the allowed name closest to `name`, or an empty string."""
    close = get_close_matches(name.lower(), allowed, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else ""


def read_document(path: Path, overrides: Sequence[str] = ()) -> Document:
    """Read a YAML mapping from `path` and apply ``a.b=c`` overrides.

    Raises
    ------
    ConfigError
        If the file is missing, is no YAML mapping, repeats a key, or an override makes no sense.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}", "A readable YAML file in UTF-8.", "Check the path and its permissions."
        ) from error
    document = parse_document(text, source=str(path))
    for override in overrides:
        _apply(document, override)
    return document


def parse_document(text: str, *, source: str) -> Document:
    """Parse YAML `text`; dates stay text, and a key given twice is an error."""
    try:
        node = yaml.compose(text, Loader=_Loader)
        data = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{source}, line {mark.line + 1}, column {mark.column + 1}" if mark else source
        raise ConfigError(
            f"{where}: {error.problem}", "YAML: `key: value` pairs, indented with spaces.", "Correct that line."
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: {error}", "YAML in printable UTF-8.", "Save the file as plain text.") from error
    if not isinstance(data, dict) or node is None:
        raise ConfigError(
            f"{source} holds {type(data).__name__}, not a mapping.",
            "A YAML mapping: `key: value` pairs.",
            "Start from a file in conf/.",
        )
    return Document(source=source, data=data, lines=dict(_lines(node, ())))


def validate[P: Part](document: Document, model: type[P]) -> P:
    """Turn a document into `model`, or raise a ConfigError that names line, value and what is allowed."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        mistakes = [_explain(document, model, detail) for detail in error.errors(include_url=False)]
        raise _as_error(mistakes) from error


def located(document: Document, path: KeyPath, error: ConfigError) -> ConfigError:
    """Return `error` with the place of `path` in front."""
    dotted = ".".join(map(str, path))
    return ConfigError(f"{document.origin(path)}: {dotted}: {error.given}", error.allowed, error.todo)


class _Loader(yaml.SafeLoader):
    """SafeLoader that leaves dates as text and refuses repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, yaml.Node] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a list or mapping cannot be a key", key_node.start_mark
                )
            if key_node.value in seen and key_node.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"the key {key_node.value!r} stands here a second time"
                    f" (first on line {seen[key_node.value].start_mark.line + 1})",
                    key_node.start_mark,
                )
            seen[key_node.value] = key_node
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _lines(node: yaml.Node, path: KeyPath, seen: frozenset[int] = frozenset()) -> Iterator[tuple[KeyPath, int]]:
    if id(node) in seen:
        return
    inside = seen | {id(node)}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*path, str(key.value)), key.start_mark.line + 1
            yield from _lines(value, (*path, str(key.value)), inside)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, index), value.start_mark.line + 1
            yield from _lines(value, (*path, index), inside)


def _apply(document: Document, override: str) -> None:
    dotted, equals, text = override.partition("=")
    keys = tuple(dotted.strip().split("."))
    if not equals or not all(keys):
        raise ConfigError(
            f"--set {override} is not KEY=VALUE.",
            "A dotted field name, an equals sign and a YAML value.",
            "For example: --set cube.uri=out/a.zarr",
        )
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--set {override}: {text!r} is not YAML.", "A YAML value.", "Quote it: --set 'key=\"value\"'"
        ) from error
    parent: dict[str, Any] = document.data
    for depth, key in enumerate(keys[:-1], start=1):
        child = parent.setdefault(key, {})
        if not isinstance(child, dict):
            held = ".".join(keys[:depth])
            raise ConfigError(
                f"--set {override}: {held} is {_shown(child)}, so nothing can be set inside it.",
                "The name of a field inside a mapping.",
                f"Set {held} as a whole: --set '{held}={{{'.'.join(keys[depth:])}: …}}'",
            )
        parent = child
    parent[keys[-1]] = value
    document.overrides[keys] = override


@dataclass(frozen=True, slots=True)
class _Mistake:
    given: str
    allowed: str
    todo: str


def _as_error(mistakes: Sequence[_Mistake]) -> ConfigError:
    if len(mistakes) == 1:
        return ConfigError(mistakes[0].given, mistakes[0].allowed, mistakes[0].todo)
    shown = mistakes[:_MISTAKES_SHOWN]
    more = len(mistakes) - len(shown)
    paragraphs = ["\n  ".join(part for part in (m.given, m.allowed, m.todo) if part) for m in shown]
    return ConfigError("\n".join(paragraphs), "", f"{more} more mistakes are not shown." if more else "")


def _explain(document: Document, model: type[BaseModel], detail: ErrorDetails) -> _Mistake:
    path, owner, choices = _place(model, detail["loc"])
    given, context = detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            fields = sorted(owner.model_fields)
            return _Mistake(
                f"{_at(document, path)} (given {_shown(given)}) is not a field.",
                f"Fields here: {', '.join(fields)}.",
                nearest(str(path[-1]), fields) or "Remove it.",
            )
        case "missing":
            fields = sorted(owner.model_fields)
            return _Mistake(
                f"{_at(document, path)} is missing.", f"Fields here: {', '.join(fields)}.", f"Add `{path[-1]}: …`."
            )
        case "union_tag_not_found":
            kinds = [str(tag) for choice in choices for tag in _tags(choice)]
            return _Mistake(f"{_at(document, path)} has no `kind`.", f"Allowed: {', '.join(kinds)}.", "Add `kind: …`.")
        case "union_tag_invalid":
            kinds = [str(tag) for choice in choices for tag in _tags(choice)]
            return _not_allowed(document, (*path, "kind"), context["tag"], kinds)
        case "literal_error":
            allowed = [part.strip("' ") for part in str(context["expected"]).replace(" or ", ",").split(",")]
            return _not_allowed(document, path, given, allowed)
    if not path:
        return _Mistake(f"{document.source}: {_reason(detail)}", "", "")
    info = owner.model_fields.get(str(path[-1]))
    examples = ", ".join(map(str, info.examples)) if info is not None and info.examples else ""
    if info is not None and not info.repr:
        place = document.origin(path)
        place = place.partition("=")[0] if place.startswith("--set") else place
        given = f"{place}: {'.'.join(map(str, path))} (its value may be secret): {_reason(detail)}"
        return _Mistake(given, examples and f"For example: {examples}.", "")
    return _Mistake(
        f"{_at(document, path)} = {_shown(given)}: {_reason(detail)}", examples and f"For example: {examples}.", ""
    )


def _at(document: Document, path: KeyPath) -> str:
    return f"{document.origin(path)}: {'.'.join(map(str, path))}"


def _not_allowed(document: Document, path: KeyPath, value: Any, allowed: Sequence[str]) -> _Mistake:
    return _Mistake(
        f"{_at(document, path)} = {_shown(value)} is not allowed.",
        f"Allowed: {', '.join(allowed)}.",
        nearest(str(value), allowed) or "Use one of these.",
    )


def _reason(detail: ErrorDetails) -> str:
    if detail["type"] == "string_pattern_mismatch":
        return "not of the form that is needed."
    message = detail["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:] + ("" if message.endswith(("?", ".")) else ".")


def _place(
    model: type[BaseModel], loc: tuple[str | int, ...]
) -> tuple[KeyPath, type[BaseModel], tuple[type[BaseModel], ...]]:
    """Turn a pydantic location, which holds union tags, into a YAML path.

    Returns the path, the model that owns its last key, and the models that the value at the path may be.
    """
    path: list[str | int] = []
    owner: type[BaseModel] = model
    choices: tuple[type[BaseModel], ...] = ()
    for part in loc:
        if len(choices) > 1 and (tagged := [choice for choice in choices if part in _tags(choice)]):
            choices = (tagged[0],)
            continue
        if choices:
            owner = choices[0]
        path.append(part)
        if isinstance(part, str):
            info = owner.model_fields.get(part)
            choices = tuple(_models(info.annotation)) if info is not None else choices
    return tuple(path), owner, choices


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    info = model.model_fields.get("kind")
    return get_args(info.annotation) if info is not None else ()


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(getattr(annotation, "__value__", annotation)):
        yield from _models(argument)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _VALUE_CHARS else f"{text[: _VALUE_CHARS - 1]}…"
