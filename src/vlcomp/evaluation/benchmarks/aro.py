"""ARO: relations, attributes and word order."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ...data.negatives.tagging import make_tagger
from ...errors import DataError
from .base import BenchmarkTask
from .comparisons import Item, Picture
from .facts import COCO_2014, FLICKR30K, Benchmark, ImageSource, OfficialFile, Published
from .files import read_rows, required_number, required_text

_URL = "https://github.com/mertyg/vision-language-models-are-bows"
_CITATION = "Yuksekgonul et al., When and why VLMs behave like bags-of-words, ICLR 2023, arXiv:2210.01936"
_CE_CLIP = "CE-CLIP, Zhang, Awal, Agrawal, CVPR 2024, arXiv:2306.08832"
_IMAGES = ImageSource(
    "the Visual Genome (GQA) images of ARO, vgr_vga_images.zip",
    _URL,
    "CC-BY-4.0 (Visual Genome); pictures under the licences of their Flickr owners",
    folders=("visual_genome", "vg"),
    below=("", "images", "VG_100K", "VG_100K_2"),
    size="1 GB",
)
# Relations that the authors leave out of their macro average, because exchanging their sides changes little or because
# they are rare.
_LEFT_OUT = frozenset(
    """adjusting; attached to; between; bigger than; biting; boarding; brushing; chewing; cleaning; climbing; close to;
    coming from; coming out of; contain; crossing; dragging; draped over; drinking; drinking from; driving;
    driving down; driving on; eating from; eating in; enclosing; exiting; facing; filled with; floating in;
    floating on; flying; flying above; flying in; flying over; flying through; full of; going down; going into;
    going through; grazing in; growing in; growing on; guiding; hanging from; hanging in; hanging off; hanging over;
    higher than; holding onto; hugging; in between; jumping off; jumping on; jumping over; kept in; larger than;
    leading; leaning over; leaving; licking; longer than; looking in; looking into; looking out; looking over;
    looking through; lying next to; lying on top of; making; mixed with; mounted on; moving; on the back of;
    on the edge of; on the front of; on the other side of; opening; painted on; parked at; parked beside; parked by;
    parked in; parked in front of; parked near; parked next to; perched on; petting; piled on; playing; playing in;
    playing on; playing with; pouring; reaching for; reading; reflected on; riding on; running in; running on;
    running through; seen through; sitting behind; sitting beside; sitting by; sitting in front of; sitting near;
    sitting next to; sitting under; skiing down; skiing on; sleeping in; sleeping on; smiling at; sniffing; splashing;
    sprinkled on; stacked on; standing against; standing around; standing behind; standing beside;
    standing in front of; standing near; standing next to; staring at; stuck in; surrounding; swimming in; swinging;
    talking to; topped with; touching; traveling down; traveling on; tying; typing on; underneath; wading in;
    waiting for; walking across; walking by; walking down; walking next to; walking through; working in; working on;
    worn on; wrapped around; wrapped in; by; of; near; next to; with; beside; on the side of; around""".replace(
        "\n    ", " "
    ).split("; ")
)


class _VisualGenome(BenchmarkTask):
    """Items of one picture, cut out, with a true and a false caption."""

    headline = "macro/accuracy"
    subset_scores = False

    def subset_of(self, row: dict[str, Any], where: str) -> str:
        raise NotImplementedError

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read all items; see [`BenchmarkTask.read`]."""
        for key, where, row in read_rows(path):
            box = tuple(required_number(row, f"bbox_{side}", where) for side in "xywh")
            texts = tuple(required_text(row, k, where) for k in ("true_caption", "false_caption"))
            name = required_text(row, "image_path", where)
            yield Item(key, (Picture(name, box),), texts, self.subset_of(row, where), cluster=name)


