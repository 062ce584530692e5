"""The trainer that all others build on: contrastive training of dual encoders."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftConfig, PeftModel
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedModel, ProcessorMixin, TrainerCallback
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, SaveStrategy, has_length, seed_worker

from ..checkpoints import no_token_notes
from ..data.collator import ContrastiveCollator
from ..data.images import keep_fit
from ..data.tokenization import text_padding
from ..errors import ArgumentError, DataError, VlcompError
from ..losses import contrastive_loss, sigmoid_contrastive_loss
from .adapters import add_adapter, base_model, load_adapter_weights, save_merged
from .arguments import ContrastiveTrainingArguments
from .augmentation import RandomCrops
from .distributed import gather_batch
from .evaluators import EvaluatorTrainer, resolve_evaluators
from .grad_cache import cached_backward, split_batch
from .interpolation import StartingWeights
from .optim import decay_parameter_names, freeze_tower, layer_scales, scale_learning_rates
from .publishing import PublishingTrainer
from .resuming import find_checkpoint, require_same_weights, stream_position
from .sampler import UniqueImageBatchSampler
from .setup import check_arguments, check_datasets, load_model, make_generator

logger = logging.getLogger(__name__)

Batch = dict[str, Any]
Embeds = dict[str, torch.Tensor]

_IMAGE_INPUTS = ("pixel_values", "pixel_attention_mask", "spatial_shapes")


class ContrastiveTrainer(PublishingTrainer, EvaluatorTrainer):
    """Trains CLIP, SigLIP and models built like them with an image-text contrastive loss.

    A `transformers.Trainer`: logging, checkpoints, resuming, schedules, mixed precision and several processes work
    as there. What is added: the contrastive batch as a unit (over processes, and over mini-batches with a gradient
    cache), an image at most once in a batch, hard negatives, a clamped logit scale, frozen towers, layer-wise learning
    rates, LoRA, and evaluators whose metrics can choose the best checkpoint. Every checkpoint holds the processor, so
    that `pipeline("zero-shot-image-classification", model=folder)` loads it as it is.

    Launch with `torchrun` or `accelerate launch` to use several devices; a process uses one device.

    Subclasses override [`encode`] (what the model computes for a batch), [`compute_loss_from_embeddings`] (the loss of
    the global batch) and, for state that belongs to a step, [`after_optimizer_step`]. The plain path, the gradient
    cache and several processes all go through these.

    Args:
        model (`str` or `PreTrainedModel`):
            A checkpoint (folder or Hub name; loaded in float32, the type to train in) or a model with
            `get_image_features` and `get_text_features`.
        args (`ContrastiveTrainingArguments`, *optional*):
            Settings; the defaults write to `<model name>-contrastive`.
        train_dataset (`datasets.Dataset`, `datasets.IterableDataset` or `torch.utils.data.Dataset`, *optional*):
            Rows with `image` and `caption`, and optionally `image_id` and `negative_captions`
            ([`~vlcomp.data.load_captioned`] gives them). Needed for training.
        eval_dataset (the same, or a dictionary of them, *optional*):
            Rows whose loss is logged as `eval_loss`. That loss depends on `per_device_eval_batch_size` (more rows,
            more negatives): compare it only within a run, and choose checkpoints by an evaluator's metric.
        processing_class (`ProcessorMixin`, *optional*):
            The processor; by default the one of the checkpoint.
        data_collator (`Callable`, *optional*):
            Makes a batch of a list of rows; by default a [`~vlcomp.data.ContrastiveCollator`].
        evaluators (`list`, *optional*):
            Tasks, task names (`vlcomp tasks` lists them) or functions that take an [`~vlcomp.Embedder`] and return a
            dictionary of numbers. They run at every evaluation, with or without `eval_dataset`; a metric `name` is
            logged as `eval_name`.
        peft_config (`peft.PeftConfig`, *optional*):
            Train an adapter instead of the weights, for instance `LoraConfig(r=16)`. The logit scale stays as it is.
        callbacks (`list[TrainerCallback]`, *optional*):
            As in `Trainer`.
        optimizers (`tuple`, defaults to `(None, None)`):
            As in `Trainer`.
        **kwargs:
            Further arguments of `Trainer`.

    Raises:
        ArgumentError: if arguments do not fit each other or the output folder cannot be written.
        CheckpointError: if the model or processor cannot be used.
        DataError: if the data set is empty or lacks a column.

    Example:
        >>> import tempfile
        >>> from datasets import Dataset
        >>> from vlcomp import ContrastiveTrainer, ContrastiveTrainingArguments
        >>> from vlcomp.testing import tiny_captions, tiny_clip, tiny_images, tiny_processor
        >>> data = Dataset.from_dict({"image": tiny_images(8), "caption": tiny_captions(8)})
        >>> args = ContrastiveTrainingArguments(
        ...     tempfile.mkdtemp(), per_device_train_batch_size=4, max_steps=2, disable_tqdm=True, save_strategy="no"
        ... )
        >>> trainer = ContrastiveTrainer(tiny_clip(), args, data, processing_class=tiny_processor())
        >>> trainer.train().global_step  # doctest: +ELLIPSIS
        {'train_runtime': ...}
        2
    """

    # A batch mean, so that accumulation averages (a "labels" key in a batch would otherwise multiply the loss).
    loss_is_scaled_for_ga = False

    # A subclass's settings, the end of its default output folder, and the classes it loads checkpoints as.
    arguments_class: type[ContrastiveTrainingArguments] = ContrastiveTrainingArguments
    output_suffix: str = "contrastive"
    model_classes: Mapping[str, type[PreTrainedModel]] = {}

    # What of a batch the loss may see; gathered over processes together with the embeddings.
    loss_batch_keys: tuple[str, ...] = ("image_ids", "negative_mask", "negative_type_ids")

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: ContrastiveTrainingArguments | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: ProcessorMixin | None = None,
        data_collator: Callable[[list[dict[str, Any]]], Batch] | None = None,
        evaluators: list[Any] | None = None,
        peft_config: PeftConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        **kwargs: Any,
    ) -> None:
        args = check_arguments(model, args, self.arguments_class, suffix=self.output_suffix)
        model, processing_class = load_model(model, processing_class, classes=self.model_classes)
        if peft_config is not None:
            model = add_adapter(model, peft_config)
        self._frozen = freeze_tower(base_model(model), args.freeze) if args.freeze else []
        if args.freeze_logit_scale:
            base_model(model).logit_scale.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ArgumentError("no parameter of the model is trainable; set requires_grad, or give a peft_config")

        check_datasets(train_dataset, eval_dataset, args, own_collator=data_collator is not None)
        if data_collator is None:
            processing_class = keep_fit(processing_class, args.fit)
            generator = make_generator(args, train_dataset)
            data_collator = self.default_collator(processing_class, base_model(model), args, generator=generator)
        if isinstance(train_dataset, IterableDataset) and args.accelerator_config.dispatch_batches is None:
            # Sending batches from one process needs batches of one shape; captions differ in length.
            args.accelerator_config.dispatch_batches = False

        self.evaluators = resolve_evaluators(evaluators)
        self._base_model = base_model(model)
        self._accepted = set(inspect.signature(self._base_model.forward).parameters)
        # SigLIP is trained without a mask over the padding, and its tokenizer says so.
        self._text_inputs = [
            name for name in ("input_ids", "attention_mask") if name in processing_class.tokenizer.model_input_names
        ]
        self._loss = args.loss
        if args.loss == "auto":
            self._loss = "sigmoid" if hasattr(self._base_model, "logit_bias") else "softmax"
        elif args.loss == "sigmoid" and not hasattr(self._base_model, "logit_bias"):
            raise ArgumentError(
                f"loss='sigmoid' needs a model with a logit_bias; {type(self._base_model).__name__} has none, use "
                "'softmax' or 'auto'"
            )
        self._start = None if args.interpolate is None else StartingWeights(model, args.interpolate)
        self._batch_sampler: UniqueImageBatchSampler | None = None
        self._parts: dict[str, torch.Tensor] = {}
        self._parts_count = 0
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            **kwargs,
        )
        if self.evaluators and self.is_fsdp_enabled:
            raise ArgumentError("evaluators need the whole model on one process; with FSDP evaluate after training")
        if args.mini_batch_size and self.is_deepspeed_enabled:
            raise ArgumentError("mini_batch_size does not work with DeepSpeed; leave one of them out")
        self.add_callback(_OptimizerStep(self))

    # What subclasses override

    def encode(self, model: torch.nn.Module, batch: Batch) -> Embeds:
        """Embed the rows of a batch, or of a mini-batch of it.

        Args:
            model (`torch.nn.Module`):
                The model as wrapped for training; call it once, so that distributed training sees one forward pass.
            batch (`dict`):
                Output of the collator, on the device.

        Returns:
            `dict[str, torch.Tensor]`: tensors whose first dimension is the batch (embeddings, or losses per row), and
            scalars that all rows share. Each trainable parameter reaches the loss through one of them.
        """
        texts = {name: batch[name] for name in self._text_inputs if name in batch}
        images = {name: batch[name] for name in _IMAGE_INPUTS if name in batch and name in self._accepted}
        rows, valid = len(texts["input_ids"]), None
        if "negative_input_ids" in batch:
            valid = batch["negative_mask"]
            texts = _append_negatives(texts, batch, self.processing_class.tokenizer.pad_token_id)
        outputs = model(**texts, **images)
        embeds = {"image_embeds": outputs.image_embeds, "text_embeds": outputs.text_embeds[:rows]}
        if valid is not None:
            negatives = outputs.text_embeds.new_zeros(*valid.shape, outputs.text_embeds.shape[-1])
            embeds["negative_text_embeds"] = negatives.masked_scatter(valid[..., None], outputs.text_embeds[rows:])
        embeds["logit_scale"] = self._base_model.logit_scale.exp().reshape(())
        if self._loss == "sigmoid":
            embeds["logit_bias"] = self._base_model.logit_bias.reshape(())
        return embeds

    def compute_loss_from_embeddings(
        self, embeds: Embeds, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the loss of a whole contrastive batch.

        Args:
            embeds (`dict[str, torch.Tensor]`):
                What [`encode`] returned, concatenated over mini-batches and, in training, over processes.
            batch (`dict[str, torch.Tensor]`):
                The entries `loss_batch_keys` of the batch, concatenated alike.

        Returns:
            `tuple[torch.Tensor, dict[str, torch.Tensor]]`: the scalar loss, and its parts by name for the log.
            `self.model.training` tells a training step from an evaluation.
        """
        options = {
            "image_ids": batch.get("image_ids"),
            "negative_text_embeds": embeds.get("negative_text_embeds"),
            "negative_mask": batch.get("negative_mask"),
        }
        images, texts = embeds["image_embeds"], embeds["text_embeds"]
        if self._loss == "sigmoid":
            loss = sigmoid_contrastive_loss(images, texts, embeds["logit_scale"], embeds["logit_bias"], **options)
        else:
            loss = contrastive_loss(images, texts, embeds["logit_scale"], **options)
        return loss, {"itc_loss": loss}

    def after_optimizer_step(self) -> None:
        """Called once after each optimiser step, on every process: keeps the logit scale in its limits.

        State that belongs to a step (such as adaptive thresholds) is updated here, from what
        [`compute_loss_from_embeddings`] noted during the step.
        """
        if self._loss == "softmax" and self._base_model.logit_scale.requires_grad:
            with torch.no_grad():
                self._base_model.logit_scale.clamp_(0.0, math.log(self.args.logit_scale_max))

    def default_collator(
        self, processor: ProcessorMixin, model: PreTrainedModel, args: ContrastiveTrainingArguments, **options: Any
    ) -> Callable[[list[dict[str, Any]]], Batch]:
        """Make the collator that is used if none is given; subclasses pass it further options."""
        return ContrastiveCollator(
            processor,
            fit=args.fit,
            max_text_length=args.max_text_length,
            text_kwargs=text_padding(processor, model.config),
            negatives=args.use_hard_negatives,
            max_negatives=args.max_negatives,
            skip_bad_images=args.skip_bad_images,
            **options,
        )

    # Training

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Embeds]:
        """Loss of a batch that fits in memory; see [`compute_loss_from_embeddings`]."""
        self._keep_frozen_in_eval_mode()
        embeds = self.encode(model, inputs)
        loss, parts = self._loss_of(embeds, inputs)
        self._record(parts, embeds)
        return (loss, embeds) if return_outputs else loss

    def training_step(
        self, model: torch.nn.Module, inputs: Batch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Forward and backward of one contrastive batch, through the gradient cache if `mini_batch_size` is set."""
        if self.args.mini_batch_size:
            loss = self._cached_step(model, inputs)
        else:
            loss = super().training_step(model, inputs, num_items_in_batch)
        if self.args.stop_on_nan_loss and not torch.isfinite(loss):
            raise VlcompError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}; training was stopped. Lower "
                "learning_rate, add warmup_steps, or set stop_on_nan_loss=False to go on"
            )
        return loss

    def _cached_step(self, model: torch.nn.Module, inputs: Batch) -> torch.Tensor:
        model.train()
        if callable(getattr(self.optimizer, "train", None)):
            self.optimizer.train()
        self._keep_frozen_in_eval_mode()
        inputs = self._prepare_inputs(inputs)
        steps = getattr(self, "current_gradient_accumulation_steps", 1)

        def loss_function(embeds: Embeds) -> tuple[torch.Tensor, None]:
            loss, parts = self._loss_of(embeds, inputs)
            self._record(parts, embeds)
            return loss / steps, None

        def encode(part: Batch) -> Embeds:
            with self.compute_loss_context_manager():
                return self.encode(model, part)

        no_sync = functools.partial(self.accelerator.no_sync, model)
        loss, _ = cached_backward(
            encode,
            split_batch(inputs, self.args.mini_batch_size),
            loss_function,
            backward=self.accelerator.backward,
            no_sync=no_sync if self.args.world_size > 1 else nullcontext,
        )
        return loss

    def _loss_of(self, embeds: Embeds, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        seen = {key: batch[key] for key in self.loss_batch_keys if key in batch}
        # An evaluation batch stays on its process: its loss depends on its size, which is then the one asked for.
        if self.args.world_size > 1 and self.model.training:
            embeds, seen = gather_batch(embeds, seen)
        return self.compute_loss_from_embeddings(embeds, seen)

    def _keep_frozen_in_eval_mode(self) -> None:
        for module in self._frozen:
            module.eval()

    def _run_epoch(self, model: torch.nn.Module, epoch: int, train_dataloader: DataLoader, **kwargs: Any) -> None:
        # The batches of a resumed epoch are skipped by a wrapper that passes the epoch on to nobody.
        for part in (self._batch_sampler, train_dataloader.dataset, self.data_collator):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        super()._run_epoch(model=model, epoch=epoch, train_dataloader=train_dataloader, **kwargs)

    def _init_training_state(
        self, max_steps: int, steps_per_epoch: int, epochs: int, resume_from_checkpoint: str | None, trial: Any
    ) -> tuple[int, int]:
        start = super()._init_training_state(max_steps, steps_per_epoch, epochs, resume_from_checkpoint, trial)
        # A stream has as many epochs as it takes.
        stream = epochs == sys.maxsize and self.state.global_step > 0 and resume_from_checkpoint is not None
        return stream_position(resume_from_checkpoint, self.args) if stream else start

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; see `transformers.Trainer.train`."""
        if self.train_dataset is None:
            raise ArgumentError("train() needs a train_dataset")
        self._parts, self._parts_count = {}, 0
        if resume_from_checkpoint:
            tokenizer = self.processing_class.tokenizer
            resume_from_checkpoint = str(find_checkpoint(resume_from_checkpoint, self.args.output_dir, tokenizer))
        try:
            with no_token_notes():
                result = super().train(resume_from_checkpoint, **kwargs)
        except DataError as error:
            # A picture that cannot be read should not cost the steps before it.
            saved = self._save_steps_so_far()
            if saved is None:
                raise
            raise DataError(
                f"{error}. The {self.state.global_step} steps before it are saved in {saved}: repair or remove the "
                "picture and go on with resume_from_checkpoint (--resume_from_checkpoint last)"
            ) from error
        if not result.global_step:
            raise DataError("train_dataset gave no rows, so nothing was trained")
        if self._start is not None:
            self._start.mix_into(self.model)
        return result

    def _save_steps_so_far(self) -> Path | None:
        # Of several processes only one has failed, and the others cannot be asked to save with it.
        if self.args.save_strategy == SaveStrategy.NO or self.args.world_size > 1 or not self.state.global_step:
            return None
        folder = Path(self.args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        if not folder.exists():
            self._save_checkpoint(self.model, None)
        return folder

    def get_train_dataloader(self) -> DataLoader:
        """Batches of `per_device_train_batch_size` rows, an image at most once in the batch of all processes."""
        dataset, args = self.train_dataset, self.args
        if isinstance(dataset, IterableDataset) or not has_length(dataset) or args.train_sampling_strategy != "random":
            if args.random_crop is not None:
                raise ArgumentError("random_crop needs data with row numbers, shuffled at random; leave it out")
            return super().get_train_dataloader()
        self._batch_sampler = UniqueImageBatchSampler(
            self._image_ids(dataset),
            self._train_batch_size,
            num_processes=1 if self.accelerator.split_batches else args.world_size,
            seed=args.seed if args.data_seed is None else args.data_seed,
            drop_last=args.dataloader_drop_last,
        )
        if args.random_crop is not None:
            dataset = RandomCrops(dataset, args.random_crop, seed=self._batch_sampler.seed)
        loader = DataLoader(
            dataset,
            batch_sampler=self._batch_sampler,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            worker_init_fn=functools.partial(
                seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index
            ),
        )
        return self.accelerator.prepare(loader)

    def _image_ids(self, dataset: Any) -> np.ndarray:
        ids, size = None, self._train_batch_size * self.args.world_size
        if self.args.unique_images:
            if "image_id" in (getattr(dataset, "column_names", None) or ()):
                ids = dataset["image_id"]
            else:
                ids = getattr(dataset, "image_ids", None)
        ids = np.arange(len(dataset)) if ids is None else np.asarray(ids)
        if size > 1 and (ids == ids[0]).all():
            raise DataError(
                f"train_dataset has {len(ids)} row{'s' * (len(ids) > 1)} of one image; a contrastive loss compares "
                "images, so at least two are needed"
            )
        if size > len(ids):
            logger.warning(
                "the batch of %d is larger than the %d rows there are, so each step trains on all of them; lower "
                "per_device_train_batch_size (--batch-size)",
                size,
                len(ids),
            )
        return ids

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Names of the parameters with weight decay; see [`~vlcomp.training.optim.decay_parameter_names`]."""
        return decay_parameter_names(model)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimiser, with layer-wise learning rates if `layer_decay` is set."""
        given = self.optimizer is not None
        optimizer = super().create_optimizer(model)
        if self.args.layer_decay is not None and not given:
            trained = self.model if model is None else model
            scale_learning_rates(optimizer, trained, layer_scales(trained, self.args.layer_decay))
        return optimizer

    # Logging

    def _record(self, parts: dict[str, torch.Tensor], embeds: Embeds) -> None:
        if not self.model.training:
            return
        if "logit_scale" in embeds:
            parts = {**parts, "logit_scale": embeds["logit_scale"]}
        for name, value in parts.items():
            value = torch.as_tensor(value, device=self.args.device).detach().float()
            self._parts[name] = self._parts[name] + value if name in self._parts else value
        self._parts_count += 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; parts of the loss are added to its entry, averaged over the steps since the last one."""
        if "loss" in logs and self._parts_count:
            names = list(self._parts)
            mean = torch.stack([self._parts[name] for name in names]) / self._parts_count
            if self.args.world_size > 1:
                mean = self.accelerator.reduce(mean, "mean")
            logs = {"loss": logs["loss"], **dict(zip(names, mean.tolist(), strict=True)), **logs}
            self._parts, self._parts_count = {}, 0
        super().log(logs, start_time)

    # Evaluation

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...] | None, torch.Tensor | None]:
        """Loss, `(image_embeds, text_embeds)` and `image_ids` of an evaluation batch."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, embeds = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss, None, None
        return loss, (embeds["image_embeds"], embeds["text_embeds"]), inputs.get("image_ids")

    # Checkpoints

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if not (isinstance(self.model, PeftModel) and self.args.merge_adapter):
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            save_merged(self.model, folder)
            self.processing_class.save_pretrained(folder)
            torch.save(self.args, folder / TRAINING_ARGS_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if isinstance(self.model, PeftModel):
            load_adapter_weights(self.model, resume_from_checkpoint)
        else:
            require_same_weights(resume_from_checkpoint, self.model)
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if isinstance(self.model, PeftModel):
            load_adapter_weights(self.model, self.state.best_model_checkpoint)
        else:
            super()._load_best_model()


class _OptimizerStep(TrainerCallback):
    """Tells the trainer that the optimiser has made a step."""

    def __init__(self, trainer: ContrastiveTrainer) -> None:
        self._trainer = trainer

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.after_optimizer_step()


def _append_negatives(texts: Batch, batch: Batch, pad_token_id: int) -> Batch:
    """Captions and, after them, the hard negatives that exist, padded to one length."""
    valid, joined = batch["negative_mask"], {}
    for name, tensor in texts.items():
        negatives = batch[f"negative_{name}"][valid]
        width = max(tensor.shape[1], negatives.shape[1])
        fill = pad_token_id if name == "input_ids" else 0
        joined[name] = torch.cat(
            [torch.nn.functional.pad(x, (0, width - x.shape[1]), value=fill) for x in (tensor, negatives)]
        )
    return joined
