"""Reading a user's folders: an `imagefolder` with metadata, and one subfolder of images per class."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ..errors import ArgumentError, DataError
from .rows import RowFormat, plural, readable_rows, require_columns, table_from_rows

logger = logging.getLogger(__name__)

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def split_of(name: str) -> str | None:
    """Tell the split from the name of a file or folder, as the Hugging Face loaders do (`val` is `validation`).

    Args:
        name (`str`):
            For instance `"train-00000-of-00004.parquet"` or `"val"`.

    Returns:
        `str` or `None`: `"train"`, `"validation"`, `"test"`, or nothing.
    """
    words = set(re.split(r"[^a-z]+", name.lower()))
    for split, synonyms in SPLIT_WORDS.items():
        if words.intersection(synonyms):
            return split
    return None


def canonical_split(split: str) -> str:
    """`"val"` and the like to `"validation"`; a name that is no synonym stays.

    Args:
        split (`str`):
            What the user asked for.

    Returns:
        `str`
    """
    return next((name for name, synonyms in SPLIT_WORDS.items() if split in synonyms), split)


def metadata_files(folder: Path) -> dict[str | None, Path]:
    """Metadata files of an imagefolder by split; the one in the folder itself has the key `None`.

    Args:
        folder (`Path`):
            The data set.

    Returns:
        `dict[str | None, Path]`: empty if there are none.
    """
    found: dict[str | None, Path] = {}
    with os.scandir(folder) as entries:  # which knows folders from files without asking for each of a million images
        places = sorted(Path(entry.path) for entry in entries if entry.is_dir())
    for place in [folder, *places]:
        split = None if place == folder else split_of(place.name) or place.name
        for name in METADATA_NAMES:
            if (place / name).is_file():
                if split in found:
                    raise DataError(
                        f"two metadata files for one split: {found[split]} and {place / name}; keep one of them"
                    )
                found[split] = place / name
    return found


def read_metadata(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read a metadata file row by row.

    Args:
        path (`Path`):
            A .jsonl, .csv or .parquet file.

    Returns:
        `list[tuple[str, dict]]`: where each row stands ("line 3 of metadata.jsonl") and what it holds.

    Raises:
        DataError: for a broken line (with its number) or an empty file.
    """
    suffix = path.suffix.lower()
    readers = {".jsonl": _jsonl, ".json": _jsonl, ".csv": _csv, ".parquet": _parquet}
    if suffix not in readers:
        raise DataError(f"cannot read {path} as metadata: expected .jsonl, .csv or .parquet")
    try:
        rows = list(readers[suffix](path))
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise DataError(f"line {line} of {path} is not UTF-8 text ({error.reason})") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if not rows:
        raise DataError(f"{path} holds no row; write one per image with its file_name and caption")
    return rows


def _jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    text = path.read_bytes().decode("utf-8-sig")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"line {number} of {path}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            shown = line.strip() if len(line) <= 80 else line.strip()[:77] + "..."
            raise DataError(f"{where} is not valid JSON: {error.msg} at column {error.colno}: {shown}") from error
        if not isinstance(row, dict):
            raise DataError(f'{where} holds {type(row).__name__}; expected an object like {{"file_name": ...}}')
        yield where, row


def _csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    text = path.read_bytes().decode("utf-8-sig")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            where = f"line {reader.line_num} of {path}"
            if None in row:
                raise DataError(
                    f"{where} has more fields than the header ({', '.join(map(str, reader.fieldnames or []))}); "
                    "quote captions that hold commas"
                )
            missing = [key for key, value in row.items() if value is None]
            if missing:
                raise DataError(f"{where} has no field {', '.join(map(repr, missing))}; the header names it")
            yield where, {key: _csv_value(value) for key, value in row.items()}
    except csv.Error as error:
        raise DataError(f"line {reader.reader.line_num} of {path} is not valid CSV: {error}") from error


