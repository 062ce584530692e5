"""Zero-shot image classification that encodes each label once."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from ..embeddings import Embedder, load_embedder, walk_modules
from ..errors import ArgumentError, check_count

DEFAULT_TEMPLATE = "This is a photo of {}."
_CACHED_LABEL_SETS = 16


class ZeroShotPipeline:
    """Classify images into labels that are given as text, as `pipeline("zero-shot-image-classification")` does.

    Results have the form of the stock pipeline and equal scores. The differences: labels are encoded once instead of
    once per image and are remembered, images are batched, several prompt templates can be averaged, and labels longer
    than the text tower are cut instead of raising.

    Args:
        model (`str`, `Path`, `PreTrainedModel` or [`~vlcomp.Embedder`]):
            A checkpoint folder, Hub repository, loaded model, or an embedder.
        processor (`ProcessorMixin`, *optional*):
            Needed with a loaded model only.
        device (`str` or `torch.device`, *optional*):
            Where to move the model; by default it stays where it is.
        dtype (`torch.dtype` or `str`, *optional*):
            Type of the weights; by default as they were saved.
        batch_size (`int`, defaults to 64):
            Images or prompts in one forward pass.
        fit (`str`, *optional*):
            `"crop"`, `"squash"` or `"pad"`; `None` does as the processor is configured.

    Raises:
        ArgumentError: if `model` and the other arguments do not go together.
        CheckpointError: if the checkpoint cannot be used.

    Example:
        >>> import tempfile
        >>> from vlcomp import ZeroShotPipeline
        >>> from vlcomp.testing import save_tiny_checkpoint, tiny_images
        >>> classify = ZeroShotPipeline(save_tiny_checkpoint(tempfile.mkdtemp()))
        >>> results = classify(tiny_images(2), candidate_labels=["a cup", "a star", "a dog"], top_k=1)
        >>> [sorted(result[0]) for result in results]
        [['label', 'score'], ['label', 'score']]
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel | Embedder,
        processor: Any = None,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
        batch_size: int | None = None,
        fit: str | None = None,
    ) -> None:
        options = {"device": device, "dtype": dtype, "batch_size": batch_size, "fit": fit}
        given = {key: value for key, value in options.items() if value is not None}
        if isinstance(model, Embedder):
            if given or processor is not None:
                names = ", ".join([*(["processor"] if processor is not None else []), *given])
                raise ArgumentError(f"model is an Embedder, which has its own {names}; set them there")
            self.embedder = model
        elif isinstance(model, (str, os.PathLike)):
            self.embedder = load_embedder(model, processor=processor, **given)
        elif processor is None:
            raise ArgumentError(
                f"processor is missing: a loaded {type(model).__name__} needs one; pass "
                "AutoProcessor.from_pretrained(...) or give the folder of the checkpoint as model"
            )
        else:
            self.embedder = Embedder(model, processor, **given)
        self._labels: OrderedDict[Any, torch.Tensor] = OrderedDict()

    def __call__(
        self,
        images: Any,
        candidate_labels: Sequence[str],
        *,
        hypothesis_template: str | Sequence[str] = DEFAULT_TEMPLATE,
        top_k: int | None = None,
        batch_size: int | None = None,
    ) -> list[dict[str, Any]] | list[list[dict[str, Any]]]:
        """Score `candidate_labels` for each image.

        Args:
            images (one image or `Iterable`):
                Each one a path, URL, bytes, PIL image or array.
            candidate_labels (`Sequence[str]`):
                The labels, without repetitions.
            hypothesis_template (`str` or `Sequence[str]`, defaults to `"This is a photo of {}."`):
                Prompt in which `{}` is replaced by the label. With several, a label is represented by the normalised
                mean of its prompts' embeddings. Pass `"{}"` if the labels are prompts already.
            top_k (`int`, *optional*):
                How many labels to return for each image; by default all.
            batch_size (`int`, *optional*):
                Images or prompts in one forward pass; by default that of the pipeline.

        Returns:
            `list[dict]` for one image, `list[list[dict]]` for several: `{"score": float, "label": str}`, highest score
            first. Scores are a softmax over the labels, or independent probabilities for SigLIP.

        Raises:
            ArgumentError: if a label or template cannot be used.
            DataError: if an image cannot be read.
        """
        labels = checked_labels(candidate_labels)
        templates = checked_templates(hypothesis_template)
        if top_k is not None:
            check_count("top_k", top_k, note=", or None for all labels")
        if batch_size is not None:
            check_count("batch_size", batch_size)
        single = _is_single(images)
        embedder = self.embedder
        usual = embedder.batch_size
        embedder.batch_size = batch_size or usual
        try:
            text_embeds = self._encode_labels(labels, templates)
            image_embeds = embedder.encode_images([images] if single else images)
        finally:
            embedder.batch_size = usual
        logits = embedder.logits(image_embeds, text_embeds)
        scores = logits.sigmoid() if embedder.uses_sigmoid else logits.softmax(dim=-1)
        # A stable sort, so that labels of equal score keep their order as in the stock pipeline.
        scores, order = scores.sort(dim=-1, descending=True, stable=True)
        results = [
            [{"score": score, "label": labels[index]} for score, index in zip(*row, strict=True)]
            for row in zip(scores[:, :top_k].tolist(), order[:, :top_k].tolist(), strict=True)
        ]
        return results[0] if single else results

    def clear_cache(self) -> None:
        """Forget the embeddings of labels (they are also dropped when an optimiser or a loader changes weights)."""
        self._labels.clear()

    def _encode_labels(self, labels: tuple[str, ...], templates: tuple[str, ...]) -> torch.Tensor:
        key = (labels, templates, self._state())
        known = self._labels.get(key)
        if known is not None:
            self._labels.move_to_end(key)
            return known
        prompts = [template.replace("{}", label) for template in templates for label in labels]
        embeds = self.embedder.encode_texts(prompts)
        if len(templates) > 1:
            mean = embeds.reshape(len(templates), len(labels), -1).mean(dim=0)
            embeds = torch.nn.functional.normalize(mean, dim=-1)
        self._labels[key] = embeds
        while len(self._labels) > _CACHED_LABEL_SETS:
            self._labels.popitem(last=False)
        return embeds

    def _state(self) -> tuple[Any, ...]:
        """Differs once the weights differ: torch counts the in-place changes of a tensor."""
        model = self.embedder.model
        weights = [w for m in walk_modules(model) for w in m._parameters.values() if w is not None]
        return id(model), sum(weight._version for weight in weights), weights[0].dtype, weights[0].data_ptr()


