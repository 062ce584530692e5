"""What cards say of a method beside its numbers: in short what it is, its paper, a usage snippet, known limits."""

from __future__ import annotations

from dataclasses import dataclass

from ..methods import METHODS, Method


@dataclass(frozen=True)
class About:
    """Text of a card that is not measured.

    Args:
        what (`str`):
            What the method is, in a few sentences.
        start (`str`, *optional*):
            Python expression that makes the model of the published CLIP named `start`.
        limits (`tuple[str, ...]`):
            What is known not to work, or not to be shown.
    """

    what: str
    start: str | None = None
    limits: tuple[str, ...] = ()


# By the name of the model class, which a checkpoint's configuration and the table of methods have in common.
_ABOUT = {
    "CLIPModel": About(
        "Plain CLIP: two towers trained with the symmetric contrastive loss. It is the base that the other methods "
        "are compared with.",
        "CLIPModel.from_pretrained(start)",
        ("Models like this mostly read a caption as a bag of words; see swap tasks before relying on word order.",),
    ),
    "ImcCmrCLIPModel": About(
        "A CLIP fine-tuned on captions with hard negatives: the contrastive loss sees them, an intra-modal loss keeps "
        "a caption away from its own negatives, and a cross-modal rank loss asks for a margin that grows as the model "
        "learns. The authors call it CE-CLIP.",
        "vlcomp.ImcCmrCLIPModel.from_pretrained(start)",
        (
            "Fine-tuning on hard negatives can cost zero-shot classification and retrieval; see what got worse.",
            "Skill on the kinds of negatives it was trained with carries over to other kinds only in part.",
        ),
    ),
    "IteratedCLIPModel": About(
        "Two towers that speak through one codebook, pre-trained from scratch; at regular intervals the language "
        "tower is replaced by a new one that learns from the vision tower (iterated learning).",
        "vlcomp.IteratedCLIPModel.from_pretrained(start)",
        ("Meant for pre-training: a published CLIP put into it has no codebook until it is trained with one.",),
    ),
    "CommaModel": About(
        "Prompts for a frozen CLIP, learned from a few pictures of each class. Prompts of the vision branch are made "
        "from those of both branches, and a knowledge loss keeps the text branch close to the frozen one.",
        "vlcomp.CommaModel.from_clip(start)",
        ("For classification from few examples; captions are not what it is trained on.",),
    ),
    "PeftModel": About(
        "An adapter (PEFT) for a model of the Hub: loading it loads that model too.",
    ),
    "DiscriminativeLVLMModel": About(
        "A generative vision-language model turned into an encoder of images and texts: the embedding is the hidden "
        "state of a summary token, trained by soft prompts and LoRA with a contrastive and a next-token loss. The "
        "authors call it VladVA.",
        limits=(
            "Encoding takes a forward pass of a language model for every image and every text.",
            "On Scenes the embeddings do not learn who is which: swaps stay at chance, though the LVLM itself tells "
            "them apart (`vlcomp evaluate --scorer likelihood`).",
        ),
    ),
}

_ENTRIES = {
    "2103.00020": (
        "radford2021clip",
        "Learning Transferable Visual Models From Natural Language Supervision",
        "Radford, Alec and Kim, Jong Wook and Hallacy, Chris and Ramesh, Aditya and Goh, Gabriel and Agarwal, "
        "Sandhini and Sastry, Girish and Askell, Amanda and Mishkin, Pamela and Clark, Jack and Krueger, Gretchen and "
        "Sutskever, Ilya",
        "2021",
    ),
    "2306.08832": (
        "zhang2024contrasting",
        "Contrasting Intra-Modal and Ranking Cross-Modal Hard Negatives to Enhance Visio-Linguistic Compositional "
        "Understanding",
        "Zhang, Le and Awal, Rabiul and Agrawal, Aishwarya",
        "2024",
    ),
    "2404.02145": (
        "zheng2024iterated",
        "Iterated Learning Improves Compositionality in Large Vision-Language Models",
        "Zheng, Chenhao and Zhang, Jieyu and Kembhavi, Aniruddha and Krishna, Ranjay",
        "2024",
    ),
    "2401.00268": (
        "hu2024comma",
        "COMMA: Co-Articulated Multi-Modal Learning",
        "Hu, Lianyu and Gao, Liqing and Liu, Zekang and Pun, Chi-Man and Feng, Wei",
        "2024",
    ),
    "2412.04378": (
        "ouali2025discriminative",
        "Discriminative Fine-tuning of LVLMs",
        "Ouali, Yassine and Bulat, Adrian and others",
        "2025",
    ),
}
# Papers of models whose method may have no row in the table.
_PAPERS = {
    "CLIPModel": "2103.00020",
    "ImcCmrCLIPModel": "2306.08832",
    "IteratedCLIPModel": "2404.02145",
    "CommaModel": "2401.00268",
    "DiscriminativeLVLMModel": "2412.04378",
}


def about(model_class: str) -> About:
    """What to say of a model.

    Args:
        model_class (`str`):
            Name of its class.

    Returns:
        `About`: a sentence with the name for a class that nothing is known of.
    """
    return _ABOUT.get(model_class) or About(f"A model of class `{model_class}`.")


def paper_of(model_class: str) -> str | None:
    """The arXiv identifier of a model's paper, or `None`."""
    method = method_of(model_class)
    return method.paper if method is not None and method.paper else _PAPERS.get(model_class)


def method_of(model_class: str) -> Method | None:
    """The method whose model this is, or `None`."""
    return next((method for method in METHODS.values() if method.model.endswith(f":{model_class}")), None)


def bibtex(paper: str) -> str:
    """A BibTeX entry.

    Args:
        paper (`str`):
            arXiv identifier.

    Returns:
        `str`: with authors and title where they are known, else with the identifier alone.
    """
    if paper not in _ENTRIES:
        return f"@misc{{arxiv{paper},\n  eprint = {{{paper}}},\n  archivePrefix = {{arXiv}}\n}}"
    key, title, authors, year = _ENTRIES[paper]
    return (
        f"@misc{{{key},\n  title = {{{title}}},\n  author = {{{authors}}},\n  year = {{{year}}},\n"
        f"  eprint = {{{paper}}},\n  archivePrefix = {{arXiv}}\n}}"
    )
