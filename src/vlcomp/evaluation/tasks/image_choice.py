"""One sentence, an image of which it is true and one of which it is false."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ...data.folders import read_metadata
from ...errors import DataError
from ..choice import Choice, ChoiceItems, ChoiceTask, Indexer

_KEYS = ("sentence", "true_file", "false_file")


class ImageChoice(ChoiceTask):
    """Does the model score a sentence higher with the image of which it is true?

    *Source*: a JSONL file with the keys `sentence`, `true_file` and `false_file` (paths relative to the file's
    folder), for instance NLVR1's pairs.

    *Licence*: that of the data.

    *Convention*: right only if the true image scores strictly higher. Intervals are clustered by sentence.

    Args:
        data (`str` or `os.PathLike`):
            The JSONL file.
        images (`str` or `os.PathLike`, *optional*):
            Folder that the paths are relative to; the file's own if not given.
        name (`str`, defaults to `"image_choice"`):
            Name in results.
        limit (`int`, *optional*):
            About how many items to measure on.
        references (`bool`, defaults to `True`):
            Accepted like everywhere; the text is the same on both sides, so there is no text-only scorer.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out items with a missing or damaged image, and count them.
        gallery (`bool`, defaults to `True`):
            Keep thumbnails of some items for the report.

    Raises:
        DataError: if files are missing or malformed.
    """

    version = "1"
    description = "choose the image of which a sentence is true from two"
    source = "your file; NLVR1: lil.nlp.cornell.edu/nlvr"
    licence = "that of the data (NLVR1: CC-BY-4.0)"
    citation = "NLVR1: Suhr et al., A Corpus of Natural Language for Visual Reasoning, ACL 2017"
    convention = "strictly higher score; interval clustered by sentence"

    def __init__(
        self,
        data: str | os.PathLike[str],
        *,
        images: str | os.PathLike[str] | None = None,
        name: str = "image_choice",
        limit: int | None = None,
        references: bool = True,
        skip_bad_images: bool = False,
        gallery: bool = True,
    ) -> None:
        super().__init__(limit=limit, references=references, skip_bad_images=skip_bad_images, gallery=gallery)
        self.name = name
        self.data = Path(data)
        self.folder = self.data.parent if images is None else Path(images)
        if not self.data.is_file():
            raise DataError(f"data={str(data)!r} is not a file; expected JSONL with {', '.join(_KEYS)}")

    def load(self) -> ChoiceItems:
        """Read all items; see [`ChoiceTask.load`]."""
        images, texts, choices = Indexer(), Indexer(), []
        missing: dict[str, str] = {}
        for number, (where, row) in enumerate(read_metadata(self.data)):
            for key in _KEYS:
                if not isinstance(row.get(key), str) or not row[key].strip():
                    raise DataError(f"{where} has {key}={row.get(key)!r}; expected a non-empty text")
            files = (row["true_file"], row["false_file"])
            if files[0] == files[1]:
                raise DataError(f"{where} names {files[0]!r} as true and as false file; they must differ")
            absent = [f for f in files if f in missing or (f not in images and not (self.folder / f).is_file())]
            if absent:
                message = f"{where}: image {self.folder / absent[0]} does not exist"
                if not self.skip_bad_images:
                    raise DataError(f"{message}; pass the folder of the images (--images), or skip bad images")
                missing.setdefault(absent[0], message)
                continue
            true, false = (images(f, str(self.folder / f)) for f in files)
            text = texts(row["sentence"])
            choices.append(Choice(str(row.get("id", number)), true, text, false, text, row["sentence"]))
        if not choices and missing:
            raise DataError(f"no item has both of its images; first: {next(iter(missing.values()))}")
        return ChoiceItems(images.values, list(images.keys), texts.values, choices, skipped=list(missing.values()))

    def config(self) -> dict[str, Any]:
        """What the scores depend on beside the model."""
        return {**super().config(), "data": self.data.name, "cluster": "sentence"}