def _is_single(images: Any) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim <= 3
    return isinstance(images, (str, os.PathLike, bytes, bytearray, Mapping, Image.Image))


def checked_labels(labels: Any, name: str = "candidate_labels") -> tuple[str, ...]:
    """The labels, if they can be used.

    Args:
        labels (`Sequence[str]`):
            What the user gave.
        name (`str`, defaults to `"candidate_labels"`):
            What to call them in an error.

    Returns:
        `tuple[str, ...]`

    Raises:
        ArgumentError: if they are no list, or one is empty, repeated or not a string.
    """
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise ArgumentError(f"{name}={labels!r} must be a list of strings, such as [{str(labels)!r}]")
    labels = tuple(labels)
    if not labels:
        raise ArgumentError(f"{name} is empty; pass at least one label")
    seen: set[str] = set()
    for position, label in enumerate(labels):
        if not isinstance(label, str):
            raise ArgumentError(f"{name}[{position}]={label!r} is not a string")
        if not label.strip():
            raise ArgumentError(f"{name}[{position}]={label!r} is empty; remove it")
        if label in seen:
            raise ArgumentError(f"{name}[{position}]={label!r} is there twice; remove one")
        seen.add(label)
    return labels


def checked_templates(templates: Any, name: str = "hypothesis_template") -> tuple[str, ...]:
    """The templates, if they can be used.

    Args:
        templates (`str` or `Sequence[str]`):
            What the user gave.
        name (`str`, defaults to `"hypothesis_template"`):
            What to call them in an error.

    Returns:
        `tuple[str, ...]`

    Raises:
        ArgumentError: if there is none, or one has no place for the label.
    """
    templates = (templates,) if isinstance(templates, str) else tuple(templates)
    if not templates:
        raise ArgumentError(f'{name} is empty; pass at least one, such as "a photo of {{}}."')
    for template in templates:
        if not isinstance(template, str) or "{}" not in template:
            raise ArgumentError(
                f'{name}={template!r} has no "{{}}" to put the label in; write for instance "a photo of {{}}."'
            )
    return templates
