"""What LVLMs that score pairs of image and caption share: reading, checking, loading."""

from __future__ import annotations

import copy
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from tqdm.auto import tqdm
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging

from ..checkpoints import as_dtype, load_dual_encoder, no_token_notes, non_finite_weights
from ..data.images import load_image, process_images
from ..embeddings import walk_modules
from ..errors import ArgumentError, CheckpointError, DataError, check_count
from ..models.discriminative_lvlm import DiscriminativeLVLMModel, DiscriminativeLVLMProcessor
from ..models.discriminative_lvlm.base_discriminative_lvlm import image_arguments, load_lvlm, require_causal
from ..models.discriminative_lvlm.configuration_discriminative_lvlm import DiscriminativeLVLMConfig
from ..models.discriminative_lvlm.readings_discriminative_lvlm import require_template
from ..models.shared_prefix import (
    Prefixes,
    attention_that_cannot_be_shared,
    read_prefixes,
    reads_one_by_one,
)

# Stands for a caption while the chat template is read; must not occur in one.
EXAMPLE = "a photo of seven umbrellas"


class LVLMScorer(ABC):
    """Scores an image and a caption with a generative LVLM: the base of [`YesScorer`] and [`LikelihoodScorer`].

    Works with every LVLM of transformers that reads an image as tokens of a causal language model, and with a
    [`DiscriminativeLVLMModel`], whose adapters are switched off: what scores is the LVLM as it was. What stands before
    a caption, the image above all, is read once for all captions of the image, and its keys and values are shared; the
    scores are those of reading each pair by itself.

    Args:
        model (`PreTrainedModel`):
            The LVLM.
        processor (`ProcessorMixin`):
            Has a `tokenizer`, an `image_processor` and a chat template.
        batch_size (`int`, defaults to 64):
            Pairs in one forward pass. The keys and values of the image are held once for each of them.
        device (`str` or `torch.device`, *optional*):
            Where to move the model; by default it stays where it is.
        dtype (`torch.dtype` or `str`, *optional*):
            Type to convert the weights to; by default they stay as they are.
        fit (`str`, *optional*):
            `"crop"`, `"squash"` or `"pad"`: how pictures are brought to the model's shape; `None` does as the
            processor is configured.
        num_workers (`int`, defaults to 0):
            Threads that read images.
        progress (`bool`, defaults to `False`):
            Whether to show progress bars.
        name (`str`, *optional*):
            What to call the model in reports; by default where it was loaded from.

    Raises:
        ArgumentError: for a setting out of range.
        CheckpointError: if the model is no such LVLM, or the processor lacks a part.
    """

    takes_sources = True
    # What `scorer=` of an evaluation calls it, and the argument that says what the model is asked.
    kind: ClassVar[str]
    asks: ClassVar[str]

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        *,
        batch_size: int = 64,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
        fit: str | None = None,
        num_workers: int = 0,
        progress: bool = False,
        name: str | None = None,
    ) -> None:
        check_count("batch_size", batch_size)
        check_count("num_workers", num_workers, 0, " (no threads) or more")
        if fit not in (None, "crop", "squash", "pad"):
            raise ArgumentError(f"fit={fit!r} is not one of 'crop', 'squash', 'pad' or None (as the processor is set)")
        self.name = name or getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__
        _require_lvlm(model, self.name)
        self.model, self.processor = model, processor
        self.template = _template_of(processor, self.name)
        self.tokenizer = processor.tokenizer
        if device is not None:
            _require_device(device)
            model.to(device)
        if dtype is not None and dtype != "auto":
            model.to(as_dtype(dtype))
        self.batch_size, self.fit = batch_size, fit
        self.num_workers, self.progress = num_workers, progress
        self._image_token = DiscriminativeLVLMConfig(base_config=copy.deepcopy(self.lvlm.config)).image_token_id
        self._before, self._behind = self._around()
        self._start = self._start_tokens()

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        processor: Any = None,
        revision: str | None = None,
        dtype: torch.dtype | str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load an LVLM, or a discriminative LVLM, and its processor from a folder or the Hub.

        Args:
            model (`str` or `Path`):
                Folder or Hub repository.
            processor (`str`, `Path` or `ProcessorMixin`, *optional*):
                Where the processor is, if not with the model, or the processor itself.
            revision (`str`, *optional*):
                Branch, tag or commit on the Hub.
            dtype (`torch.dtype` or `str`, *optional*):
                Type of the weights; by default as they were saved.
            **kwargs:
                Settings of the scorer.

        Returns:
            The scorer.

        Raises:
            ArgumentError: for what cannot be asked.
            CheckpointError: if it is no LVLM, or tokenizer, image processor or chat template are missing.

        Example:
            >>> import tempfile
            >>> from vlcomp.scorers import LikelihoodScorer
            >>> from vlcomp.testing import save_tiny_lvlm
            >>> LikelihoodScorer.from_pretrained(save_tiny_lvlm(tempfile.mkdtemp())).output
            'sum'
        """
        cls.check(kwargs.get(cls.asks))
        progress = kwargs.get("progress", False)
        loaded, processor = _load(os.fspath(model), processor, revision, dtype, progress)
        return cls(loaded, processor, **{"name": os.fspath(model), **kwargs})

    # -- what a scorer has of its own

    @staticmethod
    @abstractmethod
    def check(asked: str | None) -> None:
        """Refuse what cannot be asked; `None` stands for the default."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the scores depend on beside the weights, for a results file."""

    @abstractmethod
    def _around(self) -> tuple[str, str]:
        """What the chat puts before and behind a caption, as text."""

    @abstractmethod
    def _shared(self, chats: Sequence[Sequence[int]]) -> int:
        """How many of the first tokens of one image's chats are read once for all of them."""

    @abstractmethod
    def _score(self, prefixes: Prefixes, owners: list[int], rests: list[list[int]]) -> torch.Tensor:
        """Score of each rest of a chat, which continues the prefix of its owner: [pairs] float32 on the CPU."""

    # -- what an evaluation asks for

    @property
    def lvlm(self) -> PreTrainedModel:
        """The LVLM that is asked."""
        return self.model.lvlm if isinstance(self.model, DiscriminativeLVLMModel) else self.model

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.lvlm.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.lvlm.dtype

    def fingerprint(self) -> str:
        """Something that differs for scorers that give different scores.

        Returns:
            `str`
        """
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(self.lvlm.state_dict().items()):
            if ".lora_" in name or not isinstance(tensor, torch.Tensor):
                continue  # switched off
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        images = self.processor.image_processor
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        texts = backend.to_str() if backend is not None else sorted(self.tokenizer.get_vocab().items())
        about = [
            type(images).__name__,
            images.to_json_string(),
            texts,
            self.template,
            sorted(self.settings.items()),
        ]
        digest.update(repr([*about, self.fit, self.device.type]).encode(errors="surrogatepass"))
        return digest.hexdigest()

    def score_pairs(self, images: Sequence[Any], texts: Sequence[str]) -> torch.Tensor:
        """Score pairs of an image and a caption.

        Args:
            images (`Sequence` of shape [pairs]):
                Image of each pair: a path, URL, `bytes`, undecoded `datasets.Image` dictionary, PIL image or array.
                Equal paths, and the same object several times, are one image, read once.
            texts (`Sequence[str]` of shape [pairs]):
                Caption of each pair.

        Returns:
            `torch.Tensor`: [pairs] float32 on the CPU, in their order.

        Raises:
            ArgumentError: if there are not as many images as texts, or a text is no string.
            DataError: if an image cannot be read, or a text holds the token of an image.
        """
        images, texts = list(images), list(texts)
        if len(images) != len(texts):
            raise ArgumentError(f"images and texts are pairs, but there are {len(images)} and {len(texts)}")
        for position, text in enumerate(texts):
            if not isinstance(text, str):
                raise ArgumentError(f"texts[{position}] is {text!r} of type {type(text).__name__}, not a string")
        scores = torch.zeros(len(texts))
        groups: dict[Any, list[int]] = {}
        for position, source in enumerate(images):
            key = os.fspath(source) if isinstance(source, (str, os.PathLike)) else id(source)
            groups.setdefault(key, []).append(position)
        tokens = self._tokens(texts)
        with self._asking(), tqdm(total=len(texts), desc="ask", disable=not self.progress, leave=False) as bar:
            for part in self._parts(list(groups.values())):
                found = self._score_part([images[rows[0]] for rows in part], [[tokens[i] for i in r] for r in part])
                scores[torch.tensor([i for rows in part for i in rows])] = found
                bar.update(len(found))
        return scores

    # -- texts

    def _placed(self, messages: list[dict[str, Any]], what: str, **options: Any) -> tuple[str, str]:
        """What the chat template puts before and behind the example of a caption in `messages`."""
        text = self.tokenizer.apply_chat_template(messages, chat_template=self.template, tokenize=False, **options)
        token = self.tokenizer.convert_ids_to_tokens(self._image_token)
        if (
            token is None
            or text.count(token) != 1
            or text.count(EXAMPLE) != 1
            or text.index(token) > text.index(EXAMPLE)
        ):
            raise CheckpointError(
                f"{self.name}: the chat template does not place {token!r} once, and the {what} once behind it; it "
                f"gives {text!r}. Pass a processor with the chat template of the LVLM"
            )
        before, behind = text.split(EXAMPLE)
        return before, behind

    def _start_tokens(self) -> list[int]:
        """What the tokenizer puts before every text, unless the chat begins with it."""
        if self.tokenizer.bos_token and self._before.startswith(self.tokenizer.bos_token):
            return []
        plain = self.tokenizer(EXAMPLE, add_special_tokens=False)["input_ids"]
        full = self.tokenizer(EXAMPLE)["input_ids"]
        return next((full[:i] for i in range(len(full)) if full[i : i + len(plain)] == plain), [])

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The whole chat of each caption; the image is one token."""
        if not texts:
            return []
        chats = [f"{self._before}{text}{self._behind}" for text in texts]
        try:
            encoded = self.tokenizer(chats, add_special_tokens=False)["input_ids"]
        except (TypeError, UnicodeError) as error:
            bad = next((text for text in texts if text.encode(errors="replace").decode() != text), texts[0])
            raise DataError(f"the text {bad!r} is not valid Unicode; repair it") from error
        image, size = self._image_token, self.lvlm.get_input_embeddings().num_embeddings
        for text, ids in zip(texts, encoded, strict=True):
            if ids.count(image) != 1:
                raise DataError(f"the text {text!r} holds the token of an image; take it out")
            if max(ids) >= size:
                raise CheckpointError(
                    f"{self.name}: the tokenizer gives token {max(ids)} but the model has only {size}; the processor "
                    "belongs to another model"
                )
        return [[*self._start, *ids] for ids in encoded]

    # -- passes

    def _parts(self, groups: list[list[int]]) -> Iterator[list[list[int]]]:
        """Images whose pairs fit into one pass; one that has more is a part of its own."""
        part: list[list[int]] = []
        alone = reads_one_by_one(self.lvlm)
        for rows in groups:
            if part and (alone or sum(map(len, part)) + len(rows) > self.batch_size):
                yield part
                part = []
            part.append(rows)
        if part:
            yield part

    def _score_part(self, sources: list[Any], chats: list[list[list[int]]]) -> torch.Tensor:
        shared = [self._shared(rows) for rows in chats]
        prefixes = self._read_images(sources, [rows[0][:n] for rows, n in zip(chats, shared, strict=True)])
        owners = [owner for owner, rows in enumerate(chats) for _ in rows]
        rests = [ids[n:] for rows, n in zip(chats, shared, strict=True) for ids in rows]
        step = self.batch_size
        return torch.cat(
            [self._score(prefixes, owners[i : i + step], rests[i : i + step]) for i in range(0, len(rests), step)]
        )

    def _read_images(self, sources: list[Any], chats: list[list[int]]) -> Prefixes:
        """Read what the captions of each image share."""
        workers = min(self.num_workers, len(sources))
        if workers > 1:
            with ThreadPoolExecutor(workers, thread_name_prefix="vlcomp-images") as pool:
                pictures = list(pool.map(load_image, sources))
        else:
            pictures = [load_image(source) for source in sources]
        inputs = dict(process_images(self.processor.image_processor, pictures, fit=self.fit))
        pixels = inputs.pop("pixel_values").to(self.device, self.dtype)
        inputs = {name: value.to(self.device) if torch.is_tensor(value) else value for name, value in inputs.items()}
        inputs = image_arguments(self.lvlm, inputs)
        features = self.lvlm.model.get_image_features(pixels, return_dict=True, **inputs).pooler_output
        return read_prefixes(
            self.lvlm, chats, list(features), self._image_token, image_grid_thw=inputs.get("image_grid_thw")
        )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        adapted = isinstance(self.model, DiscriminativeLVLMModel)
        training = [module for module in walk_modules(self.model) if module.training]
        try:
            for module in training:
                module.training = False
            # Inference mode marks what a model keeps for later calls (rotary tables) as unfit for training.
            with self.model.disable_adapters() if adapted else nullcontext():
                with torch.no_grad() if training else torch.inference_mode():
                    yield
        finally:
            for module in training:
                module.training = True


def _require_lvlm(model: Any, name: str) -> None:
    lvlm = model.lvlm if isinstance(model, DiscriminativeLVLMModel) else model
    if not isinstance(lvlm, PreTrainedModel) or not hasattr(lvlm, "get_output_embeddings"):
        raise CheckpointError(f"{name}: {type(model).__name__} is no model of transformers that answers questions")
    try:
        require_causal(lvlm)
    except ValueError as error:
        raise CheckpointError(f"{name}: {error}; a scorer of pairs asks an LVLM") from error
    other = attention_that_cannot_be_shared(lvlm)
    if other:
        raise CheckpointError(f"{name}: its language model has {other!r} layers, whose state cannot be shared")
    bad = non_finite_weights(lvlm)
    if bad:
        raise CheckpointError(f"{name}: weights are NaN or infinite: {bad}")


def _template_of(processor: Any, name: str) -> str:
    for part in ("tokenizer", "image_processor"):
        if getattr(processor, part, None) is None:
            raise CheckpointError(
                f"{name}: processor is {type(processor).__name__}, which has no {part}; pass "
                "DiscriminativeLVLMProcessor.from_lvlm('<LVLM>')"
            )
    template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
    try:
        return require_template(template, name)
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def _require_device(device: str | torch.device) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ArgumentError(f"device={device!r} is not a device of torch; try 'cpu' or 'cuda:0'") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ArgumentError(f"device={str(device)!r}, but torch sees no CUDA device; leave it out or pass 'cpu'")


def _load(
    where: str, processor: Any, revision: str | None, dtype: torch.dtype | str | None, progress: bool
) -> tuple[PreTrainedModel, Any]:
    hub = {} if revision is None else {"revision": revision}
    typed = {} if dtype is None else {"dtype": as_dtype(dtype)}
    if _model_type(where, hub) == DiscriminativeLVLMConfig.model_type:
        loaded, processor = load_dual_encoder(where, processor=processor, revision=revision, dtype=dtype)
    else:
        try:
            with no_token_notes(), _bars(progress):
                # Asked to tell what was missing, it gives a pair.
                (loaded, info), _, _ = load_lvlm(where, output_loading_info=True, **hub, **typed)
            if processor is None or isinstance(processor, (str, os.PathLike)):
                processor = DiscriminativeLVLMProcessor.from_lvlm(where if processor is None else processor, **hub)
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        if info["missing_keys"]:
            missing = ", ".join(sorted(info["missing_keys"])[:3])
            raise CheckpointError(f"{where}: the checkpoint lacks weights ({missing}), which would be random")
    return loaded.eval(), processor


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """Leave out the bar of transformers while weights are read."""
    change = logging.is_progress_bar_enabled() and not shown
    if change:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if change:
            logging.enable_progress_bar()


def _model_type(where: str, hub: dict[str, Any]) -> str | None:
    try:
        return AutoConfig.from_pretrained(where, **hub).model_type
    except Exception:  # loading it says what is wrong
        return None


__all__ = ["EXAMPLE", "LVLMScorer"]