def _csv_value(value: str) -> Any:
    """CSV has no lists; one written as JSON (["a cat", "a dog"]) is read as such."""
    if value.startswith('["') and value.endswith('"]'):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        rows = pq.read_table(path).to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a readable parquet file: {error}") from error
    for number, row in enumerate(rows):
        yield f"row {number} of {path}", row


def load_image_folder(
    source: Path, split: str, row_format: RowFormat, *, skip_bad_images: bool = False
) -> datasets.Dataset:
    """Read an imagefolder, or one metadata file whose file names are relative to its own folder.

    Args:
        source (`Path`):
            Folder or metadata file.
        split (`str`):
            Split to read.
        row_format (`RowFormat`):
            Names of the columns.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out images that are missing or unreadable, and say which.

    Returns:
        `datasets.Dataset`: canonical columns, images undecoded.

    Raises:
        DataError: for anything missing or broken; the message names file and line.
    """
    files = {None: source} if source.is_file() else metadata_files(source)
    split = canonical_split(split)
    if split in files:
        chosen = files[split]
        rows = read_metadata(chosen)
    elif None in files:
        chosen = files[None]
        rows = read_metadata(chosen)
        by_split = _rows_by_split(rows)
        if by_split:
            if split not in by_split:
                raise _no_split(source, split, by_split)
            rows = by_split[split]
        elif split != "train":
            raise _no_split(source, split, {key or "train" for key in files})
    else:
        raise _no_split(source, split, [key for key in files if key])
    columns = dict.fromkeys(key for _, row in rows for key in row)
    # A folder names its images in file_name; a column that was asked for by another name has to be there.
    asked = row_format.image_column != RowFormat.image_column
    asked = asked and f"{row_format.image_column}_file_name" not in columns
    require_columns(columns, row_format, str(chosen), image=asked)
    table = table_from_rows(_with_paths(rows, chosen, row_format, check=not skip_bad_images), row_format, str(chosen))
    return readable_rows(table, str(chosen)) if skip_bad_images else table


def _no_split(source: Path, split: str, present: Iterable[str]) -> DataError:
    names = ", ".join(map(repr, sorted(present)))
    return DataError(f"{source} has no split {split!r}; it has {names}. Pass split=... (--split)")


def _rows_by_split(rows: list[tuple[str, dict[str, Any]]]) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Group rows of one metadata file by the split folders their images lie in; empty if not all lie in one."""
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for where, row in rows:
        name = row.get("file_name")
        head = name.replace("\\", "/").split("/")[0] if isinstance(name, str) and "/" in name else ""
        split = canonical_split(head.lower())
        if split not in SPLIT_WORDS:
            return {}
        groups.setdefault(split, []).append((where, row))
    # One folder alone (NLVR's "dev/...") is where the images lie, not a choice between splits.
    return groups if len(groups) > 1 else {}


def _with_paths(
    rows: list[tuple[str, dict[str, Any]]], metadata: Path, row_format: RowFormat, *, check: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Put the path of each image into its image column and check that the file exists."""
    folder = os.path.abspath(metadata.parent)
    column = row_format.image_column
    keys = (f"{column}_file_name", "file_name", column)
    if column != RowFormat.image_column:
        keys = (f"{column}_file_name", column)
    for where, row in rows:
        key = next((key for key in keys if row.get(key) is not None), None)
        if key is None:
            raise DataError(
                f"{where} names no image: it has {', '.join(map(repr, row)) or 'nothing'}, but no 'file_name' "
                "(path of the image relative to the metadata file)"
            )
        name = row[key]
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{where}: {key} is {name!r}; expected the path of an image relative to the metadata file")
        path = os.path.join(folder, name)
        if check and not os.path.isfile(path):
            raise DataError(
                f"{where} names an image that does not exist: {name} (looked for {path}); correct the line or pass "
                "skip_bad_images=True (--skip-bad-images)"
            )
        rest = {other: value for other, value in row.items() if other not in keys}
        yield where, {**rest, row_format.image_column: {"bytes": None, "path": path}}


