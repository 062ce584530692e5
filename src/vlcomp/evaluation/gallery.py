"""Examples for the report: items drawn at random, with thumbnails."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from ..data.images import load_image

PER_KIND = 6
_MAX_SIZE = (320, 200)
# Up to so many bytes a PNG is kept for its sharp edges; a photograph of this size takes some 100,000.
_DRAWING = 16_384


def thumbnail(source: Any) -> str:
    """A small PNG or JPEG of an image in base64: drawings are PNG, photographs JPEG.

    Args:
        source (`Any`):
            Anything that `vlcomp.data.images.load_image` reads.

    Returns:
        `str`
    """
    image = load_image(source)
    image.thumbnail(_MAX_SIZE, Image.Resampling.LANCZOS)
    forms: tuple[dict[str, Any], ...] = ({"format": "PNG", "optimize": True}, {"format": "JPEG", "quality": 85})
    encoded = []
    for form in forms:
        buffer = io.BytesIO()
        image.save(buffer, **form)
        encoded.append(buffer.getvalue())
    png, jpeg = encoded
    return base64.b64encode(png if len(png) <= max(_DRAWING, len(jpeg)) else jpeg).decode("ascii")


def build_gallery(
    items: Sequence[dict[str, Any]],
    pictures: Callable[[int], list[Any]],
    *,
    seed: str,
    per_kind: int = PER_KIND,
) -> list[dict[str, Any]]:
    """Draw items at random, so many that the model got right and so many that it got wrong.

    Args:
        items (`Sequence[dict]`):
            Rows of a task's items.
        pictures (`Callable[[int], list]`):
            Image sources of an item, by position: the true one first, then the false one if there is one.
        seed (`str`):
            Seed of the draw, for instance the task's name; the same items and seed give the same examples.
        per_kind (`int`, defaults to 6):
            Number of right and of wrong items.

    Returns:
        `list[dict]`: the rows, each with `images`, a list of PNGs and JPEGs in base64.
    """
    rng = random.Random(f"gallery {seed}")
    chosen = []
    for wanted in (True, False):
        positions = [i for i, item in enumerate(items) if bool(item["correct"]) is wanted]
        chosen += rng.sample(positions, min(per_kind, len(positions)))
    return [{**items[i], "images": [thumbnail(source) for source in pictures(i)]} for i in chosen]
