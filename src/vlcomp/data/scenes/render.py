"""Pictures of scenes: anti-aliased masks of the shapes, made once per size, blended with NumPy."""

from __future__ import annotations

import io
import math
import random
import zlib
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from .world import BACKGROUNDS, COLOURS, DIAMETERS, Scene

STYLES = ("clean", "outline", "noise", "palette", "sketch")
_OVERSAMPLING = 8


def render(scene: Scene, image_size: int = 64, style: str = "clean", seed: str = "") -> np.ndarray:
    """Draw a scene.

    Args:
        scene (`Scene`):
            What to draw.
        image_size (`int`, defaults to 64):
            Side of the picture in pixels.
        style (`str`, defaults to `"clean"`):
            One of `clean`, `outline` (contours only), `noise` (strong pixel noise), `palette` (colours rotated to
            unusual tints, shapes intact), `sketch` (grey hatched drawing on paper).
        seed (`str`):
            Seeds the small random shifts of brightness and the pixel noise; the same scene and seed give the same
            bytes in any process.

    Returns:
        `np.ndarray`: [image_size, image_size, 3] uint8.
    """
    rng = random.Random(f"{seed}/{scene.to_json()}")
    ground: tuple[float, float, float] = BACKGROUNDS[scene.background]
    if style == "sketch":
        ground = (246.0, 244.0, 238.0)
    canvas = np.empty((image_size, image_size, 3), dtype=np.float32)
    canvas[:] = [channel + rng.uniform(-5, 5) for channel in ground]
    for item in scene.objects:
        diameter = max(4, round(DIAMETERS[item.size] * image_size))
        top = min(max(round(item.y * image_size - diameter / 2), 0), image_size - diameter)
        left = min(max(round(item.x * image_size - diameter / 2), 0), image_size - diameter)
        mask = _mask(item.shape, diameter)
        colour = np.array([c + rng.uniform(-10, 10) for c in COLOURS[item.colour]], dtype=np.float32)
        window = canvas[top : top + diameter, left : left + diameter]
        if style == "palette":
            colour = 255 - colour[[1, 2, 0]]
        if style in ("outline", "sketch"):
            mask = mask - _mask(item.shape, diameter, inset=max(1.0, diameter * 0.09))
        if style == "sketch":
            colour = np.full(3, 60.0 + 0.25 * colour.mean(), dtype=np.float32)
        window += mask[:, :, None] * (colour - window)
        if item.texture != "plain" and style not in ("outline", "sketch"):
            # The pattern is dark on light objects and light on dark ones, so that it shows on every colour.
            ink = 40.0 if colour @ np.array((0.3, 0.59, 0.11), dtype=np.float32) > 120 else 225.0
            pattern = _pattern(item.texture, diameter) * mask
            window += pattern[:, :, None] * (ink - window) * 0.75
    if style == "noise":
        noise = np.random.Generator(np.random.PCG64(zlib.crc32(f"{seed}/{scene.to_json()}".encode())))
        canvas += noise.normal(0.0, 45.0, canvas.shape).astype(np.float32)
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


