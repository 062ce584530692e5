"""From a model and distinct inputs to scores, with every output checked.

An encoder turns images and texts into embeddings, whose cosines are the scores. A *pair scorer* looks at an image and
a text together (the probability that a language-and-vision model says yes); its inputs stay what they are, in an
[`Unencoded`], until pairs of them are scored. Tasks need not know which of the two they measure.
"""

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
# Pairs for one call of a pair scorer that has no `batch_size`.
_PAIRS = 64
# Scores of a pair scorer that all lie this close together cannot be told from ties.
_NARROW = 1e-4
# Elements of a block of similarities: 2**23 float64 are 64 MiB.
_BLOCK = 2**23


def is_pair_scorer(model: Any) -> bool:
    """Whether a model scores pairs of image and text and has no embeddings.

    Args:
        model (`Any`):
            The model.

    Returns:
        `bool`: `False` for a model that has both `encode_images` and `encode_texts`, whatever else it has.
    """
    encodes = all(callable(getattr(model, name, None)) for name in ("encode_images", "encode_texts"))
    return callable(getattr(model, "score_pairs", None)) and not encodes


def takes_sources(model: Any) -> bool:
    """Whether a model reads image files itself; others get RGB PIL images."""
    return isinstance(model, Embedder) or bool(getattr(model, "takes_sources", False))


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
    if is_pair_scorer(model):
        return
    missing = [name for name in ("encode_images", "encode_texts") if not callable(getattr(model, name, None))]
    if missing:
        raise ArgumentError(
            f"model of type {type(model).__name__} has no {' and no '.join(missing)}; pass a checkpoint folder or hub "
            "name, a transformers model with its processor, a vlcomp.Embedder, any object with both methods, or one "
            "with score_pairs(images, texts)"
        )


class Unencoded:
    """Inputs of a pair scorer, in the place of embeddings.

    Args:
        model (`Any`):
            The pair scorer.
        kind (`str`):
            `"image"` or `"text"`.
        values (`Sequence`):
            Image sources, or texts.
        names (`Sequence`):
            Name of each, for messages.
        warnings (`list[str]`):
            Receives warnings.
        progress (`bool`, defaults to `False`):
            Show a progress bar.
    """

    def __init__(
        self,
        model: Any,
        kind: str,
        values: Sequence[Any],
        names: Sequence[Any],
        warnings: list[str],
        *,
        progress: bool = False,
    ) -> None:
        self.model, self.kind, self.values, self.names = model, kind, values, names
        self.warnings, self.progress = warnings, progress
        # Scores that were asked for before: a task may need one pair for several of its numbers.
        self.known: dict[tuple[int, str], float] = {}

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: np.ndarray) -> Unencoded:
        rows = np.asarray(rows)
        if rows.ndim != 1:
            self.__array__()
        chosen, names = ([column[i] for i in rows.tolist()] for column in (self.values, self.names))
        part = Unencoded(self.model, self.kind, chosen, names, self.warnings, progress=self.progress)
        return part

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise ArgumentError(
            f"this task needs embeddings, and a {type(self.model).__name__} scores pairs of image and text; measure "
            "it on tasks that compare pairs, or pass a model with encode_images and encode_texts"
        )


def embed_images(
    model: Any, images: Sequence[Any], names: Sequence[Any], warnings: list[str], *, progress: bool = False
) -> Any:
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
        `np.ndarray` of shape [images, dimensions], float64, rows of unit length; [`Unencoded`] for a pair scorer.

    Raises:
        EvaluationError: if the output has the wrong shape or is not finite.
    """
    images = _changed(model, "change_images", images)
    if is_pair_scorer(model):
        return Unencoded(model, "image", images, names, warnings, progress=progress)
    return _checked(raw_images(model, images, progress=progress), names, "encode_images", "image", warnings)


def embed_texts(model: Any, texts: Sequence[str], warnings: list[str], *, progress: bool = False) -> Any:
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
        `np.ndarray` of shape [texts, dimensions], float64, rows of unit length; [`Unencoded`] for a pair scorer.

    Raises:
        EvaluationError: if the output has the wrong shape or is not finite.
    """
    texts = _changed(model, "change_texts", texts)
    if is_pair_scorer(model):
        return Unencoded(model, "text", texts, texts, warnings, progress=progress)
    return _checked(raw_texts(model, texts, progress=progress), texts, "encode_texts", "text", warnings)


def _changed(model: Any, hook: str, inputs: Sequence[Any]) -> list[Any]:
    """Diagnostics measure a model on changed inputs; see `vlcomp.evaluation.diagnostics`."""
    change = getattr(model, hook, None)
    return list(inputs) if change is None else change(list(inputs))


def raw_images(model: Any, images: Sequence[Any], *, progress: bool = False) -> np.ndarray:
    """What `encode_images` gives for image sources, with its shape checked.

    Args:
        model (`Any`):
            An encoder.
        images (`Sequence`):
            Image sources.
        progress (`bool`, defaults to `False`):
            Show a progress bar, where the model shows none itself.

    Returns:
        `np.ndarray`
    """
    if takes_sources(model):
        return _to_numpy(model.encode_images(images))
    return _in_chunks(lambda part: model.encode_images([load_image(x) for x in part]), images, "images", progress)


