"""Few-shot training of prompts in a frozen CLIP: COMMA and the methods it is compared with."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftConfig
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset
from transformers import EvalPrediction, PreTrainedModel, ProcessorMixin
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

from ..data.images import target_size
from ..errors import ArgumentError, CheckpointError, DataError, check_count, check_number
from ..evaluation.scoring import TIE_TOLERANCE
from ..losses import knowledge_loss
from ..models.comma import CommaModel
from ..models.comma.configuration_comma import PROMPT_FIELDS, VARIANTS
from ..models.comma.promptfile_comma import read_settings
from .arguments import ContrastiveTrainingArguments
from .contrastive import Batch, ContrastiveTrainer, Embeds
from .labelled import CLASS_INDEX, ClassSet, LabelledCollator, RandomViews
from .prompted import classes_in_chunks, load_prompted
from .setup import check_arguments

PROMPTS_FILE = "prompts.safetensors"
# Settings of contrastive training that would do nothing here, and what does it instead.
_REFUSED = {
    "loss": "",
    "mini_batch_size": "gradient_accumulation_steps, which is exact here",
    "use_hard_negatives": "",
    "generate_negatives": "",
    "max_negatives": "",
    "freeze": "prompt_variant",
    "layer_decay": "",
    "logit_scale_max": "",
    "freeze_logit_scale": "",
    "unique_images": "",
    "max_text_length": "a shorter template",
    "merge_adapter": "",
    "interpolate": "",
}


@dataclass
class CommaTrainingArguments(ContrastiveTrainingArguments):
    """Settings of [`CommaTrainer`]. The defaults are those of the paper's base-to-novel protocol.

    They are: SGD (momentum 0.9, weight decay 5e-4) at a learning rate of 0.0035 with a cosine schedule after one epoch
    at 1e-5, 5 epochs, batches of 4, random resized crops and mirroring, no clipping of gradients. The transfer
    protocols of the paper use `learning_rate=0.0026`, `num_train_epochs=2` and `prompt_depth=3`.

    Gradients of accumulated batches and of several processes are those of one large batch. Settings of
    [`ContrastiveTrainingArguments`] that are about captions raise an error.

    Args:
        kd_weight (`float`, defaults to 1.0):
            Weight of the knowledge term; 0 leaves it out. It needs text prompts, and is left out without them.
        warmup_epochs (`float`, defaults to 1.0):
            Epochs at the start with the learning rate `warmup_lr`. With 0, `warmup_steps` works as in `Trainer`.
        warmup_lr (`float`, defaults to 1e-5):
            Learning rate of these epochs.
        class_chunk_size (`int`, defaults to 128):
            Classes whose texts are encoded at a time. More classes than that are encoded again in the backward pass,
            so that memory does not grow with their number.
        random_crop (`float`, *optional*, defaults to 0.08):
            Area of the smallest crop, as a part of the image. A crop is stretched to the model's size.
        random_flip (`bool`, defaults to `True`):
            Mirror half of the images. Not for classes that tell left from right.
        save_full_checkpoints (`bool`, defaults to `False`):
            Write the whole model into the checkpoints of a run, and not the prompts alone (`prompts.safetensors`, a
            few MB, which `CommaModel.from_clip(clip, prompts=file)` reads). `save_model` always writes all of it.
        prompt_variant, n_ctx, prompt_depth, template, ... (*optional*):
            The settings of prompts that [`~vlcomp.CommaConfig`] has under these names, for a model given as the name
            of a plain CLIP.

    Raises:
        ArgumentError: if a value is not allowed.

    Example:
        >>> from vlcomp import CommaTrainingArguments
        >>> args = CommaTrainingArguments("output", prompt_variant="maple", num_train_epochs=2)
        >>> args.learning_rate, args.per_device_train_batch_size, args.kd_weight
        (0.0035, 4, 1.0)
    """

    learning_rate: float = field(default=0.0035, metadata={"help": "Learning rate after the first epochs."})
    lr_scheduler_type: SchedulerType | str = field(
        default="cosine", metadata={"help": "Schedule of the learning rate after the first epochs."}
    )
    optim: OptimizerNames | str = field(default="sgd", metadata={"help": "The optimiser."})
    optim_args: str | None = field(
        default="momentum=0.9", metadata={"help": "Options of the optimiser; of sgd the momentum."}
    )
    weight_decay: float = field(default=5e-4, metadata={"help": "Weight decay of prompts and generator."})
    max_grad_norm: float = field(default=0.0, metadata={"help": "Clip gradients to this norm; 0 does not."})
    num_train_epochs: float = field(default=5.0, metadata={"help": "Passes over the data."})
    per_device_train_batch_size: int = field(default=4, metadata={"help": "Images per device in a step."})
    random_crop: float | None = field(
        default=0.08, metadata={"help": "Train on random parts of the images, of at least this part of the area."}
    )
    random_flip: bool = field(default=True, metadata={"help": "Mirror half of the training images."})
    kd_weight: float = field(default=1.0, metadata={"help": "Weight of the knowledge term; 0 leaves it out."})
    warmup_epochs: float = field(default=1.0, metadata={"help": "Epochs at the start with the rate warmup_lr."})
    warmup_lr: float = field(default=1e-5, metadata={"help": "Learning rate of the first epochs."})
    class_chunk_size: int = field(default=128, metadata={"help": "Classes whose texts are encoded at a time."})
    save_full_checkpoints: bool = field(
        default=False, metadata={"help": "Write the whole model into each checkpoint, not the prompts alone."}
    )
    prompt_variant: str | None = field(default=None, metadata={"help": f"What is learned: {', '.join(VARIANTS)}."})
    n_ctx: int | None = field(default=None, metadata={"help": "Learned vectors per layer and branch (2)."})
    prompt_depth: int | None = field(default=None, metadata={"help": "How many layers have prompts (9)."})
    template: str | None = field(default=None, metadata={"help": "Text of a class ('a photo of a {}.')."})
    knowledge_template: str | None = field(
        default=None, metadata={"help": "Template that the frozen CLIP reads for the knowledge term."}
    )
    ctx_init: str | None = field(
        default=None, metadata={"help": "Start of the first text prompts: template (its words) or random."}
    )
    prompt_std: float | None = field(default=None, metadata={"help": "Standard deviation of new prompts (0.02)."})
    generator_mlp: bool | None = field(
        default=None, metadata={"help": "LayerNorm and MLP after each step of the generator (true)."}
    )
    share_generator: bool | None = field(
        default=None, metadata={"help": "Whether all layers share one generator (true)."}
    )
    detach_generator: bool | None = field(
        default=None, metadata={"help": "Cut the gradient of the generator, as the authors' code does (false)."}
    )
    kd_layers: int | None = field(
        default=None, metadata={"help": "How many of the last text blocks the knowledge term compares (1)."}
    )

    def __post_init__(self):
        for entry in fields(ContrastiveTrainingArguments):
            value = getattr(self, entry.name)
            if entry.name in _REFUSED and value != entry.default:
                other = f", or use {_REFUSED[entry.name]}" if _REFUSED[entry.name] else ""
                raise ArgumentError(f"{entry.name}={value!r} has no effect on prompts; leave it out{other}")
        for name in ("kd_weight", "warmup_epochs", "warmup_lr"):
            value = getattr(self, name)
            check_number(name, value)
            if not 0 <= value < math.inf:
                raise ArgumentError(f"{name}={value} must be 0 or more")
        check_count("class_chunk_size", self.class_chunk_size)
        if self.prompt_variant is not None and self.prompt_variant not in VARIANTS:
            raise ArgumentError(f"prompt_variant={self.prompt_variant!r} is not one of {', '.join(VARIANTS)}")
        if self.warmup_epochs and self.warmup_steps:
            raise ArgumentError(
                f"warmup_steps={self.warmup_steps} and warmup_epochs={self.warmup_epochs} are two ways to begin; give "
                "warmup_epochs=0 for the linear warm-up of warmup_steps"
            )
        if self.warmup_epochs and getattr(self.lr_scheduler_type, "value", self.lr_scheduler_type) in (
            "reduce_lr_on_plateau",
            "greedy",
        ):
            raise ArgumentError(
                f"lr_scheduler_type={self.lr_scheduler_type!r} follows the loss and not the step; give warmup_epochs=0"
            )
        super().__post_init__()
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = False  # every prompt gets a gradient in every step


class CommaTrainer(ContrastiveTrainer):
    """Trains the prompts of a [`~vlcomp.CommaModel`] on a few labelled images of each class.

    The loss is `ce_loss + kd_weight * knowledge_loss`: cross-entropy of the image over all classes, and how far the
    hidden states of the prompted texts are from those of the frozen CLIP on the hand-crafted template. Which prompts
    there are is the model's `prompt_variant`: CoOp, deep prompts, MaPLe and COMMA differ in nothing else. CLIP is
    frozen: only prompts and their generator are in the optimiser and in the checkpoints of a run.

    Class texts are as long as the longest of the set needs, the targets of the knowledge term are computed once, and
    an evaluation encodes each class once. Logged are `ce_loss`, `knowledge_loss` and `accuracy` (of the training
    images, ties wrong). `eval_loss` is the cross-entropy alone, and `eval_accuracy` that of the evaluation set.

    Args:
        model (`str` or `CommaModel`):
            Name of a plain CLIP, into which new prompts are put as `args` say, or of a saved model with prompts; or a
            model ([`~vlcomp.CommaModel.from_clip`]).
        args (`CommaTrainingArguments`, *optional*):
            Settings; the defaults write to `<model name>-comma`.
        train_dataset (`datasets.Dataset` or `torch.utils.data.Dataset`, *optional*):
            Rows with `image` and `label` ([`~vlcomp.data.load_image_classes`] gives them). Needed for training.
        eval_dataset (the same, or a dictionary of them, *optional*):
            Rows of the same classes.
        processing_class (`ProcessorMixin`, *optional*):
            The processor; by default the one of the checkpoint.
        data_collator (`Callable`, *optional*):
            Makes a batch (`pixel_values`, `class_index`) of a list of rows.
        class_names (`Sequence[str]`, *optional*):
            What to call the classes, in the order of their numbers. By default the names that the column `label` has,
            with blanks for underscores, then those of the model. Classes that the model has already under the same
            names stay as they are, with the templates they were set with.
        peft_config (`PeftConfig`, *optional*):
            Not supported: CLIP is frozen.
        **kwargs:
            Further arguments of [`ContrastiveTrainer`] (`evaluators`, `callbacks`, ...).

    Raises:
        ArgumentError: if arguments do not fit each other or the model.
        CheckpointError: if the model or processor cannot be used, or a checkpoint has other settings.
        DataError: if the data set is empty, lacks a column, or has a label outside the classes.

    Reference:
        Hu, Gao, Liu, Pun, Feng 2024 (AAAI, arXiv 2401.00268).

    Deviations:
        The cosine schedule falls in each step and to 0; the authors' falls after each epoch. See also
        [`~vlcomp.CommaModel`].

    Example:
        >>> import tempfile
        >>> from vlcomp import CommaTrainer, CommaTrainingArguments
        >>> from vlcomp.data import load_image_classes
        >>> from vlcomp.testing import make_class_folder, save_tiny_checkpoint
        >>> data = load_image_classes(make_class_folder(tempfile.mkdtemp(), ("cup", "star"))).dataset
        >>> args = CommaTrainingArguments(
        ...     tempfile.mkdtemp(), num_train_epochs=2, disable_tqdm=True, save_strategy="no", report_to="none"
        ... )
        >>> trainer = CommaTrainer(save_tiny_checkpoint(tempfile.mkdtemp()), args, data)
        >>> trainer.train().global_step  # doctest: +ELLIPSIS
        {'train_runtime': ...}
        4
        >>> trainer.model.class_names
        ('cup', 'star')
    """

    arguments_class = CommaTrainingArguments
    output_suffix = "comma"
    loss_batch_keys = (CLASS_INDEX,)

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: CommaTrainingArguments | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: ProcessorMixin | None = None,
        data_collator: Callable[[list[dict[str, Any]]], Batch] | None = None,
        *,
        class_names: Sequence[str] | None = None,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> None:
        args = check_arguments(model, args, self.arguments_class, suffix=self.output_suffix, contrastive=False)
        if peft_config is not None:
            raise ArgumentError("peft_config adapts the weights of CLIP, which is frozen here; leave it out")
        prompts = {name: getattr(args, name) for name in PROMPT_FIELDS if getattr(args, name) is not None}
        model, processing_class = load_prompted(model, processing_class, prompts, seed=args.seed)
        evaluations = eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset}
        named = {"train_dataset": train_dataset}
        named |= {f"eval_dataset {name}".strip(): dataset for name, dataset in evaluations.items()}
        named = {name: dataset for name, dataset in named.items() if dataset is not None}
        for name, dataset in named.items():
            _check_rows(name, dataset, own_collator=data_collator is not None)
        self.classes = _classes_for(model, list(named.values()), class_names)
        for name, dataset in named.items():
            self.classes.check(name, dataset)
        if model.class_names != self.classes.names:
            try:
                model.set_classes(self.classes.names, tokenizer=processing_class)
            except ValueError as error:
                raise ArgumentError(f"class_names: {error}") from error
        if data_collator is None:
            data_collator = self.default_collator(processing_class, model, args)
        if train_dataset is not None and (args.random_crop is not None or args.random_flip):
            seed = args.seed if args.data_seed is None else args.data_seed
            size = target_size(processing_class) if args.random_crop is not None else None
            train_dataset = RandomViews(train_dataset, args.random_crop, flip=args.random_flip, size=size, seed=seed)
        # Without text prompts the knowledge term is a constant.
        self._knows = bool(args.kd_weight and model.config.text_prompt_depth)
        self._saves_prompts = False
        self._epoch_batches = 0
        kwargs.setdefault("compute_metrics", _accuracy_of)
        super().__init__(model, args, train_dataset, eval_dataset, processing_class, data_collator, **kwargs)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ArgumentError(
                "prompts are a few MB and need no sharding; train without FSDP and DeepSpeed (plain `torchrun` or "
                "`accelerate launch`)"
            )
        # A frozen tower with dropout would be another function in each step.
        towers = (model.text_model, model.vision_model)
        self._frozen = [tower for tower in towers if tower.config.attention_dropout]

    # The loss

    def encode(self, model: torch.nn.Module, batch: Batch) -> Embeds:
        """Embed the images of a batch and the classes; see [`ContrastiveTrainer.encode`].

        Args:
            model (`torch.nn.Module`):
                The model as wrapped for training.
            batch (`dict`):
                Output of the collator, on the device.

        Returns:
            `dict[str, torch.Tensor]`: `image_embeds` [B, D], `class_embeds` [C, D], `scale` and, in training with a
            knowledge term, `knowledge_loss`.
        """
        size, knows = self.args.class_chunk_size, self._knows and torch.is_grad_enabled()
        with classes_in_chunks(self._base_model, size):
            outputs = model(pixel_values=batch["pixel_values"], output_text_hidden_states=knows)
        embeds = {"image_embeds": outputs.image_embeds, "class_embeds": outputs.text_embeds}
        embeds["scale"] = self._base_model.logit_scale.exp().reshape(())
        if knows:
            targets, mask = self._targets()
            embeds["knowledge_loss"] = knowledge_loss(outputs.text_hidden_states, targets, outputs.text_mask, mask)
        return embeds

    def _targets(self) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Those of the knowledge term; the model keeps them, so that dropout would stay in them for good."""
        tower = self._base_model.text_model
        training = tower.training
        tower.eval()
        try:
            return self._base_model.knowledge_targets(batch_size=self.args.class_chunk_size)
        finally:
            tower.train(training)

    def compute_loss_from_embeddings(
        self, embeds: Embeds, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean cross-entropy of the rows of a batch, plus the knowledge term.

        Args:
            embeds (`dict[str, torch.Tensor]`):
                What [`encode`] returned.
            batch (`dict[str, torch.Tensor]`):
                With `class_index` [B].

        Returns:
            `tuple[torch.Tensor, dict[str, torch.Tensor]]`: the scalar loss, and its parts by name for the log.
        """
        logits, wanted = _logits(embeds), batch[CLASS_INDEX]
        loss = functional.cross_entropy(logits, wanted)
        parts = {"ce_loss": loss, "accuracy": _strictly_right(logits, wanted).float().mean()}
        if "knowledge_loss" in embeds:
            loss = loss + self.args.kd_weight * embeds["knowledge_loss"]
            parts["knowledge_loss"] = embeds["knowledge_loss"]
        return loss, parts

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Embeds]:
        """Loss of a batch. In training it counts as the part it is of all rows of the step, over processes too."""
        self._keep_frozen_in_eval_mode()
        embeds = self.encode(model, inputs)
        loss, parts = self.compute_loss_from_embeddings(embeds, inputs)
        if self.model.training and num_items_in_batch:
            steps = getattr(self, "current_gradient_accumulation_steps", 1)
            share = len(inputs[CLASS_INDEX]) * steps * self.args.world_size / int(num_items_in_batch)
            loss, parts = loss * share, {name: value * share for name, value in parts.items()}
        self._record(parts, embeds)
        return (loss, embeds) if return_outputs else loss

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], int | None]:
        """The batches of an optimiser step, and how many rows they have on all processes."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        rows = sum(len(batch[CLASS_INDEX]) for batch in samples)
        if self.args.world_size > 1:
            rows = int(self.accelerator.reduce(torch.tensor(rows, device=self.args.device), "sum"))
        return samples, rows

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Loss, logits and classes of an evaluation batch."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, embeds = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss, None, None
        return loss, _logits(embeds), inputs[CLASS_INDEX]

    # Data and schedule

    def default_collator(
        self, processor: ProcessorMixin, model: PreTrainedModel, args: ContrastiveTrainingArguments, **options: Any
    ) -> Callable[[list[dict[str, Any]]], Batch]:
        """Make the collator that is used if none is given."""
        return LabelledCollator(processor, self.classes, fit=args.fit, skip_bad_images=args.skip_bad_images, **options)

    def get_train_dataloader(self) -> DataLoader:
        """Shuffled batches of augmented images, the same ones when a run is resumed."""
        crop, self.args.random_crop = self.args.random_crop, None  # the rows are cropped already
        try:
            loader = super().get_train_dataloader()
        finally:
            self.args.random_crop = crop
        self._epoch_batches = len(loader)
        return loader

    def _image_ids(self, dataset: Any) -> np.ndarray:
        return np.arange(len(dataset))  # an image may come twice in a batch: images are not compared with each other

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the schedule of the learning rate: a constant first, then the one that was asked for."""
        args, given = self.args, self.lr_scheduler is not None
        if given or not args.warmup_epochs or not args.learning_rate:
            return super().create_scheduler(num_training_steps, optimizer)
        steps = round(args.warmup_epochs * math.ceil(self._epoch_batches / args.gradient_accumulation_steps))
        if steps >= num_training_steps:
            raise ArgumentError(
                f"warmup_epochs={args.warmup_epochs:g} are {steps} steps, and the run has {num_training_steps}: all "
                f"of it would be at warmup_lr={args.warmup_lr:g}. Train longer, or lower warmup_epochs (0 for none)"
            )
        try:
            args.warmup_steps = steps
            scheduler = super().create_scheduler(num_training_steps, optimizer)
        finally:
            args.warmup_steps = 0
        start = args.warmup_lr / args.learning_rate
        scheduler.lr_lambdas = [_after_constant(rate, steps, start) for rate in scheduler.lr_lambdas]
        # The rate of the first step is set when the schedule is made, before its start is known.
        for group, base in zip(scheduler.optimizer.param_groups, scheduler.base_lrs, strict=True):
            group["lr"] = base * start
        scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]
        return scheduler

    # Checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model: all of it, or the prompts alone for a checkpoint in the middle of training."""
        whole = self.args.save_full_checkpoints or self.args.push_to_hub
        self._saves_prompts = _internal_call and output_dir is not None and not whole
        try:
            super().save_model(output_dir, _internal_call)
        finally:
            self._saves_prompts = False

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.state.global_step:
            self._base_model.config.kd_weight = float(self.args.kd_weight) if self._knows else None
        if not self._saves_prompts:
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            self._base_model.save_prompts(folder / PROMPTS_FILE)
            torch.save(self.args, folder / TRAINING_ARGS_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if not self._load_prompts(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if not self._load_prompts(self.state.best_model_checkpoint):
            super()._load_best_model()

    def _load_prompts(self, folder: str | os.PathLike[str]) -> bool:
        """Read the prompts of a checkpoint; false if it has no file of them."""
        path = Path(folder, PROMPTS_FILE)
        if not path.is_file():
            return False
        config = self._base_model.config
        try:
            for name, value in read_settings(path)["settings"].items():
                if value != getattr(config, name):
                    raise CheckpointError(
                        f"{path} was written with {name}={value!r}, and the model has {getattr(config, name)!r}; "
                        "resume with the settings of the first run"
                    )
            self._base_model.load_prompts(path)
        except CheckpointError:
            raise
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        return True


def _check_rows(name: str, dataset: Any, *, own_collator: bool) -> None:
    if isinstance(dataset, (str, os.PathLike)):
        raise ArgumentError(
            f"{name}={os.fspath(dataset)!r} is a name, not data; pass "
            f"vlcomp.data.load_image_classes({os.fspath(dataset)!r}).dataset"
        )
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise ArgumentError(f"{name} is a {type(dataset).__name__} without a length; few-shot data must have one")
    present = getattr(dataset, "column_names", None)
    for column in () if own_collator else ("image", "label"):
        if present and column not in present:
            raise DataError(
                f"{name} has no column {column!r}, only {', '.join(present)}; use dataset.rename_column, or load a "
                "folder of images by class with vlcomp.data.load_image_classes"
            )


def _classes_for(model: CommaModel, datasets: list[Any], names: Sequence[str] | None) -> ClassSet:
    if names is None and not datasets:
        names = model.class_names
        if names is None:
            raise ArgumentError("class_names is missing; pass it, or a train_dataset whose labels have names")
    if not datasets:
        return ClassSet(tuple(names or ()))
    try:
        return ClassSet.of(datasets[0], names)
    except ArgumentError:
        if names is None and model.class_names is not None:
            return ClassSet.of(datasets[0], model.class_names)
        raise


def _logits(embeds: Embeds) -> torch.Tensor:
    """Scaled cosines [B, C], at least in float32."""
    images, classes = (
        value if value.dtype == torch.float64 else value.float()
        for value in (embeds["image_embeds"], embeds["class_embeds"])
    )
    return embeds["scale"].to(images.dtype) * images @ classes.T


@torch.no_grad()
def _strictly_right(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Which rows have their class strictly above all others, [B] bool."""
    own = logits.gather(1, wanted[:, None])
    others = logits.scatter(1, wanted[:, None], -torch.inf)
    return (own - others > TIE_TOLERANCE).all(dim=1)


def _accuracy_of(prediction: EvalPrediction) -> dict[str, float]:
    logits, wanted = torch.from_numpy(prediction.predictions), torch.from_numpy(prediction.label_ids)
    return {"accuracy": _strictly_right(logits, wanted).float().mean().item()}


def _after_constant(rate: Callable[[int], float], steps: int, start: float) -> Callable[[int], float]:
    return lambda step: start if step < steps else rate(step)
