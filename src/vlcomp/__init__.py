"""vlcomp: train, load, measure and publish compositional vision-language models."""

import importlib
from typing import Any

from ._version import __version__
from .registration import register

# Public names and the module that defines them. Loaded on first use (PEP 562): a person who only calls
# `AutoModel.from_pretrained` should not pay for datasets, peft and the trainers.
_LAZY: dict[str, str] = {
    "CommaConfig": "models.comma",
    "CommaModel": "models.comma",
    "CommaTrainer": "training",
    "CommaTrainingArguments": "training",
    "ContrastiveTrainer": "training",
    "ContrastiveTrainingArguments": "training",
    "DiscriminativeLVLMTrainer": "training",
    "DiscriminativeLVLMTrainingArguments": "training",
    "DiscriminativeLVLMConfig": "models.discriminative_lvlm",
    "DiscriminativeLVLMModel": "models.discriminative_lvlm",
    "DiscriminativeLVLMProcessor": "models.discriminative_lvlm",
    "Embedder": "embeddings",
    "ImcCmrCLIPConfig": "models.imc_cmr_clip",
    "ImcCmrCLIPModel": "models.imc_cmr_clip",
    "ImcCmrTrainer": "training",
    "ImcCmrTrainingArguments": "training",
    "IteratedCLIPConfig": "models.iterated_clip",
    "IteratedCLIPModel": "models.iterated_clip",
    "IteratedCLIPTrainer": "training",
    "IteratedCLIPTrainingArguments": "training",
    "LikelihoodScorer": "scorers",
    "NegativeGenerator": "data",
    "Report": "evaluation",
    "YesScorer": "scorers",
    "ZeroShotPipeline": "pipelines",
    "evaluate": "evaluation",
    "generate_negatives": "data",
    "list_tasks": "evaluation",
    "load_captioned": "data",
    "load_embedder": "embeddings",
    "load_scenes": "data.scenes",
    "push_to_hub": "hub.push",
}
_SUBMODULES = (
    "data",
    "embeddings",
    "errors",
    "evaluation",
    "losses",
    "metrics",
    "models",
    "pipelines",
    "protocols",
    "testing",
    "training",
)

__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_SUBMODULES})


register()
