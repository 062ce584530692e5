"""From rows to the tensors of a contrastive batch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import ArgumentError, DataError
from .images import FITS, image_key, load_image, process_images
from .rows import report_skipped
from .tokenization import text_padding

if TYPE_CHECKING:
    from .negatives import NegativeGenerator

logger = logging.getLogger(__name__)

# How a false caption differs from the true one. The order gives the ids, so it only ever grows at the end.
NEGATIVE_TYPES = (
    "replace_object",
    "replace_attribute",
    "replace_relation",
    "swap_object",
    "swap_attribute",
    "add_object",
    "add_attribute",
    "relation",
    "attribute",
    "object",
    "action",
    "negation",
)
NEGATIVE_CHOICES = ("first", "random")


class ContrastiveCollator:
    """Make a batch of rows with `image`, `caption` and perhaps `negative_captions`.

    It is the `data_collator` of a Trainer (with `remove_unused_columns=False`) and of a `DataLoader`, and can be sent
    to worker processes.

    Args:
        processor (`ProcessorMixin`):
            Processor of the model: image processor and tokenizer.
        fit (`str`, *optional*):
            `"crop"`, `"squash"` or `"pad"` instead of what the image processor is set to; see [`process_images`].
        max_text_length (`int`, *optional*):
            Cut texts at this many tokens, below the model's own limit.
        negatives (`bool`, defaults to `True`):
            Whether to make tensors of `negative_captions` where rows have them.
        max_negatives (`int`, *optional*):
            At most this many negatives a row.
        negative_types (`Sequence[str]`, *optional*):
            Names of the types; the position of a name is its id. [`NEGATIVE_TYPES`] if not given.
        generator ([`NegativeGenerator`], *optional*):
            After `fit`: makes the negatives of rows that have no `negative_captions` (or `None`), other ones in each
            epoch that [`~ContrastiveCollator.set_epoch`] announces. The same seed, caption and epoch give the same
            negatives, in any process and batch. No negative equals one of the row's column `captions`, if it has
            this list of all true captions of its image.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out rows whose image is unreadable, with a warning: the batch is then smaller. Batches of different
            sizes cannot be gathered across processes, so rather let [`load_captioned`] skip them.
        text_kwargs (`dict`, *optional*):
            Arguments of the tokenizer; [`~vlcomp.data.tokenization.text_padding`] of the processor if not given.
        negative_choice (`str`, defaults to `"first"`):
            Which negatives `max_negatives` keeps: the `"first"` ones, or `"random"` ones (in their order), drawn anew
            each time from torch's global generator, which a `DataLoader` seeds differently in each worker and epoch.

    Raises:
        ArgumentError: for an argument out of range, a processor without tokenizer or image processor, or a generator
            that is not fitted or makes types that `negative_types` lacks.

    Example:
        >>> from PIL import Image
        >>> from vlcomp.data import ContrastiveCollator
        >>> from vlcomp.testing import tiny_processor
        >>> collator = ContrastiveCollator(tiny_processor())
        >>> row = {"image": Image.new("RGB", (40, 32)), "caption": "a red cup", "negative_captions": ["a blue cup"]}
        >>> batch = collator([row, row])
        >>> batch["pixel_values"].shape, batch["negative_mask"].shape
        (torch.Size([2, 3, 32, 32]), torch.Size([2, 1]))
    """

    def __init__(
        self,
        processor: Any,
        *,
        fit: str | None = None,
        max_text_length: int | None = None,
        negatives: bool = True,
        max_negatives: int | None = None,
        negative_types: Sequence[str] | None = None,
        skip_bad_images: bool = False,
        text_kwargs: Mapping[str, Any] | None = None,
        negative_choice: str = "first",
        generator: NegativeGenerator | None = None,
    ) -> None:
        for part in ("image_processor", "tokenizer"):
            if getattr(processor, part, None) is None:
                raise ArgumentError(
                    f"processor is {type(processor).__name__}, which has no {part}; pass the processor of the model "
                    "(AutoProcessor.from_pretrained)"
                )
        if fit is not None and fit not in FITS:
            raise ArgumentError(f"fit={fit!r} is not one of {', '.join(map(repr, FITS))} or None")
        if max_text_length is not None and max_text_length < 3:
            raise ArgumentError(f"max_text_length={max_text_length} leaves no room for a word between start and end")
        if max_negatives is not None and max_negatives < 1:
            raise ArgumentError(f"max_negatives={max_negatives} must be at least 1; negatives=False leaves them out")
        if negative_choice not in NEGATIVE_CHOICES:
            raise ArgumentError(f"negative_choice={negative_choice!r} is not one of 'first', 'random'")
        self.processor = processor
        self.fit = fit
        self.negatives = negatives
        self.max_negatives = max_negatives
        self.negative_types = tuple(NEGATIVE_TYPES if negative_types is None else negative_types)
        self.skip_bad_images = skip_bad_images
        self.negative_choice = negative_choice
        self.text_kwargs = dict(text_padding(processor) if text_kwargs is None else text_kwargs)
        if max_text_length is not None:
            limit = self.text_kwargs.get("max_length")
            if limit is not None and max_text_length > limit:
                raise ArgumentError(f"max_text_length={max_text_length} is above the {limit} positions of the model")
            if self.text_kwargs.get("padding") == "max_length" and max_text_length != limit:
                raise ArgumentError(
                    f"max_text_length={max_text_length}: texts of this model must be padded to {limit} tokens, other "
                    "lengths give wrong embeddings"
                )
            self.text_kwargs.update(truncation=True, max_length=max_text_length)
        self._type_ids = {name: index for index, name in enumerate(self.negative_types)}
        self.generator = generator
        self._epoch: torch.Tensor | None = None
        if generator is not None:
            self._check_generator(generator)
            # Shared memory: workers that live for several epochs hold a copy of the collator, but see the same number.
            self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def _check_generator(self, generator: Any) -> None:
        if getattr(generator, "lexicon", None) is None:
            raise ArgumentError(
                f"generator={type(generator).__name__} knows no corpus; pass NegativeGenerator(...).fit(captions)"
            )
        if not self.negatives:
            raise ArgumentError("generator with negatives=False would never be asked; leave one of them out")
        unknown = [name for name in generator.types if name not in self._type_ids]
        if unknown:
            raise ArgumentError(
                f"generator makes negatives of type {unknown[0]!r}, which negative_types={self.negative_types} lacks"
            )

    def set_epoch(self, epoch: int) -> None:
        """Let the generator make other negatives from now on.

        Call it before the loader of the epoch is iterated. Workers of a `DataLoader` see it too, with
        `persistent_workers` as well. Without a generator it does nothing.

        Args:
            epoch (`int`):
                Number of the epoch, from 0.

        Raises:
            ArgumentError: if it is negative.

        Example:
            >>> from PIL import Image
            >>> from vlcomp.data import ContrastiveCollator, NegativeGenerator
            >>> from vlcomp.testing import tiny_processor
            >>> captions = ["a red cup", "a blue cup", "a green cup", "a white cup"]
            >>> generator = NegativeGenerator("attribute").fit(captions)
            >>> collator = ContrastiveCollator(tiny_processor(), generator=generator)
            >>> collator.set_epoch(1)
            >>> batch = collator([{"image": Image.new("RGB", (40, 32)), "caption": "a red cup"}])
            >>> batch["negative_mask"]
            tensor([[True]])
        """
        if epoch < 0:
            raise ArgumentError(f"epoch={epoch} must be at least 0")
        if self._epoch is not None:
            self._epoch.fill_(epoch)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make the batch.

        Args:
            rows (`Sequence[Mapping]`):
                With `image` (anything that [`load_image`] reads) and `caption`, and perhaps `image_id`,
                `negative_captions` and `negative_types`. Other columns are ignored.

        Returns:
            `dict[str, torch.Tensor]`: `pixel_values` (and SigLIP2's `pixel_attention_mask`, `spatial_shapes`),
            `input_ids` [B, L], `attention_mask` [B, L] if the tokenizer has one, `image_ids` [B] int64. If any row
            has the column `negative_captions`, or there is a generator, also `negative_input_ids` [B, K, L],
            `negative_attention_mask` [B, K, L], `negative_mask` [B, K] bool and `negative_type_ids` [B, K] int64,
            where K is the largest number of negatives in the batch, at least 1. Unused places hold an empty text, mask
            `False` and type 0. Data whose negatives have no types give no `negative_type_ids`.

        Raises:
            DataError: if a row lacks its image or caption, an image cannot be read, a type is unknown, or negatives of
                some rows have types and those of others do not.
        """
        if not len(rows):
            raise DataError("cannot make a batch of no rows")
        rows, pictures = self._pictures(rows)
        batch = process_images(self.processor, pictures, fit=self.fit)
        texts = [self._caption(row, index) for index, row in enumerate(rows)]
        count = len(texts)
        negatives = self._negatives(rows)
        if negatives is not None:
            # One call for all texts: captions and negatives get the same length L, and the tokenizer's threads
            # one large job.
            texts += [text for chosen in negatives for text, _ in chosen]
            texts.append("")  # fills unused places: start and end token, where only padding would give NaN
        encoded = self._encoded(texts)
        batch.update({key: tensor[:count] for key, tensor in encoded.items()})
        batch["image_ids"] = torch.tensor([self._image_id(row) for row in rows], dtype=torch.int64)
        if negatives is not None:
            typed = self._typed(rows, negatives)
            batch.update(self._negative_tensors(negatives, encoded, count))
            if not typed:
                del batch["negative_type_ids"]
        return batch

    def _encoded(self, texts: list[str]) -> dict[str, torch.Tensor]:
        encoded = self.processor.tokenizer(texts, **self.text_kwargs)
        # Through NumPy: `return_tensors="pt"` walks over every id in Python to see whether the lists are ragged.
        return {
            key: torch.from_numpy(np.array(encoded[key], dtype=np.int64))
            for key in ("input_ids", "attention_mask")
            if key in encoded
        }

    def _pictures(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[Any]]:
        kept, pictures, skipped = [], [], []
        for index, row in enumerate(rows):
            source = row.get("image")
            path = source.get("path") if isinstance(source, Mapping) else None
            if "image" not in row:
                raise DataError(f"row {index} of a batch has no column 'image'; it has {', '.join(map(repr, row))}")
            try:
                pictures.append(load_image(source, name=path or _unnamed(source, row, index)))
                kept.append(row)
            except DataError as error:
                if not self.skip_bad_images:
                    raise
                skipped.append(str(error))
        if skipped and not kept:
            raise DataError(f"no image of a batch of {len(rows)} is readable; the first: {skipped[0]}")
        if skipped:
            report_skipped(skipped, len(rows), "a batch")
        return kept, pictures

    def _caption(self, row: Mapping[str, Any], index: int) -> str:
        caption = row.get("caption")
        if not isinstance(caption, str):
            what = "no caption" if caption is None else f"the caption {caption!r}"
            raise DataError(
                f"row {index} of a batch has {what} (columns: {', '.join(map(repr, row))}); load the data with "
                "load_captioned(..., caption_column=...)"
            )
        return caption

    @staticmethod
    def _image_id(row: Mapping[str, Any]) -> int:
        given = row.get("image_id")
        return image_key(row["image"]) if given is None else int(given)

    def _negatives(self, rows: Sequence[Mapping[str, Any]]) -> list[list[tuple[str, int | None]]] | None:
        """Negatives of each row with the ids of their types (None without types), or None if there can be none."""
        if not self.negatives or self.generator is None and not any("negative_captions" in row for row in rows):
            return None
        out = []
        for index, row in enumerate(rows):
            texts = row.get("negative_captions")
            names = row.get("negative_types") or []
            if texts is None and self.generator is not None:
                texts, names = self._generated(row, index)
            texts = texts or []
            if isinstance(texts, str) or names and len(names) != len(texts):
                raise DataError(
                    f"row {index} of a batch has negative_captions {texts!r} and negative_types {names!r}; expected "
                    "two lists of one length"
                )
            ids = [self._type_id(name) for name in names] or [None] * len(texts)
            pairs = list(zip(texts, ids, strict=True))
            if self.max_negatives is not None and len(pairs) > self.max_negatives:
                if self.negative_choice == "random":
                    picked = torch.randperm(len(pairs))[: self.max_negatives].sort().values.tolist()
                    pairs = [pairs[place] for place in picked]
                pairs = pairs[: self.max_negatives]
            out.append(pairs)
        return out

    def _generated(self, row: Mapping[str, Any], index: int) -> tuple[list[str], list[str]]:
        others = row.get("captions") or ()
        if isinstance(others, str):
            raise DataError(
                f"row {index} of a batch has the text {others[:40]!r} in its column 'captions'; expected a list of "
                "all captions of the image"
            )
        made = self.generator(self._caption(row, index), others=others, variant=int(self._epoch))
        return [negative.text for negative in made], [negative.type for negative in made]

    def _typed(self, rows: Sequence[Mapping[str, Any]], negatives: list[list[tuple[str, int | None]]]) -> bool:
        """Whether the negatives have types; all or none."""
        kinds = [chosen[0][1] is not None if chosen else None for chosen in negatives]
        if False in kinds and (True in kinds or self.generator is not None):
            others = "those of the generator" if self.generator is not None else f"those of row {kinds.index(True)}"
            raise DataError(
                f"row {kinds.index(False)} of a batch has negative_captions without negative_types, but {others} have "
                "types; give negative_types to all rows that have negative_captions, or to none"
            )
        if True not in kinds and False not in kinds:  # no negative here; the data may have some
            return self.generator is not None or any("negative_types" in row for row in rows)
        return True in kinds

    def _type_id(self, name: str) -> int:
        if name not in self._type_ids:
            raise DataError(
                f"negative type {name!r} is unknown; known: {', '.join(self.negative_types)}. Pass "
                "negative_types=[...] with the names of your data"
            )
        return self._type_ids[name]

    @staticmethod
    def _negative_tensors(
        negatives: list[list[tuple[str, int | None]]], encoded: Mapping[str, torch.Tensor], count: int
    ) -> dict[str, torch.Tensor]:
        width = max(1, *(len(chosen) for chosen in negatives))
        filler = len(encoded["input_ids"]) - 1
        position, index, types = count, [], []
        for chosen in negatives:
            unused = width - len(chosen)
            index.append([*range(position, position + len(chosen)), *[filler] * unused])
            types.append([*(kind or 0 for _, kind in chosen), *[0] * unused])
            position += len(chosen)
        places = torch.tensor(index)
        out = {"negative_mask": places != filler, "negative_type_ids": torch.tensor(types)}
        out.update({f"negative_{key}": tensor[places] for key, tensor in encoded.items()})
        return out


def _unnamed(source: Any, row: Mapping[str, Any], index: int) -> str | None:
    if isinstance(source, str):
        return None  # names itself
    given = f" (image_id {row['image_id']})" if row.get("image_id") is not None else ""
    return f"the image of row {index} of a batch{given}"
