"""The one way from images and texts to L2-normalised embeddings, for every family of dual encoders."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from .checkpoints import (
    as_dtype,
    load_dual_encoder,
    non_finite_weights,
    require_dual_encoder,
    require_matching,
    require_processor,
    text_config_of,
)
from .data.images import load_image, process_images
from .data.tokenization import text_padding
from .errors import ArgumentError, CheckpointError, DataError, EvaluationError, check_count

_ORIENTATION = 0x0112  # EXIF tag


class Embedder:
    """Turns images and texts into L2-normalised embeddings with any dual encoder of transformers.

    Works for CLIP, SigLIP, SigLIP2 and every model whose `get_image_features` and `get_text_features` return an
    embedding or an output with `pooler_output`. Texts are padded as the family needs
    ([`~vlcomp.data.tokenization.text_padding`]), each distinct image and text is encoded once, and an embedding does
    not depend on what else is in the batch. The model is put into evaluation mode while it encodes and left as it was.

    Args:
        model (`PreTrainedModel`):
            The dual encoder.
        processor (`ProcessorMixin`):
            Has a `tokenizer` and an `image_processor`.
        batch_size (`int`, defaults to 64):
            Images or texts in one forward pass.
        device (`str` or `torch.device`, *optional*):
            Where to move the model; by default it stays where it is.
        dtype (`torch.dtype` or `str`, *optional*):
            Type to convert the weights to, for instance `"bfloat16"`; by default they stay as they are. Embeddings are
            float32 in any case, and normalised in float32.
        progress (`bool`, defaults to `False`):
            Whether to show progress bars.
        fit (`str`, *optional*):
            `"crop"`, `"squash"` or `"pad"`: how pictures are brought to the model's shape; `None` does as the
            processor is configured.
        num_workers (`int`, defaults to 0):
            Threads that read and resize the next batches of images while the model works on the present one.
        name (`str`, *optional*):
            What to call the model in reports; by default where it was loaded from.

    Raises:
        ArgumentError: if `batch_size`, `num_workers` or `fit` is not allowed.
        CheckpointError: if the model is not a dual encoder, or the processor lacks a part or belongs to another model.

    Example:
        >>> from vlcomp import Embedder
        >>> from vlcomp.testing import tiny_clip, tiny_images, tiny_processor
        >>> embedder = Embedder(tiny_clip(), tiny_processor())
        >>> images = embedder.encode_images(tiny_images(3))
        >>> texts = embedder.encode_texts(["a red cup", "a blue star"])
        >>> embedder.similarity(images, texts).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        *,
        batch_size: int = 64,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
        progress: bool = False,
        fit: str | None = None,
        num_workers: int = 0,
        name: str | None = None,
    ) -> None:
        check_count("batch_size", batch_size)
        check_count("num_workers", num_workers, 0, " (no threads) or more")
        if fit not in (None, "crop", "squash", "pad"):
            raise ArgumentError(f"fit={fit!r} is not one of 'crop', 'squash', 'pad' or None (as the processor is set)")
        self.name = name or getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__
        require_dual_encoder(model, self.name)
        if processor is None:
            raise ArgumentError(
                "processor is None; pass AutoProcessor.from_pretrained(...), or load both with "
                "vlcomp.load_embedder(folder)"
            )
        require_processor(processor, self.name)
        require_matching(model, processor, self.name)
        if device is not None or dtype is not None:
            model = model.to(**_move_kwargs(device, dtype))
        self.model = model
        self.processor = processor
        self.batch_size = batch_size
        self.progress = progress
        self.fit = fit
        self.num_workers = num_workers
        self.text_kwargs = text_padding(processor, getattr(model, "config", None))
        self._vocab_size = text_config_of(model).get("vocab_size")
        # Whether scores of labels are independent (SigLIP) or a softmax over the labels (CLIP); the same rule as in
        # the stock zero-shot pipeline, so that both always agree.
        self.uses_sigmoid = "siglip" in str(getattr(getattr(model, "config", None), "model_type", ""))

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self._first_weight().device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self._first_weight().dtype

    @property
    def logit_scale(self) -> float:
        """Factor from cosine to logit: the exponential of the model's parameter, 1.0 if it has none."""
        scale = getattr(self.model, "logit_scale", None)
        return 1.0 if scale is None else float(torch.as_tensor(scale).detach().float().exp())

    @property
    def logit_bias(self) -> float:
        """What is added to the scaled cosine; 0.0 unless the model is a SigLIP."""
        bias = getattr(self.model, "logit_bias", None) if self.uses_sigmoid else None
        return 0.0 if bias is None else float(torch.as_tensor(bias).detach().float())

    def encode_images(self, images: Any) -> torch.Tensor:
        """Embed images.

        Args:
            images (`Iterable` or one image):
                Each one a path, URL, `bytes`, undecoded `datasets.Image` dictionary, PIL image or array. Equal ones
                are encoded once. A generator or a `datasets` column is read batch by batch.

        Returns:
            `torch.Tensor`: [N, D] float32 on the CPU, L2-normalised, in the order of `images`.

        Raises:
            DataError: if an image cannot be read; names it.
            EvaluationError: if an embedding is not finite; names the image.
        """
        if isinstance(images, (str, os.PathLike, bytes, bytearray, Mapping, Image.Image)) or (
            isinstance(images, np.ndarray) and images.ndim <= 3
        ):
            images = [images]
        if not isinstance(images, Iterable):
            raise ArgumentError(f"images={images!r} is neither an image nor a list of images")
        total = len(images) if hasattr(images, "__len__") else None
        row_of: dict[Any, int] = {}
        rows: list[int] = []

        def distinct() -> Iterator[list[tuple[int, Any]]]:
            batch = []
            for position, source in enumerate(images):
                key = None if total == 1 else _image_key(source)
                if key is None:
                    key = position  # nothing to compare with; an unreadable image is reported when it is loaded
                row = row_of.get(key)
                if row is None:
                    row = row_of[key] = len(row_of)
                    batch.append((position, source))
                rows.append(row)
                if len(batch) == self.batch_size:
                    yield batch
                    batch = []
            if batch:
                yield batch

        parts: list[torch.Tensor] = []
        with self._encoding(), self._bar("images", total) as bar:
            for batch, inputs in _prefetched(self._prepare_images, distinct(), self.num_workers):
                embeds = self._features(self.model.get_image_features, inputs)
                parts.append(self._normalised(embeds, lambda i, batch=batch: _describe_image(*batch[i])))
                bar.update(batch[-1][0] + 1 - bar.n)
            bar.update(len(rows) - bar.n)
        if not parts:
            return torch.empty(0, self._dimension())
        embeddings = torch.cat(parts)
        return embeddings if len(rows) == len(embeddings) else embeddings[torch.tensor(rows)]

    def encode_texts(self, texts: str | Iterable[str]) -> torch.Tensor:
        """Embed texts.

        Args:
            texts (`str` or `Iterable[str]`):
                Equal ones are encoded once; those longer than the text tower are cut.

        Returns:
            `torch.Tensor`: [N, D] float32 on the CPU, L2-normalised, in the order of `texts`.

        Raises:
            ArgumentError: if one of `texts` is not a string.
            CheckpointError: if the tokenizer gives tokens that the model does not have.
            DataError: if a text is not valid Unicode, or holds the token that stands for an image.
            EvaluationError: if an embedding is not finite; names the text.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        first: dict[str, int] = {}
        for position, text in enumerate(texts):
            if not isinstance(text, str):
                raise ArgumentError(f"texts[{position}] is {text!r} of type {type(text).__name__}, not a string")
            first.setdefault(text, position)
        if not first:
            return torch.empty(0, self._dimension())
        distinct = list(first)
        if self.text_kwargs["padding"] is True:
            # Texts of like length together: less padding to compute.
            distinct.sort(key=len)
        parts: list[torch.Tensor] = []
        with self._encoding(), self._bar("texts", len(distinct)) as bar:
            for start in range(0, len(distinct), self.batch_size):
                batch = distinct[start : start + self.batch_size]
                embeds = self._features(self.model.get_text_features, self._prepare_texts(batch))
                parts.append(
                    self._normalised(embeds, lambda i, batch=batch: f"texts[{first[batch[i]]}] ({batch[i]!r})")
                )
                bar.update(len(batch))
        embeddings = torch.cat(parts)
        if distinct == texts:
            return embeddings
        row_of = {text: row for row, text in enumerate(distinct)}
        return embeddings[torch.tensor([row_of[text] for text in texts])]

    def similarity(self, image_embeds: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
        """Compute the cosine of every image with every text.

        Args:
            image_embeds (`torch.Tensor`):
                [N, D], L2-normalised.
            text_embeds (`torch.Tensor`):
                [M, D], L2-normalised.

        Returns:
            `torch.Tensor`: [N, M] float32.

        Raises:
            ArgumentError: if the sizes of the embeddings differ.
        """
        if image_embeds.shape[-1] != text_embeds.shape[-1]:
            raise ArgumentError(
                f"image_embeds are of size {image_embeds.shape[-1]} but text_embeds of size {text_embeds.shape[-1]}"
            )
        return image_embeds.float() @ text_embeds.float().T

    def logits(self, image_embeds: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
        """Compute what the model's forward calls `logits_per_image`: the scaled cosine, plus the bias of a SigLIP.

        Args:
            image_embeds (`torch.Tensor`):
                [N, D], L2-normalised.
            text_embeds (`torch.Tensor`):
                [M, D], L2-normalised.

        Returns:
            `torch.Tensor`: [N, M] float32.
        """
        return self.similarity(image_embeds, text_embeds) * self.logit_scale + self.logit_bias

    def _prepare_images(self, batch: Sequence[tuple[int, Any]]) -> dict[str, torch.Tensor]:
        pictures = [load_image(source, name=_image_name(position, source)) for position, source in batch]
        return process_images(self.processor.image_processor, pictures, fit=self.fit)

    def _prepare_texts(self, batch: list[str]) -> dict[str, torch.Tensor]:
        try:
            inputs = dict(self.processor.tokenizer(batch, return_tensors="pt", **self.text_kwargs))
        except (TypeError, UnicodeError):
            for text in batch:
                try:
                    text.encode()
                except UnicodeError as error:
                    raise DataError(f"the text {text!r} is not valid Unicode ({error.reason}); repair it") from error
            raise
        highest = int(inputs["input_ids"].max())
        if self._vocab_size and highest >= self._vocab_size:
            raise CheckpointError(
                f"{self.name}: the tokenizer gives token {highest} but the model has only {self._vocab_size}; "
                "the processor belongs to another model"
            )
        image_token = getattr(self.model.config, "image_token_id", None)
        if image_token is not None and bool((inputs["input_ids"] == image_token).any()):
            row = int((inputs["input_ids"] == image_token).any(dim=1).nonzero()[0])
            raise DataError(f"the text {batch[row]!r} holds the token of an image; take it out")
        return inputs

    def _features(self, method: Callable[..., Any], inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        device, dtype = self.device, self.dtype
        moved = {
            key: value.to(device=device, dtype=dtype if value.is_floating_point() else None)
            for key, value in inputs.items()
        }
        output = method(**moved)
        embeds = output if isinstance(output, torch.Tensor) else getattr(output, "pooler_output", None)
        if embeds is None or embeds.ndim != 2:
            got = type(output).__name__ if embeds is None else f"a tensor of shape {list(embeds.shape)}"
            raise CheckpointError(
                f"{self.name}: {type(self.model).__name__}.{method.__name__} gives {got}; expected an embedding "
                "[batch, size] or an output with such a `pooler_output`"
            )
        return embeds.float()

    def _normalised(self, embeds: torch.Tensor, describe: Callable[[int], str]) -> torch.Tensor:
        norms = torch.linalg.vector_norm(embeds, dim=1, keepdim=True)
        if not norms.isfinite().all():  # so is the norm of whatever holds NaN or infinity
            row = int((~norms.isfinite()).flatten().nonzero()[0])
            bad = non_finite_weights(self.model)
            cause = f"its weights are not finite in {bad}" if bad else f"its weights are finite, of type {self.dtype}"
            raise EvaluationError(f"{self.name}: the embedding of {describe(row)} is not finite (NaN or inf); {cause}")
        return (embeds / norms.clamp_min(1e-12)).cpu()

    def _first_weight(self) -> torch.Tensor:
        # Quantised weights are integers; what the model computes with is the type of its floating ones.
        weights = (w for m in walk_modules(self.model) for w in m._parameters.values() if w is not None)
        return next(weight for weight in weights if weight.is_floating_point())

    def _bar(self, what: str, total: int | None) -> Any:
        if not self.progress:
            return _NO_BAR
        return tqdm(total=total, desc=f"Encoding {what}", unit=what[:-1], leave=False)

    def _dimension(self) -> int:
        return self.encode_texts(["a"]).shape[1]

    @contextmanager
    def _encoding(self) -> Iterator[None]:
        # Mode by mode, because a trainer may keep single modules (a frozen tower) in evaluation mode.
        training = [module for module in walk_modules(self.model) if module.training]
        try:
            for module in training:
                module.training = False
            # The faster inference mode marks every tensor made in it, also what a model keeps for later calls (masks,
            # rotary tables), as unfit for training; so a model in training gets plain no_grad.
            with torch.no_grad() if training else torch.inference_mode():
                yield
        finally:
            for module in training:
                module.training = True


def load_embedder(
    model: str | Path,
    *,
    processor: str | Path | Any | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    dtype: torch.dtype | str | None = None,
    **kwargs: Any,
) -> Embedder:
    """Load a dual encoder and its processor from a folder or the Hub.

    Args:
        model (`str` or `Path`):
            Checkpoint folder or Hub repository.
        processor (`str`, `Path` or `ProcessorMixin`, *optional*):
            Where the processor is, if not with the model, or the processor itself.
        revision (`str`, *optional*):
            Branch, tag or commit on the Hub.
        trust_remote_code (`bool`, defaults to `False`):
            Whether to run model code from the repository.
        dtype (`torch.dtype` or `str`, *optional*):
            Type of the weights; by default as they were saved.
        **kwargs:
            Passed to [`Embedder`] (`batch_size`, `device`, `progress`, `fit`, `num_workers`, `name`).

    Returns:
        [`Embedder`]

    Raises:
        CheckpointError: if the folder or repository lacks model or processor files, the model is not a dual encoder,
            or weights are missing or not finite. The message says what is missing and how to add it.

    Example:
        >>> import tempfile
        >>> from vlcomp import load_embedder
        >>> from vlcomp.testing import save_tiny_checkpoint
        >>> embedder = load_embedder(save_tiny_checkpoint(tempfile.mkdtemp()), batch_size=16)
        >>> embedder.encode_texts("a red cup").shape
        torch.Size([1, 32])
    """
    loaded, processor = load_dual_encoder(
        model,
        processor=processor,
        revision=revision,
        trust_remote_code=trust_remote_code,
        dtype=dtype,
        progress=kwargs.get("progress", False),
    )
    return Embedder(loaded, processor, **{"name": os.fspath(model), **kwargs})


class _NoBar(nullcontext):
    """Stands for a progress bar that is not shown; a disabled tqdm costs a tenth of a millisecond to make."""

    n = 0

    def __enter__(self) -> _NoBar:
        return self

    def update(self, count: int) -> None:
        """Do nothing."""


_NO_BAR = _NoBar()


def walk_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Yield a model and all modules in it, a shared one each time it occurs.

    `nn.Module.modules` builds the name of each; for small models that costs as much as the forward pass.

    Args:
        model (`nn.Module`):
            The model.

    Returns:
        `Iterator[nn.Module]`
    """
    stack = [model]
    while stack:
        module = stack.pop()
        yield module
        stack.extend(child for child in module._modules.values() if child is not None)


