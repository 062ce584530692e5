"""A quick look at every picture before a long job starts."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import datasets
from PIL import Image

from ..errors import DataError
from .images import load_image
from .rows import plural

# How a whole file of these formats ends; one that ends otherwise, and one of another format, is decoded to know.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_ROWS = 256


def check_images(dataset: datasets.Dataset | Sequence[Any], name: str) -> None:
    """Find pictures that are missing, cut short or no pictures at all, without decoding most of them.

    Reads the head and the tail of each JPEG and PNG file (well under a millisecond); files of other formats are
    decoded. Damage in the middle of a file stays unseen.

    Args:
        dataset (`datasets.Dataset` or `Sequence`):
            Rows with an undecoded column `image`, or paths, bytes or undecoded images.
        name (`str`):
            What to call the data in the error.

    Raises:
        DataError: names the first such picture and counts them.

    Example:
        >>> import tempfile
        >>> from vlcomp.data import check_images, load_captioned
        >>> from vlcomp.testing import make_captioned_folder
        >>> check_images(load_captioned(make_captioned_folder(tempfile.mkdtemp(), n=3)), "the photos")
    """
    causes: list[str] = []
    total = len(dataset)
    with ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1)) as pool:
        for start in range(0, total, _ROWS):
            rows = dataset[start : start + _ROWS]
            images = rows["image"] if isinstance(dataset, datasets.Dataset) else rows
            names = [f"the image of row {start + index} of {name}" for index in range(len(images))]
            causes += [cause for cause in pool.map(_problem, images, names) if cause]
    if causes:
        causes = list(dict.fromkeys(causes))  # a picture with several captions has as many rows
        count, them = plural(len(causes), "picture"), "it" if len(causes) == 1 else "them"
        raise DataError(
            f"{causes[0]}; {count} of {name} cannot be read: replace or remove {them}, or pass skip_bad_images=True "
            "(--skip-bad-images)"
        )


def _problem(image: Any, name: str) -> str | None:
    content = image.get("bytes") if isinstance(image, Mapping) else image
    path = image.get("path") if isinstance(image, Mapping) else image
    if isinstance(content, bytes):
        whole = _is_whole_content(content)
    elif isinstance(path, (str, os.PathLike)):
        if os.fspath(path).startswith(("http://", "https://")):
            return None
        whole = _is_whole_file(path)
    else:
        whole = False
    if whole:
        return None
    try:
        load_image(image, name=os.fspath(path) if isinstance(path, (str, os.PathLike)) else name)
    except DataError as error:
        return str(error)
    return None


def _is_whole_file(path: str | os.PathLike[str]) -> bool:
    try:
        with open(path, "rb") as file:
            with Image.open(file) as image:
                end = _ENDS.get(image.format or "")
            if end is None or os.fstat(file.fileno()).st_size < len(end):
                return False
            file.seek(-len(end), os.SEEK_END)
            return file.read() == end
    except Exception:  # whatever it is, decoding tells it in words
        return False


def _is_whole_content(content: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(content)) as image:
            end = _ENDS.get(image.format or "")
    except Exception:  # as above
        return False
    return end is not None and content.endswith(end)
