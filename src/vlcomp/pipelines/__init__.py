"""Ready-made uses of a trained model."""

from .zero_shot import ZeroShotPipeline

__all__ = ["ZeroShotPipeline"]
