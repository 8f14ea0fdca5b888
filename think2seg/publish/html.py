"""Page → one self-contained HTML file."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from think2seg.publish.page import Page

_TEMPLATES = files("think2seg.publish") / "templates"


def render(page: Page) -> str:
    """HTML of a page: no external requests, every value escaped, and no script but its own allowed to run."""
    script = _template("report.js")
    digest = b64encode(sha256(script.encode()).digest()).decode("ascii")
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        page=page,
        style=Markup(_template("report.css")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
