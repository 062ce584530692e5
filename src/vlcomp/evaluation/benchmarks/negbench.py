"""NegBench, multiple choice: affirmed, negated and mixed captions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ...errors import DataError
from .base import BenchmarkTask
from .comparisons import Item, Picture
from .facts import ImageSource, OfficialFile
from .files import file_name, read_csv, required_number, required_text
from .retrieval import negbench_facts

_CAPTIONS = tuple(f"caption_{k}" for k in range(4))


class _MultipleChoice(BenchmarkTask):
    version = "1"
    convention = "strict choice among four; accuracy over items is the headline, by kind of the right answer too"
    headline = "micro/accuracy"

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read all questions; see [`BenchmarkTask.read`]."""
        for key, where, row in read_csv(path, ("image_path", "correct_answer", "correct_answer_template", *_CAPTIONS)):
            texts = [required_text(row, name, where) for name in _CAPTIONS]
            right = required_number(row, "correct_answer", where)
            if not 0 <= right < len(texts):
                raise DataError(f"{where} has correct_answer={right}; expected 0 to {len(texts) - 1}")
            texts.insert(0, texts.pop(right))
            kind = required_text(row, "correct_answer_template", where)
            yield Item(key, (Picture(file_name(required_text(row, "image_path", where))),), tuple(texts), kind)


class NegBenchCoco(_MultipleChoice):
    """Which of four captions, some with negations, is true of a COCO image?

    *Source*: https://github.com/m1k2zoo/negbench, `images/COCO_val_mcq_llama3.1_rephrased.csv` with `image_path`,
    `caption_0` to `caption_3`, `correct_answer` (0 to 3) and `correct_answer_template` (positive, negative, hybrid).

    *Licence*: see `facts`.

    *Convention*: right only if the true caption scores strictly above the three others; `micro/accuracy` is the
    headline, by kind of the right answer too.

    Args are those of [`BenchmarkTask`].
    """

    facts = negbench_facts("mcq_coco", "multiple choice, COCO", "COCO_val_mcq_llama3.1_rephrased.csv")
    description = "which of four captions with negations is true of an image (NegBench, COCO)"


class NegBenchVoc(_MultipleChoice):
    """Which of four captions, some with negations, is true of a VOC 2007 image?

    *Source*: as [`NegBenchCoco`], `images/VOC2007_mcq_llama3.1_rephrased.csv`; images are the VOC 2007 test set.

    *Licence*: see `facts`.

    *Convention*: as [`NegBenchCoco`].

    Args are those of [`BenchmarkTask`].
    """

    facts = replace(
        negbench_facts("mcq_voc2007", "multiple choice, VOC 2007", "VOC2007_mcq_llama3.1_rephrased.csv"),
        licence="MIT",
        images=ImageSource(
            "the VOC 2007 test images",
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar",
            "pictures under the licences of their Flickr owners",
            folders=("voc2007", "VOCdevkit/VOC2007"),
            below=("", "JPEGImages", "VOCdevkit/VOC2007/JPEGImages"),
        ),
    )
    description = "which of four captions with negations is true of an image (NegBench, VOC 2007)"


NEGBENCH_TASKS = (NegBenchCoco, NegBenchVoc)