@dataclass(frozen=True)
class ImageClasses:
    """Labelled images.

    Args:
        dataset (`datasets.Dataset`):
            Columns `image` (undecoded) and `label` (`ClassLabel`).
        class_names (`list[str]`):
            Name of each label, in order.
    """

    dataset: datasets.Dataset
    class_names: list[str]


def load_image_classes(
    folder: str | os.PathLike[str], *, split: str | None = None, skip_bad_images: bool = False
) -> ImageClasses:
    """Read a folder that has one subfolder of images per class.

    The subfolders' names, sorted, are the classes. Above them may be a level of splits (`train/`, `val/`, `test/`).

    Args:
        folder (`str` or `Path`):
            For instance `pets/` with `pets/beagle/1.jpg` or `pets/test/beagle/1.jpg`.
        split (`str`, *optional*):
            Which split to read where there are several; the first there is of `test`, `validation`, `train` if not
            given.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out unreadable images, and say which.

    Returns:
        [`ImageClasses`]: `dataset` and `class_names`.

    Raises:
        DataError: if there is no such folder, no subfolder, only one class, or a class without an image.

    Example:
        >>> import tempfile
        >>> from vlcomp.data import load_image_classes
        >>> from vlcomp.testing import make_class_folder
        >>> load_image_classes(make_class_folder(tempfile.mkdtemp(), ("cup", "star"))).class_names
        ['cup', 'star']
    """
    root = Path(folder)
    if not root.is_dir():
        what = "it is a file" if root.exists() else "there is no such folder"
        raise DataError(f"cannot read {folder} as a folder of classes: {what}")
    level = _subfolders(root)
    splits = {canonical_split(path.name.lower()): path for path in level}
    if level and all(name in SPLIT_WORDS for name in splits):
        if split is None:
            split = next(name for name in ("test", "validation", "train") if name in splits)
            logger.info("%s has the splits %s; reading %r", folder, ", ".join(sorted(splits)), split)
        if canonical_split(split) not in splits:
            raise _no_split(root, split, splits)
        root = splits[canonical_split(split)]
        level = _subfolders(root)
    elif split is not None:
        raise ArgumentError(f"split={split!r}, but {folder} has no level of splits (train/, test/) above its classes")
    if not level:
        raise DataError(
            f"{root} has no subfolder; expected one subfolder of images per class, like {root / 'cat'}/1.png"
        )
    if len(level) < 2:
        raise DataError(f"{root} has only one class, {level[0].name!r}; classification needs at least two subfolders")
    paths: list[str] = []
    labels: list[int] = []
    for label, place in enumerate(level):
        images = _images_below(place)
        if not images:
            raise DataError(f"class {place.name!r} has no image ({place}); add some or remove the folder")
        paths += images
        labels += [label] * len(images)
    names = [place.name for place in level]
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=names)})
    rows = {"image": [{"bytes": None, "path": path} for path in paths], "label": labels}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    if skip_bad_images:
        dataset = readable_rows(dataset, str(root))
        left = set(dataset["label"])
        gone = [name for label, name in enumerate(names) if label not in left]
        if gone:
            raise DataError(f"no readable image is left of {plural(len(gone), 'class', 'classes')}: {', '.join(gone)}")
    return ImageClasses(dataset, names)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _images_below(folder: Path) -> list[str]:
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            os.path.abspath(os.path.join(place, name))
            for name in sorted(files)
            if not name.startswith(".") and is_image_name(name)
        ]
    return found


def is_image_name(name: str) -> bool:
    """Whether a file name ends like an image that PIL reads.

    Args:
        name (`str`):
            File name or path.

    Returns:
        `bool`
    """
    return os.path.splitext(name)[1].lower() in _image_extensions()


@lru_cache(maxsize=1)
def _image_extensions() -> frozenset[str]:
    readable = {extension for extension, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return frozenset(readable - {".pdf", ".mpg", ".mpeg", ".h5", ".hdf"})