def encode_png(pixels: np.ndarray) -> bytes:
    """PNG bytes of an [H, W, 3] uint8 array (fast compression: the pictures are small and flat)."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


@lru_cache(maxsize=4096)
def _mask(shape: str, diameter: int, inset: float = 0.0) -> np.ndarray:
    """Coverage of each pixel of a diameter x diameter box by the shape, [d, d] float32 in 0..1.

    `inset` (in pixels) leaves out what lies closer to the shape's edge or to the edge of the box.
    """
    side = diameter * _OVERSAMPLING
    picture = Image.new("L", (side, side), 0)
    _draw(ImageDraw.Draw(picture), shape, side)
    if inset:
        steps = round(inset * _OVERSAMPLING)
        picture = ImageOps.expand(picture, border=steps, fill=0)
        for _ in range(steps):
            picture = picture.filter(ImageFilter.MinFilter(3))
        picture = ImageOps.crop(picture, border=steps)
    picture = picture.resize((diameter, diameter), Image.Resampling.BOX)
    mask = np.asarray(picture, dtype=np.float32) / 255
    mask.setflags(write=False)
    return mask


@lru_cache(maxsize=256)
def _pattern(texture: str, diameter: int) -> np.ndarray:
    """Ink of the texture in a diameter x diameter box, [d, d] float32 in 0..1."""
    grid = (np.arange(diameter * 4) + 0.5) / (diameter * 4)
    y, x = np.meshgrid(grid, grid, indexing="ij")
    if texture == "striped":
        ink = (x + y) * 3.5 % 1 < 0.45
    else:
        ink = ((x * 4 % 1 - 0.5) ** 2 + (y * 4 % 1 - 0.5) ** 2) < 0.09
    ink = ink.astype(np.float32).reshape(diameter, 4, diameter, 4).mean(axis=(1, 3))
    ink.setflags(write=False)
    return ink


# Outlines in a unit square, y downwards. Shapes made of several parts are lists of polygons and ellipses.
_POLYGONS: dict[str, list[list[tuple[float, float]]]] = {
    "box": [[(0.08, 0.08), (0.92, 0.08), (0.92, 0.92), (0.08, 0.92)]],
    "cone": [[(0.5, 0.02), (0.98, 0.95), (0.02, 0.95)]],
    "cross": [
        [(0.35, 0.02), (0.65, 0.02), (0.65, 0.98), (0.35, 0.98)],
        [(0.02, 0.35), (0.98, 0.35), (0.98, 0.65), (0.02, 0.65)],
    ],
    "diamond": [[(0.5, 0.0), (0.85, 0.5), (0.5, 1.0), (0.15, 0.5)]],
    "arrow": [[(0.02, 0.36), (0.5, 0.36), (0.5, 0.08), (0.99, 0.5), (0.5, 0.92), (0.5, 0.64), (0.02, 0.64)]],
    "house": [
        [(0.5, 0.02), (0.99, 0.45), (0.01, 0.45)],
        [(0.14, 0.45), (0.86, 0.45), (0.86, 0.97), (0.62, 0.97), (0.62, 0.66), (0.38, 0.66), (0.38, 0.97),
         (0.14, 0.97)],
    ],
    "tree": [
        [(0.5, 0.0), (0.8, 0.36), (0.2, 0.36)],
        [(0.5, 0.2), (0.96, 0.74), (0.04, 0.74)],
        [(0.41, 0.74), (0.59, 0.74), (0.59, 1.0), (0.41, 1.0)],
    ],
    "cup": [[(0.04, 0.14), (0.7, 0.14), (0.6, 0.9), (0.14, 0.9)]],
    "boat": [
        [(0.0, 0.66), (1.0, 0.66), (0.8, 0.96), (0.2, 0.96)],
        [(0.46, 0.02), (0.46, 0.58), (0.1, 0.58)],
        [(0.54, 0.14), (0.54, 0.58), (0.9, 0.58)],
    ],
    "bolt": [[(0.58, 0.0), (0.14, 0.58), (0.44, 0.58), (0.34, 1.0), (0.88, 0.38), (0.54, 0.38), (0.78, 0.0)]],
    "key": [[(0.4, 0.42), (1.0, 0.42), (1.0, 0.8), (0.87, 0.8), (0.87, 0.6), (0.76, 0.6), (0.76, 0.74), (0.63, 0.74),
             (0.63, 0.6), (0.4, 0.6)]],
    "fish": [[(0.66, 0.5), (0.99, 0.18), (0.99, 0.82)]],
    "bell": [[(0.26, 0.36), (0.74, 0.36), (0.8, 0.66), (0.96, 0.82), (0.04, 0.82), (0.2, 0.66)]],
    "mushroom": [[(0.36, 0.5), (0.64, 0.5), (0.7, 0.98), (0.3, 0.98)]],
    "heart": [[(0.04, 0.44), (0.96, 0.44), (0.5, 0.98)]],
}  # fmt: skip
_ELLIPSES: dict[str, list[tuple[float, float, float, float]]] = {
    "ball": [(0.03, 0.03, 0.97, 0.97)],
    "key": [(0.0, 0.26, 0.5, 0.76)],
    "fish": [(0.0, 0.2, 0.76, 0.8)],
    "bell": [(0.26, 0.06, 0.74, 0.66), (0.39, 0.76, 0.61, 0.98)],
    "heart": [(0.0, 0.06, 0.53, 0.6), (0.47, 0.06, 1.0, 0.6)],
    "flower": [
        (0.5 + 0.31 * math.cos(a) - 0.2, 0.5 + 0.31 * math.sin(a) - 0.2, 0.5 + 0.31 * math.cos(a) + 0.2,
         0.5 + 0.31 * math.sin(a) + 0.2)
        for a in (math.pi * (0.4 * k - 0.5) for k in range(5))
    ],
}  # fmt: skip


def _draw(pen: ImageDraw.ImageDraw, shape: str, side: int) -> None:
    def at(x: float, y: float) -> tuple[float, float]:
        return (x * side, y * side)

    def ellipse(box: tuple[float, float, float, float], fill: int = 255) -> None:
        pen.ellipse([at(box[0], box[1]), at(box[2], box[3])], fill=fill)

    def polygon(points: list[tuple[float, float]], fill: int = 255) -> None:
        pen.polygon([at(x, y) for x, y in points], fill=fill)

    for points in _POLYGONS.get(shape, ()):
        polygon(points)
    for box in _ELLIPSES.get(shape, ()):
        ellipse(box)
    if shape == "star":
        radii = (0.52, 0.22)
        polygon(
            [
                (0.5 + radii[k % 2] * math.sin(math.pi * k / 5), 0.53 - radii[k % 2] * math.cos(math.pi * k / 5))
                for k in range(10)
            ]
        )
    elif shape == "moon":
        ellipse((0.02, 0.02, 0.98, 0.98))
        ellipse((0.32, -0.06, 1.12, 0.78), fill=0)
    elif shape == "ring":
        ellipse((0.02, 0.02, 0.98, 0.98))
        ellipse((0.27, 0.27, 0.73, 0.73), fill=0)
    elif shape == "key":
        ellipse((0.14, 0.4, 0.36, 0.62), fill=0)
    elif shape == "cup":
        # The handle: a ring to the right of the body, cut where the body is.
        ellipse((0.52, 0.26, 0.98, 0.72))
        ellipse((0.64, 0.38, 0.86, 0.6), fill=0)
        polygon(_POLYGONS["cup"][0])
    elif shape == "flower":
        ellipse((0.36, 0.36, 0.64, 0.64), fill=0)
    elif shape == "mushroom":
        pen.pieslice([at(0.0, 0.04), at(1.0, 1.06)], 180, 360, fill=255)
