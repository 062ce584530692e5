"""Trainers, and the parts they are made of."""

from .arguments import ContrastiveTrainingArguments
from .comma import CommaTrainer, CommaTrainingArguments
from .contrastive import ContrastiveTrainer
from .discriminative_lvlm import DiscriminativeLVLMTrainer, DiscriminativeLVLMTrainingArguments
from .distributed import gather_embeddings
from .evaluators import EvaluationCallback, SuiteEvaluator
from .grad_cache import cached_backward, split_batch
from .imc_cmr import ImcCmrTrainer, ImcCmrTrainingArguments
from .iterated_clip import IteratedCLIPTrainer, IteratedCLIPTrainingArguments
from .sampler import UniqueImageBatchSampler

__all__ = [
    "CommaTrainer",
    "CommaTrainingArguments",
    "ContrastiveTrainer",
    "ContrastiveTrainingArguments",
    "DiscriminativeLVLMTrainer",
    "DiscriminativeLVLMTrainingArguments",
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
