"""The words behind `think2seg.samples.phrasings`: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

NAMES: Mapping[str, tuple[str, str]] = {
    "water": ("water body", "water bodies"),
    "lake": ("lake", "lakes"),
    "river": ("river", "rivers"),
    "building": ("building", "buildings"),
    "forest": ("forest", "forests"),
    "clearing": ("forest clearing", "forest clearings"),
    "road": ("road", "roads"),
    "sports field": ("sports field", "sports fields"),
    "runway": ("runway", "runways"),
    "ship": ("ship", "ships"),
    "farmland": ("farm field", "farm fields"),
    "solar farm": ("solar farm", "solar farms"),
    "burnt area": ("burnt area", "burnt areas"),
}
DIRECT = (
    "find all {many}",
    "where are the {many}?",
    "mark every {one} in this image",
    "is there a {one} here?",
    "outline each {one}",
    "show me the {many}",
    "please segment the {many} in the scene",
)
ASKED = (
    "find all {many}",
    "where are the {many}?",
    "show me the {many}",
    "are there any {many} here?",
    "locate {many} in this image",
    "mark the {many}",
    "which {many} can be seen?",
    "segment {many}",
    "{many}",
)
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "water": ("waters", "open water areas", "water surfaces", "surface water", "inland waters"),
    "lake": ("ponds", "pools of still water", "reservoirs", "lakes and ponds", "standing waters"),
    "river": ("streams", "creeks", "watercourses", "canals", "channels of flowing water"),
    "building": ("houses", "built structures", "roofs", "homes", "building footprints"),
    "forest": ("woods", "woodland", "stands of trees", "tree cover", "wooded areas"),
    "clearing": ("clear-cuts", "felled areas", "logged patches", "gaps in the forest", "cleared land", "bare patches"),
    "road": ("streets", "highways", "tracks for vehicles", "paved roads", "lanes"),
    "sports field": ("pitches", "playing fields", "football pitches", "running tracks", "sports grounds", "courts"),
    "runway": ("landing strips", "airstrips", "runways of an airfield", "airport runways", "take-off strips"),
    "ship": ("boats", "vessels", "ships on the water", "cargo ships", "watercraft"),
    "farmland": ("crop fields", "agricultural parcels", "arable land", "cultivated fields", "farm parcels"),
    "solar farm": ("solar parks", "photovoltaic plants", "solar panels", "solar arrays", "photovoltaic fields"),
    "burnt area": ("burn scars", "fire scars", "burned land", "scorched areas", "charred ground"),
}
STANDING: Mapping[str, tuple[str, ...]] = {
    "water": ("water", "open water", "where is open water?", "where is water?", "which areas are under water?"),
    "lake": ("lakes", "where are lakes?", "which lakes are there?", "which lakes have grown?"),
    "river": ("rivers", "where are rivers?", "which rivers are there?", "where does the river run?"),
    "building": ("buildings", "where are buildings?", "which buildings are new?", "where has been built?"),
    "forest": ("forest", "forests", "where is forest?", "which forest is left?"),
    "clearing": ("clearings", "forest clearings", "which clearings are new?", "where are new clearings?"),
    "road": ("roads", "where are roads?", "which roads are new?", "where does a road run?"),
    "sports field": ("sports fields", "where are sports fields?", "which sports fields are there?"),
    "runway": ("runways", "where are runways?", "which runways are there?", "where is a runway?"),
    "ship": ("ships", "where are ships?", "which ships are here?", "where is a ship now?"),
    "farmland": ("farmland", "fields", "where is farmland?", "which fields are there?", "which land is farmed?"),
    "solar farm": ("solar farms", "where are solar farms?", "which solar farms are new?"),
    "burnt area": ("burnt areas", "burnt area", "where has it burnt?", "which burnt areas are new?"),
}
IMPLICIT: Mapping[str, tuple[str, ...]] = {
    "water": (
        "where could ducks swim?",
        "which places are wet all over?",
        "what would you have to cross by boat?",
        "where would cattle find something to drink?",
        "where is the ground flooded?",
    ),
    "lake": (
        "where could a person swim in still water?",
        "where would one row a boat in a circle?",
        "where could you fish without any current?",
        "where does rain collect and stay?",
        "where would ice be thick enough to skate on in winter?",
    ),
    "river": (
        "where does water flow towards the sea?",
        "what would need a bridge to cross it?",
        "where would a canoe drift with the current?",
        "what carries the rain of the land away?",
        "where could a mill be driven by flowing water?",
    ),
    "building": (
        "where do people live?",
        "where could people take shelter from a storm?",
        "what has a roof?",
        "where would people sleep at night?",
        "what would a fire brigade have to protect?",
    ),
    "forest": (
        "where could deer hide?",
        "where is timber growing?",
        "where do many trees stand together?",
        "where would you walk in deep shade?",
        "what stores most carbon in its wood?",
    ),
    "clearing": (
        "where have trees been cut down?",
        "where has timber been taken out?",
        "where is the forest gone?",
        "where did loggers work?",
        "where does the sun reach the ground between the trees?",
    ),
    "road": (
        "where can cars drive?",
        "how would a truck get through here?",
        "what connects the villages?",
        "where could an ambulance drive?",
        "what would you follow with a bicycle?",
    ),
    "sports field": (
        "where could a football match be played?",
        "where do children play ball?",
        "where do teams meet on a Sunday?",
        "where could athletes train?",
        "where would you run laps?",
    ),
    "runway": (
        "where could a plane land?",
        "where could an aircraft land?",
        "where do aeroplanes take off?",
        "where would a pilot touch down?",
        "what is long, straight and made for aircraft?",
    ),
    "ship": (
        "what is afloat?",
        "what carries cargo over water?",
        "what is sailing here?",
        "who is out on the water?",
        "what could bring containers to the harbour?",
    ),
    "farmland": (
        "where is food grown?",
        "where would a tractor work?",
        "where could wheat be harvested?",
        "what does a farmer plough?",
        "where is land used for crops?",
    ),
    "solar farm": (
        "where is sunlight turned into electricity?",
        "where is power made without any smoke?",
        "what makes electricity from the sun?",
        "where do rows of dark panels stand?",
        "what delivers power only by day?",
    ),
    "burnt area": (
        "where has there been a fire?",
        "where did the wildfire pass?",
        "what did the flames leave behind?",
        "where is the ground black with ash?",
        "where was the vegetation lost to fire?",
    ),
}
OUTSIDE = (
    "volcanoes", "aeroplanes' tails", "oil slicks", "penguins", "dams", "bridges", "wind turbines", "glaciers",
    "icebergs", "sand dunes", "coral reefs", "power lines", "chimneys", "cooling towers", "oil tanks", "craters",
    "elephants", "whales", "cattle", "railway lines", "trains", "cars", "trucks", "buses", "car parks", "helicopters",
    "greenhouses", "cemeteries", "quarries", "landslides", "beaches", "cliffs", "geysers", "lava flows",
    "locust swarms", "smoke plumes", "avalanches", "oil wells", "pipelines", "fences", "people", "crowds",
    "bicycles", "hot-air balloons", "rockets", "antennas", "statues", "pyramids", "billboards", "tunnels", "tanks",
    "camels", "seals", "flamingos", "tents", "cranes", "shipping containers", "satellite dishes", "radio masts",
    "silos", "termite mounds", "snow fields", "icicles", "umbrellas", "haystacks", "open-pit mines", "landfills",
    "playgrounds", "windmills", "parachutes", "kites", "jellyfish", "clouds", "contrails", "rainbows", "scarecrows",
)  # fmt: skip
OUTSIDE_IMPLICIT = (
    "what could erupt?",
    "where does a train stop?",
    "where are the dead buried?",
    "which animals are grazing?",
    "what turns with the wind?",
    "where is coal dug out?",
    "what pollutes the sea?",
    "where is snow sliding down?",
    "who is standing in the square?",
    "where are vehicles parked?",
    "what holds back a reservoir?",
    "what is hiding under the ice?",
)
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
