"""The only place where vlcomp registers classes with transformers.

Importing :mod:`vlcomp` runs :func:`register`, so that ``AutoModel``, ``AutoProcessor`` and ``pipeline`` know the
models.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass


@dataclass(frozen=True)
class _Model:
    """A folder of `vlcomp.models`, its classes, and the model whose processor it uses."""

    folder: str
    config: str
    model: str
    processes_like: str  # configuration class in transformers
    processor: str | None = None  # class of the folder, where it has its own


# A method adds one line.
_MODELS = (
    _Model("comma", "CommaConfig", "CommaModel", processes_like="CLIPConfig"),
    _Model(
        "discriminative_lvlm",
        "DiscriminativeLVLMConfig",
        "DiscriminativeLVLMModel",
        processes_like="LlavaConfig",
        processor="DiscriminativeLVLMProcessor",
    ),
    _Model("imc_cmr_clip", "ImcCmrCLIPConfig", "ImcCmrCLIPModel", processes_like="CLIPConfig"),
    _Model("iterated_clip", "IteratedCLIPConfig", "IteratedCLIPModel", processes_like="CLIPConfig"),
)


def register() -> None:
    """Register every model, processor and pipeline of the package with transformers (idempotent)."""
    import transformers
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoProcessor, AutoTokenizer
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import AutoModelForZeroShotImageClassification
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING
    from transformers.utils import is_torchvision_available

    for row in _MODELS:
        module = importlib.import_module(f".models.{row.folder}", __package__)
        config, model = getattr(module, row.config), getattr(module, row.model)
        like = getattr(transformers, row.processes_like)
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModel.register(config, model, exist_ok=True)
        AutoModelForZeroShotImageClassification.register(config, model, exist_ok=True)
        # These decide where a folder does not name its classes. Without the first, AutoProcessor silently gives only
        # the tokenizer.
        processor = getattr(module, row.processor) if row.processor else PROCESSOR_MAPPING[like]
        AutoProcessor.register(config, processor, exist_ok=True)
        AutoTokenizer.register(config, TOKENIZER_MAPPING[like], exist_ok=True)
        # Touching a class that needs torchvision prints a warning where there is none.
        backends = {
            backend: getattr(transformers, name)
            for backend, name in IMAGE_PROCESSOR_MAPPING_NAMES[like.model_type].items()
            if backend != "torchvision" or is_torchvision_available()
        }
        AutoImageProcessor.register(config, image_processor_classes=backends, exist_ok=True)
