"""Winoground and the benchmarks of its form: two images, two captions, match both."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .base import BenchmarkTask
from .comparisons import Item, Picture, group_score, image_score, text_score
from .facts import Benchmark, ImageSource, OfficialFile, Published
from .files import read_json_lines, required_text


class TwoByTwo(BenchmarkTask):
    """Base of the benchmarks of Winoground's form.

    The first caption is true of the first image, the second of the second. `text_score`: each image prefers its own
    caption; `image_score`: each caption prefers its own image; `group_score`: both. All comparisons are strict. Chance
    is 1/4, 1/4 and 1/6.
    """

    rules = {"text_score": text_score, "image_score": image_score, "group_score": group_score}
    own_texts = {0: (0,), 1: (1,)}
    headline = "group_score"


class Winoground(TwoByTwo):
    """Two images and two captions with the same words: match both.

    *Source*: https://huggingface.co/datasets/facebook/winoground, `data/examples.jsonl` with `image_0`, `image_1`
    (names without `.png`), `caption_0`, `caption_1`, `collapsed_tag`, and `data/images.zip`.

    *Licence*: the Winoground licence (research only), access on request; images by Getty Images.

    *Convention*: text, image and group score over the 400 items, strictly; group is the headline.

    Args are those of [`BenchmarkTask`].
    """

    facts = Benchmark(
        name="winoground",
        title="Winoground",
        folder="winoground",
        url="https://huggingface.co/datasets/facebook/winoground",
        licence="Winoground licence (research only)",
        citation="Thrush et al., Winoground, CVPR 2022, arXiv:2204.03162",
        images=ImageSource(
            "the images of Winoground, images.zip",
            "https://huggingface.co/datasets/facebook/winoground",
            "Getty Images, under the Winoground licence (research only)",
            count=800,
            where="Unpack images.zip into the folder images",
        ),
        files=(OfficialFile("examples.jsonl", 400),),
        items=400,
        published=(
            Published(
                "CLIP ViT-B/32",
                {"text_score": 0.3075, "image_score": 0.105, "group_score": 0.08},
                "Winoground, arXiv:2204.03162",
            ),
        ),
        human=Published(
            "human", {"text_score": 0.895, "image_score": 0.885, "group_score": 0.855}, "Winoground, arXiv:2204.03162"
        ),
        gated="access is granted on the Hugging Face hub after agreeing to its conditions",
    )
    version = "1"
    description = "two images and two captions with the same words: text, image and group score"
    convention = "text, image and group score, strictly; group is the headline"

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read all items; see [`BenchmarkTask.read`]."""
        for key, where, row in read_json_lines(path):
            names = [required_text(row, f"image_{side}", where) for side in (0, 1)]
            images = tuple(Picture(name if name.endswith(".png") else f"{name}.png") for name in names)
            texts = tuple(required_text(row, f"caption_{side}", where) for side in (0, 1))
            yield Item(key, images, texts, cluster=key)
