"""What'sUp: prepositions, in photographs made for it and in COCO and Visual Genome."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..task import Score
from .base import BenchmarkTask
from .comparisons import Item, Outcome, Picture
from .facts import COCO_VAL2017, VISUAL_GENOME, Benchmark, ImageSource, OfficialFile
from .files import file_name, read_json, read_rows, required_number, required_text

_URL = "https://github.com/amitakamath/whatsup_vlms"
# Pairs of prepositions that the official pair accuracy scores together.
_PAIRS = {"left": "left-right", "right": "left-right", "on": "on-under", "under": "on-under"}
_PAIRS |= {"in-front": "in-front-behind", "behind": "in-front-behind"}
_PREPOSITION = re.compile(r"\b(left|right|above|below|front|behind|top|bottom)\b")


def _facts(name: str, title: str, file: OfficialFile, images: ImageSource) -> Benchmark:
    return Benchmark(
        name=f"whatsup/{name}",
        title=f"What'sUp, {title}",
        folder="whatsup",
        url=f"{_URL} (data on Google Drive)",
        licence="MIT",
        citation="Kamath, Hessel, Chang, What's up with vision-language models?, EMNLP 2023, arXiv:2310.19785",
        images=images,
        files=(file,),
        items=file.items,
        notes="The number of items is the paper's.",
    )


def _controlled_images(folder: str) -> ImageSource:
    return ImageSource(
        f"the photographs of What'sUp, {folder}.tar.gz",
        _URL,
        "MIT",
        where=f"Unpack {folder}.tar.gz beside the JSON file, into the folder {folder}",
    )


class _Controlled(BenchmarkTask):
    """Four captions for a photograph; the same two objects in four places."""

    version = "1"
    convention = "strict choice among four; accuracy over items is the headline, pairs and sets by name"
    headline = "micro/accuracy"

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read all photographs; see [`BenchmarkTask.read`]."""
        for key, where, row in read_rows(path):
            name = required_text(row, "image_path", where).removeprefix("data/")
            options = row.get("caption_options")
            if not isinstance(options, list) or len(options) < 2 or not all(isinstance(x, str) for x in options):
                raise DataError(f"{where} has caption_options={options!r}; expected captions, the true one first")
            # <object>_<preposition>_..._<other object>.jpeg
            parts = Path(file_name(name)).stem.split("_")
            if len(parts) < 3 or parts[1] not in _PAIRS:
                raise DataError(f"{where}: the image name {name!r} does not tell objects and preposition")
            group = (parts[0], parts[-1])
            yield Item(key, (Picture(name),), tuple(options), parts[1], cluster=" ".join(group), group=group)

    def scores(self, outcomes: Mapping[str, Outcome], *, expected: bool = False) -> dict[str, Score]:
        """Accuracy over items, and over pairs and sets that must be right as a whole."""
        found = super().scores(outcomes, expected=expected)
        outcome = outcomes["accuracy"]
        values = outcome.expected if expected else outcome.correct.astype(float)
        items = self.prepared.items
        keys = {
            "pair_accuracy": [(*item.group, _PAIRS[str(item.subset)]) for item in items],
            "set_accuracy": [item.group for item in items],
        }
        for metric, groups in keys.items():
            members: dict = {}
            for position, group in enumerate(groups):
                members.setdefault(group, []).append(position)
            found[metric] = Score.from_values(
                [float(np.prod(values[at])) for at in members.values()],
                [group[:2] for group in members],
                ties=sum(bool(outcome.tie[at].any()) for at in members.values()),
                chance=float(np.mean([np.prod(outcome.chance[at]) for at in members.values()])),
            )
        return found


class WhatsUpA(_Controlled):
    """Is an object left of, right of, on or under another one (photographs)?

    *Source*: https://github.com/amitakamath/whatsup_vlms, `controlled_images_dataset.json`, a list of `{"image_path",
    "caption_options"}` with the true caption first, and the folder `controlled_images`.

    *Licence*: MIT.

    *Convention*: right only if the true caption scores strictly above the three others. `micro/accuracy` over the 412
    photographs is the headline; `pair_accuracy` wants both of left and right (or on and under) right for two objects,
    `set_accuracy` all four.

    Args are those of [`BenchmarkTask`].
    """

    facts = _facts(
        "controlled_a",
        "controlled images A",
        OfficialFile("controlled_images_dataset.json", 412),
        _controlled_images("controlled_images"),
    )
    description = "left, right, on or under: choose among four captions of a photograph (What'sUp A)"


