"""CREPE: captions of Visual Genome regions against atomic, compound, swapped and negated foils."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .base import BenchmarkTask
from .comparisons import Item, Picture
from .facts import VISUAL_GENOME, Benchmark, OfficialFile
from .files import literal_list, read_csv, required_number, required_text

COMPLEXITIES = range(4, 13)
_BOX = ("x", "y", "width", "height")


def _facts(name: str, title: str, files: tuple[OfficialFile, ...]) -> Benchmark:
    return Benchmark(
        name=f"crepe/{name}",
        title=f"CREPE, {title}",
        folder="crepe",
        url="https://github.com/RAIVNLab/CREPE",
        licence="that of the repository",
        citation="Ma et al., CREPE, CVPR 2023, arXiv:2212.07796",
        images=VISUAL_GENOME,
        files=files,
        notes="The numbers of items are not checked. The folders prod_hard_negatives and syst_hard_negatives are "
        "named after the authors' scripts.",
    )


class _Regions(BenchmarkTask):
    """A caption of a region of an image against its foils."""

    headline = "macro/accuracy"
    foils = "hard_negs"

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read one file; see [`BenchmarkTask.read`]."""
        for key, where, row in read_csv(path, ("image_id", "caption", *_BOX, self.foils)):
            name = f"{required_number(row, 'image_id', where)}.jpg"
            left, top, width, height = (required_number(row, side, where) for side in _BOX)
            texts = (required_text(row, "caption", where), *literal_list(row, self.foils, where))
            picture = Picture(name, (left, top, width, height))
            yield Item(f"{path.stem}/{key}", (picture,), texts, file.subset, cluster=name)


class CrepeProductivity(_Regions):
    """Is the caption of a region preferred to five foils, for captions of growing length?

    *Source*: https://github.com/RAIVNLab/CREPE,
    `prod_hard_negatives/<kind>/prod_vg_hard_negs_<kind>_complexity_<n>.csv` for one kind of foil and n from 4 to 12,
    with `image_id`, `x`, `y`, `width`, `height`, `caption`, `hard_negs` (a list as a Python literal). Pictures are cut
    to the region, as in the official code.

    *Licence*: that of the repository; images see `facts.images`.

    *Convention*: recall@1 of the paper: right only if the caption scores strictly above all foils. `macro/accuracy`
    over the nine complexities is the headline.

    Args are those of [`BenchmarkTask`].
    """

    version = "1"
    convention = "recall@1 among caption and foils, strict; macro over nine complexities is the headline"


class CrepeSystematicity(_Regions):
    """Is the caption of a region preferred to its foils, for compounds seen and unseen in pre-training?

    *Source*: https://github.com/RAIVNLab/CREPE, `syst_hard_negatives/syst_vg_hard_negs_<split>_in_<data>.csv` for the
    splits seen_compounds and unseen_compounds, with `valid_hard_negs_atom` and `valid_hard_negs_comp`. The split
    depends on the pre-training data (cc12m, yfcc or laion): only models trained on that data may be measured.

    *Licence*: that of the repository; images see `facts.images`.

    *Convention*: recall@1 of the paper, strict, by split; `macro/accuracy` over the two is the headline, and what
    counts is the difference between `seen_compounds/accuracy` and `unseen_compounds/accuracy`.

    Args are those of [`BenchmarkTask`].
    """

    version = "1"
    convention = "recall@1 among caption and foils, strict, by split; macro over both is the headline"


def _productivity(kind: str) -> type[CrepeProductivity]:
    files = tuple(
        OfficialFile(
            f"prod_hard_negatives/{kind}/prod_vg_hard_negs_{kind}_complexity_{n}.csv", subset=f"complexity_{n:02}"
        )
        for n in COMPLEXITIES
    )
    title = f"choose the caption of a region among {kind} foils, by complexity (CREPE)"
    body = {"facts": _facts(f"productivity_{kind}", f"productivity, {kind}", files), "description": title}
    return type(
        f"CrepeProductivity{kind.capitalize()}", (CrepeProductivity,), {**body, "__doc__": CrepeProductivity.__doc__}
    )


def _systematicity(data: str, kind: str) -> type[CrepeSystematicity]:
    files = tuple(
        OfficialFile(f"syst_hard_negatives/syst_vg_hard_negs_{split}_in_{data}.csv", subset=split)
        for split in ("seen_compounds", "unseen_compounds")
    )
    title = f"choose the caption of a region among {kind} foils, for models trained on {data} (CREPE)"
    body = {
        "facts": _facts(f"systematicity_{data}_{kind}", f"systematicity, {data}, {kind}", files),
        "description": title,
        "foils": f"valid_hard_negs_{kind}",
        "__doc__": CrepeSystematicity.__doc__,
    }
    return type(f"CrepeSystematicity{data.capitalize()}{kind.capitalize()}", (CrepeSystematicity,), body)


CREPE_TASKS = (
    *(_productivity(kind) for kind in ("atom", "swap", "negate")),
    *(_systematicity(data, kind) for data in ("cc12m", "yfcc", "laion") for kind in ("atom", "comp")),
)
