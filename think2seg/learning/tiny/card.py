"""Model cards of the small pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from think2seg.learning.settings import PrompterSettings, SegmenterSettings

PURPOSE = {
    "prompter": (
        "A small Qwen2.5-VL that answers questions about an image with boxes and points, in the published format. "
        "It knows the concepts of the simulated scenes and says so when asked for anything else."
    ),
    "segmenter": "A small segment-anything `Sam` that draws what a box and two points show.",
}
LIMITS = (
    "It is made for demonstrations, tests, continuous integration and teaching, and for simple concepts in imagery "
    "like that of its training. It is not a substitute for the published weights, and its answers are no map."
)


def model_card(
    settings: SegmenterSettings | PrompterSettings,
    entries: Sequence[Mapping[str, Any]],
    *,
    digest: str,
    parameters: int,
    command: str,
) -> str:
    """Markdown text with purpose, figures, command and digest of an export."""
    steps = [entry for entry in entries if "images" in entry]
    looks = [entry for entry in entries if "held_out" in entry]
    seen = {stage: max(e["images"] for e in steps if e["stage"] == stage) for stage in {e["stage"] for e in steps}}
    images = ", ".join(f"{count:,} in stage *{stage}*" for stage, count in sorted(seen.items()))
    minutes = round(max((entry.get("seconds", 0) for entry in entries), default=0) / 60)
    figures = looks[-1]["held_out"] if looks else {}
    start = f"the weights in {settings.start.as_posix()}" if settings.start else "random weights"
    table = "\n".join(f"| {name.replace('_', ' ')} | {value:.3f} |" for name, value in figures.items())
    return f"""# think2seg {settings.name}

{PURPOSE[settings.kind]} {parameters / 1e6:.1f} million parameters, half precision.

{LIMITS}

## Figures
On {settings.evaluate_scenes} held-out simulated scenes, and on as many held-out real tiles where they were at hand:

| figure | value |
|---|---|
{table}

## How it was made
From {start} on simulated scenes and {settings.data.real_share:.0%} real train tiles; images seen:
{images or "none"}; {minutes} minutes of wall time on {settings.threads} CPU threads; seed {settings.seed}.

```
{command}
```

`model.safetensors` has SHA-256 `{digest}`.
"""
