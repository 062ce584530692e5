"""Loading dual encoders, and the checks that keep an unusable checkpoint from giving numbers."""

from __future__ import annotations

import json
import logging as python_logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import AutoConfig, AutoModel, AutoProcessor, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, MODEL_MAPPING
from transformers.utils import logging

from .errors import ArgumentError, CheckpointError

_MODEL_FILE = "config.json"
_IMAGE_FILES = ("processor_config.json", "preprocessor_config.json")
# What holds a vocabulary; tokenizer_config.json does not.
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")


def load_dual_encoder(
    model: str | Path,
    *,
    processor: str | Path | Any | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    dtype: torch.dtype | str | None = None,
    progress: bool = False,
    classes: Mapping[str, type[PreTrainedModel]] | None = None,
) -> tuple[PreTrainedModel, Any]:
    """Load a dual encoder and its processor from a folder or the Hub, and check both.

    Args:
        model (`str` or `Path`):
            Checkpoint folder or Hub repository.
        processor (`str`, `Path` or `ProcessorMixin`, *optional*):
            Where the processor is, if not with the model, or the processor itself.
        revision (`str`, *optional*):
            Branch, tag or commit on the Hub.
        trust_remote_code (`bool`, defaults to `False`):
            Whether to run model code from the repository.
        dtype (`torch.dtype` or `str`, *optional*):
            Type of the weights; by default as they were saved.
        progress (`bool`, defaults to `False`):
            Whether to show the bar of transformers while weights are read.
        classes (`Mapping[str, type[PreTrainedModel]]`, *optional*):
            Model class for a `model_type` (`{"clip": ImcCmrCLIPModel}`), where it is not to be that of `AutoModel`.

    Returns:
        `tuple[PreTrainedModel, ProcessorMixin]`: the model in evaluation mode, and the processor.

    Raises:
        CheckpointError: if the folder or repository lacks model or processor files, the model is not a dual encoder,
            or weights are missing or not finite. The message says what is missing and how to add it.

    Example:
        >>> import tempfile
        >>> from vlcomp.checkpoints import load_dual_encoder
        >>> from vlcomp.testing import save_tiny_checkpoint
        >>> model, processor = load_dual_encoder(save_tiny_checkpoint(tempfile.mkdtemp()))
        >>> type(model).__name__, type(processor).__name__
        ('CLIPModel', 'CLIPProcessor')
    """
    where = os.fspath(model)
    with no_token_notes():
        source = {"revision": revision, "trust_remote_code": trust_remote_code}
        return _loaded(where, processor, source, dtype, progress, classes or {})


def _loaded(
    where: str,
    processor: Any,
    source: Mapping[str, Any],
    dtype: torch.dtype | str | None,
    progress: bool,
    classes: Mapping[str, type[PreTrainedModel]],
) -> tuple[PreTrainedModel, Any]:
    _require_model_files(where)
    _refuse_lvlm(where, source, classes)
    if processor is None or isinstance(processor, (str, os.PathLike)):
        processor = _load_processor(where if processor is None else os.fspath(processor), source)
    typed = {} if dtype is None else {"dtype": as_dtype(dtype)}
    loaded = _load_model(where, {**source, **typed}, progress, classes)
    require_dual_encoder(loaded, where)
    require_processor(processor, where)
    require_matching(loaded, processor, where)
    return loaded, processor


def non_finite_weights(model: nn.Module, limit: int = 3) -> str:
    """Name the weights of a model that hold NaN or infinity.

    Args:
        model (`nn.Module`):
            The model.
        limit (`int`, defaults to 3):
            How many to name; the rest is counted.

    Returns:
        `str`: for instance `"logit_scale, visual_projection.weight and 4 more"`; empty if all are finite.
    """
    bad = [name for name, value in model.named_parameters() if not torch.isfinite(value).all()]
    more = f" and {len(bad) - limit} more" if len(bad) > limit else ""
    return ", ".join(bad[:limit]) + more


@contextmanager
def no_token_notes() -> Iterator[None]:
    """Leave out two notes of transformers on special tokens that nobody can act on.

    Every SigLIP configuration is compared with its own class's defaults, whose `bos_token_id` lies outside its
    default vocabulary; and a trainer reports that it copied a tokenizer's ids into the configuration.
    """
    loggers = [python_logging.getLogger(f"transformers.{name}") for name in ("configuration_utils", "trainer_utils")]
    for logger in loggers:
        logger.addFilter(_is_no_token_note)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_no_token_note)


