"""Classification sets with splits: those of the few-shot literature, ImageNet's variants, Scenes, your folders."""

from __future__ import annotations

import json
import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import datasets

from ..errors import ArgumentError, DataError
from .classification_facts import COOP, OTHER_NAMES, PHOTO, SETS, ClassificationFacts
from .folders import canonical_split, load_image_classes
from .rows import plural

logger = logging.getLogger(__name__)

DATA_VARIABLE = "VLCOMP_DATA"
SPLITS = ("train", "validation", "test")
# Where the authors of a set give no validation split, a part of the training images; in a folder without any splits
# these parts of each class.
_VALIDATION_PART = 0.2
_FOLDER_PARTS = (0.5, 0.2)
_IMAGENET_VALIDATION = (0.05, 50)
_SCENES = "scenes/"

Rows = list[tuple[str, int]]


@dataclass(frozen=True)
class ClassificationSet:
    """Labelled images in splits, and what the classes are called.

    Args:
        name (`str`):
            Name of the set.
        template (`str`):
            Hand-crafted text of a class, with one `{}`.
        class_names (`tuple[str, ...]`):
            Name of each label, in order.
        splits (`Mapping[str, datasets.Dataset]`):
            `"train"`, `"validation"` and `"test"`, those there are; columns `image` (undecoded) and `label`
            (`ClassLabel`).
        official (`bool`):
            Whether the numbers of classes and images are those of the published split.
        prompt_template (`str`, defaults to `"a photo of a {}."`):
            Text in which learned prompts take the place of the first words; in the literature the same for all sets.
    """

    name: str
    template: str
    class_names: tuple[str, ...]
    splits: Mapping[str, datasets.Dataset] = field(repr=False)
    official: bool = False
    prompt_template: str = PHOTO

    def split(self, name: str) -> datasets.Dataset:
        """One of the splits.

        Args:
            name (`str`):
                `"train"`, `"validation"` or `"test"`.

        Returns:
            `datasets.Dataset`

        Raises:
            DataError: if the set has no such split.
        """
        if name not in self.splits:
            known = ", ".join(map(repr, self.splits))
            raise DataError(f"set {self.name!r} has no split {name!r}; it has {known}")
        return self.splits[name]


def list_classification_sets() -> list[str]:
    """Names that [`load_classification_set`] takes, beside folders.

    Returns:
        `list[str]`
    """
    from .scenes.classes import list_scenes_classes

    return [*SETS, *(_SCENES + name for name in list_scenes_classes())]


def load_classification_set(
    name: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    template: str | None = None,
    split_file: str | os.PathLike[str] | None = None,
    image_size: int = 64,
) -> ClassificationSet:
    """Read a classification set.

    Args:
        name (`str` or `os.PathLike`):
            One of [`list_classification_sets`] (`"oxford_pets"`, `"scenes/attribute-noun"`), or a folder with a
            subfolder of images for each class, perhaps below `train/`, `val/` and `test/`. In a folder without a test
            split half of each class is for training, a fifth for validation and the rest for testing; without only a
            validation split it is a fifth of the training images. Which ones, the names of the files decide.
        data (`str` or `os.PathLike`, *optional*):
            Folder of the set in CoOp's layout, or the folder that holds it under its usual name; `$VLCOMP_DATA` if
            not given.
        template (`str`, *optional*):
            Text of a class with one `{}`; the hand-crafted one of the set, or `"a photo of a {}."`, if not given.
        split_file (`str` or `os.PathLike`, *optional*):
            For a folder: a JSON file in CoOp's format, `{"train": [[path, label, class name], ...], "val": ...,
            "test": ...}`, with paths relative to the folder.
        image_size (`int`, defaults to 64):
            For Scenes: side of the pictures in pixels.

    Returns:
        [`ClassificationSet`]

    Raises:
        ArgumentError: for an unknown name, or a template without its placeholder.
        DataError: if files are missing or broken; the message says where it looked and what belongs there.

    Example:
        >>> from vlcomp.data.classification_sets import load_classification_set
        >>> pictures = load_classification_set("scenes/colour")
        >>> pictures.template, pictures.class_names[0], len(pictures.split("test"))
        ('a {}', 'red thing', 2000)
    """
    if template is not None and template.count("{}") != 1:
        raise ArgumentError(f"template={template!r} needs one placeholder {{}} for the class name")
    text = os.fspath(name)
    if text.startswith(_SCENES):
        found = _scenes(text, image_size)
    elif text in SETS:
        facts = SETS[text]
        found = _LAYOUTS[facts.layout](facts, _folder_of(facts, data))
    elif Path(text).is_dir():
        found = _folder(Path(text), split_file)
    else:
        known = list_classification_sets()
        close = get_close_matches(text, known, 3)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known sets: {', '.join(known)}"
        raise ArgumentError(f"{text!r} is neither a classification set nor a folder; {hint}")
    if split_file is not None and text in SETS:
        raise ArgumentError(f"split_file={os.fspath(split_file)!r} goes with a folder; {text!r} has its own splits")
    return found if template is None else replace(found, template=template)


