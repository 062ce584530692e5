"""VL-CheckList: short phrases on objects, attributes and relations against altered ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ...errors import DataError
from .base import BenchmarkTask
from .comparisons import Item, Picture
from .facts import Benchmark, ImageSource, OfficialFile
from .files import read_json

_ROOTS = {"vg": "vg", "vaw": "vg", "hake": "hake", "swig": "swig"}


class VlCheckList(BenchmarkTask):
    """Is a phrase on an object, attribute or relation preferred to one in which a word is replaced?

    *Source*: https://github.com/om-ai-lab/VL-CheckList, the folder `data` with JSON files below `Object`, `Attribute`
    and `Relation`, each a list of `[image, {"POS": [phrase], "NEG": [phrase]}]`. All JSON files found there are read.

    *Licence*: that of the repository; images of Visual Genome, HAKE and SWiG.

    *Convention*: right only if the true phrase scores strictly higher (the official task `itc`). Every file has its
    accuracy; `object`, `attribute` and `relation` average their files, and `macro_groups/accuracy` averages the three,
    the headline. Published numbers differ in which files they average, and the authors' configuration reads the first
    1,000 pairs of a file; here all are read.

    Args are those of [`BenchmarkTask`].
    """

    facts = Benchmark(
        name="vl_checklist",
        title="VL-CheckList",
        folder="vl_checklist",
        url="https://github.com/om-ai-lab/VL-CheckList/tree/main/data",
        licence="that of the repository",
        citation="Zhao et al., VL-CheckList, EMNLP 2022 (demos), arXiv:2207.00221",
        images=ImageSource(
            "the images of Visual Genome (vg/VG_100K, vg/VG_100K_2), HAKE (hake/) and SWiG (swig/)",
            "https://github.com/om-ai-lab/VL-CheckList/blob/main/DATASETS.md",
            "those of Visual Genome (CC-BY-4.0), HAKE and SWiG",
            folders=(".",),
            where="Put the folders vg, hake and swig there",
        ),
        files=(
            OfficialFile("Attribute/vaw/size.json"),
            OfficialFile("Attribute/vg/color.json"),
            OfficialFile("Relation/vg/spatial.json"),
            OfficialFile("Object/Location/vg_location/vg_obj_center.json"),
        ),
        notes="files names four of some 46; all that are found are read, and their numbers are not checked.",
    )
    version = "1"
    description = "choose the true phrase from two: objects, attributes, relations (VL-CheckList)"
    convention = "strict; mean of object, attribute and relation, each the mean of its files, is the headline"
    headline = "macro_groups/accuracy"

    @property
    def groups(self) -> dict[str, str]:  # type: ignore[override]
        """The first folder of each file."""
        return {name: name.partition("/")[0] for name in map(_subset, self._names())}

    def _names(self) -> list[str]:
        paths = (path for top in ("Object", "Attribute", "Relation") for path in (self.folder / top).rglob("*.json"))
        return sorted(path.relative_to(self.folder).as_posix() for path in paths)

    def official_files(self) -> Sequence[OfficialFile]:
        """All JSON files in the three folders."""
        return [OfficialFile(name, subset=_subset(name)) for name in self._names()]

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read one file; see [`BenchmarkTask.read`]."""
        names = {part.partition("_")[0] for part in path.relative_to(self.folder).with_suffix("").parts}
        root = next((_ROOTS[name] for name in _ROOTS if name in names), None)
        if root is None:
            raise DataError(f"{path}: its name tells none of {', '.join(_ROOTS)}, so its images cannot be found")
        content = read_json(path)
        if not isinstance(content, list):
            raise DataError(f"{path} holds {type(content).__name__}; expected a list")
        for number, row in enumerate(content):
            phrases = row[1] if isinstance(row, list) and len(row) == 2 and isinstance(row[1], dict) else {}
            texts = [next(iter(phrases.get(side) or []), None) for side in ("POS", "NEG")]
            if not all(isinstance(text, str) and text.strip() for text in texts) or not isinstance(row[0], str):
                raise DataError(f'item {number} of {path} is no [image, {{"POS": [phrase], "NEG": [phrase]}}]')
            picture = Picture(f"{root}/{row[0]}")
            yield Item(f"{_subset(file.name)}/{number}", (picture,), tuple(map(str, texts)), _subset(file.name))


def _subset(name: str) -> str:
    return name.removesuffix(".json").lower()
