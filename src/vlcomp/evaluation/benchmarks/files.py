"""Finding and reading the official files of a benchmark and its images."""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from ...data.images import load_image
from ...errors import ArgumentError, DataError
from ..tasks.caption_choice import required_text, unique_keys
from .comparisons import Picture
from .facts import Benchmark, OfficialFile

DATA_VARIABLE = "VLCOMP_DATA"

__all__ = [
    "DATA_VARIABLE",
    "ImageFinder",
    "candidate_folders",
    "check_count_of",
    "file_name",
    "find_data",
    "literal_list",
    "read_csv",
    "read_json",
    "read_json_lines",
    "read_parquet",
    "required_number",
    "required_text",
    "sha256_of",
]


# -- folders -----------------------------------------------------------------------------------------------


def candidate_folders(facts: Benchmark, data: str | os.PathLike[str] | None) -> list[Path]:
    """Folders in which the official files are looked for.

    Args:
        facts ([`Benchmark`]):
            The benchmark.
        data (`str` or `os.PathLike`, *optional*):
            What the user gave; otherwise `$VLCOMP_DATA` counts.

    Returns:
        `list[Path]`: empty if nothing says where data are.
    """
    if data is not None:
        return [Path(data), Path(data) / facts.folder]
    root = os.environ.get(DATA_VARIABLE)
    return [Path(root) / facts.folder] if root else []


def find_data(facts: Benchmark, data: str | os.PathLike[str] | None) -> Path:
    """The folder that holds the official files.

    Args:
        facts ([`Benchmark`]):
            The benchmark.
        data (`str` or `os.PathLike`, *optional*):
            The folder, or the folder that holds it under its usual name; `$VLCOMP_DATA` if not given.

    Returns:
        `Path`

    Raises:
        ArgumentError: if nothing says where to look.
        DataError: if no official file is there; the message says where it looked and what to put there.
    """
    gate = f", {facts.gated}" if facts.gated else ""
    fix = f"put {facts.expected()} there, from {facts.url} (licence: {facts.licence}{gate})"
    folders = candidate_folders(facts, data)
    if not folders:
        raise ArgumentError(
            f"task {facts.name!r} needs its official files: pass data=FOLDER (--data FOLDER), or set {DATA_VARIABLE} "
            f"to a folder that holds {facts.folder}/; {fix}"
        )
    if data is not None and Path(data).is_file():
        raise DataError(
            f"data={os.fspath(data)!r} is a file; task {facts.name!r} reads the folder that holds {facts.expected()}"
        )
    for folder in folders:
        if any((folder / file.name).is_file() for file in facts.files):
            return folder
    absent = "; there is no such folder" if not folders[0].is_dir() else ""
    places = " and ".join(map(str, folders))
    raise DataError(
        f"task {facts.name!r} looked in {places} and found none of its official files{absent}. To fix, {fix}"
    )


class ImageFinder:
    """Finds image files by the names that the official files use.

    Args:
        facts ([`Benchmark`]):
            The benchmark.
        folder (`Path`):
            Folder of the official files.
        images (`str` or `os.PathLike`, *optional*):
            Where the images are; otherwise beside the official files and in the usual folders of `$VLCOMP_DATA`.

    Raises:
        DataError: if `images` is not a folder.
    """

    def __init__(self, facts: Benchmark, folder: Path, images: str | os.PathLike[str] | None) -> None:
        self.facts = facts
        source = facts.images
        if images is not None:
            if not Path(images).is_dir():
                raise DataError(
                    f"images={os.fspath(images)!r} is not a folder; task {facts.name!r} needs {source.what} "
                    f"({source.url}; licence: {source.licence})"
                )
            self.roots = [Path(images)]
        else:
            self.roots = [folder / "images", folder]
            data_root = os.environ.get(DATA_VARIABLE)
            # A data root that was given with --data may hold the images too.
            tops = [folder.parent, *([Path(data_root)] if data_root else [])]
            self.roots += list(dict.fromkeys(top / name for top in tops for name in source.folders))
        self._places = [root / part if part else root for root in self.roots for part in source.below]

    def __call__(self, name: str) -> Path | None:
        """The file of an image, or `None` if there is none."""
        top, _, rest = name.partition("/")
        for position, place in enumerate(self._places):
            path = place / name
            # The folder that the name begins with may have been given itself.
            if rest and (place.name == top or top == "images") and not path.is_file():
                path = place / rest
            if path.is_file():
                # Most of the other images will be in the same folder.
                self._places.insert(0, self._places.pop(position))
                return path
        return None

    def missing(self, absent: list[str], total: int) -> str:
        """What to tell about images that were not found."""
        source = self.facts.images
        gate = f", {self.facts.gated}" if self.facts.gated else ""
        size = f", {source.size}" if source.size else ""
        return (
            f"task {self.facts.name!r}: {len(absent)} of {total} images are missing, first {absent[0]}; looked in "
            f"{', '.join(map(str, self.roots))}. They are {source.what} ({source.url}{size}; licence: "
            f"{source.licence}{gate}). {source.where or f'Put them into {self.roots[0]}'}, pass their folder with "
            "images=FOLDER (--images FOLDER), or leave their items out with skip_bad_images=True (--skip-bad-images)"
        )


