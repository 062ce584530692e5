"""EqBen: two images that differ in little, with their captions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .comparisons import Item, Picture
from .facts import Benchmark, ImageSource, OfficialFile
from .files import read_rows, required_text
from .winoground import TwoByTwo


class EqBen(TwoByTwo):
    """Two images that differ in little, and their captions: match both.

    *Source*: https://github.com/Wangt-CN/EqBen, the open 10 % subset `eqben_subset_10percent_final.json`, a list of
    `{"image0", "image1", "caption0", "caption1", ...}`; the first folder of an image's path names one of the seven
    parts (frames of YouCook2 are saved as `.npy` arrays in blue, green, red, and read so).

    *Licence*: see the repository, which names none for the data; the videos have their own.

    *Convention*: Winoground's text, image and group score, strictly; `micro/group_score` over all items is the
    headline, the mean over the parts and each part are printed too. Numbers on the full set (about 250,000 items)
    differ.

    Args are those of [`BenchmarkTask`].
    """

    facts = Benchmark(
        name="eqben",
        title="EqBen (10 % subset)",
        folder="eqben",
        url="https://github.com/Wangt-CN/EqBen (storage.googleapis.com/eqben-data/eqben_subset)",
        licence="not stated by the authors; videos under their own licences",
        citation="Wang et al., Equivariant Similarity for Vision-Language Foundation Models, ICCV 2023, "
        "arXiv:2303.14465",
        images=ImageSource(
            "the images of EqBen's 10 % subset, subset_image.tar.gz",
            "https://storage.googleapis.com/eqben-data/eqben_subset/subset_image.tar.gz",
            "those of Action Genome, GEBC, YouCook2, Kubric and Stable Diffusion",
            below=("", "image", "images"),
            size="10 GB",
            where="Unpack it beside the JSON file, so that eqbenag/, eqbensd/ ... lie there",
        ),
        files=(OfficialFile("eqben_subset_10percent_final.json"),),
        notes="The number of items is not checked; the keys image0, image1, caption0, caption1 are those of public "
        "readers of EqBen's annotations. The full annotation (private_info_global.json) is not read.",
    )
    version = "1"
    description = "two images that differ in little, with their captions: text, image and group score"
    convention = "Winoground's scores, strictly, on the 10 % subset; group over all items is the headline"
    headline = "micro/group_score"

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read all items; see [`BenchmarkTask.read`]."""
        for key, where, row in read_rows(path):
            names = [required_text(row, f"image{side}", where) for side in (0, 1)]
            texts = tuple(required_text(row, f"caption{side}", where) for side in (0, 1))
            yield Item(key, tuple(map(Picture, names)), texts, names[0].partition("/")[0])
