"""A generative LVLM that embeds images and texts (Ouali et al. 2025, arXiv 2412.04378)."""

from .configuration_discriminative_lvlm import DiscriminativeLVLMConfig
from .modeling_discriminative_lvlm import DiscriminativeLVLMModel
from .outputs_discriminative_lvlm import CaptionedImageOutput, DiscriminativeLVLMOutput
from .processing_discriminative_lvlm import DiscriminativeLVLMProcessor

__all__ = [
    "CaptionedImageOutput",
    "DiscriminativeLVLMConfig",
    "DiscriminativeLVLMModel",
    "DiscriminativeLVLMOutput",
    "DiscriminativeLVLMProcessor",
]
