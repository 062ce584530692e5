"""Iterated-CLIP: a codebook shared by two encoders, and generations (Zheng et al. 2024, arXiv 2404.02145)."""

from .codebook_iterated_clip import sparsemax
from .configuration_iterated_clip import IteratedCLIPConfig
from .modeling_iterated_clip import IteratedCLIPModel, IteratedCLIPOutput

__all__ = ["IteratedCLIPConfig", "IteratedCLIPModel", "IteratedCLIPOutput", "sparsemax"]