def _move_kwargs(device: str | torch.device | None, dtype: torch.dtype | str | None) -> dict[str, Any]:
    kwargs: dict[str, Any] = {}
    if device is not None:
        try:
            kwargs["device"] = torch.device(device)
        except RuntimeError as error:
            raise ArgumentError(f"device={device!r} is not a device of torch; try 'cpu' or 'cuda:0'") from error
        if kwargs["device"].type == "cuda" and not torch.cuda.is_available():
            raise ArgumentError(f"device={str(device)!r}, but torch sees no CUDA device; leave it out or pass 'cpu'")
    if dtype is not None and dtype != "auto":
        kwargs["dtype"] = as_dtype(dtype)
    return kwargs


def _image_name(position: int, source: Any) -> str | None:
    """What to call an image that has no path."""
    if isinstance(source, (str, os.PathLike)):
        return None
    own = source.get("path") if isinstance(source, Mapping) else getattr(source, "filename", None)
    return str(own) if own else f"images[{position}]"


def _describe_image(position: int, source: Any) -> str:
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else _image_name(position, source)
    return name if name == f"images[{position}]" else f"images[{position}] ({name})"


def _digest(data: Any) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _image_key(source: Any) -> Any:
    """Something equal for images with equal content, cheap to compute; None where there is nothing to compare."""
    if isinstance(source, (str, os.PathLike)):
        return "path", os.fspath(source)
    if isinstance(source, Mapping):
        return _image_key(source.get("path") if source.get("bytes") is None else source["bytes"])
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "bytes", _digest(source)
    if isinstance(source, np.ndarray) and not source.dtype.hasobject:
        return "array", source.shape, source.dtype.str, _digest(np.ascontiguousarray(source))
    if isinstance(source, Image.Image):
        try:
            pixels = _digest(source.tobytes())
            shown = [source.info.get(key) for key in ("transparency", "exif", "Raw profile type exif", "xmp")]
            shown.append(source.getpalette() if source.mode in ("P", "PA") else None)
            shown.append(source.getexif().get(_ORIENTATION) if hasattr(source, "tag_v2") else None)  # of a TIFF
        except Exception:  # a damaged file: loading it again raises the error that names it
            return None
        return "picture", source.mode, source.size, pixels, repr(shown)
    return None


