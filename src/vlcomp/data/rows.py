"""The canonical row (image, caption, image_id, negatives) and every check on the way to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from ..errors import DataError
from .images import image_key, load_image, stable_hash

logger = logging.getLogger(__name__)

TEXT_COLUMNS = ("caption", "negative_captions", "negative_types", "long_caption", "image_id")
LONG_CAPTION = "long_caption"
_CAPTION_ALIASES = ("caption", "captions", "text", "sentence", "txt", "description", "title", "alt_text", "prompt")
_IMAGE_ALIASES = ("image", "img", "picture", "photo", "jpg", "png")
_SHOWN = 20  # skipped images that a warning lists by name


@dataclass(frozen=True)
class RowFormat:
    """Names of the columns in the user's data.

    Args:
        image_column (`str`, defaults to `"image"`):
            Column of the images.
        caption_column (`str`, defaults to `"caption"`):
            Column of the captions, each a string or a list of strings.
    """

    image_column: str = "image"
    caption_column: str = "caption"


def plural(count: int, one: str, many: str | None = None) -> str:
    """`"1 image"`, `"2 images"`.

    Args:
        count (`int`):
            How many.
        one (`str`):
            Word for one.
        many (`str`, *optional*):
            Word for several; `one` and an s if not given.

    Returns:
        `str`
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def require_columns(columns: Iterable[str], row_format: RowFormat, name: str, *, image: bool = True) -> None:
    """Check that the image and caption columns exist.

    Data with a column `long_caption` need no other captions, unless a column is asked for by name or looks like one.

    Args:
        columns (`Iterable[str]`):
            Columns of the data.
        row_format (`RowFormat`):
            Columns that are needed.
        name (`str`):
            What to call the data in an error.
        image (`bool`, defaults to `True`):
            Whether the image column is needed too.

    Raises:
        DataError: names the columns that exist and the likeliest one.
    """
    columns = list(columns)
    needed = [("caption_column", row_format.caption_column, _CAPTION_ALIASES)]
    if image:
        needed.insert(0, ("image_column", row_format.image_column, _IMAGE_ALIASES))
    for argument, wanted, aliases in needed:
        if wanted in columns:
            continue
        if wanted == RowFormat.caption_column and LONG_CAPTION in columns and not set(aliases) & set(columns):
            continue
        close = get_close_matches(wanted, columns, 1) or [alias for alias in aliases if alias in columns]
        option = "--" + argument.replace("_", "-")
        hint = f"did you mean {close[0]!r}? Pass" if close else "pass"
        fix = f"{argument}={close[0]!r} ({option} {close[0]})" if close else f"{argument}=... ({option})"
        have = ", ".join(map(repr, columns)) or "none"
        raise DataError(f"{name} has no column {wanted!r}; its columns are {have}; {hint} {fix}")


def text_rows(row: Mapping[str, Any], row_format: RowFormat, where: str) -> list[dict[str, Any]]:
    """Check the texts of a row and give one canonical row per caption.

    Args:
        row (`Mapping`):
            The user's row; its image is not looked at.
        row_format (`RowFormat`):
            Names of the columns.
        where (`str`):
            What to call the row in an error.

    Returns:
        `list[dict]`: `caption` and, where the row has them, `negative_captions`, `negative_types`, `long_caption`. The
        caption is `None` where there is only a long one.

    Raises:
        DataError: if a text is missing, empty or not a text.
    """
    captions: list[str | None] = [None]
    if not _blank(row.get(row_format.caption_column)) or _blank(row.get(LONG_CAPTION)):
        captions = _captions(row, where, row_format.caption_column)
    rows: list[dict[str, Any]] = [{"caption": caption} for caption in captions]
    for column in ("negative_captions", "negative_types"):
        if column in row:
            for canonical, value in zip(rows, _lists(row[column], len(rows), where, column), strict=True):
                canonical[column] = value
    for canonical in rows:
        types, negatives = canonical.get("negative_types"), canonical.get("negative_captions")
        if types and len(types) != len(negatives or ()):
            raise DataError(
                f"{where} has {plural(len(negatives or ()), 'negative caption')} but {plural(len(types), 'type')}; "
                "negative_types gives one type for each of negative_captions"
            )
    if LONG_CAPTION in row:
        value = row[LONG_CAPTION]
        if value is not None and not isinstance(value, str):
            raise DataError(f"{where}: long_caption is {_shown(value)}; expected a text")
        for canonical in rows:
            canonical[LONG_CAPTION] = value
    return rows


