"""Asking: templates, the grammar of answers, and prompters (in process, served).

Nothing here needs torch until a prompter is loaded.
"""

from __future__ import annotations

from pathlib import Path

from think2seg.config import LocalPrompter as LocalPrompterConfig
from think2seg.prompting.answers import Answer, Finish, Status, parse_answer
from think2seg.prompting.folder import folder_template, read_description
from think2seg.prompting.protocol import Prompter, Reply
from think2seg.prompting.template import Template, load_template

__all__ = [
    "Answer",
    "Finish",
    "Prompter",
    "Reply",
    "Status",
    "Template",
    "load_prompter",
    "load_template",
    "parse_answer",
    "template_for",
]


def template_for(config: LocalPrompterConfig, folder: Path) -> Template:
    """The template that a prompter from `folder` asks with, without loading it.

    Raises ModelError when the template or the folder's description cannot be read.
    """
    return folder_template(folder, read_description(folder), config.template)


def load_prompter(config: LocalPrompterConfig, folder: Path, *, digest: str) -> Prompter:
    """Load the prompter that a monitor describes; `folder` and `digest` are the registry's answer to its path.

    Raises ModelError when the folder holds no prompter or this machine cannot run it.
    """
    from think2seg.prompting.local import LocalPrompter

    return LocalPrompter(
        folder,
        digest=digest,
        batch=config.batch,
        dtype=config.dtype,
        device=config.device,
        max_new_tokens=config.max_new_tokens,
        template=config.template,
    )
