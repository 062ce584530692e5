"""Few-shot protocols: base-to-novel, cross-dataset, domain generalisation."""

from .base_to_novel import base_to_novel
from .results import ProtocolResult, harmonic_mean
from .transfer import cross_dataset, domain_generalization

__all__ = ["ProtocolResult", "base_to_novel", "cross_dataset", "domain_generalization", "harmonic_mean"]