class LazyImage(Mapping):
    """An image that is made when it is asked for: part of a file, or a file that PIL cannot read.

    To readers of images it is a mapping with `bytes`, as a row of an undecoded `datasets.Image` column is.

    Args:
        path (`Path`):
            The file.
        box (`tuple[int, int, int, int]`, *optional*):
            Left, top, width and height of the part.
    """

    def __init__(self, path: Path, box: tuple[int, int, int, int] | None = None) -> None:
        self.path, self.box = path, box

    def __getitem__(self, key: str) -> Any:
        if key == "path":
            return str(self.path)
        if key != "bytes":
            raise KeyError(key)
        image = self._whole()
        if self.box is not None:
            left, top, width, height = self.box
            if width < 1 or height < 1 or left >= image.width or top >= image.height or left + width < 1:
                raise DataError(
                    f"the box {self.box} is not within {self.path}, which is {image.width} x {image.height}"
                )
            image = image.crop((left, top, left + width, top + height))
        buffer = io.BytesIO()
        image.save(buffer, format="BMP")  # exact, and cheap to write and to read
        return buffer.getvalue()

    def _whole(self) -> Image.Image:
        if self.path.suffix != ".npy":
            return load_image(self.path)
        try:
            array = np.load(self.path)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {self.path} as an array: {error}") from error
        return load_image(np.ascontiguousarray(array[:, :, ::-1]), name=str(self.path))  # saved as blue, green, red

    def __iter__(self) -> Iterator[str]:
        return iter(("bytes", "path"))

    def __len__(self) -> int:
        return 2


def image_source(picture: Picture, path: Path) -> Any:
    """What the model reads for a picture that was found at `path`."""
    return LazyImage(path, picture.box) if picture.box is not None or path.suffix == ".npy" else str(path)


# -- contents ----------------------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """Read a JSON file; a key that occurs twice is an error.

    Args:
        path (`Path`):
            The file.

    Returns:
        `Any`

    Raises:
        DataError: if it is not valid.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique_keys(path))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error


def read_rows(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Items of a JSON file: an object of items by id, or a list of items.

    Args:
        path (`Path`):
            The file.

    Returns:
        `Iterator[tuple[str, str, dict]]`: id (the position in a list that has none), where, and the item.
    """
    content = read_json(path)
    if not isinstance(content, (dict, list)):
        raise DataError(f"{path} holds {type(content).__name__}; expected items by id, or a list of items")
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, row in pairs:
        where = f"item {key!r} of {path}"
        if not isinstance(row, dict):
            raise DataError(f"{where} is {type(row).__name__}; expected an object")
        yield str(row.get("id", key) if isinstance(content, list) else key), where, row


def read_json_lines(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Items of a file with one JSON object a line; id is the number of the line, from 0."""
    lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n")]
    count = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"line {number} of {path}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where} is not valid JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{where} is {type(row).__name__}; expected an object")
        yield str(row.get("id", count)), where, row
        count += 1


def read_csv(path: Path, columns: Iterable[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Rows of a CSV file with a header; id is the number of the row, from 0.

    Args:
        path (`Path`):
            The file.
        columns (`Iterable[str]`):
            Columns that must be there.
    """
    # Lists of captions make long fields.
    csv.field_size_limit(2**24)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        lacking = [name for name in columns if name not in (reader.fieldnames or ())]
        if lacking:
            raise DataError(f"{path} has no column {lacking[0]!r}; it has {', '.join(reader.fieldnames or ())}")
        for number, row in enumerate(reader):
            yield str(number), f"row {number} of {path}", row


def read_parquet(path: Path, columns: Iterable[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Rows of a parquet file; id is the number of the row, from 0."""
    try:
        table = pq.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a parquet file: {error}") from error
    lacking = [name for name in columns if name not in table.schema_arrow.names]
    if lacking:
        raise DataError(f"{path} has no column {lacking[0]!r}; it has {', '.join(table.schema_arrow.names)}")
    number = 0
    for batch in table.iter_batches(batch_size=64):
        for row in batch.to_pylist():
            yield str(number), f"row {number} of {path}", row
            number += 1


def required_number(row: Mapping[str, Any], key: str, where: str) -> int:
    """A whole number of a row, which may be written as text or as a float."""
    value = row.get(key)
    try:
        number = float(value)  # type: ignore[arg-type]
        if number != int(number):
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where} has {key}={value!r}; expected a whole number") from error
    return int(number)


def literal_list(row: Mapping[str, Any], key: str, where: str) -> list[str]:
    """A list of texts that is written as a Python literal in one field."""
    try:
        found = ast.literal_eval(str(row.get(key)))
    except (ValueError, SyntaxError) as error:
        raise DataError(f"{where} has {key}={str(row.get(key))[:60]!r}; expected a list of texts") from error
    if not isinstance(found, list) or not found or not all(isinstance(x, str) and x.strip() for x in found):
        raise DataError(f"{where} has {key}={str(found)[:60]!r}; expected a list of texts")
    return found


def file_name(path: str) -> str:
    """The last part of a path or URL, for files that name images by where their authors keep them."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


# -- checks ------------------------------------------------------------------------------------------------


def sha256_of(path: Path) -> str:
    """Checksum of a file.

    Args:
        path (`Path`):
            The file.

    Returns:
        `str`: hexadecimal.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def check_count_of(file: OfficialFile, path: Path, found: int | None) -> str | None:
    """What is wrong with the number of items of a file, if anything.

    Args:
        file ([`OfficialFile`]):
            What the file should be.
        path (`Path`):
            Where it is.
        found (`int`, *optional*):
            Number of items read; `None` if the file does not exist.

    Returns:
        `str` or `None`
    """
    official = "" if file.items is None else f" (official: {file.items:,} items)"
    if found is None:
        return f"{path} does not exist{official}"
    if file.items is not None and found != file.items:
        return f"{path} holds {found:,} items, the official file {file.items:,}"
    return None
