"""Batches in which a caption has the use that its length allows: short ones to contrast, long ones to continue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..errors import ArgumentError, DataError, check_count
from .collator import ContrastiveCollator
from .images import process_images

COLUMNS = ("caption", "long_caption")


class CaptionsByLengthCollator(ContrastiveCollator):
    """Make a batch of rows with `image` and a short caption, a long one, or both.

    Lengths are counted in tokens, without special ones. Of each row one caption may be *short* (fewer than
    `short_below` tokens), for a contrastive loss, and one *long* (`long_from` to `long_to` tokens), for a next-token
    loss. The column `caption` is short if its length allows it and long otherwise; the column `long_caption` is long
    if its length allows it, and short otherwise, if there is no other short one. What is left over is not used, and
    counted.

    Args:
        processor (`ProcessorMixin`):
            Processor of the model: image processor and tokenizer.
        short_below (`int`, defaults to 30):
            Captions with fewer tokens are short.
        long_from (`int`, defaults to 30):
            Fewest tokens of a long caption.
        long_to (`int`, defaults to 500):
            Most tokens of a long caption.
        image_token_id (`int`, *optional*):
            The token that stands for an image, which no caption may hold.
        fit, skip_bad_images, text_kwargs:
            As in [`ContrastiveCollator`].

    Raises:
        ArgumentError: for an argument out of range, or a processor without tokenizer or image processor.

    Example:
        >>> from PIL import Image
        >>> from vlcomp.data import CaptionsByLengthCollator
        >>> from vlcomp.testing import tiny_processor
        >>> collator = CaptionsByLengthCollator(tiny_processor(), short_below=6, long_from=6, long_to=20)
        >>> image = Image.new("RGB", (40, 32))
        >>> rows = [
        ...     {"image": image, "caption": "a red cup", "long_caption": "a red cup left of a blue star"},
        ...     {"image": image, "caption": "a white cup above a black dog"},
        ... ]
        >>> batch = collator(rows)
        >>> batch["short_mask"].tolist(), batch["caption_attention_mask"].any(dim=1).tolist()
        ([True, False], [True, True])
    """

    def __init__(
        self,
        processor: Any,
        *,
        short_below: int = 30,
        long_from: int = 30,
        long_to: int = 500,
        image_token_id: int | None = None,
        fit: str | None = None,
        skip_bad_images: bool = False,
        text_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(processor, fit=fit, negatives=False, skip_bad_images=skip_bad_images, text_kwargs=text_kwargs)
        for name, value in (("short_below", short_below), ("long_from", long_from)):
            check_count(name, value)
        check_count("long_to", long_to)
        if long_to < long_from:
            raise ArgumentError(f"long_to={long_to} is below long_from={long_from}, so no caption would be long")
        self.short_below, self.long_from, self.long_to = short_below, long_from, long_to
        self.image_token_id = image_token_id

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make the batch.

        Args:
            rows (`Sequence[Mapping]`):
                With `image` (anything that [`load_image`] reads) and `caption` or `long_caption` or both (a text, or
                `None`), and perhaps `image_id`. Other columns are ignored.

        Returns:
            `dict[str, torch.Tensor]`: what the image processor gives (`pixel_values`, ..., one row an image, see
            [`rows_of_patches`]), `image_ids` [B] int64;
            `input_ids` and `attention_mask` [B, L] of the short captions, an empty text where there is none, and
            `short_mask` [B] bool; `caption_input_ids` and `caption_attention_mask` [B, M] of the long captions,
            without special tokens, padded on the right and all padding where there is none; `left_out_captions` [B]
            int64, how many of a row's captions are neither.

        Raises:
            DataError: if a row lacks its image or has no caption, an image cannot be read, a caption holds the token
                of an image, or no caption of the batch has a length that is used.
        """
        if not len(rows):
            raise DataError("cannot make a batch of no rows")
        rows, pictures = self._pictures(rows)
        texts = [self._texts(row, index) for index, row in enumerate(rows)]
        flat = [text for found in texts for text in found.values()]
        tokens = iter(self.processor.tokenizer(flat, add_special_tokens=False)["input_ids"])
        lengths = [{column: list(next(tokens)) for column in found} for found in texts]
        if self.image_token_id is not None:
            for found, ids in zip(texts, lengths, strict=True):
                for column, text in found.items():
                    if self.image_token_id in ids[column]:
                        raise DataError(f"the {column} {text!r} holds the token of an image; take it out")
        routed = [self._routed(found) for found in lengths]
        if not any(short or long for short, long in routed):
            seen = sorted({len(ids) for found in lengths for ids in found.values()})
            raise DataError(
                f"no caption of a batch of {len(rows)} rows has fewer than short_below={self.short_below} tokens or "
                f"from long_from={self.long_from} to long_to={self.long_to}; their lengths are "
                f"{', '.join(map(str, seen[:5]))}{', ...' if len(seen) > 5 else ''}"
            )
        batch = rows_of_patches(process_images(self.processor, pictures, fit=self.fit))
        short = [found[column] if column else "" for found, (column, _) in zip(texts, routed, strict=True)]
        batch.update(self._encoded(short))
        batch["short_mask"] = torch.tensor([column is not None for column, _ in routed])
        batch["image_ids"] = torch.tensor([self._image_id(row) for row in rows], dtype=torch.int64)
        long = [found[column] if column else [] for found, (_, column) in zip(lengths, routed, strict=True)]
        width = max(1, *map(len, long))
        pad = self.processor.tokenizer.pad_token_id
        batch["caption_input_ids"] = torch.tensor([ids + [pad] * (width - len(ids)) for ids in long])
        batch["caption_attention_mask"] = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in long])
        used = [sum(column is not None for column in pair) for pair in routed]
        batch["left_out_captions"] = torch.tensor([len(f) - n for f, n in zip(texts, used, strict=True)])
        return batch

    def _texts(self, row: Mapping[str, Any], index: int) -> dict[str, str]:
        found = {column: row[column] for column in COLUMNS if row.get(column) is not None}
        for column, text in found.items():
            if not isinstance(text, str):
                raise DataError(f"row {index} of a batch has the {column} {text!r}; it must be a text, or None")
        if not found:
            raise DataError(
                f"row {index} of a batch has neither a 'caption' nor a 'long_caption' (columns: "
                f"{', '.join(map(repr, row))}); load the data with load_captioned(..., caption_column=...)"
            )
        return found

    def _routed(self, tokens: Mapping[str, Sequence[int]]) -> tuple[str | None, str | None]:
        """Columns of the short and of the long caption of a row."""
        lengths = {column: len(ids) for column, ids in tokens.items()}
        may_short = [column for column in COLUMNS if 0 < lengths.get(column, 0) < self.short_below]
        may_long = [column for column in reversed(COLUMNS) if self.long_from <= lengths.get(column, 0) <= self.long_to]
        short = next(iter(may_short), None)
        long = next(iter(may_long), None)
        if short is not None and short == long:
            # Both would do: what the column is called decides.
            if short == "caption":
                long = None
            else:
                short = None
        return short, long


def rows_of_patches(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give each image a row of its patches, where an image processor (Qwen2-VL) strings those of all together.

    Only tensors with one row an image can be cut into mini-batches.

    Args:
        batch (`dict[str, torch.Tensor]`):
            Output of an image processor. Without `image_grid_thw` it is returned as it is.

    Returns:
        `dict[str, torch.Tensor]`: with `pixel_values` [B, patches, values], filled up with zeros.
    """
    if "image_grid_thw" not in batch:
        return batch
    sizes = batch["image_grid_thw"].prod(dim=1).tolist()
    rows = torch.nn.utils.rnn.pad_sequence(batch["pixel_values"].split(sizes), batch_first=True)
    return {**batch, "pixel_values": rows}


def strings_of_patches(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Undo [`rows_of_patches`], for the model.

    Args:
        batch (`dict[str, torch.Tensor]`):
            Image inputs of a batch or of a part of it.

    Returns:
        `dict[str, torch.Tensor]`
    """
    if "image_grid_thw" not in batch:
        return batch
    pixels = batch["pixel_values"]
    counts = torch.arange(pixels.shape[1], device=pixels.device) < batch["image_grid_thw"].prod(dim=1)[:, None]
    return {**batch, "pixel_values": pixels[counts]}
