"""SVO-Probes: one sentence, an image of which it is true and one that differs in subject, verb or object."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError
from .base import BenchmarkTask
from .comparisons import Item, Picture, choose_image
from .facts import Benchmark, ImageSource, OfficialFile
from .files import read_csv, required_number, required_text

_KINDS = {"subj_neg": "subject", "verb_neg": "verb", "obj_neg": "object"}


class SvoProbes(BenchmarkTask):
    """Does a sentence fit its image better than one with another subject, verb or object?

    *Source*: https://github.com/google-deepmind/svo_probes, `svo_probes.csv` with `sentence`, `pos_url`, `neg_url`,
    `pos_image_id`, `neg_image_id`, `subj_neg`, `verb_neg`, `obj_neg`. The images are on the web, many of them no
    longer: save those of `pos_url` and `neg_url` as `<image id>.jpg` and measure with `skip_bad_images=True`, which
    counts what is missing. Numbers on different remainders cannot be compared.

    *Licence*: CC-BY-4.0 (the CSV); the images belong to their owners.

    *Convention*: the authors classify each pair of sentence and image by itself with models that have a matching head.
    For dual encoders image choice is in use, and is what stands here: right only if the sentence scores strictly
    higher with the true image. `micro/accuracy` over all items is the headline, by subject, verb and object too.

    Args are those of [`BenchmarkTask`].
    """

    facts = Benchmark(
        name="svo_probes",
        title="SVO-Probes",
        folder="svo_probes",
        url="https://github.com/google-deepmind/svo_probes",
        licence="CC-BY-4.0",
        citation="Hendricks and Nematzadeh, Probing Image-Language Transformers for Verb Understanding, Findings of "
        "ACL 2021, arXiv:2106.09141",
        images=ImageSource(
            "images from the web, saved as <image id>.jpg",
            "the columns pos_url and neg_url of svo_probes.csv",
            "those of their owners",
            where="Save them into the folder images",
        ),
        files=(OfficialFile("svo_probes.csv"),),
        notes="The number of rows is not checked. Names of image files are our convention: the authors publish URLs.",
    )
    version = "1"
    description = "choose the image of a sentence from two that differ in subject, verb or object"
    convention = "image choice, strict (the authors classify single pairs); micro over items is the headline"
    headline = "micro/accuracy"
    rules = {"accuracy": choose_image}
    own_texts = {}

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read all items; see [`BenchmarkTask.read`]."""
        for key, where, row in read_csv(path, ("sentence", "pos_image_id", "neg_image_id", *_KINDS)):
            kinds = [name for column, name in _KINDS.items() if str(row[column]).strip().lower() in ("true", "1")]
            if len(kinds) != 1:
                raise DataError(f"{where} has {len(kinds)} of {', '.join(_KINDS)} set; expected one")
            ids = [required_number(row, f"{side}_image_id", where) for side in ("pos", "neg")]
            sentence = required_text(row, "sentence", where)
            yield Item(key, tuple(Picture(f"{i}.jpg") for i in ids), (sentence,), kinds[0], cluster=sentence)
