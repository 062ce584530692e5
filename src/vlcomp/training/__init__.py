"""Trainers, and the parts they are made of."""

from .arguments import ContrastiveTrainingArguments
from .contrastive import ContrastiveTrainer
from .distributed import gather_embeddings
from .evaluators import EvaluationCallback, SuiteEvaluator
from .grad_cache import cached_backward, split_batch
from .imc_cmr import ImcCmrTrainer, ImcCmrTrainingArguments
from .iterated_clip import IteratedCLIPTrainer, IteratedCLIPTrainingArguments
from .sampler import UniqueImageBatchSampler

__all__ = [
    "ContrastiveTrainer",
    "ContrastiveTrainingArguments",
    "EvaluationCallback",
    "ImcCmrTrainer",
    "ImcCmrTrainingArguments",
    "IteratedCLIPTrainer",
    "IteratedCLIPTrainingArguments",
    "SuiteEvaluator",
    "UniqueImageBatchSampler",
    "cached_backward",
    "gather_embeddings",
    "split_batch",
]
