"""Monitors: one question, asked of one archive over one region."""

from __future__ import annotations

import string
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

import shapely
from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)
from shapely.geometry.base import BaseGeometry

from think2seg.config.archive import Archive
from think2seg.config.digests import content_digest
from think2seg.config.documents import Part, nearest
from think2seg.config.intervals import Interval, parse_interval
from think2seg.config.regions import Region


def _interval_text(text: str) -> str:
    parse_interval(text)
    return text


def _timezone(name: str) -> str:
    if name not in available_timezones():
        hint = nearest(name, sorted(available_timezones(), key=len))
        raise ValueError(f"not a time zone of the IANA database, such as Europe/Berlin. {hint}".strip())
    return name


def _uri_fields(uri: str) -> str:
    allowed = {"question", "zone"}
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(uri) if name is not None}
        if not fields - allowed:
            uri.format(question="question", zone="zone")
    except (ValueError, LookupError) as error:
        raise ValueError(f"{error}; the places that can be filled are {{question}} and {{zone}}") from error
    if unknown := fields - allowed:
        raise ValueError(f"{{{unknown.pop()}}} cannot be filled; the places that can are {{question}} and {{zone}}")
    return uri


type Comparison = Literal["eq", "neq", "lt", "lte", "gt", "gte", "in"]


class Source(Part):
    """Where imagery comes from, and which of it."""

    archive: str
    """Name of a file in ``conf/archives``, or the path of one."""
    catalog: str | None = None
    """``sample:NAME``, a path, or the URL of a STAC API or static catalog; default the archive's endpoint."""
    collections: tuple[str, ...] = ()
    """Default the archive's."""
    datetime: Annotated[str, AfterValidator(_interval_text)]
    """``2009-01-01/2020-12-31``; either side may be ``..``; both days included."""
    max_cloud_cover: Annotated[float, Field(ge=0, le=100)] = 100.0
    """Percent; an acquisition whose every scene is cloudier is not read."""
    lookback_days: PositiveInt | None = None
    """How far back a repeated run searches for late and changed scenes; default the whole interval."""
    query: dict[str, dict[Comparison, Any]] = Field(default={})
    """Item property → comparison, as in the STAC query extension."""

    @property
    def interval(self) -> Interval:
        """`datetime` as UTC times; None on an open side."""
        return parse_interval(self.datetime)


class GridOptions(Part):
    """The pixel grid of the cube."""

    crs: str = "auto"
    """``EPSG:…``, or ``auto``: the CRS of the scenes, else the UTM zone."""
    resolution: PositiveFloat | None = None
    """CRS units; default the archive's."""


class TileOptions(Part):
    """The model unit on the ground, in metres."""

    footprint_m: PositiveFloat | None = None
    """Side of a tile, halo included; default the archive's."""
    halo_m: NonNegativeFloat | None = None
    """Width of the context around a tile's core; default a sixth of the footprint."""
    views: Annotated[int, Field(ge=1, le=8)] = 1
    """In how many views every tile is asked about: as it lies, turned, mirrored. Where there are several, a pixel is
    present when at least half of the answers say so. Each costs as much as the first."""


type Weights = Literal["auto", "float32", "bfloat16", "float16"]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", examples=["auto", "cpu", "cuda:0", "mps"])]


class LocalPrompter(Part):
    """A Qwen2.5-VL prompter in the worker's process."""

    kind: Literal["local"] = "local"
    path: str = "champion"
    """``champion``, a folder of weights, or a hub id, best with a revision: ``owner/name@revision``. Published are
    ``RicardoString/Think2Seg-RS-7B`` (Apache-2.0) and ``-3B`` (its base model is licensed for research only)."""
    batch: PositiveInt = 16
    dtype: Weights = "auto"
    device: Device = "auto"
    max_new_tokens: PositiveInt | None = None
    """Default: what the weights folder says."""
    template: str | None = None
    """Name or path of a template; default the weights folder's own, else ours."""


