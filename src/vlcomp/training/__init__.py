"""Trainers, and the parts they are made of."""

from .arguments import ContrastiveTrainingArguments
from .contrastive import ContrastiveTrainer
from .distributed import gather_embeddings
from .grad_cache import cached_backward, split_batch
from .imc_cmr import ImcCmrTrainer, ImcCmrTrainingArguments
from .sampler import UniqueImageBatchSampler

__all__ = [
    "ContrastiveTrainer",
    "ContrastiveTrainingArguments",
    "ImcCmrTrainer",
    "ImcCmrTrainingArguments",
    "UniqueImageBatchSampler",
    "cached_backward",
    "gather_embeddings",
    "split_batch",
]
