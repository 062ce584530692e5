"""From a model and distinct inputs to embeddings that can be scored, with every output checked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..data.images import load_image
from ..embeddings import Embedder
from ..errors import ArgumentError, DataError, EvaluationError
from .scoring import Ranks, rank_candidates

logger = logging.getLogger(__name__)

# Mean cosine between embeddings of different inputs from which on they count as collapsed.
COLLAPSE_COSINE = 0.995
# Inputs for one call of a model that is not an Embedder: bounds the number of decoded images in memory.
_CHUNK = 256
# Elements of a block of similarities: 2**23 float64 are 64 MiB.
_BLOCK = 2**23


def check_model(model: Any) -> None:
    """Refuse an object that cannot be evaluated.

    Args:
        model (`Any`):
            The object.

    Raises:
        ArgumentError: if a method is missing.
    """
    if isinstance(model, type):
        raise ArgumentError(f"model is the class {model.__name__}; pass an object of it, {model.__name__}(...)")
    missing = [name for name in ("encode_images", "encode_texts") if not callable(getattr(model, name, None))]
    if missing:
        raise ArgumentError(
            f"model of type {type(model).__name__} has no {' and no '.join(missing)}; pass a checkpoint folder or hub "
            "name, a transformers model with its processor, a vlcomp.Embedder, or any object with both methods"
        )


def embed_images(
    model: Any, images: Sequence[Any], names: Sequence[Any], warnings: list[str], *, progress: bool = False
) -> np.ndarray:
    """Encode distinct images.

    A [`~vlcomp.Embedder`] gets the sources as they are; anything else gets lists of RGB PIL images.

    Args:
        model (`Any`):
            The model.
        images (`Sequence`):
            Image sources, anything that `vlcomp.data.images.load_image` reads.
        names (`Sequence`):
            Name of each image, for messages.
        warnings (`list[str]`):
            Receives warnings.
        progress (`bool`, defaults to `False`):
            Show a progress bar.

    Returns:
        `np.ndarray` of shape [images, dimensions], float64, rows of unit length.

    Raises:
        EvaluationError: if the output has the wrong shape or is not finite.
    """
    if isinstance(model, Embedder):
        output = model.encode_images(images)
    else:
        output = _in_chunks(
            lambda part: model.encode_images([load_image(x) for x in part]), images, "images", progress
        )
    return _checked(output, names, "encode_images", "image", warnings)


def embed_texts(model: Any, texts: Sequence[str], warnings: list[str], *, progress: bool = False) -> np.ndarray:
    """Encode distinct texts.

    Args:
        model (`Any`):
            The model.
        texts (`Sequence[str]`):
            The texts.
        warnings (`list[str]`):
            Receives warnings.
        progress (`bool`, defaults to `False`):
            Show a progress bar.

    Returns:
        `np.ndarray` of shape [texts, dimensions], float64, rows of unit length.

    Raises:
        EvaluationError: if the output has the wrong shape or is not finite.
    """
    if isinstance(model, Embedder):
        output = model.encode_texts(list(texts))
    else:
        output = _in_chunks(lambda part: model.encode_texts(list(part)), texts, "texts", progress)
    return _checked(output, texts, "encode_texts", "text", warnings)


def _in_chunks(encode: Any, inputs: Sequence[Any], unit: str, progress: bool) -> np.ndarray:
    starts = tqdm(range(0, len(inputs), _CHUNK), desc=f"encode {unit}", disable=not progress, leave=False)
    parts = []
    for start in starts:
        part = inputs[start : start + _CHUNK]
        array = _to_numpy(encode(part))
        if array.ndim != 2 or len(array) != len(part):
            raise EvaluationError(
                f"encode_{unit} returned shape {list(array.shape)} for {len(part)} {unit}; "
                f"expected [{len(part)}, dimensions]"
            )
        parts.append(array)
    return np.concatenate(parts) if parts else np.zeros((0, 1))


def _to_numpy(output: Any) -> np.ndarray:
    if isinstance(output, torch.Tensor):
        output = output.detach().to("cpu", torch.float64).numpy()
    return np.asarray(output, dtype=np.float64)


def _checked(output: Any, names: Sequence[Any], method: str, kind: str, warnings: list[str]) -> np.ndarray:
    array = _to_numpy(output)
    if array.ndim != 2 or len(array) != len(names):
        raise EvaluationError(
            f"{method} returned shape {list(array.shape)} for {len(names)} {kind}s; "
            f"expected [{len(names)}, dimensions]"
        )
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise EvaluationError(
            f"the embedding of {kind} {names[int(np.argmin(finite))]!r} is not a number in some dimension. Check the "
            "weights and the precision (half precision overflows on some models; try float32)"
        )
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    # A zero vector keeps similarity 0 with everything: all of its comparisons are ties, and so wrong.
    array = np.ascontiguousarray(array / np.where(norms > 0, norms, 1.0))
    cosine = mean_cosine(array)
    if len(array) >= 8 and (cosine > COLLAPSE_COSINE or not norms.all()):
        message = (
            f"the embeddings of {int((norms == 0).sum())} of {len(array)} {kind}s are zero"
            if not norms.all()
            else f"the embeddings of {len(array)} different {kind}s are nearly the same (mean cosine {cosine:.4f})"
        )
        logger.warning("%s; scores near chance then say nothing about composition", message)
        warnings.append(message)
    return array


def mean_cosine(embeds: np.ndarray) -> float:
    """Mean cosine between different rows of unit length.

    Args:
        embeds (`np.ndarray` of shape [inputs, dimensions]):
            Unit vectors.

    Returns:
        `float`: 0 for fewer than two rows.
    """
    count = len(embeds)
    if count < 2:
        return 0.0
    total = embeds.sum(axis=0)
    return float((total @ total - (embeds * embeds).sum()) / (count * (count - 1)))


def pair_scores(
    image_embeds: np.ndarray, text_embeds: np.ndarray, images: np.ndarray, texts: np.ndarray
) -> np.ndarray:
    """Cosine of listed pairs, each computed by itself, so that equal embeddings give equal scores to the last bit.

    Args:
        image_embeds (`np.ndarray` of shape [images, dimensions]):
            Unit vectors.
        text_embeds (`np.ndarray` of shape [texts, dimensions]):
            Unit vectors.
        images (`np.ndarray` of shape [pairs], int):
            Row of the image of each pair.
        texts (`np.ndarray` of shape [pairs], int):
            Row of the text of each pair.

    Returns:
        `np.ndarray` of shape [pairs], float64.

    Raises:
        EvaluationError: if image and text embeddings have different dimensions.
    """
    _check_dimensions(image_embeds, text_embeds)
    step = max(1, _BLOCK // max(1, image_embeds.shape[1]))
    parts = [
        (image_embeds[images[start : start + step]] * text_embeds[texts[start : start + step]]).sum(axis=1)
        for start in range(0, len(images), step)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def rank_embeddings(
    queries: np.ndarray,
    candidates: np.ndarray,
    query_groups: np.ndarray,
    candidate_groups: np.ndarray,
    *,
    query_ids: Sequence[Any] | None = None,
    block: int = _BLOCK,
) -> Ranks:
    """Rank candidates by cosine for each query, a block of queries at a time.

    Products are in float64, where the order of additions moves a score by less than the tolerance for ties, so the
    result does not depend on the block size.

    Args:
        queries (`np.ndarray` of shape [queries, dimensions]):
            Unit vectors.
        candidates (`np.ndarray` of shape [candidates, dimensions]):
            Unit vectors.
        query_groups (`np.ndarray` of shape [queries]):
            Group of each query.
        candidate_groups (`np.ndarray` of shape [candidates]):
            Group of each candidate.
        query_ids (`Sequence`, *optional*):
            Names of the queries, for messages.
        block (`int`, defaults to 2**23):
            Similarities held in memory at once.

    Returns:
        [`~vlcomp.evaluation.scoring.Ranks`]

    Raises:
        EvaluationError: if dimensions differ.
    """
    _check_dimensions(queries, candidates)
    step = max(1, block // max(1, len(candidates)))
    parts = []
    for start in range(0, len(queries), step):
        stop = min(start + step, len(queries))
        ids = None if query_ids is None else query_ids[start:stop]
        parts.append(
            rank_candidates(
                queries[start:stop] @ candidates.T, query_groups[start:stop], candidate_groups, query_ids=ids
            )
        )
    return Ranks.concatenate(parts)


def _check_dimensions(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape[1] != second.shape[1]:
        raise EvaluationError(
            f"embeddings have {first.shape[1]} and {second.shape[1]} dimensions; "
            "encode_images and encode_texts must map into one space"
        )


def unreadable_images(images: Sequence[Any], names: Sequence[Any], *, progress: bool = False) -> dict[int, str]:
    """Find the images that cannot be read.

    Args:
        images (`Sequence`):
            Image sources.
        names (`Sequence`):
            Name of each image.
        progress (`bool`, defaults to `False`):
            Show a progress bar.

    Returns:
        `dict[int, str]`: position and cause.
    """
    bad = {}
    for index, source in enumerate(tqdm(images, desc="check images", disable=not progress, leave=False)):
        try:
            load_image(source)
        except DataError as error:
            bad[index] = f"{names[index]}: {error}"
    return bad