class ServedPrompter(Part):
    """A prompter behind an OpenAI-compatible server: vLLM, SGLang, ``transformers serve``."""

    kind: Literal["served"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$", repr=False, examples=["http://127.0.0.1:8000/v1"])]
    """Base address of the API; holds no password and no key."""
    model: Annotated[str, Field(min_length=1, examples=["RicardoString/Think2Seg-RS-7B"])]
    """Name under which the server offers the weights. Published are ``RicardoString/Think2Seg-RS-7B`` (Apache-2.0) and
    ``-3B`` (its base model is licensed for research only)."""
    revision: Annotated[str, Field(min_length=1)]
    """Which version of the weights it is: a commit of the hub, or a name of your own. Servers do not tell; with `model`
    it stands for the digest of weights at hand, so change it whenever the weights change."""
    api_key_variable: Annotated[
        str | None, Field(pattern=r"^[A-Z_][A-Z0-9_]*$", repr=False, examples=["VLLM_API_KEY"])
    ] = None
    """Name of the environment variable that holds the key, on every worker."""
    concurrency: PositiveInt = 32
    """Requests that one worker keeps under way; fewer while the server asks to wait."""
    timeout_s: PositiveFloat = 300.0
    """Longest wait for one answer."""
    retries: NonNegativeInt = 6
    """How often a request is repeated when the server is busy, out of order or cut off."""
    presence: bool = True
    """Ask for the probabilities of tokens, from which presence is read; not every server offers them."""
    seed: NonNegativeInt = 0
    """Goes into the seed of every request, beside tile and question; answers are greedy, so few servers heed it."""
    frame_px: Annotated[int, Field(ge=28, le=4096)] = 840
    """Side of the square frame that answers refer to."""
    template: str = "think2seg-rs"
    """Name or path of a template."""
    max_new_tokens: PositiveInt = 2048
    unknown_reasoning: Annotated[str, Field(min_length=1)] | None = None
    """What the reasoning says when the model does not know the concept asked for."""
    footprint_m: tuple[PositiveFloat, PositiveFloat] | None = None
    """Smallest and largest tile footprint seen in training, metres."""


class SamSegmenter(Part):
    """A segment-anything checkpoint in the worker's process."""

    kind: Literal["sam"] = "sam"
    path: str = "bundled"
    """``bundled``, a folder of weights, or a checkpoint."""
    dtype: Weights = "auto"
    device: Device = "auto"


class Sam2Segmenter(Part):
    """A SAM 2 or 2.1 checkpoint of transformers in the worker's process."""

    kind: Literal["sam2"]
    path: Annotated[str, Field(min_length=1, examples=["facebook/sam2.1-hiera-small"])]
    """A folder of weights, or a hub id, best with a revision: ``owner/name@revision``."""
    dtype: Weights = "auto"
    device: Device = "auto"


def _kind_else(default: str) -> Discriminator:
    """Tells the members of a union by their `kind`, which may be left out for `default`."""

    def kind_of(value: Any) -> Any:
        return value.get("kind", default) if isinstance(value, dict) else getattr(value, "kind", default)

    return Discriminator(kind_of)


type Prompter = Annotated[
    Annotated[LocalPrompter, Tag("local")] | Annotated[ServedPrompter, Tag("served")], _kind_else("local")
]
type Segmenter = Annotated[
    Annotated[SamSegmenter, Tag("sam")] | Annotated[Sam2Segmenter, Tag("sam2")], _kind_else("sam")
]


class Models(Part):
    """Who answers and who draws."""

    prompter: Prompter = LocalPrompter()
    segmenter: Segmenter = SamSegmenter()


class CubeOptions(Part):
    """Where the masks go."""

    uri: Annotated[str, Field(min_length=1), AfterValidator(_uri_fields)]
    """Path or URL; may hold ``{question}`` and ``{zone}``."""
    block_px: Annotated[int, Field(ge=16, le=8192)] = 1024


type Share = Annotated[float, Field(ge=0, le=1)]


class Gates(Part):
    """Which tiles are not asked about; what is skipped is *gated*, never absent."""

    nodata: Annotated[float, Field(gt=0, le=1)] | None = None
    """Skip a tile when at least this part of its core has no data."""
    cloud: Annotated[float, Field(gt=0, le=1)] | None = None
    """Skip it when at least this part of its core lies under cloud or shadow."""
    unchanged: Annotated[float, Field(ge=0, le=255)] | None = None
    """Skip a clear tile whose picture differs from its last clear one by at most this, on average, of 255."""
    audit: Share = 0.02
    """Part of what is skipped, drawn at random, that is asked about all the same to see what is missed."""

    @property
    def off(self) -> bool:
        """Whether nothing is ever skipped."""
        return self.nodata is None and self.cloud is None and self.unchanged is None


class Budget(Part):
    """What one run may spend; the rest is left over, visibly."""

    tiles: PositiveInt | None = None
    """Shared by the cubes, one per question and zone; whole blocks are done, so a share is at least one block."""


class Schedule(Part):
    """When the question is asked again, for people to read: what runs stands in `deployments/prefect.yaml`."""

    cron: Annotated[str, Field(pattern=r"^\S+( \S+){4}$", examples=["0 6 * * 1"])]
    """Five fields: minute, hour, day, month, weekday."""
    timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of `cron`."""
        return ZoneInfo(self.timezone)


class ClusterOptions(Part):
    """Where engines run."""

    workers: PositiveInt | None = None
    """Local processes; default one per core."""
    scheduler: Annotated[str | None, Field(pattern=r"^(tcp|tls|ucx|ws|wss)://", examples=["tcp://host:8786"])] = None
    """Address of an existing Dask scheduler, such as ``tcp://host:8786``."""
    gpus: bool = False
    """Ask every work order's worker for one ``GPU`` resource."""
    in_flight: PositiveInt = 2
    """Work orders per worker."""
    order_blocks: PositiveInt = 8
    """Blocks per work order."""
    prefetch_mb: PositiveInt = 256
    """Imagery that a worker reads ahead of its prompter."""


type Question = Annotated[str, Field(min_length=1, max_length=500)]


class Monitor(Part):
    """A standing question: ``conf/monitors/NAME.yaml``."""

    monitor: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", examples=["nd-wetlands"])]
    """Name: lower-case letters, digits and hyphens."""
    title: str = ""
    question: Question | None = None
    """What is asked; or several `questions`."""
    questions: tuple[Question, ...] = ()
    """Asked of the same tiles, which are read and encoded once for all of them; each has a cube of its own, and
    ``cube.uri`` holds ``{question}``."""
    probes: tuple[Question, ...] = ()
    """Those of `questions` whose answer should be *nothing here*: finding more of them tells that the model errs."""
    region: Region
    source: Source
    grid: GridOptions = GridOptions()
    tile: TileOptions = TileOptions()
    models: Models = Models()
    cube: CubeOptions
    gates: Gates = Gates()
    budget: Budget = Budget()
    schedule: Schedule | None = None
    cluster: ClusterOptions = ClusterOptions()

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if self.question is None and not self.questions:
            raise ValueError("question is missing; several can be listed under questions")
        if self.question is not None and self.questions:
            raise ValueError("a monitor has either a question or questions, not both")
        if len(set(self.questions)) < len(self.questions):
            raise ValueError("the same question stands twice under questions")
        if len(self.questions) > 1 and "{question}" not in self.cube.uri:
            raise ValueError("each of several questions has a cube of its own: put {question} into cube.uri")
        if unknown := [probe for probe in self.probes if probe not in self.questions]:
            raise ValueError(f"probes names {unknown[0]!r}; probes are some of the questions: {list(self.questions)}")
        return self

    @property
    def asked(self) -> tuple[str, ...]:
        """What is asked: one question or several."""
        return self.questions or ((self.question,) if self.question else ())

    @property
    def hash(self) -> str:
        """Hash of what is asked, of what and by whom; not of title, probes, places, budget, schedule or cluster."""
        server = {"url", "api_key_variable", "concurrency", "timeout_s", "retries"}
        left_out: dict[str, Any] = dict.fromkeys(("title", "probes", "region", "budget", "schedule", "cluster"), True)
        kept = self.model_dump(mode="json", exclude=left_out | {"models": {"prompter": server}})
        del kept["cube"]["uri"], kept["source"]["catalog"]
        for name, plain in (("question", None), ("questions", []), ("gates", Gates().model_dump(mode="json"))):
            if kept[name] == plain:
                del kept[name]
        return content_digest({**kept, "region": shapely.to_geojson(self.region.shape())})

    @property
    def geometry(self) -> BaseGeometry:
        """Region in WGS 84; parts on both sides of the antimeridian where it crosses."""
        return self.region.shape()

    def collections(self, archive: Archive) -> tuple[str, ...]:
        """Collections to search."""
        return self.source.collections or archive.collections

    def resolution(self, archive: Archive) -> float:
        """Pixel size in units of the grid's CRS."""
        return self.grid.resolution or archive.resolution

    def footprint_m(self, archive: Archive) -> float:
        """Side of a tile on the ground, halo included, in metres."""
        return self.tile.footprint_m or archive.tile_footprint_m

    def halo_m(self, archive: Archive) -> float:
        """Width of a tile's halo in metres."""
        return self.footprint_m(archive) / 6 if self.tile.halo_m is None else self.tile.halo_m
