"""One run of a protocol: prompts trained on a few images of each class, and the accuracy on any set."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig

from ..checkpoints import load_dual_encoder
from ..data.classification_sets import ClassificationSet, load_classification_set
from ..data.fewshot import few_shot, few_shot_splits
from ..embeddings import Embedder
from ..errors import ArgumentError, check_count
from ..evaluation.encoding import rank_embeddings
from ..models.comma import CommaModel
from ..training import CommaTrainer, CommaTrainingArguments

SPLITS = ("test", "validation")
# Variants without learned text: their classes read the hand-crafted template of the set.
_PLAIN_TEXTS = ("zero-shot", "deep-vision")
_FIXED_DEPTH = ("zero-shot", "coop")
# What a protocol sets itself.
_OWN = ("output_dir", "seed", "data_seed", "resume_from_checkpoint")


@dataclass(frozen=True)
class FewShot:
    """How prompts are trained and measured.

    Args:
        model (`str`):
            Plain CLIP that every run starts from.
        arguments (`Mapping[str, Any]`):
            Fields of [`~vlcomp.CommaTrainingArguments`] that differ from the defaults.
        shots (`int`):
            Training images of each class.
        split (`str`):
            Split that is measured.
        batch_size (`int`):
            Images in one pass when measuring.
        progress (`bool`):
            Show progress bars.
    """

    model: str
    arguments: Mapping[str, Any]
    shots: int
    split: str = "test"
    batch_size: int = 100
    progress: bool = False

    def __post_init__(self) -> None:
        check_count("shots", self.shots)
        check_count("batch_size", self.batch_size)
        if self.split not in SPLITS:
            raise ArgumentError(f"split={self.split!r} is not one of {', '.join(SPLITS)}")
        own = [name for name in _OWN if name in self.arguments]
        if own:
            raise ArgumentError(f"arguments holds {own[0]!r}, which the protocol sets for each run; leave it out")
        unknown = [name for name in self.arguments if name not in CommaTrainingArguments.__dataclass_fields__]
        if unknown:
            raise ArgumentError(f"arguments holds {unknown[0]!r}, which is no field of CommaTrainingArguments")

    @property
    def variant(self) -> str:
        """Which prompts are trained."""
        return self.arguments.get("prompt_variant") or "comma"

    def seeds(self, seeds: Any) -> list[int]:
        """The seeds that are worth a run: one, if nothing is drawn.

        Args:
            seeds (`Sequence[int]`):
                Those asked for.

        Returns:
            `list[int]`

        Raises:
            ArgumentError: if there is none, one is no whole number, or one comes twice.
        """
        seeds = [seeds] if isinstance(seeds, int) else list(seeds)
        for seed in seeds:
            check_count("seeds", seed, 0)
        if not seeds or len(set(seeds)) != len(seeds):
            raise ArgumentError(f"seeds={seeds!r} must be one or more numbers, each once")
        return seeds[:1] if self.variant == "zero-shot" else seeds

    def identity(self, protocol: str, sets: Mapping[str, ClassificationSet]) -> dict[str, Any]:
        """What the numbers of a run depend on beside the seed, for its file.

        Args:
            protocol (`str`):
                Name of the protocol.
            sets (`Mapping[str, ClassificationSet]`):
                The sets by what they are for.

        Returns:
            `dict`
        """
        return {
            "protocol": protocol,
            "model": self.model,
            "shots": None if self.variant == "zero-shot" else self.shots,
            "split": self.split,
            "arguments": dict(self.arguments),
            "data": {
                role: {
                    "name": data.name,
                    "template": data.template,
                    "classes": len(data.class_names),
                    "images": {split: len(rows) for split, rows in data.splits.items()},
                    "official": data.official,
                }
                for role, data in sets.items()
            },
        }

    def train(self, data: ClassificationSet, seed: int, keep: Path | None) -> Prompted:
        """Train prompts on a set.

        Args:
            data ([`~vlcomp.data.classification_sets.ClassificationSet`]):
                The set; its classes are those that are trained.
            seed (`int`):
                Seed of the images, the prompts and the order.
            keep (`Path`, *optional*):
                The prompts go to this path with the suffix `.safetensors`.

        Returns:
            [`Prompted`]
        """
        plain = self.variant in _PLAIN_TEXTS
        texts = {
            "template": data.template if plain else data.prompt_template,
            "knowledge_template": data.template,
        }
        work = Path(tempfile.mkdtemp(prefix="vlcomp-few-shot-")) if keep is None else keep
        try:
            settings = CommaTrainingArguments(
                **{
                    "output_dir": str(work),
                    "seed": seed,
                    "save_strategy": "no",
                    "report_to": "none",
                    "disable_tqdm": not self.progress,
                    "logging_steps": 50,
                    **texts,
                    **self.arguments,
                }
            )
            if self.variant == "zero-shot":
                _, processor = load_dual_encoder(self.model)
                model = CommaModel.from_clip(
                    self.model, prompt_variant="zero-shot", template=texts["template"], tokenizer=processor
                )
                return Prompted(model.to(settings.device), processor, self)
            if settings.eval_strategy == "no":  # validation images that nobody looks at need not be there
                where = f"the training split of {data.name!r}"
                train, validation = few_shot(data.split("train"), self.shots, seed=seed, name=where), None
            else:
                train, validation = few_shot_splits(data, self.shots, seed=seed)
            trainer = CommaTrainer(
                self.model,
                settings,
                train,
                eval_dataset=validation,
                class_names=data.class_names,
            )
            trainer.train()
            if keep is not None and trainer.is_world_process_zero():
                trainer.model.save_prompts(keep.with_suffix(".safetensors"))
            return Prompted(trainer.model, trainer.processing_class, self)
        finally:
            shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True)
class Prompted:
    """A model after training, which names the classes of any set.

    Args:
        model ([`~vlcomp.CommaModel`]):
            The model.
        processor (`ProcessorMixin`):
            Its processor.
        how ([`FewShot`]):
            How it was made.
    """

    model: CommaModel
    processor: Any
    how: FewShot

    def accuracy(self, data: ClassificationSet) -> float:
        """Part of the images whose class scores strictly above all others.

        Args:
            data ([`~vlcomp.data.classification_sets.ClassificationSet`]):
                The set.

        Returns:
            `float`
        """
        rows = data.split(self.how.split)
        embedder = Embedder(
            self.model,
            self.processor,
            batch_size=self.how.batch_size,
            progress=self.how.progress,
            fit=self.how.arguments.get("fit"),
        )
        template = None if self.model.config.text_prompt_depth else data.template
        self.model.eval()
        try:
            self.model.set_classes(data.class_names, template=template, tokenizer=self.processor)
        except ValueError as error:
            raise ArgumentError(f"classes of {data.name!r}: {error}") from error
        with torch.no_grad():
            texts = self.model.encode_classes().text_embeds.double().cpu().numpy()
        images = embedder.encode_images(rows["image"]).double().numpy()
        labels = np.array(rows["label"], dtype=np.int64)
        ranks = rank_embeddings(images, texts, labels, np.arange(len(texts)))
        return float(ranks.hits(1).mean())


def resolve_set(data: Any, /, **options: Any) -> ClassificationSet:
    """A set from its name or folder.

    Args:
        data (`str`, `os.PathLike` or `ClassificationSet`):
            See [`~vlcomp.data.classification_sets.load_classification_set`]; a set is taken as it is.
        **options:
            Arguments of that function.

    Returns:
        [`~vlcomp.data.classification_sets.ClassificationSet`]

    Raises:
        ArgumentError: if it is something else.
    """
    if isinstance(data, ClassificationSet):
        return data
    if not isinstance(data, (str, os.PathLike)):
        raise ArgumentError(f"data={data!r} is neither a name, a folder nor a ClassificationSet")
    return load_classification_set(data, **options)


def resolve_sets(data: Any, /, **options: Any) -> list[ClassificationSet]:
    """Sets from one or several names or folders.

    Args:
        data (`str`, `os.PathLike`, `ClassificationSet` or a sequence of them):
            As in [`resolve_set`].
        **options:
            Arguments of [`~vlcomp.data.classification_sets.load_classification_set`].

    Returns:
        `list[ClassificationSet]`

    Raises:
        ArgumentError: if there is none, or two have one name.
    """
    several = isinstance(data, (list, tuple))
    found = [resolve_set(one, **options) for one in (data if several else [data])]
    names = [one.name for one in found]
    if not found or len(set(names)) != len(names):
        raise ArgumentError(f"data={names!r} must be one or more sets, each once")
    return found


def with_depth(model: str, arguments: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Arguments with a prompt depth of the protocol, where none is given and the variant has one to choose.

    Args:
        model (`str`):
            The CLIP; a tower of fewer blocks has prompts in all of them.
        arguments (`Mapping[str, Any]`):
            Arguments.
        depth (`int`):
            Depth of the protocol.

    Returns:
        `dict[str, Any]`
    """
    if arguments.get("prompt_depth") is not None or arguments.get("prompt_variant") in _FIXED_DEPTH:
        return dict(arguments)
    try:
        config = AutoConfig.from_pretrained(model)
        blocks = min(config.text_config.num_hidden_layers, config.vision_config.num_hidden_layers)
    except (OSError, ValueError, AttributeError):
        return {**arguments, "prompt_depth": depth}  # loading the model says what is wrong with it
    return {**arguments, "prompt_depth": min(depth, blocks)}
