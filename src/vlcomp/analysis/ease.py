"""Ease of learning: how fast a new language agent learns to understand a vision agent."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from ..data.tokenization import text_padding
from ..embeddings import Embedder
from ..errors import ArgumentError, DataError, check_count, check_number
from ..training.optim import decay_parameter_names

_LANGUAGE = ("text_model", "text_projection")
_REST = ("vision_model", "visual_projection", "logit_scale", "logit_bias", "codebook")


@dataclass(frozen=True)
class EaseOfLearning:
    """How a new language agent learned.

    Args:
        accuracy (`list[float]`):
            For each step, the accuracy of matching within its batch, before the step: the mean over choosing the
            caption for a picture and the picture for a caption. A tie is wrong.
        batch_size (`int`):
            Pairs in a batch; chance is one over it.
    """

    accuracy: list[float]
    batch_size: int

    @property
    def mean(self) -> float:
        """Mean accuracy over the steps: the larger, the faster it was learned."""
        return float(np.mean(self.accuracy))

    @property
    def final(self) -> float:
        """Mean accuracy over the last tenth of the steps."""
        return float(np.mean(self.accuracy[-max(1, len(self.accuracy) // 10) :]))


def ease_of_learning(
    model: PreTrainedModel,
    processor: Any,
    images: Sequence[Any],
    captions: Sequence[str],
    *,
    steps: int = 100,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    warmup_steps: int = 10,
    logit_scale: float | None = None,
    seed: int = 0,
) -> EaseOfLearning:
    """Train a new language agent against a frozen vision agent, and note how fast it learns.

    The vision agent, the codebook and the logit scale stay as they are; the language agent (text tower and its head)
    is drawn as at construction. It is trained with the symmetric contrastive loss, AdamW (beta2 0.98, weight decay
    0.1) and a constant learning rate after a linear warm-up. Weights and batches follow from `seed` alone, so that
    checkpoints are compared under equal conditions. The model itself is not changed.

    Args:
        model (`PreTrainedModel`):
            A dual encoder whose text tower can be told from the rest: CLIP, SigLIP and vlcomp's CLIP methods.
        processor (`ProcessorMixin`):
            Its processor.
        images (`Sequence` of length N):
            Pictures.
        captions (`Sequence[str]` of length N):
            The caption of each picture.
        steps (`int`, defaults to 100):
            Steps of the new agent. More than `N / batch_size` go over the rows again, in another order.
        batch_size (`int`, defaults to 128):
            Pairs in a batch.
        learning_rate (`float`, defaults to 1e-3):
            The learning rate.
        warmup_steps (`int`, defaults to 10):
            Steps in which it rises.
        logit_scale (`float`, *optional*):
            The multiplicative logit scale; by default that of the model, with which an agent that is spawned there
            starts. A large one, to which training leads, slows a new agent down: compare checkpoints at one scale to
            leave that out.
        seed (`int`, defaults to 0):
            Seed of the new agent's weights and of the order of the rows.

    Returns:
        [`EaseOfLearning`]

    Raises:
        ArgumentError: for a model without a language agent of its own, or a setting out of range.
        DataError: if there are fewer rows than a batch needs, or a picture cannot be read.

    Reference:
        Zheng, Zhang, Kembhavi, Krishna 2024 (CVPR, arXiv 2404.02145): later generations are learned faster. The
        measure goes back to Li, Bowling 2019 (NeurIPS, arXiv 1906.02403).

    Deviations:
        The paper does not specify the training of the new agent; the settings are ours.

    Example:
        >>> from vlcomp.analysis import ease_of_learning
        >>> from vlcomp.testing import tiny_captions, tiny_clip, tiny_images, tiny_processor
        >>> found = ease_of_learning(
        ...     tiny_clip(), tiny_processor(), tiny_images(8), tiny_captions(8), steps=3, batch_size=4
        ... )
        >>> len(found.accuracy)
        3
    """
    check_ease_settings(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        logit_scale=logit_scale,
        seed=seed,
    )
    if len(images) != len(captions):
        raise ArgumentError(f"there are {len(images)} images and {len(captions)} captions; each image needs its own")
    if len(images) < batch_size:
        raise DataError(f"there are {len(images)} rows, and a batch has batch_size={batch_size}; lower it")
    # Apart from the seeds of training, so that it is no agent that the model was ever trained with: with the same
    # random numbers it would be the very one of the run's first generation.
    learner = with_new_language_agent(model, int(np.random.SeedSequence([seed, *b"ease"]).generate_state(1)[0]))
    padding = text_padding(processor, getattr(model, "config", None))
    device = next(learner.parameters()).device
    embedder = Embedder(model, processor, batch_size=batch_size)
    scale = embedder.logit_scale if logit_scale is None else float(logit_scale)
    image_embeds = embedder.encode_images(images)
    trained = [name for name, value in learner.named_parameters() if value.requires_grad]
    decayed = set(decay_parameter_names(learner)) & set(trained)
    parameters = dict(learner.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [parameters[name] for name in trained if name in decayed], "weight_decay": 0.1},
            {"params": [parameters[name] for name in trained if name not in decayed], "weight_decay": 0.0},
        ],
        lr=learning_rate,
        betas=(0.9, 0.98),
        eps=1e-6,
    )
    accuracy = []
    for step, rows in enumerate(_batches(len(images), batch_size, steps, seed)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / max(1, warmup_steps))
        texts = processor.tokenizer([captions[row] for row in rows], return_tensors="pt", **padding).to(device)
        text_embeds = learner.get_text_features(**texts).pooler_output.float()
        text_embeds = torch.nn.functional.normalize(text_embeds, dim=-1)
        logits = image_embeds[rows].to(device) @ text_embeds.T * scale
        accuracy.append(_matched(logits.detach()))
        target = torch.arange(len(rows), device=device)
        cross_entropy = torch.nn.functional.cross_entropy
        loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([parameters[name] for name in trained], 1.0)
        optimizer.step()
    return EaseOfLearning(accuracy, batch_size)


def check_ease_settings(
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    logit_scale: float | None,
    seed: int,
    warmup_steps: int = 0,
) -> None:
    """Check the settings of [`ease_of_learning`], before data are made or read for it.

    Args:
        steps, batch_size, learning_rate, logit_scale, seed, warmup_steps:
            As there.

    Raises:
        ArgumentError: for a setting out of range.
    """
    for name, value, least in (("steps", steps, 1), ("batch_size", batch_size, 2), ("warmup_steps", warmup_steps, 0)):
        check_count(name, value, least)
    check_count("seed", seed, 0)
    check_number("learning_rate", learning_rate)
    if not 0 < learning_rate < float("inf"):
        raise ArgumentError(f"learning_rate={learning_rate} must be above 0")
    if logit_scale is not None:
        check_number("logit_scale", logit_scale)
        if not 0 < logit_scale < float("inf"):
            raise ArgumentError(f"logit_scale={logit_scale} must be above 0; CLIP starts with 14.3")


def with_new_language_agent(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A copy of a dual encoder with a new language agent, of which nothing else is trainable.

    Args:
        model (`PreTrainedModel`):
            The model; it is not changed.
        seed (`int`):
            Seed of the new agent.

    Returns:
        `PreTrainedModel`: in training mode.

    Raises:
        ArgumentError: if the language agent cannot be told from the rest.
    """
    parts = [name for name, _ in model.named_children()]
    strange = {name.split(".")[0] for name, _ in model.named_parameters()} - {*_LANGUAGE, *_REST}
    if "text_model" not in parts or strange:
        found = f" (it also has {', '.join(sorted(strange))})" if strange else ""
        raise ArgumentError(
            f"model is a {type(model).__name__}, whose language agent cannot be told from the rest{found}; expected "
            "the parts of a CLIP or SigLIP"
        )
    learner = copy.deepcopy(model)
    if callable(getattr(learner, "spawn_agent", None)):
        learner.spawn_agent("language", seed)
    else:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            fresh = type(model)(copy.deepcopy(model.config))
        for name in _LANGUAGE:
            if name in parts:
                old = next(getattr(model, name).parameters())
                setattr(learner, name, getattr(fresh, name).to(old.device, old.dtype))
    for name, value in learner.named_parameters():
        value.requires_grad_(name.split(".")[0] in _LANGUAGE)
    return learner.train()


def _batches(rows: int, size: int, steps: int, seed: int) -> list[list[int]]:
    generator, order, batches = np.random.default_rng(seed), np.array([], dtype=np.int64), []
    while len(batches) < steps:
        if len(order) < size:
            order = generator.permutation(rows)
        batches.append(order[:size].tolist())
        order = order[size:]
    return batches


def _matched(logits: torch.Tensor) -> float:
    """Accuracy of matching in both directions; what ties with another is wrong."""
    own = logits.diagonal()
    others = logits.clone()
    others.fill_diagonal_(-torch.inf)
    right = (own > others.max(dim=1).values).float().mean() + (own > others.max(dim=0).values).float().mean()
    return right.item() / 2


__all__: list[str] = ["EaseOfLearning", "ease_of_learning", "with_new_language_agent"]
