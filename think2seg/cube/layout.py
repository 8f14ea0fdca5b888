"""What the Zarr group of a cube looks like: arrays, attributes, conventions, identity.

All metadata documents are built here from a `CubeSpec` and the published steps, as plain JSON values: a store only ever
receives finished documents, and two runs that agree on those values write the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from numcodecs import Blosc  # type: ignore[import-untyped]
from pyproj import CRS
from zarr.core.array import AsyncArray
from zarr.core.array_spec import ArrayConfig
from zarr.core.buffer import Buffer
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import MemoryStore, StorePath

from think2seg.cube.store import CubeStore
from think2seg.grid import Grid
from think2seg.imagery import Quality
from think2seg.plan import BlockState

FORMAT = 1
"""Version of this layout; a reader refuses a later one."""
ROOT_KEY = "zarr.json"
DATA = ("mask", "score", "quality")
"""Arrays over (time, y, x), written block by block."""
NOT_OBSERVED = 255
OUTSIDE_STATE = 255
"""`state` of a block that the region or the acquisition does not touch."""
_FILL: dict[str, int] = {"mask": NOT_OBSERVED, "score": 255, "quality": int(Quality.OUTSIDE)}
_EVERY_CHUNK = ArrayConfig(order="C", write_empty_chunks=True)
_LABELS_PER_CHUNK = 4096
_EPOCH = "since 1970-01-01T00:00:00"

_CONVENTIONS = [
    {
        "name": "proj",
        "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/proj/refs/tags/v0.1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/proj/blob/v0.1/README.md",
    },
    {
        "name": "spatial",
        "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v0.1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/spatial/blob/v0.1/README.md",
    },
]

type Json = Mapping[str, Any]
"""A JSON object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeSpec:
    """What a cube is about. All but `title` and `attribution` is its identity, fixed at creation.

    Never part of it: URIs, schedule, cluster, region (it may grow inside the grid) and weights (they may be promoted).
    """

    question: str
    grid: Grid
    source: Json
    """Which archive and collections, as people would write it: what must not be mixed in one time series."""
    recipe: Json
    """How bands became 8-bit RGB: bands, limits, resampling."""
    template: str
    """Digest of the prompt template."""
    views: int = 1
    """In how many views every tile is asked about."""
    title: str = ""
    attribution: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        """The identity as JSON values."""
        grid = asdict(self.grid)
        tiling = {name: grid.pop(name) for name in ("block_px", "core_px", "halo_px")}
        if self.views > 1:
            tiling["views"] = self.views
        values = {
            "question": self.question, "grid": grid, "tiling": tiling,
            "source": dict(self.source), "recipe": dict(self.recipe), "template": self.template,
        }  # fmt: skip
        return dict(json.loads(json.dumps(values, sort_keys=True)))

    def to_json(self) -> str:
        """Return the spec as one JSON object."""
        plain = {"format": FORMAT, "title": self.title, "attribution": self.attribution}
        return json.dumps(plain | {"identity": self.identity, "identity_digest": identity_digest(self.identity)})

    @classmethod
    def from_json(cls, text: str | bytes) -> CubeSpec:
        """Rebuild a spec from `to_json`."""
        plain = json.loads(text)
        values = plain["identity"]
        views = values["tiling"].pop("views", 1)
        return cls(
            question=values["question"],
            grid=Grid(**values["grid"], **values["tiling"]),
            views=views,
            source=values["source"],
            recipe=values["recipe"],
            template=values["template"],
            title=plain["title"],
            attribution=plain["attribution"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Values of the coordinates along time, one entry per published step."""

    time: Sequence[int]
    """Acquisition time, seconds since 1970-01-01 UTC."""
    published: Sequence[int]
    """Publication time, milliseconds since 1970-01-01 UTC."""
    acquisition: Sequence[str]
    revision: Sequence[int]
    model_version: Sequence[str]
    observed_fraction: Sequence[float]

    def __len__(self) -> int:
        return len(self.time)

    def names(self, array: str) -> list[str]:
        """Distinct names of an integer-coded label, in order of first appearance; the code is the position."""
        return list(dict.fromkeys(getattr(self, array)))

    def values(self, array: str) -> npt.NDArray[Any]:
        """Return a label as it is stored: codes for names, numbers for the rest."""
        values = getattr(self, array)
        if array in _CODED:
            code = {name: number for number, name in enumerate(self.names(array))}
            values = [code[name] for name in values]
        return np.asarray(values, dtype=_LABELS[array])


NO_LABELS = Labels(time=(), published=(), acquisition=(), revision=(), model_version=(), observed_fraction=())
_LABELS = {
    "time": "int64",
    "published": "int64",
    "acquisition": "int32",
    "revision": "int32",
    "model_version": "int32",
    "observed_fraction": "float32",
}
LABELS = tuple(_LABELS)
_CODED = ("acquisition", "model_version")


def identity_digest(identity: Json) -> str:
    """Digest of an identity."""
    return sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def differences(held: Json, asked: Json, path: str = "") -> Iterator[str]:
    """Say field by field how two identities differ."""
    for name in sorted({*held, *asked}):
        old, new = held.get(name), asked.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{path}{name}.")
        elif old != new:
            yield f"{path}{name}: the cube has {old!r}, asked for is {new!r}"


def array_documents(spec: CubeSpec, labels: Labels) -> dict[str, dict[str, Any]]:
    """Metadata documents (``zarr.json``) of all arrays of a cube that shows these steps."""
    height, width = spec.grid.shape
    steps, block = len(labels), spec.grid.block_px
    dims = ("time", "y", "x")
    documents = {
        name: _document((steps, height, width), (1, block, block), dtype, _FILL[name], dims, _data_attributes(name))
        for name, dtype in (("mask", "uint8"), ("score", "uint8"), ("quality", "uint16"))
    }
    rows, cols = spec.grid.rows, spec.grid.cols
    documents["state"] = _document(
        (steps, rows, cols), (1, rows, cols), "uint8", OUTSIDE_STATE, ("time", "block_y", "block_x"), _STATE_ATTRIBUTES
    )
    for name, dtype in _LABELS.items():
        attributes = _LABEL_ATTRIBUTES[name] | ({"names": labels.names(name)} if name in _CODED else {})
        documents[name] = _document((steps,), (_LABELS_PER_CHUNK,), dtype, 0, ("time",), attributes)
    documents["y"] = _document((height,), (height,), "float64", 0, ("y",), _axis_attributes(spec.grid, "y"))
    documents["x"] = _document((width,), (width,), "float64", 0, ("x",), _axis_attributes(spec.grid, "x"))
    documents["spatial_ref"] = _document((), (), "int64", 0, (), _crs_attributes(spec.grid))
    return documents


def root_document(spec: CubeSpec, documents: Mapping[str, Json]) -> dict[str, Any]:
    """Build the group's document with its consolidated metadata: writing it is what publishes."""
    attributes = {
        "Conventions": "CF-1.11",
        "title": spec.title or spec.question,
        "question": spec.question,
        "source": json.dumps(dict(spec.source), sort_keys=True),
        "attribution": spec.attribution,
        "summary": "Masks over time. mask: 1 present, 0 absent, 255 not observed (quality says why).",
        "think2seg": json.loads(spec.to_json()),
        **_geozarr_attributes(spec.grid),
    }
    consolidated = {"kind": "inline", "must_understand": False, "metadata": dict(documents)}
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": attributes,
        "consolidated_metadata": consolidated,
    }


def as_bytes(document: Json) -> bytes:
    """Return a metadata document as it is stored."""
    return json.dumps(document, indent=1).encode()


def open_array(store: CubeStore, name: str, document: Json, *, read_only: bool = False) -> zarr.Array[Any]:
    """Open an array through a metadata document held in memory, whatever shape the store publishes."""
    metadata = ArrayV3Metadata.from_dict(dict(document))
    path = StorePath(store.zarr(read_only=read_only), name)
    return zarr.Array(AsyncArray(metadata=metadata, store_path=path, config=_EVERY_CHUNK))


def encode_chunks(name: str, document: Json, index: Any, values: npt.ArrayLike) -> dict[str, bytes]:
    """Encode a part of an array that is made of whole chunks; return chunk key → bytes, in order of their keys."""
    held: dict[str, Buffer] = {}
    metadata = ArrayV3Metadata.from_dict(dict(document))
    path = StorePath(MemoryStore(held), name)
    zarr.Array(AsyncArray(metadata=metadata, store_path=path, config=_EVERY_CHUNK))[index] = values
    return {key: held[key].to_bytes() for key in sorted(held)}


def encode_block(document: Json, values: npt.NDArray[Any]) -> bytes:
    """Encode one whole chunk of an array over (time, y, x): what `encode_chunks` makes of it, in half the time."""
    (_, blosc) = document["codecs"]
    options = blosc["configuration"] | {"shuffle": Blosc.BITSHUFFLE}
    plain = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return bytes(Blosc(**options).encode(plain.view(np.uint8)))


def chunk_key(array: str, step: int, row: int, col: int) -> str:
    """Key of one chunk of an array over (time, y, x)."""
    return f"{array}/c/{step}/{row}/{col}"


def axis_values(grid: Grid, axis: str) -> npt.NDArray[np.float64]:
    """Coordinates of pixel centres along y or x, in CRS units."""
    transform, (height, width) = grid.transform, grid.shape
    if axis == "y":
        return transform.f + transform.e * (np.arange(height, dtype=np.float64) + 0.5)
    return transform.c + transform.a * (np.arange(width, dtype=np.float64) + 0.5)


def _document(
    shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str, fill: int, dims: tuple[str, ...], attributes: Json
) -> dict[str, Any]:
    blosc = {
        "typesize": np.dtype(dtype).itemsize,
        "cname": "zstd",
        "clevel": 5,
        "shuffle": "bitshuffle",
        "blocksize": 0,
    }
    endian = {"name": "bytes", "configuration": {"endian": "little"}} if dtype != "uint8" else {"name": "bytes"}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": [endian, {"name": "blosc", "configuration": blosc}],
        "attributes": dict(attributes),
        "dimension_names": list(dims),
        "storage_transformers": [],
    }