# -- layouts


def _folder_of(facts: ClassificationFacts, data: str | os.PathLike[str] | None) -> Path:
    root = os.environ.get(DATA_VARIABLE) if data is None else os.fspath(data)
    belongs = f"it holds {facts.expected}; from {facts.url} (licence: {facts.licence}), see {COOP}"
    if not root:
        raise ArgumentError(
            f"set {facts.name!r} needs its images: pass data=FOLDER (--data-root FOLDER), or set {DATA_VARIABLE} to a "
            f"folder that holds {facts.folder}/; {belongs}"
        )
    places = [Path(root, facts.folder), Path(root)]
    for place in places:
        if (place / _landmark(facts)).exists():
            return place
    raise DataError(
        f"set {facts.name!r}: found no {_landmark(facts)} in {' or '.join(map(str, places))}; the folder is "
        f"{facts.folder}/, and {belongs}"
    )


def _landmark(facts: ClassificationFacts) -> str:
    if facts.layout == "split":
        return facts.split_file
    return "variants.txt" if facts.layout == "aircraft" else facts.images


def _split_layout(facts: ClassificationFacts, folder: Path) -> ClassificationSet:
    rows, names = _read_split(folder / facts.split_file, folder / facts.images if facts.images else folder)
    return _made(facts.name, facts.template, names, rows, facts)


def _aircraft_layout(facts: ClassificationFacts, folder: Path) -> ClassificationSet:
    names = _lines(folder / "variants.txt")
    label_of = {name: label for label, name in enumerate(names)}
    rows: dict[str, Rows] = {}
    for split, word in (("train", "train"), ("validation", "val"), ("test", "test")):
        path = folder / f"images_variant_{word}.txt"
        rows[split] = []
        for number, line in enumerate(_lines(path), 1):
            image, _, variant = line.partition(" ")
            if variant not in label_of:
                raise DataError(f"line {number} of {path}: {variant!r} is not in variants.txt")
            rows[split].append((str(folder / facts.images / f"{image}.jpg"), label_of[variant]))
    _require_images(rows, folder / facts.images)
    return _made(facts.name, facts.template, names, rows, facts)


def _imagenet_layout(facts: ClassificationFacts, folder: Path) -> ClassificationSet:
    place = folder / facts.images
    names = _imagenet_names(folder / "classnames.txt")
    rows: dict[str, Rows] = {}
    for split, word in (("train", "train"), ("test", "val")):
        rows[split], folders = _walk(place / word, facts)
        if split == "train":
            classes = folders
        elif folders != classes:
            other = sorted({*folders} ^ {*classes})[0]
            raise DataError(f"{place}/train and {place}/val differ in their classes: only one of them has {other!r}")
    part, most = _IMAGENET_VALIDATION
    rows["train"], rows["validation"] = _hold_out(rows["train"], lambda n: min(most, max(1, round(part * n))))
    names = [_name_of(name, names, folder / "classnames.txt") for name in classes]
    return _made(facts.name, facts.template, names, {split: rows[split] for split in SPLITS}, facts)


