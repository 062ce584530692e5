"""ColorSwap: two images and two captions that exchange colours."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .comparisons import Item, Picture
from .facts import Benchmark, ImageSource, OfficialFile
from .files import read_rows, required_text
from .winoground import TwoByTwo


class ColorSwap(TwoByTwo):
    """Two images and two captions whose colour words are exchanged: match both.

    *Source*: https://huggingface.co/datasets/stanfordnlp/colorswap, `test.json`, a list of `{"id", "caption_1",
    "caption_2", "image_1": "images/...", "image_2", "image_source", "caption_source"}`.

    *Licence*: MIT.

    *Convention*: Winoground's text, image and group score over the 300 items of the test split; group is the headline.

    Args are those of [`BenchmarkTask`].
    """

    facts = Benchmark(
        name="colorswap",
        title="ColorSwap",
        folder="colorswap",
        url="https://huggingface.co/datasets/stanfordnlp/colorswap",
        licence="MIT",
        citation="Burapacheep et al., ColorSwap, Findings of ACL 2024, arXiv:2402.04492",
        images=ImageSource(
            "the images of ColorSwap, images.zip",
            "https://huggingface.co/datasets/stanfordnlp/colorswap",
            "MIT; made by image generators",
            where="Unpack images.zip beside test.json, into the folder images",
        ),
        files=(OfficialFile("test.json", 300),),
        items=300,
        notes="The number of test items is from the paper; whether access is gated has changed over time.",
    )
    version = "1"
    description = "two images and two captions that exchange colours: text, image and group score"
    convention = "Winoground's scores, strictly, on the test split; group is the headline"

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read all items; see [`BenchmarkTask.read`]."""
        for key, where, row in read_rows(path):
            images = tuple(Picture(required_text(row, f"image_{side}", where)) for side in (1, 2))
            texts = tuple(required_text(row, f"caption_{side}", where) for side in (1, 2))
            yield Item(key, images, texts, cluster=key)
