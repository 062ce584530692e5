"""Losses as pure functions of embeddings, one idea a file."""

from .contrastive import contrastive_loss, sigmoid_contrastive_loss

__all__ = ["contrastive_loss", "sigmoid_contrastive_loss"]
