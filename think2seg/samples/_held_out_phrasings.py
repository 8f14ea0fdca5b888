"""Questions that are never trained on: frozen, so that figures stay comparable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

type _Kind = Literal["direct", "synonym", "implicit", "standing"]
HELD_OUT: Mapping[str, tuple[str, str, str, str]] = {
    "water": (
        "locate every water body in the scene",
        "open water surfaces",
        "where has standing water collected?",
        "which areas are open water now?",
    ),
    "lake": (
        "can you find each lake here?",
        "where are the ponds and pools?",
        "where could a swan swim without any current?",
        "where have lakes grown?",
    ),
    "river": (
        "please mark the rivers",
        "where are streams of flowing water?",
        "what would a boat follow to reach the sea?",
        "where do rivers run now?",
    ),
    "building": (
        "please outline every building",
        "where can houses be seen?",
        "where would people be at home at night?",
        "which new buildings are there?",
    ),
    "forest": (
        "segment each forest here",
        "show me the woods and wooded land",
        "where would a squirrel find many trees?",
        "where is forest left?",
    ),
    "clearing": (
        "show every forest clearing",
        "where are areas cleared of trees?",
        "where did people cut timber?",
        "new forest clearings",
    ),
    "road": (
        "show me all the roads here",
        "locate the streets and lanes",
        "how could a bus get to the villages?",
        "where do new roads run?",
    ),
    "sports field": (
        "segment the sports fields",
        "football fields and running tracks",
        "where would a football team train?",
        "where is a sports field?",
    ),
    "runway": (
        "please find the runway",
        "locate strips for take-off and landing",
        "where would a plane touch down?",
        "which runways can be seen?",
    ),
    "ship": (
        "locate each ship in this image",
        "are vessels or boats to be seen?",
        "what is sailing over the water with cargo?",
        "ships here now",
    ),
    "farmland": (
        "outline all the farm fields",
        "cultivated land and crop parcels",
        "where would a farmer drive a tractor?",
        "which fields are farmed now?",
    ),
    "solar farm": (
        "can solar farms be seen here?",
        "where are the rows of solar panels?",
        "where is the sun used to make power?",
        "new solar farms",
    ),
    "burnt area": (
        "show each burnt area",
        "find burned and charred areas",
        "where did a fire leave black ground?",
        "where has land burnt?",
    ),
}
"""Concept → one text of each kind, in the order direct, synonym, implicit, standing."""
HELD_OUT_MORE: tuple[tuple[str, _Kind], ...] = (
    ("all the water in this image", "direct"),
    ("lakes, ponds and rivers", "synonym"),
    ("where would you get wet feet?", "implicit"),
)
"""More about water, the question of the sample monitors."""
HELD_OUT_OUTSIDE: tuple[tuple[str, _Kind], ...] = (
    ("where are the polar bears?", "direct"),
    ("find all submarines", "direct"),
    ("lighthouses", "standing"),
    ("where are the ski lifts?", "direct"),
    ("giraffes", "standing"),
    ("meteorites", "standing"),
    ("are there any drilling rigs here?", "direct"),
    ("show me the zebra herds", "direct"),
    ("where are traffic lights?", "standing"),
    ("mark every cable car", "direct"),
    ("where could lava flow?", "implicit"),
    ("which animals are swimming?", "implicit"),
    ("termites", "standing"),
)
