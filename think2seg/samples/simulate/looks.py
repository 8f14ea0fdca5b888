"""How a sensor and the air above it show a scene: light, haze, cloud, blur, noise, compression."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image as PilImage
from PIL import ImageFilter

from think2seg.samples.labelled import Image, Mask
from think2seg.samples.simulate import texture
from think2seg.samples.simulate.canvas import Canvas


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One family of imagery."""

    name: str
    gsd_m: tuple[float, float]
    """Range of ground sampling distances in metres."""
    gain: tuple[float, float]
    """Range of overall brightness."""
    finest: float
    """Smallest share of the size that the scene may have been resampled from, 1 is native."""
    clouds: float
    """Probability of a cloud or its shadow on the tile."""


DRONE = Look(name="drone", gsd_m=(0.15, 0.6), gain=(0.8, 1.2), finest=0.75, clouds=0.02)
AERIAL = Look(name="aerial", gsd_m=(0.6, 2.0), gain=(0.75, 1.2), finest=0.65, clouds=0.03)
REGIONAL = Look(name="regional", gsd_m=(2.0, 6.0), gain=(0.75, 1.15), finest=0.6, clouds=0.05)
SATELLITE = Look(name="satellite", gsd_m=(8.0, 12.0), gain=(0.5, 1.15), finest=0.55, clouds=0.15)


def develop(canvas: Canvas, look: Look) -> tuple[Image, Mask | None]:
    """The 8-bit picture of a canvas, (y, x, 3) uint8, and what an opaque cloud hides of it, (y, x) bool or None."""
    rng = canvas.rng
    hidden = _clouds(canvas) if canvas.chance(look.clouds) and not canvas.calm else None
    bands = canvas.bands
    if canvas.chance(0.35) and not canvas.calm:
        along, _ = canvas.frame(float(rng.uniform(0, 2 * math.pi)), canvas.size / 2, canvas.size / 2)
        bands *= 1 + np.float32(rng.uniform(0, 0.3) / canvas.size) * along
    gain = rng.uniform(*look.gain) * (1 + rng.normal(0, 0.045, 3))
    offset = rng.normal(0, 5) + rng.normal(0, 2, 3)
    if canvas.chance(0.12) and not canvas.calm:
        haze = rng.uniform(0.05, 0.25)
        veil = rng.uniform(150, 215) + np.array([-6, 0, 8])
        gain, offset = gain * (1 - haze), offset * (1 - haze) + haze * veil
    if canvas.chance(0.1) and not canvas.calm:
        grey = np.float32(rng.uniform(-0.4, 0.3)) * bands.mean(axis=0)
        bands += grey - grey.mean()
    bands *= gain.astype(np.float32)[:, None, None]
    bands += offset.astype(np.float32)[:, None, None]
    np.clip(bands, 0, 255, out=bands)
    image = np.ascontiguousarray(np.moveaxis(bands.astype(np.uint8), 0, -1))
    picture = (image if canvas.calm else _resample(canvas, image, look)).astype(np.float32)
    level = np.float32(rng.uniform(0.3, 4.5))
    picture += level * texture.grain(rng, canvas.size)
    np.clip(picture, 0, 255, out=picture)
    return _compress(canvas, picture.astype(np.uint8)), hidden


def _resample(canvas: Canvas, image: Image, look: Look) -> Image:
    """Lose sharpness as optics and resampling do."""
    picture = PilImage.fromarray(image)
    if canvas.chance(0.35):
        smaller = round(canvas.size * float(canvas.rng.uniform(look.finest, 0.95)))
        picture = picture.resize((smaller, smaller), PilImage.Resampling.BOX)
        picture = picture.resize((canvas.size, canvas.size), PilImage.Resampling.BICUBIC)
    elif canvas.chance(0.5):
        picture = picture.filter(ImageFilter.BoxBlur(float(canvas.rng.uniform(0.3, 1.0))))
    elif canvas.chance(0.3):
        picture = picture.filter(ImageFilter.SHARPEN)
    return np.asarray(picture)


def _compress(canvas: Canvas, image: Image) -> Image:
    if canvas.calm or not canvas.chance(0.25):
        return image
    buffer = io.BytesIO()
    PilImage.fromarray(image).save(buffer, "JPEG", quality=int(canvas.rng.integers(45, 95)))
    return np.asarray(PilImage.open(buffer))


def _clouds(canvas: Canvas) -> Mask | None:
    """Clouds, and their shadows some way off; either may be alone on the tile."""
    rng = canvas.rng
    billows = canvas.noise(7) + np.float32(0.4) * canvas.noise(5) + np.float32(0.15) * canvas.noise(3)
    edge = float(rng.uniform(0.9, 2.2))
    density = np.clip((billows - edge) * np.float32(rng.uniform(1.2, 4.0)), 0, 1)
    offset = canvas.between(20, 90)
    shadow = np.roll(
        density,
        (round(math.sin(canvas.sun_angle) * offset), round(math.cos(canvas.sun_angle) * offset)),
        axis=(0, 1),
    )
    canvas.bands *= 1 - shadow * np.float32(rng.uniform(0.3, 0.65))
    if canvas.chance(0.4):
        return None
    canvas.blend(density, np.full(3, rng.uniform(215, 250), np.float32))
    return np.asarray(density > 0.6)
