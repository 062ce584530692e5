"""Processor of the discriminative LVLM: an image processor and a tokenizer."""

import os
from os import PathLike
from typing import Any

from transformers import AutoImageProcessor, BatchFeature, ProcessorMixin

from .readings_discriminative_lvlm import load_tokenizer


class DiscriminativeLVLMProcessor(ProcessorMixin):
    """Prepares images and texts for a [`DiscriminativeLVLMModel`].

    The model builds its readings itself, so texts are tokenized as they are and no image tokens are put in; that also
    is why this works where the LVLM's own processor, whose video part needs torchvision, cannot be built.

    Args:
        image_processor (`BaseImageProcessor`):
            Of the LVLM.
        tokenizer (`PreTrainedTokenizerFast`):
            Of the LVLM.
        chat_template (`str`, *optional*):
            Of the LVLM; for `apply_chat_template`.

    Example:
        >>> from vlcomp.testing import tiny_images, tiny_lvlm_processor
        >>> processor = tiny_lvlm_processor("qwen2_vl")
        >>> sorted(processor(images=tiny_images(1), text=["a red cup"]))
        ['attention_mask', 'image_grid_thw', 'input_ids', 'pixel_values']
    """

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **kwargs: Any
    ):
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def from_lvlm(
        cls, name_or_path: str | PathLike, *, chat_template: str | None = None, **kwargs: Any
    ) -> "DiscriminativeLVLMProcessor":
        """Take image processor, tokenizer and chat template from an LVLM.

        Args:
            name_or_path (`str` or `PathLike`):
                Folder or Hub repository of the LVLM.
            chat_template (`str`, *optional*):
                Jinja template to take instead of the LVLM's.
            **kwargs:
                Arguments of `from_pretrained` (`revision`, `cache_dir`, ...).

        Returns:
            [`DiscriminativeLVLMProcessor`]: with a padding token (the end token, if the LVLM has none).

        Raises:
            ValueError: if there is no tokenizer, image processor or chat template.
        """
        tokenizer, template = load_tokenizer(name_or_path, chat_template, **kwargs)
        try:
            image_processor = AutoImageProcessor.from_pretrained(os.fspath(name_or_path), **kwargs)
        except Exception as error:  # loaders raise many kinds for missing and damaged files
            raise ValueError(f"no image processor beside {str(name_or_path)!r} (preprocessor_config.json)") from error
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return cls(image_processor, tokenizer, chat_template=template)

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> BatchFeature:
        """Prepare images, texts or both.

        Args:
            images (one image or `list`, *optional*):
                PIL images or arrays.
            text (`str` or `list[str]`, *optional*):
                Texts as they are.
            **kwargs:
                Arguments of the tokenizer (`padding`, `truncation`, `max_length`, ...). `return_tensors` is `"pt"`
                unless given.

        Returns:
            `BatchFeature`: `input_ids` and `attention_mask` of the texts; `pixel_values` and what else the image
            processor gives of the images.

        Raises:
            ValueError: if there is neither.
        """
        if images is None and text is None:
            raise ValueError("images and text are None; pass one of them, or both")
        tensors = kwargs.pop("return_tensors", "pt")
        data: dict[str, Any] = {}
        if text is not None:
            padding = {"padding": not isinstance(text, str), **kwargs}
            found = self.tokenizer(text if tensors is None else _batch(text), return_tensors=tensors, **padding)
            data.update({name: found[name] for name in ("input_ids", "attention_mask")})
        if images is not None:
            data.update(self.image_processor(images, return_tensors=tensors))
        return BatchFeature(data, tensor_type=tensors)


def _batch(text: Any) -> list[str]:
    return [text] if isinstance(text, str) else list(text)


__all__ = ["DiscriminativeLVLMProcessor"]