class AroRelation(_VisualGenome):
    """Which of two captions has the sides of a relation in the right order?

    *Source*: https://github.com/mertyg/vision-language-models-are-bows, `visual_genome_relation.json`, a list of
    `{"image_path", "true_caption", "false_caption", "relation_name", "bbox_x", "bbox_y", "bbox_w", "bbox_h"}`. The
    picture is cut to the box, as in the official code.

    *Licence*: MIT; images see `facts.images`.

    *Convention*: strict. The official average, and the headline `macro/accuracy`, is over relations without those that
    the authors' notebook leaves out (symmetric and rare ones). `macro_all/accuracy` is over all relations,
    `micro/accuracy` over the 23,937 items, which some harnesses print.

    Args are those of [`BenchmarkTask`].
    """

    facts = Benchmark(
        name="aro/relation",
        title="ARO, Visual Genome Relation",
        folder="aro",
        url=_URL,
        licence="MIT",
        citation=_CITATION,
        images=_IMAGES,
        files=(OfficialFile("visual_genome_relation.json", 23937),),
        items=23937,
        published=(
            Published("CLIP ViT-B/32", {"macro/accuracy": 0.593}, _CE_CLIP),
            Published("NegCLIP", {"macro/accuracy": 0.802}, _CE_CLIP),
            Published("CE-CLIP", {"macro/accuracy": 0.830}, _CE_CLIP),
        ),
    )
    version = "1"
    description = "choose the caption with the sides of a relation in the right order (ARO)"
    convention = "strict; macro over relations without symmetric ones is the headline; micro by name"

    def subset_of(self, row: dict[str, Any], where: str) -> str:
        """The relation."""
        return required_text(row, "relation_name", where)

    def in_macro(self, subset: str, count: int) -> bool:
        """The authors' selection of relations."""
        return subset not in _LEFT_OUT


class AroAttribution(_VisualGenome):
    """Which of two captions gives each of two objects its own attribute?

    *Source*: https://github.com/mertyg/vision-language-models-are-bows, `visual_genome_attribution.json`, as
    [`AroRelation`] with `attributes`, a list of two, for `relation_name`.

    *Licence*: MIT; images see `facts.images`.

    *Convention*: strict. The official average, and the headline `macro/accuracy`, is over pairs of attributes with at
    least 25 items. `macro_all/accuracy` is over all pairs, `micro/accuracy` over the 28,748 items.

    Args are those of [`BenchmarkTask`].
    """

    facts = Benchmark(
        name="aro/attribution",
        title="ARO, Visual Genome Attribution",
        folder="aro",
        url=_URL,
        licence="MIT",
        citation=_CITATION,
        images=_IMAGES,
        files=(OfficialFile("visual_genome_attribution.json", 28748),),
        items=28748,
        published=(
            Published("CLIP ViT-B/32", {"macro/accuracy": 0.629}, _CE_CLIP),
            Published("NegCLIP", {"macro/accuracy": 0.705}, _CE_CLIP),
            Published("CE-CLIP", {"macro/accuracy": 0.764}, _CE_CLIP),
        ),
    )
    version = "1"
    description = "choose the caption that gives each of two objects its own attribute (ARO)"
    convention = "strict; macro over pairs of attributes with 25 items or more is the headline; micro by name"

    def subset_of(self, row: dict[str, Any], where: str) -> str:
        """The pair of attributes."""
        pair = row.get("attributes")
        if not isinstance(pair, list) or len(pair) < 2:
            raise DataError(f"{where} has attributes={pair!r}; expected a list of two")
        return f"{pair[0]}_{pair[1]}"

    def in_macro(self, subset: str, count: int) -> bool:
        """Pairs with enough items."""
        return count >= 25


