"""SPEC: size, position, existence and count, as a choice of text and as a choice of image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError
from .base import BenchmarkTask
from .comparisons import Item, Picture, choose_image
from .facts import Benchmark, ImageSource, OfficialFile
from .files import read_rows, required_number, required_text

SUBSETS = ("absolute_size", "relative_size", "absolute_spatial", "relative_spatial", "existence", "count")


def _facts(direction: str, file: str) -> Benchmark:
    return Benchmark(
        name=f"spec/{direction}",
        title="SPEC",
        folder="spec",
        url="https://huggingface.co/datasets/wjpoom/SPEC",
        licence="Apache-2.0",
        citation="Peng et al., Synthesize, Diagnose, and Optimize, CVPR 2024, arXiv:2312.00081",
        images=ImageSource(
            "the images of SPEC, in data.zip",
            "https://huggingface.co/datasets/wjpoom/SPEC",
            "Apache-2.0; made by image generators",
            below=("", *SUBSETS),
            size="1.6 GB",
            where="Unpack data.zip there, so that absolute_size/, count/ ... lie in the folder with their images",
        ),
        files=tuple(OfficialFile(f"{name}/{file}", subset=name) for name in SUBSETS),
        notes="The numbers of items are not checked.",
    )


def _with_true_first(row: dict[str, Any], where: str) -> list[str]:
    keys = row.get("keys")
    if not isinstance(keys, list) or len(keys) < 2 or not all(isinstance(k, str) and k.strip() for k in keys):
        raise DataError(f"{where} has keys={keys!r}; expected two candidates or more")
    label = required_number(row, "label", where)
    if not 0 <= label < len(keys):
        raise DataError(f"{where} has label={label}; expected the position of one of {len(keys)} candidates")
    return [keys[label], *keys[:label], *keys[label + 1 :]]


class SpecImageToText(BenchmarkTask):
    """Which of several texts on size, position, existence or count is true of an image?

    *Source*: https://huggingface.co/datasets/wjpoom/SPEC, for each of six subsets `image2text.json`, a list of
    `{"query": image, "keys": texts, "label": position of the true one}`.

    *Licence*: Apache-2.0.

    *Convention*: right only if the true text scores strictly above all others. The authors print the accuracy of each
    subset; `macro/accuracy` over the six is the headline.

    Args are those of [`BenchmarkTask`].
    """

    facts = _facts("image_to_text", "image2text.json")
    version = "1"
    description = "choose the text that is true of an image: size, position, existence, count (SPEC)"
    convention = "strict choice among K; macro over six subsets is the headline"
    headline = "macro/accuracy"

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read one subset; see [`BenchmarkTask.read`]."""
        for key, where, row in read_rows(path):
            picture = Picture(f"{file.subset}/{required_text(row, 'query', where)}")
            yield Item(f"{file.subset}/{key}", (picture,), tuple(_with_true_first(row, where)), file.subset)


class SpecTextToImage(BenchmarkTask):
    """Of which of several images is a text on size, position, existence or count true?

    *Source*: as [`SpecImageToText`], with `text2image.json`, a list of `{"query": text, "keys": images, "label"}`.

    *Licence*: Apache-2.0.

    *Convention*: as [`SpecImageToText`]; intervals are clustered by the set of candidate images.

    Args are those of [`BenchmarkTask`].
    """

    facts = _facts("text_to_image", "text2image.json")
    version = "1"
    description = "choose the image of which a text is true: size, position, existence, count (SPEC)"
    convention = "strict choice among K; macro over six subsets is the headline"
    headline = "macro/accuracy"
    rules = {"accuracy": choose_image}
    own_texts = {}

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read one subset; see [`BenchmarkTask.read`]."""
        for key, where, row in read_rows(path):
            names: Sequence[str] = _with_true_first(row, where)
            pictures = tuple(Picture(f"{file.subset}/{name}") for name in names)
            text = required_text(row, "query", where)
            yield Item(f"{file.subset}/{key}", pictures, (text,), file.subset, cluster=" ".join(sorted(names)))
