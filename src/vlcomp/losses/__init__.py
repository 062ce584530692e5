"""Losses as pure functions of embeddings, one idea a file."""

from .contrastive import contrastive_loss, sigmoid_contrastive_loss
from .cross_modal_rank import cross_modal_rank_loss, rank_thresholds
from .intra_modal import intra_modal_contrastive_loss
from .knowledge import knowledge_loss
from .next_token import next_token_loss

__all__ = [
    "contrastive_loss",
    "cross_modal_rank_loss",
    "intra_modal_contrastive_loss",
    "knowledge_loss",
    "next_token_loss",
    "rank_thresholds",
    "sigmoid_contrastive_loss",
]