def _data_attributes(name: str) -> dict[str, Any]:
    shared = {
        "grid_mapping": "spatial_ref",
        "coordinates": "acquisition revision published model_version observed_fraction spatial_ref",
    }
    return _DATA_ATTRIBUTES[name] | shared


_DATA_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "mask": {
        "long_name": "answer to the question",
        "flag_values": [0, 1, NOT_OBSERVED],
        "flag_meanings": "absent present not_observed",
    },
    "score": {
        "long_name": "predicted intersection over union of the drawn mask",
        "comment": "divide by 254; 255: nothing drawn here",
        "units": "1",
        "valid_range": [0, 254],
    },
    "quality": {
        "long_name": "why a pixel was or was not observed",
        "flag_masks": [int(flag) for flag in Quality],
        "flag_meanings": " ".join(str(flag.name).lower() for flag in Quality),
    },
}
_STATE_ATTRIBUTES = {
    "long_name": "what became of a block",
    "flag_values": [*range(len(BlockState)), OUTSIDE_STATE],
    "flag_meanings": " ".join([*BlockState, "outside"]),
}
_LABEL_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "time": {
        "standard_name": "time", "long_name": "acquisition time, UTC", "axis": "T",
        "units": f"seconds {_EPOCH}", "calendar": "proleptic_gregorian",
    },
    "published": {
        "long_name": "time of publication, UTC", "units": f"milliseconds {_EPOCH}", "calendar": "proleptic_gregorian",
    },
    "acquisition": {"long_name": "acquisition", "comment": "position in the attribute names"},
    "revision": {"long_name": "revision of the acquisition", "comment": "the highest one is the latest answer"},
    "model_version": {"long_name": "weights that answered", "comment": "position in the attribute names"},
    "observed_fraction": {"long_name": "observed share of the region", "units": "1"},
}  # fmt: skip


