"""SugarCrepe: one image, a true caption and a fluent false one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .base import BenchmarkTask
from .comparisons import Item, Picture
from .facts import COCO_VAL2017, Benchmark, OfficialFile, Published
from .files import read_rows, required_text

SUBSETS = ("replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att", "add_obj", "add_att")
GROUPS = {name: name.partition("_")[0] for name in SUBSETS}
_PAPER = "CE-CLIP, Zhang, Awal, Agrawal, CVPR 2024, arXiv:2306.08832"


def _scores(*percent: float) -> dict[str, float]:
    return {f"{name}/accuracy": round(x / 100, 4) for name, x in zip(SUBSETS, percent, strict=True)}


class SugarCrepe(BenchmarkTask):
    """Does the model prefer the true caption of an image to a fluent false one?

    *Source*: https://github.com/RAIVNLab/sugar-crepe, seven JSON files `{id: {"filename", "caption",
    "negative_caption"}}`; images are COCO val2017.

    *Licence*: MIT; images see `facts.images`.

    *Convention*: right only if the true caption scores strictly higher. Three averages are quoted in the literature,
    and all are printed by name: `micro/accuracy` over the 7,511 items (the headline), `macro/accuracy` over the seven
    categories, `macro_groups/accuracy` over replace, swap and add. 572 pairs have the same words in both captions, so
    the oracle bag of words gets 0.9619.

    Args are those of [`BenchmarkTask`].

    Example:
        >>> from vlcomp.evaluation.benchmarks import SugarCrepe
        >>> SugarCrepe.facts.items
        7511
    """

    facts = Benchmark(
        name="sugarcrepe",
        title="SugarCrepe",
        folder="sugarcrepe",
        url="https://github.com/RAIVNLab/sugar-crepe/tree/main/data",
        licence="MIT",
        citation="Hsieh et al., SugarCrepe, NeurIPS 2023, arXiv:2306.14610",
        images=COCO_VAL2017,
        files=(
            OfficialFile(
                "replace_obj.json", 1652, "9d299600639947e9d15281a9ded1382b376cf4ea088a8d08a1314bfe76e81898", 361126
            ),
            OfficialFile(
                "replace_att.json", 788, "9fe55fd4c0a9ad1f85d486d9f6d0215b41f867eb025026e7f7b5ce44352545ee", 176843
            ),
            OfficialFile(
                "replace_rel.json", 1406, "356bcc2fc4c6aed3f4d9fd50acc58489bb1fe70c28791f9368d4cbf9ea39cdc9", 312629
            ),
            OfficialFile(
                "swap_obj.json", 245, "073cdb8e253d053614e80710834d9773b09dbc1dd0a412f6f9492262caa1dcad", 57569
            ),
            OfficialFile(
                "swap_att.json", 666, "7a7ce04e5c4c80412b48c6f0c1347fb1a2f5d54c0be6aa429b64d390e442f8d0", 154665
            ),
            OfficialFile(
                "add_obj.json", 2062, "1b9d76b93139a937b8dc1ada92a4f05ecc821bb3c291d752428bafadd4bb0682", 484593
            ),
            OfficialFile(
                "add_att.json", 692, "012d88d729693d193760e6f3393b06a1cf874380a9db0062e937201199fe044d", 158863
            ),
        ),
        items=7511,
        published=(
            Published("CLIP ViT-B/32", _scores(90.9, 80.0, 69.2, 61.4, 64.0, 77.2, 68.2), _PAPER),
            Published("NegCLIP", _scores(92.7, 85.9, 76.5, 75.2, 75.4, 88.8, 82.8), _PAPER),
            Published("CE-CLIP", _scores(93.1, 88.8, 79.0, 72.8, 77.0, 92.4, 93.4), _PAPER),
            Published(
                "VladVA, LLaVA-1.5-7B",
                _scores(98.1, 92.1, 86.8, 79.0, 82.9, 95.2, 95.8),
                "Ouali et al., CVPR 2025, arXiv:2412.04378",
            ),
        ),
        human=Published("human", {"micro/accuracy": 0.989}, "SugarCrepe, arXiv:2306.14610"),
    )
    version = "1"
    description = "choose the true caption of an image from two: replaced, swapped and added words"
    convention = (
        "strictly higher score; micro over 7,511 items is the headline, macro over 7 and over 3 groups by name"
    )
    headline = "micro/accuracy"
    groups = GROUPS

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read one category; see [`BenchmarkTask.read`]."""
        for key, where, row in read_rows(path):
            name, true, false = (required_text(row, k, where) for k in ("filename", "caption", "negative_caption"))
            yield Item(f"{path.stem}/{key}", (Picture(name),), (true, false), path.stem)
