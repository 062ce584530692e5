"""IMC/CMR-CLIP: a CLIP fine-tuned with hard-negative captions (Zhang et al. 2024, arXiv 2306.08832)."""

from .configuration_imc_cmr_clip import ImcCmrCLIPConfig
from .modeling_imc_cmr_clip import ImcCmrCLIPModel, ImcCmrCLIPOutput

__all__ = ["ImcCmrCLIPConfig", "ImcCmrCLIPModel", "ImcCmrCLIPOutput"]
