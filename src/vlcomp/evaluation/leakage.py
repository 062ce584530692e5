"""Do the pictures of a benchmark lie among the pictures of training? By file name and by what they look like.

Two pictures count as the same if their difference hashes differ in few bits and their small grey versions hardly
differ: that survives another size, another compression and small changes of brightness, but neither a crop nor a
mirror image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from ..data.images import load_image
from ..errors import DataError
from .diagnostics import contents
from .task import Task

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_SIDE = 16
# Of 256 bits; copies of photographs in other sizes and compressions differ in fewer, others in some 100.
MAX_BITS = 20
# Mean difference of the small grey versions, of 255, after taking out the brightness.
MAX_DIFFERENCE = 10.0
# COCO numbers its pictures with 12 digits, with a prefix for the split in 2014 and without in 2017.
_COCO = re.compile(r"^COCO_\w+?\d{4}_(\d{12})$")
_BLOCK = 2**22


def small_grey(source: Any) -> np.ndarray:
    """A picture in grey, 17 x 16 pixels.

    Args:
        source (`Any`):
            Anything that `vlcomp.data.images.load_image` reads.

    Returns:
        `np.ndarray` of shape [16, 17], uint8.

    Raises:
        DataError: if it cannot be read.
    """
    if isinstance(source, (str, os.PathLike)) and str(source).lower().endswith((".jpg", ".jpeg")):
        try:
            # A JPEG is decoded at an eighth of its size, which is many times as fast.
            with Image.open(source) as image:
                image.draft("L", (8 * _SIDE, 8 * _SIDE))
                grey = ImageOps.exif_transpose(image).convert("L")
        except OSError as error:
            raise DataError(f"cannot read {os.fspath(source)}: {error}") from error
    else:
        grey = load_image(source).convert("L")
    return np.asarray(grey.resize((_SIDE + 1, _SIDE), Image.Resampling.BOX))


def difference_hash(grey: np.ndarray) -> np.ndarray:
    """Which pixels are darker than their right neighbours, as 256 bits.

    Args:
        grey (`np.ndarray` of shape [..., 16, 17]):
            From [`small_grey`].

    Returns:
        `np.ndarray` of shape [..., 4], uint64.

    Example:
        >>> import numpy as np
        >>> from vlcomp.evaluation.leakage import difference_hash
        >>> difference_hash(np.zeros((16, 17), dtype=np.uint8)).tolist()
        [0, 0, 0, 0]
    """
    bits = grey[..., :, :-1] < grey[..., :, 1:]
    packed = np.packbits(bits.reshape(*grey.shape[:-2], _SIDE * _SIDE), axis=-1)
    return np.ascontiguousarray(packed).view(np.uint64)


def image_id(name: str) -> str:
    """What a picture is called, whatever its folder, its kind of file and COCO's prefix of the split.

    Args:
        name (`str`):
            File name.

    Returns:
        `str`

    Example:
        >>> from vlcomp.evaluation.leakage import image_id
        >>> image_id("val2014/COCO_val2014_000000391895.jpg"), image_id("000000391895.jpg")
        ('000000391895', '000000391895')
    """
    stem = Path(name).stem
    match = _COCO.match(stem)
    return match.group(1) if match else stem


@dataclass(frozen=True)
class Match:
    """A picture of a benchmark and one of training.

    Args:
        image (`str`):
            Name of the benchmark's picture.
        training_image (`str`):
            Path of the training picture, within its folder.
        same_id (`bool`):
            Whether they are called the same.
        bits (`int`):
            Bits, of 256, in which their hashes differ.
        same_picture (`bool`):
            Whether they look the same.
    """

    image: str
    training_image: str
    same_id: bool
    bits: int
    same_picture: bool


@dataclass(frozen=True)
class Leakage:
    """Pictures of a task among the pictures of training.

    Args:
        task (`str`):
            Name of the task.
        images (`int`):
            Number of its distinct pictures.
        training_images (`int`):
            Number of pictures of training.
        matches (`tuple[Match, ...]`):
            Pairs that look the same or are called the same.
    """

    task: str
    images: int
    training_images: int
    matches: tuple[Match, ...]

    @property
    def same_pictures(self) -> list[str]:
        """Names of the benchmark's pictures that look like one of training."""
        return list(dict.fromkeys(match.image for match in self.matches if match.same_picture))

    @property
    def only_same_names(self) -> list[str]:
        """Names of those that are called like one of training and do not look like any."""
        leaked = set(self.same_pictures)
        return list(dict.fromkeys(match.image for match in self.matches if match.image not in leaked))

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a results file."""
        return {
            "images": self.images,
            "training_images": self.training_images,
            "same_pictures": len(self.same_pictures),
            "only_same_names": len(self.only_same_names),
            "matches": [asdict(match) for match in self.matches],
        }


class TrainingImages:
    """The pictures of a training folder, by name and by look.

    Args:
        folder (`str` or `os.PathLike`):
            The folder; its subfolders count too.
        num_workers (`int`, defaults to 0):
            Threads that read pictures.
        progress (`bool`, defaults to `False`):
            Show a progress bar.

    Raises:
        DataError: if it is no folder, holds no picture, or one cannot be read.
    """

    def __init__(self, folder: str | os.PathLike[str], *, num_workers: int = 0, progress: bool = False) -> None:
        root = Path(folder)
        if not root.is_dir():
            raise DataError(f"training_images={os.fspath(folder)!r} is not a folder; pass the folder of the pictures")
        paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
        if not paths:
            raise DataError(
                f"training_images={os.fspath(folder)!r} holds no picture ({', '.join(sorted(IMAGE_SUFFIXES))})"
            )
        self.names = [str(path.relative_to(root)) for path in paths]
        self.grey = greys([str(path) for path in paths], num_workers=num_workers, progress=progress)
        self.hashes = difference_hash(self.grey)
        self.by_id: dict[str, list[int]] = {}
        for index, name in enumerate(self.names):
            self.by_id.setdefault(image_id(name), []).append(index)

    def leakage(self, task: Task, *, num_workers: int = 0, progress: bool = False) -> Leakage | None:
        """Compare the pictures of a task with these.

        Args:
            task ([`~vlcomp.evaluation.Task`]):
                The task.
            num_workers (`int`, defaults to 0):
                Threads that read pictures.
            progress (`bool`, defaults to `False`):
                Show a progress bar.

        Returns:
            [`Leakage`] or `None`: `None` for a task that does not tell which pictures it has.
        """
        found = contents(task)
        if found is None:
            return None
        return self.compare(found.images, found.image_names, task.name, num_workers=num_workers, progress=progress)

    def compare(
        self,
        sources: Sequence[Any],
        names: Sequence[str],
        task: str = "",
        *,
        num_workers: int = 0,
        progress: bool = False,
    ) -> Leakage:
        """Compare pictures with these.

        Args:
            sources (`Sequence`):
                Image sources.
            names (`Sequence[str]`):
                Name of each.
            task (`str`, defaults to `""`):
                What to call them together.
            num_workers (`int`, defaults to 0):
                Threads that read pictures.
            progress (`bool`, defaults to `False`):
                Show a progress bar.

        Returns:
            [`Leakage`]
        """
        grey = greys(sources, num_workers=num_workers, progress=progress)
        hashes = difference_hash(grey)
        matches = []
        step = max(1, _BLOCK // len(self.hashes))
        for start in range(0, len(hashes), step):
            block = hashes[start : start + step]
            bits = np.zeros((len(block), len(self.hashes)), dtype=np.uint16)
            for word in range(block.shape[1]):
                bits += np.bitwise_count(block[:, word, None] ^ self.hashes[None, :, word])
            close: dict[int, list[int]] = {}
            for row, column in np.argwhere(bits <= MAX_BITS).tolist():
                close.setdefault(row, []).append(column)
            for row in range(len(block)):
                name = str(names[start + row])
                named = self.by_id.get(image_id(name), [])
                for column in dict.fromkeys([*named, *close.get(row, [])]):
                    alike = column in close.get(row, []) and self._alike(grey[start + row], column)
                    if alike or column in named:
                        matches.append(
                            Match(name, self.names[column], column in named, int(bits[row, column]), bool(alike))
                        )
        return Leakage(task, len(hashes), len(self.names), tuple(matches))

    def _alike(self, grey: np.ndarray, column: int) -> bool:
        a, b = grey.astype(np.float64), self.grey[column].astype(np.float64)
        if a.std() > MAX_DIFFERENCE:  # of an empty picture nothing is left without its brightness
            a, b = a - a.mean(), b - b.mean()
        return bool(np.abs(a - b).mean() <= MAX_DIFFERENCE)


def greys(sources: Sequence[Any], *, num_workers: int = 0, progress: bool = False) -> np.ndarray:
    """Small grey versions of pictures; see [`small_grey`].

    Args:
        sources (`Sequence`):
            Image sources.
        num_workers (`int`, defaults to 0):
            Threads that read them.
        progress (`bool`, defaults to `False`):
            Show a progress bar.

    Returns:
        `np.ndarray` of shape [images, 16, 17], uint8.
    """
    bar = {"desc": "hash images", "total": len(sources), "disable": not progress, "leave": False}
    if not num_workers:
        return np.stack([small_grey(source) for source in tqdm(sources, **bar)])
    with ThreadPoolExecutor(num_workers, thread_name_prefix="vlcomp-hashes") as pool:
        return np.stack(list(tqdm(pool.map(small_grey, sources), **bar)))