def content_key(source: Any) -> bytes | None:
    """Something equal for images of equal content, wherever they lie.

    Args:
        source (`Any`):
            Anything that [`Embedder.encode_images`] reads.

    Returns:
        `bytes` or `None`: 16 bytes; `None` for an image that cannot be read, or that lies on the network, whose
        content may change.
    """
    if isinstance(source, Mapping):
        try:
            content = source.get("bytes")
        except DataError:  # loading it again raises the error that names it
            return None
        return content_key(source.get("path") if content is None else content)
    if isinstance(source, (str, os.PathLike)):
        if os.fspath(source).startswith(("http://", "https://")):
            return None
        try:
            return _digest(Path(source).read_bytes())
        except OSError:
            return None
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _digest(source)
    key = _image_key(source)
    return None if key is None else _digest(repr(key).encode())


def _prefetched(
    prepare: Callable[[Any], Any], batches: Iterator[list[Any]], num_workers: int
) -> Iterator[tuple[list[Any], Any]]:
    """Yield each batch with `prepare(batch)`, in order, a few batches ahead in threads if there are workers."""
    if not num_workers:
        for batch in batches:
            yield batch, prepare(batch)
        return
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="vlcomp-images")
    waiting: deque[tuple[list[Any], Future]] = deque()
    try:
        for batch in batches:
            waiting.append((batch, pool.submit(prepare, batch)))
            if len(waiting) > num_workers:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
