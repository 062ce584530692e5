"""The benchmarks, one short file each."""

from .caption_choice import CaptionChoice
from .classification import ZeroShotClassification
from .image_choice import ImageChoice
from .linear_probe import LinearProbe
from .retrieval import Retrieval
from .scenes import ScenesChoice, ScenesClassification, ScenesRetrieval, ScenesWinoground

__all__ = [
    "CaptionChoice",
    "ImageChoice",
    "LinearProbe",
    "Retrieval",
    "ScenesChoice",
    "ScenesClassification",
    "ScenesRetrieval",
    "ScenesWinoground",
    "ZeroShotClassification",
]
