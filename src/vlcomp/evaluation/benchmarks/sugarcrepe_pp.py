"""SugarCrepe++: two true captions that differ in wording and a false one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .base import BenchmarkTask
from .comparisons import Comparison, Item, Picture
from .facts import COCO_VAL2017, Benchmark, OfficialFile
from .files import read_rows, required_text


def both_above(images: int, texts: int) -> tuple[Comparison, ...]:
    """The image prefers each of the two true captions to the false one."""
    return (("it", 0, 0), ("it", 0, 2)), (("it", 0, 1), ("it", 0, 2))


def closer_together(images: int, texts: int) -> tuple[Comparison, ...]:
    """The two true captions are closer to each other than either is to the false one."""
    return (("tt", 0, 1), ("tt", 0, 2)), (("tt", 0, 1), ("tt", 1, 2))


class SugarCrepePP(BenchmarkTask):
    """Do both of two equivalent captions fit an image better than a false one, and are they closer to each other?

    *Source*: https://github.com/Sri-Harsha/scpp, five JSON lists of `{"id", "filename", "caption", "caption2",
    "negative_caption"}`; images are COCO val2017.

    *Licence*: MIT; images see `facts.images`.

    *Convention*: `itt_accuracy` (image-to-text): right only if both true captions score strictly higher than the false
    one. `tot_accuracy` (text-only): right only if the similarity of the two true captions is strictly higher than that
    of either to the false one; no image is used. The authors quote both by category; `macro/itt_accuracy` over the
    five categories is the headline here, and the average over the 4,757 items is printed too. Chance is 1/3. Two items
    of swap_obj have the same text as true and as false caption, so that no model can get them right.

    Args are those of [`BenchmarkTask`].
    """

    facts = Benchmark(
        name="sugarcrepe_pp",
        title="SugarCrepe++",
        folder="sugarcrepe_pp",
        url="https://github.com/Sri-Harsha/scpp",
        licence="MIT",
        citation="Dumpala et al., SugarCrepe++, NeurIPS 2024, arXiv:2406.11171",
        images=COCO_VAL2017,
        files=(
            OfficialFile(
                "replace_obj.json", 1652, "5c6dc499ec8f511a8aa4ec1b7b5eb0eca90317488abe36ec39573355e2d361ab", 456601
            ),
            OfficialFile(
                "replace_att.json", 788, "6826413592894754eeca02aeebbcbbc8b95a7456998abcc714e71c033ce6fe87", 226275
            ),
            OfficialFile(
                "replace_rel.json", 1406, "040fb95d3f0619bf515db60879e99709a87a5e9b4f524ec3403b127243480fd4", 392738
            ),
            OfficialFile(
                "swap_obj.json", 245, "5f33cae824de431a7ecd3c5de6301f689815f9497aa36d96b154bbaf117b201b", 74611
            ),
            OfficialFile(
                "swap_att.json", 666, "450d0fd9fcad3e6f44950dc634e7f901ab1c6d9c60a569ade5ae8ffb3d203ad8", 198206
            ),
        ),
        items=4757,
    )
    version = "1"
    description = "two equivalent captions against a false one: by the image (ITT), by text alone (TOT)"
    convention = "strict; ITT and TOT accuracy by category; macro over five categories of ITT is the headline"
    headline = "macro/itt_accuracy"
    rules = {"itt_accuracy": both_above, "tot_accuracy": closer_together}
    own_texts = {0: (0, 1)}

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read one category; see [`BenchmarkTask.read`]."""
        for key, where, row in read_rows(path):
            texts = tuple(required_text(row, k, where) for k in ("caption", "caption2", "negative_caption"))
            yield Item(f"{path.stem}/{key}", (Picture(required_text(row, "filename", where)),), texts, path.stem)
