"""One image, a true and a false caption: files in SugarCrepe's format."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...data.folders import read_metadata
from ...errors import DataError
from ..choice import Choice, ChoiceItems, ChoiceTask, Indexer, averaged_scores
from ..reference import NGramScorer, cross_validated_scores, linked_items
from ..scoring import PairComparison, compare_pairs
from ..task import Score

logger = logging.getLogger(__name__)

_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
# SugarCrepe's file names begin with the kind of change.
_GROUPS = ("replace", "swap", "add")
_FOLDS = 5


class CaptionChoice(ChoiceTask):
    """Does the model prefer the true caption of an image to a false one?

    *Source*: any file `{id: {"filename": ..., "caption": ..., "negative_caption": ...}}` (SugarCrepe's format), a
    folder of such files (each is a subset), or an imagefolder whose metadata has the columns `file_name`, `caption`
    and `negative_caption` (a string or a list).

    *Licence*: that of the data.

    *Convention*: right only if the true caption scores strictly higher. With several files three averages are printed
    by name: `micro/accuracy` over items (the headline), `macro/accuracy` over files, and `macro_groups/accuracy` over
    the replace, swap and add groups where the files are named so. Intervals are clustered by image.

    Args:
        data (`str` or `os.PathLike`):
            JSON file, folder of JSON files, or imagefolder.
        images (`str` or `os.PathLike`, *optional*):
            Folder of the images; the `images` folder beside the JSON files if there is one, otherwise their own
            folder.
        reference_captions (`Sequence[str]`, *optional*):
            Captions for the n-gram reference scorer, such as a model's training captions.
        name (`str`, defaults to `"caption_choice"`):
            Name in results.
        limit (`int`, *optional*):
            About how many items to measure on.
        references (`bool`, defaults to `True`):
            Score the text-only references: a classifier trained by 5-fold cross-validation over images on the true and
            false captions, and the n-gram model if there are `reference_captions`.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out items whose image is missing or damaged, and count them.
        gallery (`bool`, defaults to `True`):
            Keep thumbnails of some items for the report.

    Raises:
        DataError: if files are missing or malformed.

    """

    version = "1"
    description = "choose the true caption of an image from two (SugarCrepe format)"
    source = "your files; SugarCrepe: github.com/RAIVNLab/sugar-crepe"
    licence = "that of the data (SugarCrepe: MIT, images COCO)"
    citation = "Hsieh et al., SugarCrepe, NeurIPS 2023, arXiv:2306.14610"
    convention = "strictly higher score; micro over items is the headline, macro over files and groups by name"

    def __init__(
        self,
        data: str | os.PathLike[str],
        *,
        images: str | os.PathLike[str] | None = None,
        reference_captions: Sequence[str] | None = None,
        name: str = "caption_choice",
        limit: int | None = None,
        references: bool = True,
        skip_bad_images: bool = False,
        gallery: bool = True,
    ) -> None:
        super().__init__(limit=limit, references=references, skip_bad_images=skip_bad_images, gallery=gallery)
        self.name = name
        self.data = Path(data)
        self.images = None if images is None else Path(images)
        self.reference_captions = reference_captions
        if not self.data.exists():
            raise DataError(f"data={str(data)!r} does not exist; expected a JSON file or a folder")
        if self.images is not None and not self.images.is_dir():
            raise DataError(f"images={str(images)!r} is not a folder")

    def load(self) -> ChoiceItems:
        """Read all items; see [`ChoiceTask.load`]."""
        metadata = self._metadata()
        if metadata is not None:
            entries = self._from_metadata(metadata)
            folder = self.images or metadata.parent
        else:
            files = sorted(self.data.glob("*.json")) if self.data.is_dir() else [self.data]
            if not files:
                raise DataError(
                    f"{self.data} holds neither .json files nor metadata.jsonl; expected "
                    '{"id": {"filename": ..., "caption": ..., "negative_caption": ...}} or an imagefolder'
                )
            entries = [entry for file in files for entry in self._from_json(file, several=len(files) > 1)]
            parent = self.data if self.data.is_dir() else self.data.parent
            folder = self.images or (parent / "images" if (parent / "images").is_dir() else parent)
        images, texts, choices = Indexer(), Indexer(), []
        missing: dict[str, str] = {}
        for item_id, subset, file_name, caption, negative in entries:
            path = folder / file_name
            if file_name in missing or (file_name not in images and not path.is_file()):
                message = f"item {item_id}: image {path} does not exist"
                if not self.skip_bad_images:
                    raise DataError(f"{message}; pass the folder of the images (--images), or skip bad images")
                missing.setdefault(file_name, message)
                continue
            image = images(file_name, path)
            choices.append(Choice(item_id, image, texts(caption), image, texts(negative), file_name, subset))
        if not choices and missing:
            raise DataError(f"none of the {len(missing)} images exists; first: {next(iter(missing.values()))}")
        return ChoiceItems(
            [str(path) for path in images.values],
            [str(key) for key in images.keys],
            texts.values,
            choices,
            skipped=list(missing.values()),
        )

    def _metadata(self) -> Path | None:
        if self.data.is_file():
            return self.data if self.data.suffix != ".json" else None
        return next((self.data / name for name in _METADATA if (self.data / name).is_file()), None)

    def _from_metadata(self, path: Path) -> list[tuple[str, str | None, str, str, str]]:
        entries: list[tuple[str, str | None, str, str, str]] = []
        without = 0
        for number, (where, row) in enumerate(read_metadata(path)):
            file_name = required_text(row, "file_name", where)
            caption = required_text(row, "caption", where)
            negatives = row.get("negative_caption", row.get("negative_captions"))
            if negatives == []:
                without += 1  # no rule of `vlcomp negatives` fits every caption
                continue
            if not negatives:
                raise DataError(f"{where} has no 'negative_caption'; a caption choice needs one")
            for k, negative in enumerate([negatives] if isinstance(negatives, str) else negatives):
                false = required_text({"negative_caption": negative}, "negative_caption", where)
                entries.append((f"{number}" if k == 0 else f"{number}.{k}", None, file_name, caption, false))
        if without and not entries:
            raise DataError(f"{path}: none of the {without} captions has a negative; a caption choice needs some")
        if without:
            logger.warning("%s: left out %d captions without a negative", path, without)
        return entries

    def _from_json(self, path: Path, *, several: bool) -> list[tuple[str, str | None, str, str, str]]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique_keys(path))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{path} is not valid JSON: {error}") from error
        if isinstance(content, list):
            content = {str(i): row for i, row in enumerate(content)}
        if not isinstance(content, dict):
            raise DataError(f"{path} holds {type(content).__name__}; expected an object of items by id")
        entries = []
        for key, row in content.items():
            where = f"item {key!r} of {path}"
            if not isinstance(row, dict):
                raise DataError(f"{where} is {type(row).__name__}; expected an object")
            item_id = f"{path.stem}/{key}" if several else str(key)
            file_name, caption, negative = (
                required_text(row, k, where) for k in ("filename", "caption", "negative_caption")
            )
            entries.append((item_id, path.stem if several else None, file_name, caption, negative))
        return entries

    @property
    def headline(self) -> str:  # type: ignore[override]
        """`micro/accuracy` if there are several files, otherwise `accuracy`."""
        return "accuracy" if self.items.choices[0].subset is None else "micro/accuracy"

    def config(self) -> dict[str, Any]:
        """What the scores depend on beside the model."""
        return {**super().config(), "data": self.data.name}

    def scores(self, items: ChoiceItems, outcome: PairComparison, *, expected: bool = False) -> dict[str, Score]:
        """Accuracy, or all averages if there are several files."""
        clusters = [c.cluster for c in items.choices]
        if items.choices[0].subset is None:
            values = outcome.expected if expected else outcome.correct
            return {"accuracy": Score.from_values(values, clusters, ties=int(outcome.tie.sum()), chance=self.chance)}
        subsets = [str(c.subset) for c in items.choices]
        groups = {name: _group(name) for name in dict.fromkeys(subsets)}
        named = None not in groups.values()
        return averaged_scores(
            subsets,
            outcome,
            clusters,
            groups={k: str(v) for k, v in groups.items()} if named else None,
            chance=self.chance,
            expected=expected,
        )

    def reference_scores(self, items: ChoiceItems, *, progress: bool = False) -> dict[str, dict[str, Score]]:
        """Text-only scorers."""
        true, false = items.true_texts(), items.false_texts()
        found = {}
        if self.reference_captions is not None:
            scorer = NGramScorer(self.reference_captions)
            found["text_only"] = self.scores(items, compare_pairs(scorer(true), scorer(false)), expected=True)
        clusters = [c.cluster for c in items.choices]
        # Fewer items would say more about the fold than about the captions.
        groups = linked_items(true, false, clusters)
        if len(set(clusters)) >= 10 * _FOLDS and len(set(groups)) >= 2 * _FOLDS:
            outcome = compare_pairs(*cross_validated_scores(true, false, clusters, folds=_FOLDS))
            found["text_only_classifier"] = self.scores(items, outcome, expected=True)
        return found


def _group(subset: str) -> str | None:
    return next((group for group in _GROUPS if subset.lower().startswith(group)), None)


def required_text(row: Mapping[str, Any], key: str, where: str) -> str:
    """A field that must be a text with something in it.

    Args:
        row (`Mapping`):
            An item as it was read.
        key (`str`):
            The field.
        where (`str`):
            What the item is, for the message.

    Returns:
        `str`

    Raises:
        DataError: if it is missing, no text or blank.
    """
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where} has {key}={value!r}; expected a non-empty text")
    return value


def unique_keys(path: Path) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """For `json.loads`: refuses an object that has a key twice, where the last one would win without a word.

    Args:
        path (`Path`):
            The file, for the message.

    Returns:
        `Callable`: an `object_pairs_hook`.
    """

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise DataError(f"{path} has the key {key!r} twice; ids must be unique")
            found[key] = value
        return found

    return build