def require_captions(dataset: Any, name: str) -> None:
    """Refuse data in which a row has no short caption; data with a column `long_caption` may hold such rows.

    Args:
        dataset (`Dataset`):
            As [`load_captioned`] gives it. A streamed one is left to whoever reads its rows.
        name (`str`):
            What to call it in messages.

    Raises:
        DataError: naming the first such row.
    """
    if not isinstance(dataset, datasets.Dataset):
        return
    if "caption" not in dataset.column_names:
        other = "long_caption" if "long_caption" in dataset.column_names else "NAME"
        raise DataError(
            f"{name} has no column 'caption' (columns: {', '.join(dataset.column_names)}); say which one has the "
            f"captions with caption_column={other!r} (--caption-column {other})"
        )
    # The column as it is stored tells in no time that there is nothing to look for.
    if not dataset.data.column("caption").null_count:
        return
    for row, caption in enumerate(dataset["caption"]):
        if caption is None:
            raise DataError(
                f"row {row} of {name} has no caption, only a long one; write one, remove the row, or take the long "
                "captions with caption_column='long_caption' (--caption-column long_caption)"
            )


def _blank(value: Any) -> bool:
    return value is None or isinstance(value, str) and not value.strip()


def _captions(row: Mapping[str, Any], where: str, column: str) -> list[str]:
    value = row.get(column)
    values = list(value) if isinstance(value, (list, tuple, np.ndarray)) else [value]
    if not values:
        raise DataError(f"{where} has an empty list of captions ({column!r}); give at least one or remove the row")
    for text in values:
        if _blank(text):
            what = "no caption" if text is None else "an empty caption"
            long = " and no long_caption" if LONG_CAPTION in row and len(values) == 1 else ""
            raise DataError(f"{where} has {what} ({column!r}){long}; write one or remove the row")
        if not isinstance(text, str):
            raise DataError(f"{where}: {column!r} is {_shown(text)}; expected a text or a list of texts")
    return values


def _lists(value: Any, count: int, where: str, column: str) -> list[list[str]]:
    """The list of texts that belongs to each of `count` captions."""
    if value is None:
        return [[] for _ in range(count)]
    values = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else None
    if values and all(isinstance(item, (list, tuple)) for item in values):
        if len(values) != count:
            raise DataError(f"{where}: {column} holds {plural(len(values), 'list')} for {plural(count, 'caption')}")
        return [_lists(item, 1, where, column)[0] for item in values]
    if values is None or not all(isinstance(item, str) and item.strip() for item in values):
        raise DataError(f"{where}: {column} is {_shown(value)}; expected a list of texts, none of them empty")
    return [values for _ in range(count)]


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def image_id(value: Any, image: Any, where: str) -> int:
    """Number that rows of one image share.

    Args:
        value:
            The user's own id: integers are kept, strings hashed. `None` if there is none.
        image:
            The image, told apart by path or content where there is no id.
        where (`str`):
            What to call the row in an error.

    Returns:
        `int`: fits int64.

    Raises:
        DataError: if the id is neither, or the image is missing.
    """
    if value is None:
        try:
            return image_key(image)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
    if isinstance(value, str):
        return stable_hash(value)
    if isinstance(value, float) and value.is_integer():  # integers with gaps come out of CSV and pandas like this
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise DataError(f"{where}: image_id is {_shown(value)}; expected an integer or a text")
    return int(value) if -(2**63) <= value < 2**63 else stable_hash(str(value))


