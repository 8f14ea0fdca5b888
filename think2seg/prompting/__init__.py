"""Asking: templates, the grammar of answers, and prompters (in process, served).

Nothing here needs torch until a prompter is loaded.
"""

from __future__ import annotations

from pathlib import Path

from think2seg.config import Prompter as PrompterConfig
from think2seg.config import ServedPrompter as ServedPrompterConfig
from think2seg.prompting.answers import Answer, Finish, Status, parse_answer
from think2seg.prompting.folder import folder_template, read_description
from think2seg.prompting.protocol import Answered, Ask, Prompter, Reply, StreamingPrompter, answers_of
from think2seg.prompting.template import Template, load_template

__all__ = [
    "Answer",
    "Answered",
    "Ask",
    "Finish",
    "Prompter",
    "Reply",
    "Status",
    "StreamingPrompter",
    "Template",
    "answers_of",
    "load_prompter",
    "load_template",
    "parse_answer",
    "template_for",
]


def template_for(config: PrompterConfig, folder: Path | None) -> Template:
    """The template that a prompter, with weights in `folder`, asks with, without loading it.

    Raises ModelError when the template or the folder's description cannot be read.
    """
    if isinstance(config, ServedPrompterConfig):
        return load_template(config.template)
    assert folder is not None
    return folder_template(folder, read_description(folder), config.template)


def load_prompter(config: PrompterConfig, folder: Path | None, *, digest: str) -> Prompter:
    """Load the prompter that a monitor describes; `folder` and `digest` are what `registry.prompter_weights` found.

    Raises ModelError when the folder holds no prompter, this machine cannot run it, or its server cannot be used.
    """
    if isinstance(config, ServedPrompterConfig):
        from think2seg.prompting.served import ServedPrompter

        return ServedPrompter(config, digest=digest)
    from think2seg.prompting.local import LocalPrompter
    from think2seg.prompting.memory import refuse_early

    assert folder is not None
    refuse_early(config, folder)
    return LocalPrompter(
        folder,
        digest=digest,
        batch=config.batch,
        dtype=config.dtype,
        device=config.device,
        max_new_tokens=config.max_new_tokens,
        template=config.template,
    )