class WhatsUpB(_Controlled):
    """Is an object left of, right of, in front of or behind another one (photographs)?

    *Source*: as [`WhatsUpA`], `controlled_clevr_dataset.json` and the folder `controlled_clevr`, 408 photographs.

    *Licence*: MIT.

    *Convention*: as [`WhatsUpA`].

    Args are those of [`BenchmarkTask`].
    """

    facts = _facts(
        "controlled_b",
        "controlled images B",
        OfficialFile("controlled_clevr_dataset.json", 408),
        _controlled_images("controlled_clevr"),
    )
    description = "left, right, in front or behind: choose among four captions of a photograph (What'sUp B)"


class _Questions(BenchmarkTask):
    """A true and a false caption; a list of `[image id, true caption, false caption]`."""

    version = "1"
    convention = "strict choice between two; accuracy over items is the headline, by preposition too"
    headline = "micro/accuracy"
    digits = 0

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read all items; see [`BenchmarkTask.read`]."""
        content = read_json(path)
        for number, entry in enumerate(content if isinstance(content, list) else [content]):
            where = f"item {number} of {path}"
            if not isinstance(entry, list) or len(entry) < 3:
                raise DataError(f"{where} is no [image id, true caption, false caption]")
            row = dict(zip(("id", "true", "false"), entry, strict=False))
            texts = tuple(required_text(row, side, where) for side in ("true", "false"))
            name = str(required_number(row, "id", where)).zfill(self.digits)
            found = _PREPOSITION.search(texts[0].lower())
            yield Item(str(number), (Picture(f"{name}.jpg"),), texts, found[0] if found else "other")


_VG = ImageSource(
    VISUAL_GENOME.what,
    VISUAL_GENOME.url,
    VISUAL_GENOME.licence,
    folders=VISUAL_GENOME.folders,
    below=("", "vg_images", "VG_100K", "VG_100K_2"),
)


class WhatsUpCocoOne(_Questions):
    """Where in the picture is an object (COCO)?

    *Source*: https://github.com/amitakamath/whatsup_vlms, `coco_qa_one_obj.json`; images are COCO val2017.

    *Licence*: MIT; images see `facts.images`.

    *Convention*: right only if the true caption scores strictly higher; `micro/accuracy` is the headline.

    Args are those of [`BenchmarkTask`].
    """

    facts = _facts("coco_one", "COCO, one object", OfficialFile("coco_qa_one_obj.json", 2247), COCO_VAL2017)
    description = "where in the picture is an object (What'sUp, COCO)"
    digits = 12


class WhatsUpCocoTwo(WhatsUpCocoOne):
    """Where is an object against another one (COCO)? As [`WhatsUpCocoOne`], with `coco_qa_two_obj.json`.

    *Source*, *Licence*, *Convention*: as [`WhatsUpCocoOne`].
    """

    facts = _facts("coco_two", "COCO, two objects", OfficialFile("coco_qa_two_obj.json", 440), COCO_VAL2017)
    description = "where is an object against another one (What'sUp, COCO)"


class WhatsUpVgOne(_Questions):
    """Where in the picture is an object (Visual Genome)? As [`WhatsUpCocoOne`], with `vg_qa_one_obj.json`.

    *Source*, *Licence*, *Convention*: as [`WhatsUpCocoOne`].
    """

    facts = _facts("vg_one", "Visual Genome, one object", OfficialFile("vg_qa_one_obj.json", 1160), _VG)
    description = "where in the picture is an object (What'sUp, Visual Genome)"


class WhatsUpVgTwo(_Questions):
    """Where is an object against another one (Visual Genome)? As [`WhatsUpCocoOne`], with `vg_qa_two_obj.json`.

    *Source*, *Licence*, *Convention*: as [`WhatsUpCocoOne`].
    """

    facts = _facts("vg_two", "Visual Genome, two objects", OfficialFile("vg_qa_two_obj.json", 291), _VG)
    description = "where is an object against another one (What'sUp, Visual Genome)"


WHATSUP_TASKS = (WhatsUpA, WhatsUpB, WhatsUpCocoOne, WhatsUpCocoTwo, WhatsUpVgOne, WhatsUpVgTwo)
