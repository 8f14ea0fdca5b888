"""Where tests find a small pair of weights: the shipped one, or one assembled from the trial's."""

import json
import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRIAL = ROOT.parent / "shared" / "trial" / "weights"
SHIPPED = ROOT / "think2seg" / "weights"

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
<|vision_start|><|image_pad|><|vision_end|>
{%- else -%}
{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""

PROMPTER = {"frame_px": 224, "template": "template.yaml", "max_new_tokens": 320, "footprint_m": [300, 1600]}
TEMPLATE = """\
name: trial
system: You are a helpful assistant.
user: segment the {question}
"""
SEGMENTER = {"kind": "sam", "image_px": 224, "architecture": {"mask_tokens": 3}}


def pair_folder(scratch: Path) -> Path | None:
    """A folder holding ``prompter/`` and ``segmenter/``, or None where no weights are at hand.

    `scratch` is used, once, when the pair has to be assembled.
    """
    if given := os.environ.get("THINK2SEG_WEIGHTS"):
        return Path(given)
    if (SHIPPED / "prompter").is_dir() and (SHIPPED / "segmenter").is_dir():
        return SHIPPED
    if not TRIAL.is_dir():
        return None
    return assemble_trial_pair(scratch)


def assemble_trial_pair(target: Path) -> Path:
    """Copy the trial's weights to `target` and add what the project's own folders hold besides."""
    for kind, description in (("prompter", PROMPTER), ("segmenter", SEGMENTER)):
        folder = target / kind
        folder.mkdir(parents=True, exist_ok=True)
        for file in (TRIAL / kind).iterdir():
            shutil.copyfile(file, folder / file.name)
        (folder / "think2seg.json").write_text(json.dumps(description, indent=1))
    (target / "prompter" / "template.yaml").write_text(TEMPLATE)
    (target / "prompter" / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return target
