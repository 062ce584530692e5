"""Generative LVLMs as scorers of pairs of image and caption."""

from .base import LVLMScorer
from .likelihood import INSTRUCTION, LikelihoodScorer
from .yes import QUESTION, YesScorer

# By the name that an evaluation knows them by.
SCORERS: dict[str, type[LVLMScorer]] = {scorer.kind: scorer for scorer in (YesScorer, LikelihoodScorer)}

__all__ = [
    "INSTRUCTION",
    "QUESTION",
    "SCORERS",
    "LVLMScorer",
    "LikelihoodScorer",
    "YesScorer",
]
