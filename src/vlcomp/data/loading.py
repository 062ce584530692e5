"""`load_captioned`: images with captions from wherever a user has them, as one kind of data set."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ArgumentError, DataError, VlcompError
from .canonical import canonical_dataset, canonical_stream
from .folders import (
    METADATA_NAMES,
    ImageClasses,
    canonical_split,
    is_image_name,
    load_image_classes,
    load_image_folder,
    metadata_files,
    split_of,
)
from .rows import RowFormat, readable_rows, require_columns
from .shards import load_tar_shards
from .splits import split_captioned

__all__ = ["ImageClasses", "load_captioned", "load_image_classes", "split_captioned"]

_METADATA_SUFFIXES = (".jsonl", ".csv")
_SHARD_SUFFIXES = (".parquet", ".tar", ".tar.gz", ".tgz")
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")

AnyDataset = datasets.Dataset | datasets.IterableDataset


def load_captioned(
    data: str | os.PathLike[str] | AnyDataset | datasets.DatasetDict | datasets.IterableDatasetDict,
    *,
    split: str = "train",
    image_column: str = "image",
    caption_column: str = "caption",
    streaming: bool = False,
    skip_bad_images: bool = False,
    name: str | None = None,
) -> AnyDataset:
    """Load images with captions.

    Columns of the result: `image` (undecoded: [`load_image`], the collator and the embedder read it, and
    `dataset.cast_column("image", datasets.Image())` shows PIL images), `caption` (text), `image_id` (int64, equal for
    the rows of one image) and, where the data has them, `negative_captions` and `negative_types` (lists of texts),
    `long_caption`, `label` and whatever else is there. A list of captions becomes one row for each.

    `image_id` comes from a column of that name (integers are kept, texts hashed), else from the path of a file, else
    from the bytes of an embedded image; the same picture has the same id in every process.

    Args:
        data (`str`, `Path` or data set):
            One of

            - a folder with `metadata.jsonl`, `.csv` or `.parquet` (columns `file_name` and `caption`), in the folder
              itself or in `train/`, `validation/`, `test/`; or such a metadata file. File names are relative to it;
            - a parquet file, webdataset .tar shard (`0001.jpg` with `0001.txt` or `0001.json`), a folder of either, or
              a pattern like `shards/*.tar`; a part of the files named `train`, `validation` or `test` is a split;
            - a folder written by `Dataset.save_to_disk`;
            - `"scenes"` or `"scenes:<name>"`, a data set of [`~vlcomp.data.scenes.load_scenes`] (with `split="train"`
              each gives what it is for: training rows for `"scenes"`, test rows for the others);
            - the name of a data set on the Hugging Face hub;
            - a `Dataset`, `IterableDataset` or a dict of them by split.
        split (`str`, defaults to `"train"`):
            Which split to take; data without splits is all `"train"`.
        image_column (`str`, defaults to `"image"`):
            Column of the images. In shards, the extension if a sample holds several images.
        caption_column (`str`, defaults to `"caption"`):
            Column of the captions: a text or a list of texts. In shards, a key of the .json or an extension.
        streaming (`bool`, defaults to `False`):
            Read parquet, shards or a hub data set while going over it, instead of all of it first. Rows are then
            checked as they come.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out unreadable and missing images, with a warning that counts and lists them. All images are decoded
            once for it.
        name (`str`, *optional*):
            Configuration of a hub data set.

    Returns:
        `datasets.Dataset`, or `datasets.IterableDataset` if `streaming`.

    Raises:
        DataError: if something is missing, empty or broken; the message names the file, the line or row, and the fix.
        ArgumentError: for arguments that do not go together.

    Example:
        >>> import tempfile
        >>> from vlcomp.data import load_captioned
        >>> from vlcomp.testing import make_captioned_folder
        >>> load_captioned(make_captioned_folder(tempfile.mkdtemp(), n=3, captions_per_image=2)).num_rows
        6
    """
    row_format = RowFormat(image_column, caption_column)
    if isinstance(data, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        if split not in data:
            raise DataError(f"the data set has no split {split!r}; it has {', '.join(map(repr, data))}")
        data = data[split]
    if isinstance(data, (datasets.Dataset, datasets.IterableDataset)):
        _only_for_the_hub(name, "a data set object")
        return _canonical(data, row_format, "the data set", streaming, skip_bad_images)
    if not isinstance(data, (str, os.PathLike)):
        raise ArgumentError(
            f"data is of type {type(data).__name__}; expected a path, a name on the Hugging Face hub, 'scenes' or a "
            "datasets.Dataset"
        )
    text = os.fspath(data)
    if not text.strip():
        raise ArgumentError("data is empty; expected a path, a name on the Hugging Face hub or 'scenes'")
    if text == "scenes" or text.startswith("scenes:"):
        _only_for_the_hub(name, repr(text))
        return _canonical(_scenes(text, split), row_format, text, streaming, skip_bad_images)
    path = Path(text).expanduser()
    if path.is_dir():
        _only_for_the_hub(name, f"the folder {text}")
        return _folder(path, split, row_format, streaming, skip_bad_images)
    if path.is_file():
        _only_for_the_hub(name, f"the file {text}")
        if path.suffix.lower() in _METADATA_SUFFIXES or path.name in METADATA_NAMES:
            return _metadata(path, split, row_format, streaming, skip_bad_images)
        if not text.lower().endswith(_SHARD_SUFFIXES):
            raise DataError(
                f"cannot read {text}: expected a folder, metadata (.jsonl, .csv), parquet or .tar shards; for another "
                "format pass the folder that holds its metadata.jsonl"
            )
        return _shards([str(path)], text, row_format, streaming, skip_bad_images)
    if glob.has_magic(text):
        found = sorted(glob.glob(str(path), recursive=True))
        if not found:
            raise DataError(f"no file matches {text}")
        return _shards(_of_split(found, split, text), text, row_format, streaming, skip_bad_images)
    if "://" in text:
        raise DataError(f"{text} is an address; download the files, or pass the name of the data set on the hub")
    if isinstance(data, os.PathLike) or _looks_like_a_path(text):
        raise DataError(f"there is no such file or folder: {text}")
    return _hub(text, name, split, row_format, streaming, skip_bad_images)


def _only_for_the_hub(name: str | None, what: str) -> None:
    if name is not None:
        raise ArgumentError(f"name={name!r} names a configuration of a hub data set, but data is {what}")


def _looks_like_a_path(text: str) -> bool:
    suffix = os.path.splitext(text)[1].lower()
    known = suffix in (*_METADATA_SUFFIXES, *_SHARD_SUFFIXES, ".json", ".txt", ".zip") or is_image_name(text)
    return known or text.startswith((".", "/", "~")) or not _HUB_NAME.fullmatch(text)


def _canonical(
    dataset: AnyDataset, row_format: RowFormat, name: str, streaming: bool, skip_bad_images: bool
) -> AnyDataset:
    if isinstance(dataset, datasets.IterableDataset):
        return canonical_stream(dataset, row_format, name, skip_bad_images=skip_bad_images)
    dataset = canonical_dataset(dataset, row_format, name, skip_bad_images=skip_bad_images)
    return _streamed(dataset, streaming)


def _streamed(dataset: datasets.Dataset, streaming: bool) -> AnyDataset:
    if not streaming:
        return dataset
    return dataset.to_iterable_dataset(num_shards=max(1, min(16, len(dataset))))


def _scenes(text: str, split: str) -> datasets.Dataset:
    from .scenes import load_scenes

    scenes_name = text.partition(":")[2] or "train"
    return load_scenes(scenes_name, split=None if split == "train" else canonical_split(split))


def _metadata(path: Path, split: str, row_format: RowFormat, streaming: bool, skip_bad_images: bool) -> AnyDataset:
    return _streamed(load_image_folder(path, split, row_format, skip_bad_images=skip_bad_images), streaming)


def _folder(path: Path, split: str, row_format: RowFormat, streaming: bool, skip_bad_images: bool) -> AnyDataset:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        loaded = _translated(lambda: datasets.load_from_disk(str(path)), str(path))
        if isinstance(loaded, datasets.DatasetDict):
            if split not in loaded:
                raise DataError(f"{path} has no split {split!r}; it has {', '.join(map(repr, loaded))}")
            loaded = loaded[split]
        return _canonical(loaded, row_format, str(path), streaming, skip_bad_images)
    if metadata_files(path):
        return _metadata(path, split, row_format, streaming, skip_bad_images)
    names = [os.path.join(place, name) for place, _, names in os.walk(path) for name in names]
    shards = sorted(name for name in names if name.lower().endswith(_SHARD_SUFFIXES))
    if shards:
        return _shards(
            _of_split(shards, split, str(path), base=path), str(path), row_format, streaming, skip_bad_images
        )
    images = [name for name in names if is_image_name(name)]
    if not names:
        raise DataError(f"{path} is empty; expected metadata.jsonl with images, parquet files or .tar shards")
    if not images:
        raise DataError(
            f"{path} holds no {' or '.join(METADATA_NAMES)}, no parquet file and no .tar shard "
            f"(but {os.path.basename(names[0])}{' and others' if len(names) > 1 else ''})"
        )
    in_classes = any(Path(name).parent != path for name in images)
    raise DataError(
        f"{path} holds {len(images):,} images but no captions: write {path / 'metadata.jsonl'} with one line per "
        'image, {"file_name": "...", "caption": "..."}'
        + ("; a folder with one subfolder per class is read by load_image_classes" if in_classes else "")
    )


def _of_split(files: list[str], split: str, name: str, base: Path | None = None) -> list[str]:
    """Files whose name, or a folder below `base`, says `split`; all are "train" if none says anything."""
    groups: dict[str, list[str]] = {}
    for file in files:
        parts = Path(file).relative_to(base).parts if base else (os.path.basename(file),)
        found = next((word for word in map(split_of, reversed(parts)) if word), None)
        groups.setdefault(found or "", []).append(file)
    if list(groups) == [""]:
        groups = {"train": groups[""]}
    wanted = canonical_split(split)
    if wanted not in groups:
        have = ", ".join(repr(key) for key in sorted(groups) if key)
        raise DataError(f"{name} has no split {split!r}; it has {have}. Pass split=... (--split)")
    return groups[wanted]


def _shards(files: list[str], name: str, row_format: RowFormat, streaming: bool, skip_bad_images: bool) -> AnyDataset:
    kinds = {"parquet" if file.lower().endswith(".parquet") else "tar" for file in files}
    others = [file for file in files if not file.lower().endswith(_SHARD_SUFFIXES)]
    if others or len(kinds) > 1:
        odd = others[0] if others else next(file for file in files if file.lower().endswith(".parquet"))
        raise DataError(
            f"{name} matches files of different kinds, for instance {odd}; expected only .parquet or only .tar"
        )
    if kinds == {"parquet"}:
        _check_parquet(files, row_format, name)
        loaded = _translated(
            lambda: datasets.load_dataset("parquet", data_files=files, split="train", streaming=streaming), name
        )
        return _canonical(loaded, row_format, name, streaming, skip_bad_images)
    if streaming:
        return load_tar_shards(files, row_format, name, streaming=True, skip_bad_images=skip_bad_images)
    loaded = _translated(lambda: load_tar_shards(files, row_format, name, streaming=False), name)
    return readable_rows(loaded, name) if skip_bad_images else loaded


def _check_parquet(files: Iterable[str], row_format: RowFormat, name: str) -> None:
    """Read the footers: a broken, empty or differing file is named before any conversion starts."""
    rows = 0
    first: tuple[str, list[str]] | None = None
    for file in files:
        try:
            footer = pq.read_metadata(file)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file} is not a readable parquet file: {error}") from error
        rows += footer.num_rows
        columns = footer.schema.to_arrow_schema().names
        if first is None:
            first = (file, columns)
            require_columns(columns, row_format, file)
        elif set(columns) != set(first[1]):
            differing = sorted(set(columns).symmetric_difference(first[1]))
            raise DataError(
                f"{file} and {first[0]} have different columns ({', '.join(differing)} in only one of them); give "
                "files of one data set"
            )
    if not rows:
        raise DataError(f"{name} holds no row")


def _hub(
    text: str, name: str | None, split: str, row_format: RowFormat, streaming: bool, skip_bad_images: bool
) -> AnyDataset:
    try:
        loaded = datasets.load_dataset(text, name, split=split, streaming=streaming)
    except VlcompError:
        raise
    # From a missing network to a broken repository: every cause has another class, in three libraries.
    except Exception as error:
        raise DataError(
            f"cannot load {text!r}: there is no such file or folder here, and as a data set of the Hugging Face hub "
            f"{_cause(error)}"
        ) from error
    return _canonical(loaded, row_format, text, streaming, skip_bad_images)


def _cause(error: Exception) -> str:
    kind = type(error).__name__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:3]) or kind
    if isinstance(error, datasets.exceptions.DatasetNotFoundError):
        return f"it does not exist or is private ({text})"
    if isinstance(error, ConnectionError) or "Offline" in kind or "Connect" in kind or "Timeout" in kind:
        return f"it cannot be reached ({text}); check the network, HF_HUB_OFFLINE and HF_ENDPOINT"
    return f"it fails with {kind}: {text}"


def _translated(load: Callable[[], Any], name: str) -> Any:
    """Run a loader of the datasets library; of its nested errors only the cause is shown."""
    try:
        return load()
    except VlcompError:
        raise
    except Exception as error:
        link: BaseException | None = error
        deepest: BaseException = error
        while link is not None:
            if isinstance(link, VlcompError):
                raise link from None
            deepest, link = link, link.__cause__ or link.__context__
        raise DataError(f"cannot read {name}: {str(deepest) or type(deepest).__name__}") from error