def _variant_layout(facts: ClassificationFacts, folder: Path) -> ClassificationSet:
    path = folder / "classnames.txt"
    known = _imagenet_names(path)
    rows, folders = _walk(folder / facts.images, facts)
    if all(name.isdigit() for name in folders):  # ImageNet-V2 numbers them, and "10" comes before "2"
        ids = list(known)
        if max(map(int, folders)) >= len(ids):
            raise DataError(f"{folder / facts.images} has a class {max(map(int, folders))}; {path} names {len(ids)}")
        order = {old: new for new, old in enumerate(sorted(range(len(folders)), key=lambda i: int(folders[i])))}
        rows = sorted(((image, order[label]) for image, label in rows), key=lambda row: row[1])
        folders = [ids[int(name)] for name in sorted(folders, key=int)]
    names = [_name_of(name, known, path) for name in folders]
    return _made(facts.name, facts.template, names, {"test": rows}, facts)


_LAYOUTS: dict[str, Callable[[ClassificationFacts, Path], ClassificationSet]] = {
    "split": _split_layout,
    "aircraft": _aircraft_layout,
    "imagenet": _imagenet_layout,
    "variant": _variant_layout,
}


def _scenes(name: str, image_size: int) -> ClassificationSet:
    from .scenes.classes import CLASS_TEMPLATE, load_scenes_classes

    subset = name.removeprefix(_SCENES)
    splits = {}
    for split in SPLITS:
        rows = load_scenes_classes(subset, split=split, image_size=image_size)
        splits[split] = rows.select_columns(["image", "label"]).cast_column("image", datasets.Image(decode=False))
    names = tuple(splits["test"].features["label"].names)
    # The captions of Scenes know no photos.
    return ClassificationSet(name, CLASS_TEMPLATE, names, splits, official=True, prompt_template=CLASS_TEMPLATE)


def _folder(folder: Path, split_file: str | os.PathLike[str] | None) -> ClassificationSet:
    name = folder.resolve().name
    if split_file is not None:
        rows, names = _read_split(Path(split_file), folder)
        return _made(name, PHOTO, names, rows, None)
    levels = {canonical_split(path.name.lower()) for path in folder.iterdir() if path.is_dir()}
    if levels and levels <= set(SPLITS):
        read = {split: load_image_classes(folder, split=split) for split in SPLITS if split in levels}
        names = next(iter(read.values())).class_names
        for split, found in read.items():
            if found.class_names != names:
                other = sorted({*found.class_names} ^ {*names})[0]
                raise DataError(f"the splits of {folder} differ in their classes: {split!r} and another in {other!r}")
        rows = {split: _rows_of(found.dataset) for split, found in read.items()}
        if "train" in rows and "validation" not in rows:
            rows["train"], rows["validation"] = _hold_out(rows["train"], lambda n: round(_VALIDATION_PART * n))
    else:
        found = load_image_classes(folder)
        names, everything = found.class_names, _rows_of(found.dataset)
        train, validation = _FOLDER_PARTS
        rest, held = _hold_out(everything, lambda n: round(validation * n))
        # Of what is left, so that the parts are those of the whole.
        testing, training = _hold_out(rest, lambda n: round(train / (1 - validation) * n))
        rows = {"train": training, "validation": held, "test": testing}
        logger.info("%s has no splits; %s", folder, ", ".join(f"{len(v)} images to {k}" for k, v in rows.items()))
    rows = {split: rows[split] for split in SPLITS if rows.get(split)}
    return _made(name, PHOTO, names, rows, None)


# -- parts of layouts


def _made(
    name: str, template: str, names: Sequence[str], rows: Mapping[str, Rows], facts: ClassificationFacts | None
) -> ClassificationSet:
    names = [text.replace("_", " ").strip() for text in names]
    repeated = [text for text, count in Counter(names).items() if count > 1]
    if repeated or not all(names):
        raise DataError(
            f"set {name!r}: {repeated[0]!r} is the name of several classes; they cannot be told apart by it"
            if repeated
            else f"set {name!r}: class {names.index('')} has no name"
        )
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=names)})
    splits = {
        split: datasets.Dataset.from_dict(
            {"image": [{"bytes": None, "path": path} for path, _ in found], "label": [label for _, label in found]},
            features=features,
        )
        for split, found in rows.items()
    }
    official = facts is not None and len(names) == facts.classes
    official = official and all(len(rows.get(split, ())) == count for split, count in facts.sizes.items())
    return ClassificationSet(name, template, tuple(names), splits, official)


