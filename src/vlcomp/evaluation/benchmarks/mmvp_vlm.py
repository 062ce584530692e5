"""MMVP-VLM: pairs of images that CLIP embeds alike, with statements that tell them apart."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError
from .base import BenchmarkTask
from .comparisons import Item, Picture, image_score
from .facts import Benchmark, ImageSource, OfficialFile

_PROMPT = "a photo of "


class MmvpVlm(BenchmarkTask):
    """Two images that CLIP embeds alike and two statements: does each statement find its image?

    *Source*: https://huggingface.co/datasets/MMVP/MMVP_VLM, `Questions.csv` (number, visual pattern, statement; two
    rows after each other are a pair) and the folder `MLLM_VLM Images/<pattern>/<number>.jpg`.

    *Licence*: MIT.

    *Convention*: a pair is right if both statements score strictly higher with their own image. Statements are read
    with "a photo of " before them, as in the official script. The official number is the mean over nine patterns of 15
    pairs each, `macro/accuracy`, the headline; `micro/accuracy` over 135 pairs equals it on the full set.

    Args are those of [`BenchmarkTask`].
    """

    facts = Benchmark(
        name="mmvp_vlm",
        title="MMVP-VLM",
        folder="mmvp_vlm",
        url="https://huggingface.co/datasets/MMVP/MMVP_VLM",
        licence="MIT",
        citation="Tong et al., Eyes Wide Shut?, CVPR 2024, arXiv:2401.06209",
        images=ImageSource(
            "the folder 'MLLM_VLM Images'",
            "https://huggingface.co/datasets/MMVP/MMVP_VLM",
            "MIT (the card); pictures from ImageNet and LAION-Aesthetics",
            below=("", "MLLM_VLM Images"),
            count=270,
            where="Put the folder 'MLLM_VLM Images' beside Questions.csv",
        ),
        files=(OfficialFile("Questions.csv", 135),),
        items=135,
    )
    version = "1"
    description = "two images that CLIP embeds alike: does each statement find its own?"
    convention = "both statements of a pair right, strictly; macro over 9 patterns is the headline"
    headline = "macro/accuracy"
    rules = {"accuracy": image_score}
    own_texts = {0: (0,), 1: (1,)}

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read all pairs; see [`BenchmarkTask.read`]."""
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.reader(stream) if row][1:]  # the first is the header
        if len(rows) % 2:
            raise DataError(f"{path} holds {len(rows)} statements; expected pairs of rows")
        for first, second in zip(rows[::2], rows[1::2], strict=True):
            for row in (first, second):
                if len(row) != 3 or not all(field.strip() for field in row):
                    raise DataError(f"{path} has the row {row!r}; expected number, pattern and statement")
            pattern = first[1].strip()
            images = tuple(Picture(f"{pattern}/{row[0].strip()}.jpg") for row in (first, second))
            texts = tuple(_PROMPT + row[2] for row in (first, second))
            yield Item(f"{first[0].strip()}-{second[0].strip()}", images, texts, pattern)