def table_from_rows(rows: Iterable[tuple[str, dict[str, Any]]], row_format: RowFormat, name: str) -> datasets.Dataset:
    """Build the canonical data set from rows in memory (images as paths).

    Args:
        rows (`Iterable[tuple[str, dict]]`):
            Where each row stands and what it holds.
        row_format (`RowFormat`):
            Names of the columns.
        name (`str`):
            What to call the data in an error.

    Returns:
        `datasets.Dataset`

    Raises:
        DataError: for a row that is not as it should be, or a column of mixed types.
    """
    canonical: list[dict[str, Any]] = []
    for where, row in rows:
        image = row[row_format.image_column]
        # A file's own path says which one it is better than its line number.
        path = image.get("path") if isinstance(image, Mapping) else None
        place = f"{where} ({os.path.basename(path)})" if path else where
        shared = {
            "image": image,
            "image_id": image_id(row.get("image_id"), image, place),
            **{key: value for key, value in row.items() if not _taken(key, row_format)},
        }
        canonical += [{**shared, **texts} for texts in text_rows(row, row_format, place)]
    columns = dict.fromkeys(key for row in canonical for key in row)
    if not any(row["caption"] is not None for row in canonical):
        del columns["caption"]  # long captions alone: what needs others finds no such column
    arrays, features = [], {}
    for column in columns:
        values = [row.get(column) for row in canonical]
        if column == "image":
            feature: Any = datasets.Image(decode=False)
            array = pa.array(values, type=feature.pa_type)
        else:
            array = _array(values, column, name)
            feature = datasets.features.features.generate_from_arrow_type(array.type)
        arrays.append(array)
        features[column] = feature
    order = [key for key in ("image", *TEXT_COLUMNS) if key in columns]
    order += [key for key in columns if key not in order]
    table = pa.table(arrays, names=list(columns)).select(order)
    features = datasets.Features({key: features[key] for key in order})
    table = table.replace_schema_metadata(features.arrow_schema.metadata)
    return datasets.Dataset(datasets.table.InMemoryTable(table))


def _taken(key: str, row_format: RowFormat) -> bool:
    return key in ("image", *TEXT_COLUMNS, row_format.image_column, row_format.caption_column)


def _array(values: Sequence[Any], column: str, name: str) -> pa.Array:
    kind = {"image_id": pa.int64(), "caption": pa.string(), "long_caption": pa.string()}.get(column)
    if column in ("negative_captions", "negative_types"):
        kind, values = pa.list_(pa.string()), [value or [] for value in values]
    try:
        return pa.array(values, type=kind)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError) as error:
        types = sorted({type(value).__name__ for value in values if value is not None})
        cause = f"it mixes values of types {', '.join(types)}" if len(types) > 1 else str(error)
        raise DataError(
            f"column {column!r} of {name} cannot be stored: {cause}; make them all of one type or remove the column"
        ) from error


def readable_rows(dataset: datasets.Dataset, name: str) -> datasets.Dataset:
    """Decode every image once, in parallel, and keep the rows whose image is readable.

    Args:
        dataset (`datasets.Dataset`):
            With an undecoded column `image`.
        name (`str`):
            What to call the data in the warning.

    Returns:
        `datasets.Dataset`: the same one if all images are readable. A warning counts and lists those left out.

    Raises:
        DataError: if no image is readable.
    """
    ids = dataset["image_id"][:] if "image_id" in dataset.column_names else range(len(dataset))
    rows: dict[Any, int] = {}
    for index, key in enumerate(ids):
        rows.setdefault(key, index)
    first = list(rows.values())
    images = dataset.select_columns(["image"])
    # Decoding leaves the interpreter lock, so threads suffice and nothing is copied to other processes.
    with ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1)) as pool:
        causes = list(pool.map(lambda index: _problem(images[index]["image"], index, name), first, chunksize=16))
    bad = {ids[index]: cause for index, cause in zip(first, causes, strict=True) if cause}
    if not bad:
        return dataset
    if len(bad) == len(first):
        raise DataError(f"no image of {name} is readable; the first: {next(iter(bad.values()))}")
    keep = [index for index, key in enumerate(ids) if key not in bad]
    report_skipped(list(bad.values()), len(first), name)
    return dataset.select(keep)


def report_skipped(causes: Sequence[str], total: int, name: str) -> None:
    """Warn once about all images that were left out.

    Args:
        causes (`Sequence[str]`):
            One message per image.
        total (`int`):
            How many images there were.
        name (`str`):
            What to call the data.
    """
    listed = "".join(f"\n  {cause}" for cause in causes[:_SHOWN])
    more = f"\n  and {len(causes) - _SHOWN:,} more" if len(causes) > _SHOWN else ""
    logger.warning("skipped %s of %s in %s:%s%s", f"{len(causes):,}", plural(total, "image"), name, listed, more)


def _problem(image: Any, index: int, name: str) -> str | None:
    path = image.get("path") if isinstance(image, Mapping) else None
    try:
        load_image(image, name=path or f"the image of row {index} of {name}")
    except DataError as error:
        return str(error)
    return None
