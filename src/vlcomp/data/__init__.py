"""Images, captions and negatives: reading them, splitting them and making batches of them."""

import importlib
from typing import Any

# Loaded on first use: whoever only needs `data.images` should not pay for importing datasets.
_LAZY: dict[str, str] = {
    "NEGATIVE_TYPES": "collator",
    "CaptionsByLengthCollator": "captions_by_length",
    "ContrastiveCollator": "collator",
    "ImageClasses": "folders",
    "NegativeGenerator": "negatives",
    "check_images": "checks",
    "generate_negatives": "negatives",
    "load_captioned": "loading",
    "load_image": "images",
    "load_image_classes": "folders",
    "process_images": "images",
    "split_captioned": "splits",
    "to_rgb": "images",
    "train_clip_tokenizer": "tokenization",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