def _axis_attributes(grid: Grid, axis: str) -> dict[str, Any]:
    crs = CRS.from_user_input(grid.crs)
    if crs.is_geographic:
        name, units = ("latitude", "degrees_north") if axis == "y" else ("longitude", "degrees_east")
        return {"standard_name": name, "long_name": name, "units": units, "axis": axis.upper()}
    unit = crs.axis_info[0].unit_name
    return {
        "standard_name": f"projection_{axis}_coordinate",
        "long_name": f"{axis} of pixel centres",
        "units": "m" if unit == "metre" else unit,
        "axis": axis.upper(),
    }


def _crs_attributes(grid: Grid) -> dict[str, Any]:
    crs = CRS.from_user_input(grid.crs)
    a, b, c, d, e, f = grid.transform[:6]
    attributes = {name: value for name, value in crs.to_cf().items() if name != "crs_wkt"}
    wkt = crs.to_wkt()
    return attributes | {"crs_wkt": wkt, "spatial_ref": wkt, "GeoTransform": f"{c!r} {a!r} {b!r} {f!r} {d!r} {e!r}"}


def _geozarr_attributes(grid: Grid) -> dict[str, Any]:
    crs, (height, width) = CRS.from_user_input(grid.crs), grid.shape
    a, b, c, d, e, f = grid.transform[:6]
    named = grid.crs.startswith("EPSG:")
    return {
        "zarr_conventions": _CONVENTIONS,
        **({"proj:code": grid.crs} if named else {"proj:wkt2": crs.to_wkt()}),
        "spatial:dimensions": ["y", "x"],
        "spatial:transform_type": "affine",
        "spatial:transform": [a, b, c, d, e, f],
        "spatial:shape": [height, width],
        "spatial:bbox": [c, f + e * height, c + a * width, f],
        "spatial:registration": "pixel",
    }
