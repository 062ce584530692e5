"""Blind scores: what a model has learned about how negatives read, apart from what is in the picture.

Negatives made by rules differ from captions that people (or a world) write, and a text tower can learn that
difference. Two scores say how far it went: a classifier that sees the texts alone, and the model itself with pictures
that belong to other captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..evaluation.encoding import embed_images, embed_texts, pair_scores
from ..evaluation.reference import cross_validated_scores
from ..evaluation.scoring import compare_pairs


def choice_with_and_without_pictures(
    model: Any, images: Sequence[Any], captions: Sequence[str], negatives: Sequence[Sequence[tuple[str, str]]]
) -> dict[str, float]:
    """Accuracy of choosing captions against negatives, with the right pictures and with shuffled ones.

    With a shuffled picture (that of another row, the same for caption and negative) neither text was written for it. A
    model that still prefers the caption goes by how it reads, or by what it has in common with pictures in general.

    Args:
        model ([`~vlcomp.Embedder`] or any object):
            With `encode_images` and `encode_texts`.
        images (`Sequence` of shape [rows]):
            Pictures.
        captions (`Sequence[str]` of shape [rows]):
            Their captions.
        negatives (`Sequence[Sequence[tuple[str, str]]]` of shape [rows]):
            Type and text of the negatives of each caption.

    Returns:
        `dict[str, float]`: by type and as `mean` (over types), `<type>/choice` and `<type>/choice_shuffled`, strict
        accuracies between 0 and 1.

    Example:
        >>> from vlcomp import Embedder
        >>> from vlcomp.studies.blind import choice_with_and_without_pictures
        >>> from vlcomp.testing import tiny_clip, tiny_images, tiny_processor
        >>> model = Embedder(tiny_clip(), tiny_processor())
        >>> negatives = [[("object", "a star")], [("object", "a cup")]]
        >>> sorted(choice_with_and_without_pictures(model, tiny_images(2), ["a red cup", "a star"], negatives))
        ['mean/choice', 'mean/choice_shuffled', 'object/choice', 'object/choice_shuffled']
    """
    items = [(row, kind, text) for row, found in enumerate(negatives) for kind, text in found]
    texts = list(dict.fromkeys([*captions, *(text for _, _, text in items)]))
    place = {text: index for index, text in enumerate(texts)}
    warnings: list[str] = []
    image_embeds = embed_images(model, list(images), [str(row) for row in range(len(images))], warnings)
    text_embeds = embed_texts(model, texts, warnings)
    rows = np.array([row for row, _, _ in items], dtype=np.int64)
    true = np.array([place[captions[row]] for row in rows], dtype=np.int64)
    false = np.array([place[text] for _, _, text in items], dtype=np.int64)
    kinds = np.array([kind for _, kind, _ in items], dtype=object)
    found: dict[str, float] = {}
    # Half of the rows away: no picture keeps its place, and it is the same for every model.
    for name, pictures in (("choice", rows), ("choice_shuffled", (rows + len(images) // 2) % len(images))):
        outcome = compare_pairs(
            pair_scores(image_embeds, text_embeds, pictures, true),
            pair_scores(image_embeds, text_embeds, pictures, false),
        )
        for kind in dict.fromkeys(kinds):
            found[f"{kind}/{name}"] = float(np.mean(outcome.correct[kinds == kind]))
        found[f"mean/{name}"] = float(np.mean([found[f"{kind}/{name}"] for kind in dict.fromkeys(kinds)]))
    return found


def classifier_accuracy(
    captions: Sequence[str], negatives: Sequence[Sequence[tuple[str, str]]], *, folds: int = 5
) -> dict[str, float]:
    """How well a text classifier tells captions from their negatives, by type, cross-validated over captions.

    Args:
        captions (`Sequence[str]` of shape [rows]):
            True captions.
        negatives (`Sequence[Sequence[tuple[str, str]]]` of shape [rows]):
            Type and text of the negatives of each.
        folds (`int`, defaults to 5):
            Parts of the cross-validation.

    Returns:
        `dict[str, float]`: `<type>/text_only_classifier`, and `mean/...` over the types; a tie counts one half. 0.5 is
        as good as not to be told apart.
    """
    found = {}
    for kind in dict.fromkeys(kind for row in negatives for kind, _ in row):
        items = [(row, text) for row, made in enumerate(negatives) for name, text in made if name == kind]
        true, false = [captions[row] for row, _ in items], [text for _, text in items]
        outcome = compare_pairs(*cross_validated_scores(true, false, [row for row, _ in items], folds=folds))
        found[f"{kind}/text_only_classifier"] = float(np.mean(outcome.expected))
    found["mean/text_only_classifier"] = float(np.mean(list(found.values())))
    return found