def _is_no_token_note(record: python_logging.LogRecord) -> bool:
    text = record.getMessage()
    default = "_token_id must be `None` or an integer within the vocabulary" in text and "got 4940" in text
    return not default and not text.startswith("The tokenizer has new PAD/BOS/EOS tokens")


def as_dtype(dtype: torch.dtype | str) -> torch.dtype | str:
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    found = getattr(torch, str(dtype), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ArgumentError(f"dtype={dtype!r} is not a floating type of torch; try 'float32', 'bfloat16' or 'float16'")
    return found


def text_config_of(model: Any) -> dict[str, Any]:
    config = getattr(model, "config", None)
    config = getattr(config, "text_config", None) or config
    if isinstance(config, dict):
        return config
    return {key: getattr(config, key, None) for key in ("vocab_size", "eos_token_id", "model_type")}


def require_dual_encoder(model: Any, name: str) -> None:
    missing = [m for m in ("get_image_features", "get_text_features") if not callable(getattr(model, m, None))]
    if missing:
        raise CheckpointError(
            f"{name}: {type(model).__name__} is not a dual encoder of images and texts (it has no "
            f"{' and no '.join(missing)}); use a CLIP or SigLIP model, or one of vlcomp's"
        )


def require_processor(processor: Any, name: str) -> None:
    lacking = []
    if getattr(processor, "image_processor", None) is None:
        lacking.append("image processor (preprocessor_config.json or processor_config.json)")
    if getattr(processor, "tokenizer", None) is None:
        lacking.append("tokenizer (tokenizer.json and tokenizer_config.json)")
    if lacking:
        raise CheckpointError(f"{name}: no {' and no '.join(lacking)}. {_processor_fix(name)}")
    if getattr(processor.tokenizer, "pad_token_id", None) is None:
        raise CheckpointError(
            f"{name}: the tokenizer has no padding token; set one (CLIP: tokenizer.pad_token = tokenizer.eos_token) "
            "and save the processor again"
        )


def _processor_fix(name: str) -> str:
    folder = name if os.path.isdir(name) else "<folder>"
    entries = _config_entries(name)
    if entries.get("model_type") == "discriminative_lvlm":
        base = entries.get("base_name_or_path") or "<LVLM>"
        return f"Add them from its LVLM: DiscriminativeLVLMProcessor.from_lvlm({base!r}).save_pretrained({folder!r})"
    return (
        "Add them from the model it was trained from: "
        f"AutoProcessor.from_pretrained('<base model>').save_pretrained({folder!r})"
    )


def _config_entries(folder: str) -> dict[str, Any]:
    try:
        found = json.loads((Path(folder) / _MODEL_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not a folder, or no checkpoint: said where it is loaded
        return {}
    return found if isinstance(found, dict) else {}


def _refuse_lvlm(where: str, source: Mapping[str, Any], classes: Mapping[str, Any]) -> None:
    """Tell what to do with a generative model, before its processor or its weights raise something else."""
    try:
        config = AutoConfig.from_pretrained(where, **source)
    except Exception:  # as for the processor; loading the model says what is wrong
        return
    if config.model_type in classes or type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return
    # BLIP and others are both: a dual encoder, and under another head a model that generates.
    if type(config) in MODEL_MAPPING and hasattr(MODEL_MAPPING[type(config)], "get_text_features"):
        return
    raise CheckpointError(
        f"{where} holds a generative model of type {config.model_type!r}, which has no embeddings of texts; make a "
        f"dual encoder of it with DiscriminativeLVLMModel.from_lvlm({where!r}) or `vlcomp train discriminative-lvlm "
        f"--model {where}`, or measure it as it is with `vlcomp evaluate {where} --scorer yes`"
    )


def require_matching(model: Any, processor: Any, name: str) -> None:
    """Refuse a processor that belongs to another model, as far as the two tell.

    Args:
        model (`PreTrainedModel`):
            A dual encoder.
        processor (`ProcessorMixin`):
            Its processor.
        name (`str`):
            What to call them in messages.

    Raises:
        CheckpointError: if texts end with another token than the model pools at, or images have another size than
            the model reads.
    """
    _require_same_end(model, processor.tokenizer, name)
    embeddings = getattr(getattr(model, "vision_model", None), "embeddings", None)
    side = getattr(embeddings, "image_size", None)
    # Other kinds of positions, and other encoders, take images of any size.
    if isinstance(side, int) and isinstance(getattr(embeddings, "position_embedding", None), nn.Embedding):
        made = processor.image_processor([Image.new("RGB", (side, side))], return_tensors="pt")["pixel_values"]
        if tuple(made.shape[-2:]) != (side, side):
            raise CheckpointError(
                f"{name}: the processor makes images of {made.shape[-1]} x {made.shape[-2]} pixels, and the model "
                f"reads {side} x {side} (vision_config.image_size); give the processor that belongs to the model, or "
                "set size and crop_size of its image processor"
            )


def _require_same_end(model: Any, tokenizer: Any, name: str) -> None:
    config = text_config_of(model)
    pools_at, ends_with = config.get("eos_token_id"), getattr(tokenizer, "eos_token_id", None)
    # 2 is the legacy value of OpenAI's checkpoints, for which CLIP pools at the highest token id instead.
    if str(config.get("model_type")).startswith("clip") and isinstance(pools_at, int) and pools_at != 2:
        if ends_with is not None and ends_with != pools_at:
            raise CheckpointError(
                f"{name}: the tokenizer ends a text with token {ends_with} but the model pools at token {pools_at} "
                "(text_config.eos_token_id), so that all texts would have the same embedding; the processor belongs "
                "to another model, or the configuration is wrong"
            )


def _require_model_files(where: str) -> None:
    folder = Path(where)
    if not folder.exists():
        # Anything but "name" or "owner/name" can only have been meant as a path.
        if where.startswith((".", "/", "~")) or where.count("/") > 1 or os.sep != "/" and os.sep in where:
            raise CheckpointError(f"{where}: there is no such folder")
        return
    if folder.is_file():
        raise CheckpointError(f"{where} is a file; pass the folder that holds it")
    if not (folder / _MODEL_FILE).is_file() and not (folder / "adapter_config.json").is_file():
        inside = sorted(child.name for child in folder.glob("checkpoint-*") if (child / _MODEL_FILE).is_file())
        hint = (
            f"; did you mean {where}/{inside[-1]}?" if inside else "; save the model with model.save_pretrained(...)"
        )
        raise CheckpointError(f"{where}: no {_MODEL_FILE} in this folder, so it is not a checkpoint{hint}")


def _load_processor(where: str, source: Mapping[str, Any]) -> Any:
    folder = Path(where)
    if folder.is_dir():
        lacking = []
        if not any((folder / file).is_file() for file in _IMAGE_FILES):
            lacking.append(f"image processor ({_IMAGE_FILES[1]} or {_IMAGE_FILES[0]})")
        if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
            lacking.append("tokenizer (tokenizer.json and tokenizer_config.json)")
        if lacking:
            raise CheckpointError(f"{where}: no {' and no '.join(lacking)} in this folder. {_processor_fix(where)}")
    try:
        processor = AutoProcessor.from_pretrained(where, **source)
    # Loaders raise OSError, ValueError, KeyError, ImportError, JSONDecodeError and others for damaged or partial
    # repositories; all of them mean that the processor cannot be read.
    except Exception as error:
        raise CheckpointError(f"{where}: cannot load the processor: {_cause(error, where)}") from error
    # AutoProcessor silently gives only the tokenizer (or only the image processor) where it does not know the model.
    require_processor(processor, where)
    return processor


def _load_model(
    where: str, source: Mapping[str, Any], progress: bool, classes: Mapping[str, type[PreTrainedModel]]
) -> PreTrainedModel:
    bars = logging.is_progress_bar_enabled() and not progress
    if bars:
        logging.disable_progress_bar()
    try:
        kind: Any = AutoModel
        if classes:
            known = {key: value for key, value in source.items() if key != "dtype"}
            kind = classes.get(AutoConfig.from_pretrained(where, **known).model_type, AutoModel)
        loaded = kind.from_pretrained(where, output_loading_info=True, **source)
    except Exception as error:  # as for the processor
        raise CheckpointError(f"{where}: cannot load the model: {_cause(error, where)}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    model, info = loaded
    require_dual_encoder(model, where)
    missing = sorted(info.get("missing_keys", ()))
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise CheckpointError(
            f"{where}: the checkpoint lacks weights of {type(model).__name__} ({', '.join(missing[:3])}{more}), which "
            "would be random; save the whole model with save_pretrained"
        )
    bad = non_finite_weights(model)
    if bad:
        raise CheckpointError(f"{where}: weights are NaN or infinite: {bad}; training diverged, use an earlier one")
    return model.eval()


def _cause(error: Exception, where: str) -> str:
    lines = str(error).strip().splitlines()
    hint = "" if os.path.isdir(where) else " (nor is there a folder of this name)"
    return (lines[0] if lines else type(error).__name__) + hint
