"""VALSE: foils for linguistic phenomena, with and without the annotators' filter."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError
from .base import BenchmarkTask
from .comparisons import Item, Picture
from .facts import Benchmark, ImageSource, OfficialFile, Published
from .files import read_rows, required_number, required_text

# Annotators of three who must have found the caption, and not the foil, to fit the image.
_AGREEING = 2
_ORDER = (
    "existence",
    "plurals",
    "counting-hard",
    "counting-small-quant",
    "counting-adversarial",
    "relations",
    "action-replacement",
    "actant-swap",
    "coreference-standard",
    "coreference-hard",
    "foil-it",
)


def _scores(*percent: float) -> dict[str, float]:
    names = [*(f"{name}/accuracy" for name in _ORDER), "macro/accuracy"]
    return {name: round(x / 100, 4) for name, x in zip(names, percent, strict=True)}


class Valse(BenchmarkTask):
    """Does the model prefer a caption to its foil, in eleven pieces for six linguistic phenomena?

    *Source*: https://github.com/Heidelberg-NLP/VALSE, eleven JSON files `{id: {"image_file", "caption", "foil",
    "mturk": {"caption": votes, ...}}}`.

    *Licence*: MIT; the images come from COCO, Visual7W, SWiG, VisDial and FOIL it!, each with its own.

    *Convention*: pairwise accuracy `acc_r` of the paper: right only if the caption scores strictly higher than the
    foil. The paper reports the items of which at least 2 of 3 annotators found that only the caption fits, and
    averages over the eleven pieces: `macro/accuracy`, the headline, and `<piece>/accuracy`. The same averages over all
    items are named `unfiltered/...`. In the paper's tables counting-hard is "counting, balanced", counting-small-quant
    "sns.", counting-adversarial "adv.", coreference-hard "clean". A few items have the same text as caption and as
    foil, 24 in all, 14 of them in actant-swap; no model can get them right.

    Args are those of [`BenchmarkTask`].
    """

    facts = Benchmark(
        name="valse",
        title="VALSE",
        folder="valse",
        url="https://github.com/Heidelberg-NLP/VALSE/tree/main/data",
        licence="MIT",
        citation="Parcalabescu et al., VALSE, ACL 2022, arXiv:2112.07566",
        images=ImageSource(
            "the images of VALSE: Visual7W (v7w_*.jpg), COCO val2014 and val2017, SWiG and VisDial",
            "https://github.com/Heidelberg-NLP/VALSE",
            "those of COCO, Visual7W (Visual Genome), SWiG and VisDial",
            folders=("coco", "visual7w", "swig", "visdial"),
            below=(
                "",
                "val2014",
                "val2017",
                "images",
                "images_512",
                "visual7w",
                "coco",
                "swig",
                "visdial",
                "VisualDialog_val2018",
            ),
            where="Put them all, or a folder for each source (visual7w, coco, swig, visdial), into the folder images",
        ),
        files=(
            OfficialFile(
                "existence.json", 534, "b20fca52eba86c544083d423345a2e28e60e601ef61c56c9ac1c73a95a3a6d18", 420403
            ),
            OfficialFile(
                "plurals.json", 1000, "43760db7fc8c6f2a21d3536d52f81539cb101f3370e8d2effb09de43d91486a3", 1097122
            ),
            OfficialFile(
                "counting-hard.json", 1000, "2cc83615653675fb50914ce2d8ab4041cce1278eed7ac0abf6f319dbce5c967a", 537197
            ),
            OfficialFile(
                "counting-small-quant.json",
                1000,
                "ca0645885b05738f6c6df2dffec70c669aaff64114017f33425821faab4bc374",
                534996,
            ),
            OfficialFile(
                "counting-adversarial.json",
                756,
                "0d23529308449c98b37a91048a865a5f377325eceb9accd73f2947bc512d12b0",
                407394,
            ),
            OfficialFile(
                "relations.json", 614, "061fc557459c318ccd6734d07c21cfa5bf5ae87aa6b1110b8f5ec3d6b2911043", 664587
            ),
            OfficialFile(
                "action-replacement.json",
                779,
                "336ba134f29a3475d0508809067218909a6bd30f079c59309d19244eccb7917f",
                664129,
            ),
            OfficialFile(
                "actant-swap.json", 1042, "915294ac3ade7c4c067b1c6841d0db93b60cb8a61ac8e2fb6b125c2a1c0ca93a", 503017
            ),
            OfficialFile(
                "coreference-standard.json",
                916,
                "dae1d9eb018acb54e29a1c4983f3563f86ec3b6beb4037a261564270b0473e95",
                592329,
            ),
            OfficialFile(
                "coreference-hard.json", 141, "ef54d8d971d9e0f264e07de08d9915c6e3d6129a2f239888f2b938f5c2eb4139", 95649
            ),
            OfficialFile(
                "foil-it.json", 1000, "6f6f0d7494271ed28f6e6f075c3ba36ba1bc45d00ecf7403920f060915130460", 538911
            ),
        ),
        items=8782,
        published=(
            Published(
                "CLIP",
                _scores(66.9, 56.2, 62.1, 62.5, 57.5, 64.3, 75.6, 68.6, 52.1, 49.7, 88.8, 64.0),
                "VALSE, arXiv:2112.07566, table 2",
            ),
        ),
        notes="Where the images lie is our convention; the authors name no single folder.",
    )
    version = "1"
    description = "caption or foil: existence, number, counting, relations, actions, coreference"
    convention = "acc_r, strict; macro over 11 pieces of the items that 2 of 3 annotators confirmed is the headline"
    headline = "macro/accuracy"
    views = {"": "valid", "unfiltered/": None}

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read one piece; see [`BenchmarkTask.read`]."""
        for key, where, row in read_rows(path):
            name, true, false = (required_text(row, k, where) for k in ("image_file", "caption", "foil"))
            votes = row.get("mturk")
            if not isinstance(votes, dict):
                raise DataError(f"{where} has mturk={votes!r}; expected the annotators' votes")
            valid = required_number(votes, "caption", f"mturk of {where}") >= _AGREEING
            tags = frozenset({"valid"} if valid else ())
            yield Item(f"{path.stem}/{key}", (Picture(name),), (true, false), path.stem, tags=tags)