class _Order(BenchmarkTask):
    """A caption against four shufflings of its words."""

    seed = 0

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read all captions and shuffle them; see [`BenchmarkTask.read`]."""
        tagger = make_tagger("textblob")
        for number, (_, where, row) in enumerate(read_rows(path)):
            name = required_text(row, "image", where)
            captions = row.get("caption")
            if not isinstance(captions, list) or not captions:
                raise DataError(f"{where} has caption={captions!r}; expected a list of captions")
            for k, caption in enumerate(captions):
                text = required_text({"caption": caption}, "caption", where)
                rng = random.Random(f"aro order {self.seed} {number} {k}")
                texts = [text, *(shuffled(text, way, rng, tagger) for way in SHUFFLES)]
                yield Item(f"{number}/{k}", (Picture(name),), tuple(clean_caption(t) for t in texts))


_ORDER_CONVENTION = """strict: the true caption scores above all four shufflings of it; chance 1/5"""


class AroCocoOrder(_Order):
    """Is a caption preferred to four shufflings of its words (COCO)?

    *Source*: https://github.com/mertyg/vision-language-models-are-bows; captions of the Karpathy test split,
    `coco_karpathy_test.json`, a list of `{"image": "val2014/...", "caption": [...]}`.

    *Licence*: MIT (code); captions and images those of COCO.

    *Convention*: right only if the true caption scores strictly above all four others: nouns and adjectives shuffled
    among their own kind, everything but these shuffled, words shuffled within triples, triples shuffled. Captions are
    lower-cased, stripped of punctuation and cut to 30 words, as in the official code. There are no official shuffled
    captions: that code draws them anew in each run, with spaCy's and NLTK's tokens and tags. Here they are drawn with
    a fixed seed, the same for everybody, with this package's tokens and TextBlob's tags. A shuffling may equal the
    caption (nothing to shuffle); it then ties, and the item is wrong.

    Args are those of [`BenchmarkTask`].
    """

    facts = Benchmark(
        name="aro/coco_order",
        title="ARO, COCO Order",
        folder="aro",
        url="https://storage.googleapis.com/sfr-vision-language-research/datasets/coco_karpathy_test.json",
        licence="MIT (code); captions CC-BY-4.0 (COCO)",
        citation=_CITATION,
        images=COCO_2014,
        files=(OfficialFile("coco_karpathy_test.json", 25010),),
        items=25010,
        notes="Shuffled captions are drawn here: the same four ways, another tokenizer and tagger than the authors'.",
    )
    version = "1"
    description = "choose a caption among four shufflings of its words (ARO, COCO)"
    convention = _ORDER_CONVENTION


class AroFlickrOrder(_Order):
    """Is a caption preferred to four shufflings of its words (Flickr30k)?

    *Source*: https://github.com/mertyg/vision-language-models-are-bows; captions of the Karpathy test split,
    `flickr30k_test.json`, in the form of [`AroCocoOrder`].

    *Licence*: MIT (code); captions and images those of Flickr30k.

    *Convention*: as in [`AroCocoOrder`].

    Args are those of [`BenchmarkTask`].
    """

    facts = Benchmark(
        name="aro/flickr_order",
        title="ARO, Flickr30k Order",
        folder="aro",
        url="https://storage.googleapis.com/sfr-vision-language-research/datasets/flickr30k_test.json",
        licence="MIT (code); captions those of Flickr30k",
        citation=_CITATION,
        images=FLICKR30K,
        files=(OfficialFile("flickr30k_test.json", 5000),),
        items=5000,
        gated="images by request to the University of Illinois",
        notes="Shuffled captions are drawn here: the same four ways, another tokenizer and tagger than the authors'.",
    )
    version = "1"
    description = "choose a caption among four shufflings of its words (ARO, Flickr30k)"
    convention = _ORDER_CONVENTION


# -- shuffling ---------------------------------------------------------------------------------------------

SHUFFLES = ("nouns_and_adjectives", "all_but_nouns_and_adjectives", "within_triples", "triples")
_WORDS = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_MAX_WORDS = 30


def clean_caption(text: str) -> str:
    """A caption as ARO reads it: lower case, no punctuation of sentences, at most 30 words."""
    words = re.sub(r'[.!"()*#:;~]', " ", text.lower()).split()
    return " ".join(words[:_MAX_WORDS])


def shuffled(text: str, way: str, rng: random.Random, tagger: Callable[[list[str]], Sequence[str]]) -> str:
    """Shuffle the words of a caption in one of ARO's four ways.

    Args:
        text (`str`):
            The caption.
        way (`str`):
            One of `SHUFFLES`.
        rng (`random.Random`):
            Source of randomness.
        tagger (`Callable`):
            Penn Treebank tags of words.

    Returns:
        `str`
    """
    tokens = _WORDS.findall(text)
    if way in ("within_triples", "triples"):
        parts = [tokens[i : i + 3] for i in range(0, len(tokens), 3)]
        for part in parts if way == "within_triples" else [parts]:
            rng.shuffle(part)
        return " ".join(word for part in parts for word in part)
    kinds = ["NJ".find(tag[:1]) for tag in tagger(tokens)]
    # Nouns and adjectives change places with their own kind; or all the other words with each other.
    sets = (0, 1) if way == "nouns_and_adjectives" else (-1,)
    for kind in sets:
        at = [i for i, k in enumerate(kinds) if k == kind]
        words = [tokens[i] for i in at]
        rng.shuffle(words)
        for i, word in zip(at, words, strict=True):
            tokens[i] = word
    return " ".join(tokens)
