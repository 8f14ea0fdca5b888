"""Which weights a name means: a folder, the hub, the bundled pair, or a version in the registry."""

from think2seg.registry.digests import weights_digest
from think2seg.registry.modes import share_weights
from think2seg.registry.store import MODEL, REGISTRY_VARIABLE, Registry, Version, find_registry, open_registry
from think2seg.registry.weights import (
    ALIASES,
    WEIGHTS_VARIABLE,
    Kind,
    Weights,
    bundled,
    pinned,
    prompter_weights,
    resolve,
    segmenter_named,
    segmenter_weights,
)

__all__ = [
    "ALIASES",
    "MODEL",
    "REGISTRY_VARIABLE",
    "WEIGHTS_VARIABLE",
    "Kind",
    "Registry",
    "Version",
    "Weights",
    "bundled",
    "find_registry",
    "open_registry",
    "pinned",
    "prompter_weights",
    "resolve",
    "segmenter_named",
    "segmenter_weights",
    "share_weights",
    "weights_digest",
]
