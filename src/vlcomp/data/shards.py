"""Webdataset shards: .tar files in which the members of a sample share a name and differ in extension."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import datasets

from ..errors import DataError
from .canonical import canonical_stream, stream_rows
from .folders import is_image_name
from .rows import LONG_CAPTION, RowFormat

_BLOCK = 512


def load_tar_shards(
    files: Sequence[str], row_format: RowFormat, name: str, *, streaming: bool, skip_bad_images: bool = False
) -> datasets.Dataset | datasets.IterableDataset:
    """Read shards: streamed, or all of them into the cache of the datasets library.

    Args:
        files (`Sequence[str]`):
            The .tar files. A stream can be shared out between as many loader workers.
        row_format (`RowFormat`):
            Names of the columns: keys of the .json, or extensions.
        name (`str`):
            What to call the data in an error.
        streaming (`bool`):
            Whether to stream.
        skip_bad_images (`bool`, defaults to `False`):
            Only for streams: leave out unreadable images, with a warning.

    Returns:
        `datasets.Dataset` or `datasets.IterableDataset`: canonical columns.

    Raises:
        DataError: if a shard is broken, or a sample has no image or no caption.
    """
    for file in files:
        _check_end(file)
    if streaming:
        stream = datasets.IterableDataset.from_generator(
            tar_samples, gen_kwargs={"shards": list(files), "row_format": row_format}
        )
        return canonical_stream(stream, RowFormat("image", "caption"), name, skip_bad_images=skip_bad_images)
    # Size and time are part of what the cache goes by: a shard written anew is read anew.
    stamps = [f"{os.path.getsize(file)} {os.stat(file).st_mtime_ns}" for file in files]
    dataset = datasets.Dataset.from_generator(
        _canonical_samples,
        gen_kwargs={"shards": list(files), "stamps": stamps, "row_format": row_format, "name": name},
    )
    return dataset.cast_column("image", datasets.Image(decode=False))


def _check_end(file: str) -> None:
    """A .tar ends in a block of zeros; tarfile takes one that was cut between two members for a whole one."""
    size = os.path.getsize(file)
    if _is_gzip(file):  # knows its own end
        return
    with open(file, "rb") as handle:
        handle.seek(max(0, size - _BLOCK))
        end = handle.read()
    if size % _BLOCK or not size or any(end):
        raise DataError(
            f"{file} is cut short or not a .tar file (its {size:,} bytes do not end in a block of zeros); copy or "
            "write it again"
        )


def _is_gzip(file: str) -> bool:
    with open(file, "rb") as handle:
        return handle.read(2) == b"\x1f\x8b"


def _canonical_samples(
    shards: list[str], stamps: list[str], row_format: RowFormat, name: str
) -> Iterator[dict[str, Any]]:
    count = 0
    for sample in tar_samples(shards, row_format):
        batch = {key: [value] for key, value in sample.items()}
        columns = stream_rows(batch, [count], row_format=RowFormat(), name=name, skip_bad_images=False)
        count += 1
        for index in range(len(columns["caption"])):
            yield {key: values[index] for key, values in columns.items()}
    if not count:
        raise DataError(f"{name} holds no row")


def tar_samples(shards: list[str], row_format: RowFormat) -> Iterator[dict[str, Any]]:
    """Samples of the shards, in order.

    Args:
        shards (`list[str]`):
            Paths of .tar (or .tar.gz) files.
        row_format (`RowFormat`):
            Names of the columns.

    Yields:
        `dict`: `image` (`{"bytes", "path"}`), `caption`, `__key__` and the other entries of the sample's .json.

    Raises:
        DataError: if a shard is broken, or a sample has no image or no caption.
    """
    for shard in shards:
        key, members = None, {}
        try:
            # Not tarfile's own reading of gzip, which takes a file cut short for a whole one.
            opened = gzip.open if _is_gzip(shard) else open
            with opened(shard, "rb") as handle, tarfile.open(fileobj=handle, mode="r|") as archive:
                for member in archive:
                    folder, base = os.path.split(member.name)
                    if not member.isfile() or base.startswith("."):
                        continue
                    stem, _, extension = base.partition(".")
                    own = os.path.join(folder, stem)
                    if members and own != key:
                        yield _sample(shard, key, members, row_format)
                        members = {}
                    key = own
                    content = archive.extractfile(member)
                    members[extension.lower()] = content.read() if content else b""
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise DataError(f"{shard} is cut short or not a .tar file ({error})") from error
        if members:
            yield _sample(shard, key, members, row_format)


def _has_long_caption(entries: dict[str, Any]) -> bool:
    long = entries.get(LONG_CAPTION)
    return isinstance(long, str) and bool(long.strip())


def _sample(shard: str, key: str | None, members: dict[str, bytes], row_format: RowFormat) -> dict[str, Any]:
    where = f"sample {key!r} of {shard}"
    images = [extension for extension in members if is_image_name(f"x.{extension}")]
    chosen = row_format.image_column if row_format.image_column in members else next(iter(images), None)
    if row_format.image_column != RowFormat.image_column and chosen != row_format.image_column:
        raise DataError(
            f"{where} has no .{row_format.image_column}, only {', '.join(map(repr, members))}; pass image_column=... "
            "(--image-column) with the extension of its image, or leave it out"
        )
    if chosen is None:
        raise DataError(f"{where} holds no image, only {', '.join(map(repr, members))}")
    image = {"bytes": members[chosen], "path": f"{shard}/{key}.{chosen}"}
    entries: dict[str, Any] = {}
    if "json" in members:
        try:
            entries = json.loads(members["json"])
        except ValueError as error:  # also what bytes that are not UTF-8 raise
            raise DataError(f"{where}: its .json is not valid JSON: {error}") from error
        if not isinstance(entries, dict):
            raise DataError(f"{where}: its .json holds {type(entries).__name__}; expected an object with the caption")
    column = row_format.caption_column
    if column in entries:
        caption = entries[column]
    elif column in members or (column == "caption" and "txt" in members):
        try:
            caption = members[column if column in members else "txt"].decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: its caption is not UTF-8 text ({error.reason})") from error
    elif _has_long_caption(entries):
        caption = None
    else:
        have = [f".{extension}" for extension in members] + [f"{entry!r} in .json" for entry in entries]
        raise DataError(
            f"{where} has no caption: neither {column!r} in its .json nor a .txt; it has {', '.join(have)}. Pass "
            "caption_column=... (--caption-column)"
        )
    rest = {entry: value for entry, value in entries.items() if entry not in ("image", "caption", column)}
    return {**rest, "image": image, "caption": caption, "__key__": key}
