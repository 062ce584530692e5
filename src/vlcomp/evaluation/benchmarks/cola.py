"""COLA, multi-object setting: two images and two captions that exchange attributes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError
from .comparisons import Item, Picture
from .facts import VISUAL_GENOME, Benchmark, OfficialFile
from .files import file_name, read_json
from .winoground import TwoByTwo


class Cola(TwoByTwo):
    """Two images and two captions that exchange attributes of objects: which image fits each caption?

    *Source*: https://github.com/arijitray1993/COLA, `data/COLA_multiobjects_matching_benchmark.json`, a list of
    `[image 1, caption 1, image 2, caption 2]` with URLs of Visual Genome images.

    *Licence*: MIT; images see `facts.images`.

    *Convention*: the authors' multi-object accuracy is what Winoground calls the image score: both captions prefer
    their own image, strictly. `image_score` is the headline; text and group score are printed too. 210 items.

    Args are those of [`BenchmarkTask`].
    """

    facts = Benchmark(
        name="cola",
        title="COLA, multi-object",
        folder="cola",
        url="https://github.com/arijitray1993/COLA/tree/main/data",
        licence="MIT",
        citation="Ray et al., COLA, NeurIPS 2023, arXiv:2305.03689",
        images=VISUAL_GENOME,
        files=(OfficialFile("COLA_multiobjects_matching_benchmark.json", 210),),
        items=210,
        notes="The number of items is the paper's. The single-object setting (average precision) is not included.",
    )
    version = "1"
    description = "two images and two captions that exchange attributes: image, text and group score"
    convention = "both captions prefer their own image, strictly (the authors' accuracy); text and group by name"
    headline = "image_score"

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read all items; see [`BenchmarkTask.read`]."""
        content = read_json(path)
        for number, row in enumerate(content if isinstance(content, list) else [content]):
            if not isinstance(row, list) or len(row) != 4 or not all(isinstance(x, str) and x.strip() for x in row):
                raise DataError(f"item {number} of {path} is no [image 1, caption 1, image 2, caption 2]")
            images = tuple(Picture(file_name(x)) for x in (row[0], row[2]))
            yield Item(str(number), images, (row[1], row[3]), cluster=str(number))
