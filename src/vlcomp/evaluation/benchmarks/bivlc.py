"""BiVLC: SugarCrepe with an image for the false caption too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError
from .comparisons import Comparison, Item, Picture, group_score, image_score, text_score
from .facts import Benchmark, ImageSource, OfficialFile
from .files import read_parquet, required_text
from .winoground import TwoByTwo


def _one(index: int, by_text: bool) -> tuple[Comparison, ...]:
    return ((text_score if by_text else image_score)(2, 2)[index],)


class BiVlc(TwoByTwo):
    """SugarCrepe's captions with an image for each of the two: match both ways.

    *Source*: https://huggingface.co/datasets/imirandam/BiVLC, parquet files with `image`, `caption`,
    `negative_caption`, `negative_image`, `type` (replace, swap, add) and `subtype`. The images are in the files; they
    are held in memory, about 0.6 GB.

    *Licence*: MIT.

    *Convention*: `i2t` (both images prefer their own caption), `t2i` (both captions prefer their own image), `group`
    (both, the headline), each over the 2,933 items, and the four single comparisons `ipos_2t`, `ineg_2t`, `tpos_2i`,
    `tneg_2i`; all strict. By `type` too.

    Args are those of [`BenchmarkTask`].
    """

    facts = Benchmark(
        name="bivlc",
        title="BiVLC",
        folder="bivlc",
        url="https://huggingface.co/datasets/imirandam/BiVLC/tree/main/data",
        licence="MIT",
        citation="Miranda et al., BiVLC, NeurIPS 2024, arXiv:2406.09952",
        images=ImageSource(
            "the images of BiVLC, which are in its parquet files",
            "https://huggingface.co/datasets/imirandam/BiVLC",
            "COCO val2017 for the true images; MIT for the generated ones",
            size="0.5 GB",
        ),
        files=(OfficialFile("test-00000-of-00002.parquet"), OfficialFile("test-00001-of-00002.parquet")),
        items=2933,
    )
    version = "1"
    description = "two images and two captions from SugarCrepe: image to text, text to image, group"
    convention = "I2T, T2I and group score, strictly; group over all items is the headline"
    rules = {
        "i2t": text_score,
        "t2i": image_score,
        "group": group_score,
        "ipos_2t": lambda images, texts: _one(0, True),
        "ineg_2t": lambda images, texts: _one(1, True),
        "tpos_2i": lambda images, texts: _one(0, False),
        "tneg_2i": lambda images, texts: _one(1, False),
    }
    headline = "micro/group"

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read one part; see [`BenchmarkTask.read`]."""
        columns = ("image", "caption", "negative_caption", "negative_image", "type")
        for key, where, row in read_parquet(path, columns):
            item_id = f"{path.stem}/{key}"
            images = []
            for column in ("image", "negative_image"):
                value = row[column]
                if not isinstance(value, dict) or not value.get("bytes"):
                    raise DataError(f"{where} holds no {column}")
                # Several items show one COCO image; it is told by its content, and encoded once.
                digest = hashlib.blake2b(value["bytes"], digest_size=8).hexdigest()
                images.append(Picture(f"{column} {digest}", content=value["bytes"]))
            texts = tuple(required_text(row, k, where) for k in ("caption", "negative_caption"))
            yield Item(item_id, tuple(images), texts, required_text(row, "type", where))
