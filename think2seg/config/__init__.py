"""Monitors and archives: YAML files, checked line by line."""

from __future__ import annotations

from think2seg.config.archive import (
    Archive,
    Band,
    FixedScaling,
    MetadataScaling,
    QualityBits,
    QualityClasses,
    Recipe,
    Sentinel2Scaling,
)
from think2seg.config.files import archive_names, conf_root, load_archive, load_monitor, monitor_names, monitor_schema
from think2seg.config.monitor import (
    ClusterOptions,
    Gates,
    LocalPrompter,
    Models,
    Monitor,
    Prompter,
    Sam2Segmenter,
    SamSegmenter,
    Segmenter,
    ServedPrompter,
)
from think2seg.config.regions import region_named

__all__ = [
    "Archive",
    "Band",
    "ClusterOptions",
    "FixedScaling",
    "Gates",
    "LocalPrompter",
    "MetadataScaling",
    "Models",
    "Monitor",
    "Prompter",
    "QualityBits",
    "QualityClasses",
    "Recipe",
    "Sam2Segmenter",
    "SamSegmenter",
    "Segmenter",
    "Sentinel2Scaling",
    "ServedPrompter",
    "archive_names",
    "conf_root",
    "load_archive",
    "load_monitor",
    "monitor_names",
    "monitor_schema",
    "region_named",
]