def _read_split(path: Path, images: Path) -> tuple[dict[str, Rows], list[str]]:
    """Rows of each split, and class names, of a JSON file in CoOp's format."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"split file {path} cannot be read: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"split file {path} is not JSON: {error}") from error
    form = "expected {'train': [[path, label, class name], ...], 'val': ..., 'test': ...}"
    if not isinstance(content, dict) or not {"train", "test"} <= set(content):
        raise DataError(f"split file {path} has no lists 'train' and 'test'; {form}")
    rows: dict[str, Rows] = {}
    names: dict[int, str] = {}
    for split, key in (("train", "train"), ("validation", "val"), ("test", "test")):
        rows[split] = []
        for number, entry in enumerate(content.get(key) or []):
            image, label, name = _entry(entry, f"{path}: {key}[{number}]", form)
            if names.setdefault(label, name) != name:
                raise DataError(f"{path}: {key}[{number}] calls label {label} {name!r}, earlier {names[label]!r}")
            rows[split].append((os.path.join(os.path.abspath(images), image), label))
    if sorted(names) != list(range(len(names))):
        gap = next(label for label in range(len(names)) if label not in names)
        raise DataError(f"{path}: labels must be 0 to {len(names) - 1}, and no image has label {gap}")
    _require_images(rows, images)
    return {split: found for split, found in rows.items() if found}, [names[label] for label in range(len(names))]


def _entry(entry: Any, where: str, form: str) -> tuple[str, int, str]:
    right = isinstance(entry, list) and len(entry) == 3 and isinstance(entry[0], str) and isinstance(entry[2], str)
    if not right or not str(entry[1]).isdecimal():
        raise DataError(f"{where} is {entry!r}; {form}")
    return entry[0], int(entry[1]), entry[2]


def _require_images(rows: Mapping[str, Rows], images: Path) -> None:
    absent = [path for found in rows.values() for path, _ in found if not os.path.isfile(path)]
    if absent:
        total = sum(map(len, rows.values()))
        count = plural(len(absent), "image")
        raise DataError(f"{count} of {total:,} are missing, the first is {absent[0]}; images belong into {images}")


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _imagenet_names(path: Path) -> dict[str, str]:
    """Name of each class folder, by its WordNet id; names that come twice replaced where another is known."""
    names: dict[str, str] = {}
    for number, line in enumerate(_lines(path), 1):
        folder, _, name = line.partition(" ")
        if not name.strip():
            raise DataError(f"line {number} of {path} is {line!r}; expected a class folder and its name")
        names[folder] = name.strip()
    repeated = {name for name, count in Counter(names.values()).items() if count > 1}
    return {folder: OTHER_NAMES.get(folder, name) if name in repeated else name for folder, name in names.items()}


def _name_of(folder: str, names: Mapping[str, str], path: Path) -> str:
    if folder not in names:
        raise DataError(f"class folder {folder!r} is not named in {path}; each line is a folder and its name")
    return names[folder]


def _walk(place: Path, facts: ClassificationFacts) -> tuple[Rows, list[str]]:
    if not place.is_dir():
        raise DataError(f"set {facts.name!r}: there is no folder {place}; expected {facts.expected} ({facts.url})")
    found = load_image_classes(place)
    return _rows_of(found.dataset), found.class_names


def _rows_of(rows: datasets.Dataset) -> Rows:
    paths = [image["path"] for image in rows["image"]]
    return list(zip(paths, rows["label"], strict=True))


def _hold_out(rows: Rows, count: Callable[[int], int]) -> tuple[Rows, Rows]:
    """Divide each class: `count(images of the class)` of its rows go to the second part.

    The names of the files decide, so that the division does not depend on where the folder is.
    """
    by_class: dict[int, Rows] = {}
    for row in rows:
        by_class.setdefault(row[1], []).append(row)
    left: Rows = []
    held: Rows = []
    for label in sorted(by_class):
        own = sorted(by_class[label], key=lambda row: os.path.basename(row[0]))
        random.Random(f"split/{label}/{len(own)}").shuffle(own)
        number = min(count(len(own)), len(own) - 1)
        held += sorted(own[:number])
        left += sorted(own[number:])
    return left, held
