"""Archives: what is known about a collection, so that a monitor need not say it."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from think2seg.config.digests import content_digest
from think2seg.config.documents import Part, nearest

type Flag = Literal["nodata", "saturated", "cloud", "shadow", "snow"]
type DType = Literal["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
type Resampling = Literal["nearest", "bilinear", "cubic", "average", "mode"]


def _rising(limits: tuple[float, float]) -> tuple[float, float]:
    if not limits[0] < limits[1]:
        raise ValueError(f"the lower limit {limits[0]} is not below the upper limit {limits[1]}")
    return limits


class Band(Part):
    """Where one canonical band is found in an item."""

    asset: str
    """Asset key."""
    aliases: tuple[str, ...] = ()
    """Other asset keys that hold the same band, tried in order when `asset` is not there."""
    index: PositiveInt = 1
    """1-based band of the asset."""
    role: Literal["reflectance", "category"] = "reflectance"
    """Decides the resampling; a category is never scaled."""
    dtype: DType | None = None
    """Pixel type; default the archive's."""
    nodata: float | None = None
    """Default the archive's."""


class FixedScaling(Part):
    """The same scale and offset for every item; 1 and 0 leave digital numbers as they are."""

    kind: Literal["fixed"] = "fixed"
    scale: PositiveFloat = 1.0
    offset: float = 0.0


class MetadataScaling(Part):
    """Scale and offset of each asset's ``raster:bands`` (or ``bands``); these where an item is silent."""

    kind: Literal["metadata"] = "metadata"
    scale: PositiveFloat
    offset: float


class Sentinel2Scaling(Part):
    """Sentinel-2 L2A: an offset in digital numbers from a processing baseline on."""

    kind: Literal["sentinel2-baseline"] = "sentinel2-baseline"
    scale: PositiveFloat = 0.0001
    offset: float = -1000.0
    """Digital numbers, added before scaling."""
    since: str = "04.00"
    """First processing baseline that carries the offset."""
    since_day: date = date(2022, 1, 25)
    """First day of acquisition that carries it, for items that name no baseline."""
    applied_property: str | None = None
    """Item property that is true where the provider has already removed the offset."""


type Scaling = Annotated[FixedScaling | MetadataScaling | Sentinel2Scaling, Field(discriminator="kind")]


class QualityClasses(Part):
    """A band of class codes, such as Sentinel-2's SCL."""

    kind: Literal["classes"] = "classes"
    band: str
    flags: dict[Flag, tuple[NonNegativeInt, ...]]
    """Flag → class codes that raise it."""


class QualityBits(Part):
    """A band of bit flags, such as Landsat's QA_PIXEL."""

    kind: Literal["bits"] = "bits"
    band: str
    flags: dict[Flag, tuple[NonNegativeInt, ...]]
    """Flag → bit positions, any of which raises it."""


type QualityRule = Annotated[QualityClasses | QualityBits, Field(discriminator="kind")]


class Recipe(Part):
    """Three bands to 8-bit RGB with fixed limits: never a stretch per tile or scene."""

    bands: tuple[str, str, str] = ("red", "green", "blue")
    limits: Annotated[tuple[float, float], AfterValidator(_rising)]
    """Values after scaling that become 0 and 255."""


class ResamplingRules(Part):
    """How pixels are moved when a scene sits on another grid than the cube."""

    reflectance: Resampling = "bilinear"
    categories: Literal["nearest", "mode"] = "nearest"


def _one_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    if groups != 1:
        raise ValueError(f"it has {groups} groups, and needs one: the part that counts")
    return pattern


class PropertyRule(Part):
    """A value of an item's properties, or a part of it."""

    property: str
    """Property name, or ``id``."""
    pattern: Annotated[str, AfterValidator(_one_group)] = r"^\s*(.*?)\s*$"
    """Regular expression whose only group is the value."""


class AcquisitionRules(Part):
    """What tells acquisitions and re-processings apart; of several rules the first that finds a value counts."""

    day: Literal["solar", "utc"] = "solar"
    """``utc`` where an item's time is only a date, written as midnight or another round hour."""
    platform: tuple[PropertyRule, ...] = (PropertyRule(property="platform"),)
    orbit: tuple[PropertyRule, ...] = ()
    """Relative orbit, path or flight line."""
    place: tuple[PropertyRule, ...] = ()
    """Granule (MGRS tile, path and row): scenes of one acquisition and place are re-processings of each other."""
    baseline: tuple[PropertyRule, ...] = ()
    """Processing baseline: the newest wins."""


class HrefRules(Part):
    """Asset hrefs that may be read. A catalog's own folder or host is always allowed, other local files never."""

    schemes: tuple[Literal["https", "http", "s3", "gs", "az", "abfs"], ...] = ("https",)
    roots: tuple[str, ...] = ()
    """URL prefixes; empty allows every host of these schemes."""


class PlanetaryComputerSigning(Part):
    """Blob storage whose hrefs need a short-lived token, fetched by the worker at read time."""

    kind: Literal["planetary-computer"] = "planetary-computer"
    endpoint: str = "https://planetarycomputer.microsoft.com/api/sas/v1/token"


class Archive(Part):
    """One collection of one provider: ``conf/archives/NAME.yaml``."""

    archive: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", examples=["naip-local"])]
    """Name, the same as the file's."""
    description: str = ""
    endpoint: str | None = None
    """STAC API, or static catalog; None where the monitor names the catalog."""
    collections: Annotated[tuple[str, ...], Field(min_length=1)]
    bands: dict[str, Band]
    dtype: DType
    nodata: float | None = None
    resolution: PositiveFloat
    """Native pixel size in metres: the default of a monitor's grid."""
    scaling: Scaling = FixedScaling()
    quality: QualityRule | None = None
    recipe: Recipe
    resampling: ResamplingRules = ResamplingRules()
    acquisition: AcquisitionRules = AcquisitionRules()
    tile_footprint_m: PositiveFloat
    """Side of a tile on the ground, halo included: the default of a monitor's tile."""
    hrefs: HrefRules = HrefRules()
    signing: PlanetaryComputerSigning | None = None

    @model_validator(mode="after")
    def _bands_exist(self) -> Self:
        for name in self.needed_bands:
            if name not in self.bands:
                raise ValueError(
                    f"the recipe or quality rule uses the band {name!r}, but bands has {', '.join(self.bands)}."
                    f" {nearest(name, tuple(self.bands))}"
                )
        return self

    @property
    def needed_bands(self) -> tuple[str, ...]:
        """Canonical bands that reading needs: those of the recipe, then the quality band."""
        quality = () if self.quality is None else (self.quality.band,)
        return tuple(dict.fromkeys((*self.recipe.bands, *quality)))

    @property
    def digest(self) -> str:
        """Hash of everything that decides which scenes and pixels an item becomes; not of endpoints or hrefs."""
        kept = self.model_dump(mode="json", exclude={"description", "endpoint", "hrefs", "signing", "tile_footprint_m"})
        return content_digest(kept)
