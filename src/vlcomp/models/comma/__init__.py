"""COMMA: prompts for a frozen CLIP, generated from both branches (Hu et al. 2024, arXiv 2401.00268)."""

from .configuration_comma import CommaConfig
from .modeling_comma import CommaClasses, CommaModel, CommaOutput

__all__ = ["CommaClasses", "CommaConfig", "CommaModel", "CommaOutput"]
