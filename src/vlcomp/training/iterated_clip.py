"""Training by generations: one of two encoders is replaced by a new one at regular intervals."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, ProcessorMixin, TrainerCallback
from transformers.utils import CONFIG_NAME

from ..errors import ArgumentError, CheckpointError, check_count, check_number
from ..models.iterated_clip import IteratedCLIPConfig
from .arguments import ContrastiveTrainingArguments
from .contrastive import Batch, ContrastiveTrainer, Embeds
from .generations import GenerationSchedule, generation_seed
from .setup import check_arguments, load_model

logger = logging.getLogger(__name__)

# What transformers has if nothing is given.
_NO_EPOCHS = 3.0
AGENTS = ("language", "vision")
# Generations of the paper, for a run whose length nothing else tells.
PAPER_GENERATIONS = 12
# These follow the loss, which a spawn raises, and not the step.
_SCHEDULES_OF_THE_LOSS = ("reduce_lr_on_plateau", "greedy")
# Which of the settings a resumed run must share with the first one.
_RECORD = (
    "num_generations",
    "generation_steps",
    "codebook_freeze_steps",
    "warmup_steps",
    "rewarmup_steps",
    "rewarmup_start",
    "agent",
    "spawn_seed",
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
)
# Settings of the model that change what its weights mean, and do not show in their shapes.
_SAME_MODEL = ("use_codebook", "codebook_size", "temperature")


@dataclass
class IteratedCLIPTrainingArguments(ContrastiveTrainingArguments):
    """Settings of [`IteratedCLIPTrainer`]: those of [`ContrastiveTrainingArguments`] and the ones below.

    The defaults are the paper's: 12 generations of 6000 steps, AdamW with learning rate 5e-4, beta2 0.98 and weight
    decay 0.1, cosine schedule. `max_steps` is `num_generations * generation_steps`, and `num_train_epochs` is
    refused. `num_generations=1` trains without spawns: Codebook-CLIP, or plain CLIP if the model has no codebook.

    Args:
        num_generations (`int`, *optional*):
            Generations of the run; by default `max_steps / generation_steps`, or 12 if `max_steps` is not set either.
        generation_steps (`int`, defaults to 6000):
            Optimiser steps of a generation. It must be long enough for a new agent to learn what the old one knew.
        codebook_freeze_steps (`int`, *optional*):
            Steps after each spawn in which the codebook is frozen: no gradient, weight decay or optimiser update. By
            default a quarter of a generation, which is 1500 of 6000.
        rewarmup_steps (`int`, *optional*):
            Steps after each spawn in which the learning rate rises from `rewarmup_start` to what the schedule says. By
            default a twelfth of a generation, which is 500 of 6000.
        rewarmup_start (`float`, defaults to 0.1):
            Share of the learning rate with which that rise begins.
        warmup_steps (`float`, *optional*):
            Steps of the first warm-up (below 1: a share of the run); by default as many as `rewarmup_steps`.
        agent (`str`, defaults to `"language"`):
            The agent that is replaced: `"language"` (the method) or `"vision"` (an ablation).
        spawn_seed (`int`, *optional*):
            Seed of the new agents' weights, other ones in each generation; `seed` by default.
        save_steps (`float`, *optional*):
            Steps between two checkpoints; by default `generation_steps`, so that there is one of each generation.
        logit_scale_min (`float`, defaults to 1.0):
            Lower limit of the multiplicative logit scale, kept after each optimiser step. The public code has
            `exp(3) = 20.1`, above the usual start of 14.3.

    Raises:
        ArgumentError: if a value is not allowed, or the parts of the schedule do not fit each other.

    Example:
        >>> from vlcomp import IteratedCLIPTrainingArguments
        >>> args = IteratedCLIPTrainingArguments("output", num_generations=4, generation_steps=1200)
        >>> args.max_steps, args.codebook_freeze_steps, args.rewarmup_steps, args.warmup_steps
        (4800, 300, 100, 100)
    """

    learning_rate: float = field(default=5e-4, metadata={"help": "The highest learning rate."})
    weight_decay: float = field(
        default=0.1,
        metadata={"help": "Weight decay, on all but norms, biases, positions, the class token and the logit scale."},
    )
    adam_beta2: float = field(default=0.98, metadata={"help": "Beta2 of Adam."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule of the learning rate."})
    warmup_steps: float | None = field(
        default=None, metadata={"help": "Steps of the first warm-up; default as many as rewarmup_steps."}
    )
    num_generations: int | None = field(
        default=None, metadata={"help": "Generations; times generation_steps it gives max_steps. Default 12."}
    )
    generation_steps: int = field(default=6000, metadata={"help": "Optimiser steps of a generation."})
    codebook_freeze_steps: int | None = field(
        default=None, metadata={"help": "Steps after each spawn with a frozen codebook; default a quarter generation."}
    )
    rewarmup_steps: int | None = field(
        default=None, metadata={"help": "Steps of the warm-up after each spawn; default a twelfth of a generation."}
    )
    rewarmup_start: float = field(
        default=0.1, metadata={"help": "Share of the learning rate with which that warm-up begins."}
    )
    agent: str = field(default="language", metadata={"help": "Agent that is replaced: language or vision."})
    spawn_seed: int | None = field(default=None, metadata={"help": "Seed of the new agents; default the seed."})
    save_steps: float | None = field(
        default=None, metadata={"help": "Steps between two checkpoints; default generation_steps."}
    )
    logit_scale_min: float = field(
        default=1.0, metadata={"help": "Lower limit of the multiplicative logit scale; the public code has 20.1."}
    )

    def __post_init__(self):
        if self.agent not in AGENTS:
            raise ArgumentError(f"agent={self.agent!r} is not one of {', '.join(map(repr, AGENTS))}")
        check_count("generation_steps", self.generation_steps)
        check_number("max_steps", self.max_steps)
        if self.num_train_epochs != _NO_EPOCHS:
            raise ArgumentError(
                f"num_train_epochs={self.num_train_epochs} is no setting of this method, whose generations are "
                "counted in steps; set num_generations and generation_steps"
            )
        self._set_generations()
        if self.save_steps is None:
            self.save_steps = self.generation_steps
        if self.codebook_freeze_steps is None:
            self.codebook_freeze_steps = self.generation_steps // 4
        if self.rewarmup_steps is None:
            self.rewarmup_steps = self.generation_steps // 12
        if self.warmup_steps is None:
            self.warmup_steps = self.rewarmup_steps
        check_number("warmup_steps", self.warmup_steps)
        if not 0 <= self.warmup_steps < math.inf:
            raise ArgumentError(f"warmup_steps={self.warmup_steps} must be 0 or more")
        for name in ("codebook_freeze_steps", "rewarmup_steps"):
            check_count(name, getattr(self, name), 0)
        for name in ("codebook_freeze_steps", "rewarmup_steps", "warmup_steps"):
            value = getattr(self, name)
            if value > self.generation_steps:
                raise ArgumentError(
                    f"{name}={value} is longer than a generation of generation_steps={self.generation_steps}; lower "
                    "it, or leave it out"
                )
        for name in ("rewarmup_start", "logit_scale_min"):
            check_number(name, getattr(self, name))
        if not 0 <= self.rewarmup_start <= 1:
            raise ArgumentError(f"rewarmup_start={self.rewarmup_start} must lie between 0 and 1; the method uses 0.1")
        if self.spawn_seed is not None:
            check_count("spawn_seed", self.spawn_seed, 0)
        if getattr(self.lr_scheduler_type, "value", self.lr_scheduler_type) in _SCHEDULES_OF_THE_LOSS:
            raise ArgumentError(
                f"lr_scheduler_type={self.lr_scheduler_type!r} follows the loss, which each spawn raises; use "
                "'cosine' or another schedule of steps"
            )
        if self.interpolate is not None:
            raise ArgumentError(
                f"interpolate={self.interpolate} mixes with the starting weights, which are random here; leave it out"
            )
        super().__post_init__()
        if self.spawn_seed is None:
            self.spawn_seed = self.seed
        if not 1 <= self.logit_scale_min <= self.logit_scale_max:
            raise ArgumentError(
                f"logit_scale_min={self.logit_scale_min} must lie between 1 and logit_scale_max={self.logit_scale_max}"
            )
        if self.freeze_logit_scale and self.logit_scale_min > 1:
            raise ArgumentError(
                f"logit_scale_min={self.logit_scale_min} limits a scale that freeze_logit_scale=True keeps as it is; "
                "leave one of them out"
            )
        frozen = {"text": "language", "vision": "vision"}.get(self.freeze)
        if self.num_generations > 1 and frozen == self.agent:
            raise ArgumentError(
                f"freeze={self.freeze!r} keeps the weights that agent={self.agent!r} replaces in each generation; "
                "leave one of them out"
            )

    def _set_generations(self) -> None:
        """Let `num_generations` and `max_steps` follow from each other."""
        given = self.max_steps if self.max_steps > 0 else None
        if self.num_generations is None:
            self.num_generations = PAPER_GENERATIONS
            if given is not None:
                self.num_generations = max(1, given // self.generation_steps)
        check_count("num_generations", self.num_generations)
        steps = self.num_generations * self.generation_steps
        if given is not None and given != steps:
            raise ArgumentError(
                f"max_steps={given} is not num_generations={self.num_generations} times "
                f"generation_steps={self.generation_steps}, which is {steps}; leave max_steps out, or set "
                "num_generations and generation_steps to what it is to be"
            )
        if given is not None or self.max_steps == -1:
            self.max_steps = steps

    @property
    def schedule(self) -> GenerationSchedule:
        """What happens at which step."""
        return GenerationSchedule(
            self.num_generations,
            self.generation_steps,
            self.codebook_freeze_steps,
            self.rewarmup_steps,
            self.rewarmup_start,
        )


class IteratedCLIPTrainer(ContrastiveTrainer):
    """Trains an [`~vlcomp.IteratedCLIPModel`] by generations (cultural transmission).

    A [`ContrastiveTrainer`] with the plain contrastive loss. Before the first step of each generation but the first,
    the language agent (text tower and its head) is replaced by a new one, drawn as at construction, and its optimiser
    state is cleared; vision agent, codebook and logit scale stay. For `codebook_freeze_steps` the codebook is then
    frozen (transmission), afterwards everything trains (interaction). The learning rate rises anew after each spawn.

    What happens follows from the number of the step alone, and a new agent's weights from `spawn_seed` and its
    generation: all processes have the same, and a run that is resumed at any step equals one that was not interrupted.
    The checkpoint of a generation's last step holds the agent before it is replaced.

    Logged are the events `spawn`, `freeze` and `thaw`, each with the number of the generation, and beside each loss
    the `generation` and the mean number of codes of an image and a text (`active_codes/image`, `active_codes/text`).

    Args:
        model (`str` or `IteratedCLIPModel`):
            As in [`ContrastiveTrainer`]; usually a new model, as the method trains from scratch.
        args (`IteratedCLIPTrainingArguments`, *optional*):
            Settings; the defaults write to `<model name>-iterated`.
        train_dataset, eval_dataset (`Dataset`, *optional*):
            As in [`ContrastiveTrainer`].
        processing_class (`ProcessorMixin`, *optional*):
            The processor; by default the one of the checkpoint.
        peft_config (`PeftConfig`, *optional*):
            Not supported: a new agent has no trained weights to adapt.
        **kwargs:
            Further arguments of [`ContrastiveTrainer`].

    Raises:
        ArgumentError: if arguments do not fit each other or the model.
        CheckpointError: if the model or processor cannot be used, or, on resuming, the checkpoint was written with
            another schedule.
        DataError: if the data set is empty or lacks a column.

    Reference:
        Zheng, Zhang, Kembhavi, Krishna 2024 (CVPR, arXiv 2404.02145), Section 3.

    Deviations:
        The spawn replaces the whole agent, embeddings and attention included, and clears its optimiser state, and the
        freeze is exact; the public code does neither. Position and class embeddings take no weight decay, as in
        all trainers here; the paper leaves out norms, biases and the logit scale only.

    Example:
        >>> import tempfile
        >>> from datasets import Dataset
        >>> from vlcomp import IteratedCLIPConfig, IteratedCLIPModel
        >>> from vlcomp import IteratedCLIPTrainer, IteratedCLIPTrainingArguments
        >>> from vlcomp.testing import tiny_captions, tiny_clip, tiny_images, tiny_processor
        >>> towers = {name: getattr(tiny_clip().config, name) for name in ("text_config", "vision_config")}
        >>> model = IteratedCLIPModel(
        ...     IteratedCLIPConfig(**towers, projection_dim=32, codebook_size=16, temperature=1.0)
        ... )
        >>> data = Dataset.from_dict({"image": tiny_images(8), "caption": tiny_captions(8)})
        >>> args = IteratedCLIPTrainingArguments(
        ...     tempfile.mkdtemp(),
        ...     num_generations=2,
        ...     generation_steps=2,
        ...     codebook_freeze_steps=1,
        ...     per_device_train_batch_size=4,
        ...     disable_tqdm=True,
        ...     save_strategy="no",
        ... )
        >>> trainer = IteratedCLIPTrainer(model, args, data, processing_class=tiny_processor())
        >>> trainer.train().global_step  # doctest: +ELLIPSIS
        {'spawn': ...}
        4
    """

    arguments_class = IteratedCLIPTrainingArguments
    output_suffix = "iterated"

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: IteratedCLIPTrainingArguments | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: ProcessorMixin | None = None,
        data_collator: Callable[..., Batch] | None = None,
        *,
        peft_config: PeftConfig | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, LambdaLR | None] = (None, None),
        **kwargs: Any,
    ) -> None:
        args = check_arguments(model, args, self.arguments_class, suffix=self.output_suffix)
        if peft_config is not None:
            raise ArgumentError("peft_config adapts trained weights, which a new agent has none of; leave it out")
        if optimizers[1] is not None:
            raise ArgumentError(
                "optimizers holds a schedule of the learning rate, which cannot rise anew after a spawn; pass "
                "(optimizer, None) and set lr_scheduler_type"
            )
        model, processing_class = load_model(model, processing_class)
        _check_model(model, args)
        self.schedule = args.schedule
        self._best_step: int | None = None
        super().__init__(
            model,
            args,
            train_dataset,
            eval_dataset,
            processing_class,
            data_collator,
            optimizers=optimizers,
            **kwargs,
        )
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ArgumentError(
                "a new agent needs its whole weights on each process; train without FSDP and DeepSpeed (plain "
                "`torchrun` or `accelerate launch`)"
            )
        self.add_callback(_Generations(self))

    # The loss

    def encode(self, model: torch.nn.Module, batch: Batch) -> Embeds:
        """Embed the rows of a batch; see [`ContrastiveTrainer.encode`]."""
        outputs = []

        def noted(**inputs: Any) -> Any:
            outputs.append(model(**inputs))
            return outputs[-1]

        embeds = super().encode(noted, batch)
        if outputs[0].text_code_weights is not None:
            texts = outputs[0].text_code_weights[: len(embeds["text_embeds"])]
            for name, weights in (("image", outputs[0].image_code_weights), ("text", texts)):
                embeds[f"{name}_active_codes"] = (weights > 0).sum(dim=1)
        return embeds

    def compute_loss_from_embeddings(
        self, embeds: Embeds, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a whole contrastive batch; see [`ContrastiveTrainer.compute_loss_from_embeddings`]."""
        loss, parts = super().compute_loss_from_embeddings(embeds, batch)
        for name in ("image", "text"):
            if f"{name}_active_codes" in embeds:
                parts = {**parts, f"active_codes/{name}": embeds[f"{name}_active_codes"].float().mean()}
        return loss, parts

    def after_optimizer_step(self) -> None:
        """Keep the logit scale in its limits."""
        super().after_optimizer_step()
        if self._base_model.logit_scale.requires_grad:
            with torch.no_grad():
                self._base_model.logit_scale.clamp_(min=math.log(self.args.logit_scale_min))

    # Generations

    def begin_step(self) -> None:
        """Called before each optimiser step: replaces the agent and freezes or thaws the codebook if it is time."""
        step = self.state.global_step
        generation, position = self.schedule.generation(step), self.schedule.position(step)
        if self.schedule.spawns_at(step):
            self.spawn(generation)
            self._event("spawn", generation)
        frozen = self.schedule.frozen_at(step)
        if self._codebook is None or generation == 1:
            return
        self._codebook.frozen = frozen
        if frozen and position == 0:
            self._event("freeze", generation)
        if not frozen and position == self.args.codebook_freeze_steps > 0:
            self._event("thaw", generation)

    def spawn(self, generation: int) -> None:
        """Replace the agent by the new one of `generation` (counted from 1) and clear its optimiser state."""
        seed = generation_seed(self.args.spawn_seed, generation)
        for parameter in self._base_model.spawn_agent(self.args.agent, seed):
            if self.optimizer is not None:
                self.optimizer.state.pop(parameter, None)

    def drop_frozen_gradients(self) -> None:
        """Called between the backward pass and the optimiser: what has no gradient is passed over altogether."""
        if self._codebook is not None and self._codebook.frozen:
            self._codebook.weight.grad = None

    @property
    def _codebook(self) -> torch.nn.Module | None:
        return getattr(self._base_model, "codebook", None)

    def _event(self, name: str, generation: int) -> None:
        logger.info("step %d: %s, generation %d", self.state.global_step, name, generation)
        self.log({name: generation})

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; see `transformers.Trainer.train`. The codebook is thawed at the end, however training ended."""
        self._best_step = None
        try:
            return super().train(resume_from_checkpoint, **kwargs)
        finally:
            if self._codebook is not None:
                self._codebook.frozen = False

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the schedule of the learning rate, with a warm-up after each spawn."""
        new = self.lr_scheduler is None
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if new:
            scheduler.lr_lambdas = [self._with_rewarmup(rate) for rate in scheduler.lr_lambdas]
        return scheduler

    def _with_rewarmup(self, rate: Callable[[int], float]) -> Callable[[int], float]:
        # The scheduler is called at the end of a step, before the step is counted. Its own count lags behind where
        # fp16 has skipped steps, and the generations do not.
        return lambda step: rate(step) * self.schedule.rate_factor(self.state.global_step + 1 if step else 0)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; the generation of the last step is added to the entry of the loss."""
        if "loss" in logs:
            logs = {**logs, "generation": self.schedule.generation(max(self.state.global_step - 1, 0))}
        super().log(logs, start_time)

    # Checkpoints

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        step = self._best_step or self.state.global_step
        if step:
            config = self._base_model.config
            for name in _RECORD:
                setattr(config, name, _plain(getattr(self.args, name)))
            config.generation = self.schedule.generation(step - 1)
        super()._save(output_dir, state_dict)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._best_step = self.state.best_global_step

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        self._check_record(resume_from_checkpoint)
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _check_record(self, folder: str | os.PathLike[str]) -> None:
        """Refuse a checkpoint of a run with another schedule: what was resumed would be neither of the two."""
        if not Path(folder, CONFIG_NAME).is_file():
            raise CheckpointError(f"{folder} has no {CONFIG_NAME}, so it is not a checkpoint to resume from")
        found = IteratedCLIPConfig.from_pretrained(folder)
        if found.num_generations is None:
            raise CheckpointError(
                f"{folder} was not written by a run of generations; start a new run from it with model="
            )
        ours_by_name = {name: _plain(getattr(self.args, name)) for name in _RECORD}
        ours_by_name |= {name: getattr(self._base_model.config, name) for name in _SAME_MODEL}
        for name, ours in ours_by_name.items():
            theirs = getattr(found, name)
            if theirs != ours:
                raise CheckpointError(
                    f"{folder} was written with {name}={theirs!r}, and this run has {name}={ours!r}; resume with the "
                    "schedule of the first run, or start a new run from it with model="
                )


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)  # of an enumeration


class _Generations(TrainerCallback):
    """Tells the trainer when an optimiser step begins, and when its gradients are complete."""

    def __init__(self, trainer: IteratedCLIPTrainer) -> None:
        self._trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.begin_step()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.drop_frozen_gradients()


def _check_model(model: PreTrainedModel, args: IteratedCLIPTrainingArguments) -> None:
    if not callable(getattr(model, "spawn_agent", None)):
        raise ArgumentError(
            f"model is a {type(model).__name__}, which cannot draw new agents; make an "
            "IteratedCLIPModel(IteratedCLIPConfig(...)) (--from-scratch small, or examples/new_iterated_clip.py)"
        )
    if not model.config.use_codebook and args.num_generations > 1 and args.codebook_freeze_steps:
        raise ArgumentError(
            f"codebook_freeze_steps={args.codebook_freeze_steps} (by default a quarter of a generation), but the "
            "model has no codebook; set codebook_freeze_steps=0, or use_codebook=True in its configuration"
        )
