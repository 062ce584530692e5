"""From a data set with any columns to the canonical ones, all at once or row by row in a stream."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import datasets

from ..errors import DataError
from .images import load_image
from .rows import TEXT_COLUMNS, RowFormat, image_id, readable_rows, report_skipped, require_columns, text_rows

_STRING = datasets.Value("string")
_STRINGS = datasets.List(_STRING)
_CANONICAL = {
    "image": datasets.Image(decode=False),
    "caption": _STRING,
    "negative_captions": _STRINGS,
    "negative_types": _STRINGS,
    "long_caption": _STRING,
    "image_id": datasets.Value("int64"),
}
_STREAM_BATCH = 32  # small: the first rows should come soon, and images of a batch are held in memory


def canonical_dataset(
    dataset: datasets.Dataset, row_format: RowFormat, name: str, *, skip_bad_images: bool = False
) -> datasets.Dataset:
    """Bring a data set into the canonical form and check every row.

    Images stay where they are, undecoded. Only if a row holds several captions and embedded images are they copied.

    Args:
        dataset (`datasets.Dataset`):
            With an image and a caption column.
        row_format (`RowFormat`):
            Names of the two.
        name (`str`):
            What to call the data in an error.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out unreadable images, and say which.

    Returns:
        `datasets.Dataset`

    Raises:
        DataError: if a column is absent, there is no row, or a row is not as it should be.
    """
    if not len(dataset):
        raise DataError(f"{name} holds no row")
    require_columns(dataset.column_names, row_format, name)
    dataset = _renamed(dataset.with_format(None), row_format)
    dataset = _undecoded(dataset, row_format.image_column, name)
    texts = [column for column in TEXT_COLUMNS if column in dataset.column_names]
    rewritten = [column for column in texts if column != "image_id" and dataset.features[column] != _CANONICAL[column]]
    columns: dict[str, list[Any]] = {column: [] for column in rewritten}
    ids: list[int] = []
    origin: list[int] = []
    blank = False
    for index, row in enumerate(_rows(dataset, texts)):
        where = f"row {index} of {name}"
        try:
            given = row.get("image_id")
            # The images are only read where nothing else tells them apart.
            key = image_id(given, None if given is not None else row["image"], where)
            canonical = text_rows(row, RowFormat(), where)
        except DataError as error:
            path = (dataset[index]["image"] or {}).get("path")
            if path is None:
                raise
            raise DataError(str(error).replace(where, f"{where} ({os.path.basename(path)})", 1)) from None
        blank = blank or "caption" in row and row["caption"] is not None and canonical[0]["caption"] is None
        ids += [key] * len(canonical)
        origin += [index] * len(canonical)
        for column in rewritten:
            columns[column] += [item.get(column) for item in canonical]
    if blank and "caption" not in columns:  # an empty text beside a long caption is none
        columns["caption"] = [text if text and text.strip() else None for text in _batches(dataset, ["caption"])]
        rewritten.append("caption")
    replaced = list(rewritten)
    if "image_id" not in texts or dataset.features["image_id"] != _CANONICAL["image_id"]:
        columns["image_id"] = ids
        replaced += [column for column in texts if column == "image_id"]
    if columns:
        order = dataset.column_names
        rest = dataset.remove_columns(replaced) if replaced else dataset
        if len(origin) != len(dataset):
            rest = rest.select(origin)
        features = datasets.Features({column: _CANONICAL[column] for column in columns})
        added = datasets.Dataset.from_dict(columns, features=features)
        dataset = datasets.concatenate_datasets([rest, added], axis=1)
        dataset = dataset.select_columns([*order, *(column for column in columns if column not in order)])
    return readable_rows(dataset, name) if skip_bad_images else dataset


def _rows(dataset: datasets.Dataset, texts: list[str]) -> Iterator[dict[str, Any]]:
    needed = texts if "image_id" in texts and None not in _batches(dataset, ["image_id"]) else [*texts, "image"]
    for batch in dataset.select_columns(needed).iter(batch_size=256):
        for values in zip(*(batch[column] for column in needed), strict=True):
            yield dict(zip(needed, values, strict=True))


def _batches(dataset: datasets.Dataset, columns: list[str]) -> Iterator[Any]:
    for batch in dataset.select_columns(columns).iter(batch_size=10_000):
        yield from batch[columns[0]]


def _renamed(dataset: Any, row_format: RowFormat) -> Any:
    """Give the two columns their canonical names; what stood there under them before goes."""
    wanted = {row_format.image_column: "image", row_format.caption_column: "caption"}
    moves = {old: new for old, new in wanted.items() if old != new}
    inverse = [new for new in moves.values() if new in dataset.column_names and new not in moves]
    dataset = dataset.remove_columns(inverse) if inverse else dataset
    return dataset.rename_columns(moves) if moves else dataset


def _undecoded(dataset: datasets.Dataset, column: str, name: str) -> datasets.Dataset:
    feature = dataset.features["image"]
    kind = getattr(feature, "dtype", None)
    if isinstance(feature, datasets.Image):
        pass
    elif isinstance(feature, dict) and set(feature) <= {"bytes", "path"} or kind in ("binary", "large_binary"):
        pass
    elif kind in ("string", "large_string"):
        for index, path in enumerate(_batches(dataset, ["image"])):
            if path is not None and "://" not in path and not os.path.isfile(path):
                raise DataError(
                    f"row {index} of {name} names an image that does not exist: {path} (relative paths count from "
                    f"{os.getcwd()})"
                )
    else:
        raise DataError(
            f"column {column!r} of {name} holds {feature}, not images; expected datasets.Image, paths or the bytes of "
            "image files (pass image_column=... if another column holds them)"
        )
    return dataset.cast_column("image", _CANONICAL["image"])


def canonical_stream(
    dataset: datasets.IterableDataset, row_format: RowFormat, name: str, *, skip_bad_images: bool = False
) -> datasets.IterableDataset:
    """Bring a stream into the canonical form; rows are checked as they come, the first one at once.

    Args:
        dataset (`datasets.IterableDataset`):
            With an image and a caption column.
        row_format (`RowFormat`):
            Names of the two.
        name (`str`):
            What to call the data in an error.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out unreadable images; each is warned of as it comes.

    Returns:
        `datasets.IterableDataset`

    Raises:
        DataError: if a column is absent or there is no row; while iterating, if a row is not as it should be.
    """
    known = dataset.features
    if known is not None and any(isinstance(feature, datasets.Image) for feature in known.values()):
        dataset = dataset.decode(False)
    first = next(iter(islice(dataset, 1)), None)
    if first is None:
        raise DataError(f"{name} holds no row")
    require_columns(first, row_format, name)
    stream_rows(
        {key: [value] for key, value in first.items()}, [0], row_format=row_format, name=name, skip_bad_images=False
    )
    features = None
    if known is not None:
        extra = {key: value for key, value in known.items() if key not in (*_CANONICAL, *_own(row_format))}
        always = ("image", "image_id", *(["caption"] if row_format.caption_column in known else []))
        present = [key for key in _CANONICAL if key in known or key in always]
        features = datasets.Features({**{key: _CANONICAL[key] for key in present}, **extra})
    function = partial(stream_rows, row_format=row_format, name=name, skip_bad_images=skip_bad_images)
    return dataset.map(
        function,
        batched=True,
        batch_size=_STREAM_BATCH,
        with_indices=True,
        remove_columns=list(first),
        features=features,
    )


def _own(row_format: RowFormat) -> tuple[str, str]:
    return row_format.image_column, row_format.caption_column


def stream_rows(
    batch: Mapping[str, list[Any]], indices: list[int], *, row_format: RowFormat, name: str, skip_bad_images: bool
) -> dict[str, list[Any]]:
    """Turn a batch of a stream into canonical rows (a function of the module, so that loader workers can have it).

    Args:
        batch (`Mapping[str, list]`):
            Columns of the user's data.
        indices (`list[int]`):
            Number of each row in the stream.
        row_format (`RowFormat`):
            Names of the columns.
        name (`str`):
            What to call the data in an error.
        skip_bad_images (`bool`):
            Leave out unreadable images, with a warning.

    Returns:
        `dict[str, list]`: canonical columns.
    """
    out: list[dict[str, Any]] = []
    taken = (*_CANONICAL, *_own(row_format))
    texts = [column for column in TEXT_COLUMNS if column in batch]
    extra = [column for column in batch if column not in taken]
    skipped = []
    for position, index in enumerate(indices):
        image = batch[row_format.image_column][position]
        path = image.get("path") if isinstance(image, Mapping) else None
        where = f"row {index} of {name}" + (f" ({path})" if path else "")
        row = {column: batch[column][position] for column in texts}
        if row_format.caption_column in batch:  # there may be only long ones
            row[row_format.caption_column] = batch[row_format.caption_column][position]
        if skip_bad_images:
            try:
                load_image(image, name=where)
            except DataError as error:
                skipped.append(str(error))
                continue
        shared = {"image": image, "image_id": image_id(row.get("image_id"), image, where)}
        shared.update({column: batch[column][position] for column in extra})
        out += [{**shared, **canonical} for canonical in text_rows(row, row_format, where)]
    if skipped:
        report_skipped(skipped, len(indices), f"these rows of {name}")
    columns = ["image", "image_id", *(["caption"] if row_format.caption_column in batch else [])]
    columns += [*(c for c in texts if c not in ("image_id", "caption")), *extra]
    return {column: [row.get(column) for row in out] for column in columns}