def raw_texts(model: Any, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
    """What `encode_texts` gives, with its shape checked; arguments as in [`raw_images`]."""
    if takes_sources(model):
        return _to_numpy(model.encode_texts(list(texts)))
    return _in_chunks(lambda part: model.encode_texts(list(part)), texts, "texts", progress)


def raw_pairs(model: Any, images: Sequence[Any], texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
    """What `score_pairs` gives for image sources and texts, pair by pair, a batch at a time.

    Args:
        model (`Any`):
            A pair scorer. It gets RGB PIL images, or `None` for each if its attribute `reads_images` is `False`.
        images (`Sequence` of shape [pairs]):
            Image sources; equal ones that follow each other are decoded once.
        texts (`Sequence[str]` of shape [pairs]):
            The texts.
        progress (`bool`, defaults to `False`):
            Show a progress bar.

    Returns:
        `np.ndarray` of shape [pairs], float64.

    Raises:
        EvaluationError: if the model gives another number of scores.
    """
    if takes_sources(model):
        return _to_numpy(model.score_pairs(images, texts)).reshape(-1)
    step = getattr(model, "batch_size", None) or _PAIRS
    reads = getattr(model, "reads_images", True)
    last: tuple[Any, Any] = (None, None)
    parts = []
    for start in tqdm(range(0, len(texts), step), desc="score pairs", disable=not progress, leave=False):
        pictures = []
        for source in images[start : start + step]:
            if reads and source is not last[0]:
                last = (source, load_image(source))
            pictures.append(last[1] if reads else None)
        batch = list(texts[start : start + step])
        scores = _to_numpy(model.score_pairs(pictures, batch))
        if scores.size != len(batch):
            raise EvaluationError(
                f"score_pairs of {type(model).__name__} returned shape {list(scores.shape)} for {len(batch)} pairs; "
                f"expected [{len(batch)}]"
            )
        parts.append(scores.reshape(-1))
    return np.concatenate(parts) if parts else np.zeros(0)


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


def pair_scores(image_embeds: Any, text_embeds: Any, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Scores of listed pairs: cosines, or what a pair scorer says.

    Each cosine is computed by itself, so that equal embeddings give equal scores to the last bit.

    Args:
        image_embeds (`np.ndarray` of shape [images, dimensions] or [`Unencoded`]):
            Unit vectors.
        text_embeds (`np.ndarray` of shape [texts, dimensions] or [`Unencoded`]):
            Unit vectors.
        images (`np.ndarray` of shape [pairs], int):
            Row of the image of each pair.
        texts (`np.ndarray` of shape [pairs], int):
            Row of the text of each pair.

    Returns:
        `np.ndarray` of shape [pairs], float64.

    Raises:
        EvaluationError: if image and text embeddings have different dimensions, or a pair scorer gives no number.
        ArgumentError: if a pair scorer is asked to compare texts with texts.
    """
    if isinstance(image_embeds, Unencoded):
        return _scored(image_embeds, text_embeds, np.asarray(images), np.asarray(texts))
    _check_dimensions(image_embeds, text_embeds)
    step = max(1, _BLOCK // max(1, image_embeds.shape[1]))
    parts = [
        (image_embeds[images[start : start + step]] * text_embeds[texts[start : start + step]]).sum(axis=1)
        for start in range(0, len(images), step)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _scored(images: Unencoded, texts: Unencoded, image_at: np.ndarray, text_at: np.ndarray) -> np.ndarray:
    """Scores of listed pairs by a pair scorer, each distinct pair once."""
    model = images.model
    if images.kind != "image":
        raise ArgumentError(
            f"this task compares texts with texts, and a {type(model).__name__} scores pairs of image and text; leave "
            "the task out, or pass a model with encode_images and encode_texts"
        )
    pairs = [(i, texts.values[t]) for i, t in zip(image_at.tolist(), text_at.tolist(), strict=True)]
    # In the order of images: each is decoded once.
    new = sorted(dict.fromkeys(pair for pair in pairs if pair not in images.known), key=lambda pair: pair[0])
    if new:
        found = raw_pairs(model, [images.values[i] for i, _ in new], [t for _, t in new], progress=images.progress)
        bad = ~np.isfinite(found)
        if bad.any():
            image, text = new[int(np.argmax(bad))]
            raise EvaluationError(
                f"the score of image {images.names[image]!r} with {text!r} is {found[np.argmax(bad)]}; nothing can be "
                "said about a model that gives no number"
            )
        if len(found) >= 8 and np.ptp(found) < _NARROW:
            message = (
                f"all scores of {len(found)} pairs lie within {np.ptp(found):.1e}, where differences up to 1e-6 count "
                "as ties; give log-probabilities or log-odds instead of probabilities"
            )
            logger.warning("%s", message)
            images.warnings.append(message)
        images.known.update(zip(new, found.tolist(), strict=True))
    return np.array([images.known[pair] for pair in pairs])


def _score_grid(queries: Unencoded, candidates: Unencoded) -> np.ndarray:
    """Scores of all pairs of queries and candidates."""
    images, texts = (queries, candidates) if queries.kind == "image" else (candidates, queries)
    grid = np.indices((len(images), len(texts))).reshape(2, -1)
    scores = _scored(images, texts, *grid).reshape(len(images), len(texts))
    return scores if images is queries else scores.T


def rank_embeddings(
    queries: Any,
    candidates: Any,
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
        queries (`np.ndarray` of shape [queries, dimensions] or [`Unencoded`]):
            Unit vectors.
        candidates (`np.ndarray` of shape [candidates, dimensions] or [`Unencoded`]):
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
    if isinstance(queries, Unencoded) and isinstance(candidates, Unencoded):
        grid = _score_grid(queries, candidates)
        return rank_candidates(grid, query_groups, candidate_groups, query_ids=query_ids)
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
