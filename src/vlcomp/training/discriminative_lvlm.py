"""Training of a discriminative LVLM: short captions are contrasted, long ones continued, in one pass an image."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from peft import PeftConfig
from transformers import AutoConfig, AutoProcessor, PreTrainedModel, ProcessorMixin, set_seed

from ..checkpoints import require_processor
from ..data.captions_by_length import COLUMNS, CaptionsByLengthCollator, strings_of_patches
from ..data.images import keep_fit
from ..data.tokenization import text_padding
from ..errors import ArgumentError, CheckpointError, DataError, VlcompError, check_count, check_number
from ..losses import next_token_loss
from ..models.discriminative_lvlm import (
    DiscriminativeLVLMConfig,
    DiscriminativeLVLMModel,
    DiscriminativeLVLMProcessor,
)
from ..models.discriminative_lvlm.checkpoint_discriminative_lvlm import put_adapters, read_adapters
from .arguments import ContrastiveTrainingArguments
from .contrastive import Batch, ContrastiveTrainer, Embeds
from .setup import check_arguments, check_dataset, first_cause, model_name

logger = logging.getLogger(__name__)

# Rows of the data whose captions' lengths are looked at before training.
_LOOKED_AT = 1000
# Settings that make a discriminative LVLM of an LVLM; None leaves them as the model's configuration has them.
MODEL_SETTINGS = (
    "soft_prompts",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "image_prompt",
    "text_prompt",
    "summary_token",
)
# Inputs of the texts, and what only the loss needs; the rest of a batch describes images.
_NOT_OF_IMAGES = (
    "input_ids",
    "attention_mask",
    "caption_input_ids",
    "caption_attention_mask",
    "short_mask",
    "image_ids",
    "left_out_captions",
)


@dataclass
class DiscriminativeLVLMTrainingArguments(ContrastiveTrainingArguments):
    """Settings of [`DiscriminativeLVLMTrainer`]: those of [`ContrastiveTrainingArguments`] and the ones below.

    The defaults are the paper's: AdamW with learning rate 1e-4, cosine schedule, the sum of both directions of the
    contrastive loss on captions below 30 tokens, and the next-token loss on captions of 30 to 500 tokens. The paper's
    contrastive batch is 1024: set `mini_batch_size` to what fits.

    Args:
        contrastive_weight (`float`, defaults to 2.0):
            Weight of the contrastive loss, the mean of its two directions; 2 gives their sum, as in the paper.
        next_token_weight (`float`, defaults to 1.0):
            Weight of the next-token loss; with 0 long captions are not read.
        short_below (`int`, defaults to 30):
            Captions with fewer tokens are contrasted.
        long_from (`int`, defaults to 30):
            Captions with at least this many tokens are continued.
        long_to (`int`, defaults to 500):
            Longer captions are not used.
        vocabulary_chunk (`int`, defaults to 8192):
            Words that the next-token loss compares at a time.
        soft_prompts (`bool`, *optional*):
            Train embeddings in place of those of the prompts' tokens. This and the settings below are for starting
            from an LVLM (by default as in [`DiscriminativeLVLMConfig`]: soft prompts, and LoRA of rank 16 with alpha
            16); a discriminative LVLM brings its own, which cannot be changed.
        lora_rank (`int`, *optional*):
            Rank of the LoRA of the language model; 0 for none.
        lora_alpha (`float`, *optional*):
            Its scale.
        lora_dropout (`float`, *optional*):
            Its dropout.
        lora_target_modules (`list[str]`, *optional*):
            Names of the linear layers with a LoRA.
        image_prompt (`str`, *optional*):
            What stands after an image.
        text_prompt (`str`, *optional*):
            What stands after a text.
        summary_token (`str`, *optional*):
            Where the embedding is taken: `"last"` or `"prompt"`.

    Raises:
        ArgumentError: if a value is not allowed, or a setting is not one of this method.

    Example:
        >>> from vlcomp import DiscriminativeLVLMTrainingArguments
        >>> args = DiscriminativeLVLMTrainingArguments("output", per_device_train_batch_size=1024, mini_batch_size=16)
        >>> args.learning_rate, args.short_below, args.next_token_weight
        (0.0001, 30, 1.0)
    """

    learning_rate: float = field(default=1e-4, metadata={"help": "The highest learning rate."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule of the learning rate."})
    contrastive_weight: float = field(
        default=2.0, metadata={"help": "Weight of the contrastive loss; 2 is the paper's sum of both directions."}
    )
    next_token_weight: float = field(
        default=1.0, metadata={"help": "Weight of the next-token loss; with 0 long captions are not read."}
    )
    short_below: int = field(default=30, metadata={"help": "Captions with fewer tokens are contrasted."})
    long_from: int = field(default=30, metadata={"help": "Captions with at least this many tokens are continued."})
    long_to: int = field(default=500, metadata={"help": "Captions with more tokens are not used."})
    vocabulary_chunk: int = field(
        default=8192, metadata={"help": "Words that the next-token loss compares at a time."}
    )
    soft_prompts: bool | None = field(
        default=None, metadata={"help": "Train the embeddings of the prompts' tokens (default: yes)."}
    )
    lora_rank: int | None = field(default=None, metadata={"help": "Rank of the LoRA (default: 16); 0 for none."})
    lora_alpha: float | None = field(default=None, metadata={"help": "Scale of the LoRA (default: 16)."})
    lora_dropout: float | None = field(default=None, metadata={"help": "Dropout of the LoRA (default: 0)."})
    lora_target_modules: list[str] | None = field(
        default=None, metadata={"help": "Linear layers with a LoRA (default: attention and MLP)."}
    )
    image_prompt: str | None = field(default=None, metadata={"help": "What stands after an image."})
    text_prompt: str | None = field(default=None, metadata={"help": "What stands after a text."})
    summary_token: str | None = field(
        default=None, metadata={"help": "Where the embedding is taken: last (default) or prompt."}
    )

    def __post_init__(self):
        for name in ("contrastive_weight", "next_token_weight"):
            check_number(name, getattr(self, name))
            if not 0 <= getattr(self, name) < math.inf:
                raise ArgumentError(f"{name}={getattr(self, name)} must be 0 or more")
        if not self.contrastive_weight and not self.next_token_weight:
            raise ArgumentError("contrastive_weight=0 and next_token_weight=0 train nothing; set one of them")
        for name in ("short_below", "long_from", "long_to", "vocabulary_chunk"):
            check_count(name, getattr(self, name))
        if self.long_to < self.long_from:
            raise ArgumentError(
                f"long_to={self.long_to} is below long_from={self.long_from}; no caption would be long"
            )
        if self.lora_rank is not None:
            check_count("lora_rank", self.lora_rank, 0, "; 0 for no LoRA")
        if self.lora_rank == 0 and self.soft_prompts is False:
            raise ArgumentError("lora_rank=0 and soft_prompts=False leave nothing to train; set one of them")
        for name, reason in (
            ("freeze", "the LVLM is frozen, and only adapters train"),
            ("layer_decay", "adapters of all layers learn at one rate"),
            ("interpolate", "the adapters start at nothing; lower lora_alpha, or switch them off in the model"),
            ("max_text_length", "short_below and long_to say which lengths are used"),
            ("max_negatives", "its contrastive loss has no hard negatives"),
        ):
            if getattr(self, name) is not None:
                raise ArgumentError(f"{name}={getattr(self, name)!r} is no setting of this method: {reason}")
        if self.use_hard_negatives:
            raise ArgumentError(
                "use_hard_negatives=True is no setting of this method, whose contrastive loss has none; leave it out"
            )
        if not self.merge_adapter:
            raise ArgumentError(
                "merge_adapter=False is no setting of this method, whose checkpoint is the adapters; merge_and_save "
                "of the model writes a whole one"
            )
        if self.loss == "sigmoid":
            raise ArgumentError("loss='sigmoid' needs a logit bias, which the model has not; leave it out")
        super().__post_init__()

    def to_dict(self) -> dict[str, Any]:
        """The settings; transformers takes all that ends in `_token` for a secret, and this is a position."""
        return {**super().to_dict(), "summary_token": self.summary_token}


class DiscriminativeLVLMTrainer(ContrastiveTrainer):
    """Trains a generative LVLM to embed images and texts, so that it still generates.

    A [`ContrastiveTrainer`] whose loss is `contrastive_weight * itc_loss + next_token_weight * next_token_loss`. Short
    captions are contrasted with images; a long caption is continued from its image, token by token. An image with both
    is read once: one pass over image, prompt and long caption gives its embedding and the next-token loss. Images with
    only one kind take part in one of the losses. The next-token loss is the mean over the tokens of the whole batch
    (all processes, all cached mini-batches), and is computed without the logits of all words at once.

    Only soft prompts, LoRA and temperature train. Checkpoints hold these and say where the LVLM is; a model whose LVLM
    was made in memory is saved whole.

    Logged are `itc_loss`, `next_token_loss`, and of each step the captions of each use: `captions/short`,
    `captions/long` and `captions/left_out` (no length that is used, or a second one of its kind).

    Args:
        model (`str`, `DiscriminativeLVLMModel` or `PreTrainedModel`):
            A discriminative LVLM or an image-text-to-text model (LLaVA, Qwen2-VL, ...), of which one is made with the
            settings of `args`. By name: in float32, or in bfloat16 with `bf16=True` (adapters stay in float32).
        args (`DiscriminativeLVLMTrainingArguments`, *optional*):
            Settings; the defaults write to `<model name>-discriminative`.
        train_dataset (`Dataset`, *optional*):
            Rows with `image` and `caption` or `long_caption` or both; a caption may be `None`.
        eval_dataset (the same, or a dictionary of them, *optional*):
            As in [`ContrastiveTrainer`].
        processing_class (`ProcessorMixin`, *optional*):
            The processor; by default that of the checkpoint.
        data_collator (`Callable`, *optional*):
            Makes a batch of a list of rows; by default a [`~vlcomp.data.CaptionsByLengthCollator`].
        peft_config (`PeftConfig`, *optional*):
            Not supported: the LoRA is part of the model.
        **kwargs:
            Further arguments of [`ContrastiveTrainer`].

    Raises:
        ArgumentError: if arguments do not fit each other or the model.
        CheckpointError: if the model or processor cannot be used.
        DataError: if the data set is empty or lacks a column.

    Reference:
        Ouali, Bulat et al. 2025 (CVPR, arXiv 2412.04378).

    Deviations:
        The weights of the losses and what happens to captions of more than 500 tokens are not specified by the paper.

    Example:
        >>> import tempfile
        >>> from datasets import Dataset
        >>> from vlcomp import DiscriminativeLVLMTrainer, DiscriminativeLVLMTrainingArguments
        >>> from vlcomp.testing import tiny_captions, tiny_images, tiny_llava, tiny_lvlm_processor
        >>> captions = tiny_captions(8)
        >>> data = Dataset.from_dict(
        ...     {"image": tiny_images(8), "caption": captions, "long_caption": [5 * f"{text} " for text in captions]}
        ... )
        >>> args = DiscriminativeLVLMTrainingArguments(
        ...     tempfile.mkdtemp(), per_device_train_batch_size=4, max_steps=2, disable_tqdm=True, save_strategy="no"
        ... )
        >>> trainer = DiscriminativeLVLMTrainer(
        ...     tiny_llava(), args, data, processing_class=tiny_lvlm_processor("llava")
        ... )
        >>> trainer.train().global_step  # doctest: +ELLIPSIS
        {'train_runtime': ...}
        2
    """

    arguments_class = DiscriminativeLVLMTrainingArguments
    output_suffix = "discriminative"
    loss_batch_keys = ("image_ids", "short_mask", "left_out_captions")

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: DiscriminativeLVLMTrainingArguments | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: ProcessorMixin | None = None,
        data_collator: Callable[[list[dict[str, Any]]], Batch] | None = None,
        *,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> None:
        args = check_arguments(model, args, self.arguments_class, suffix=self.output_suffix)
        if peft_config is not None:
            raise ArgumentError("peft_config: the LoRA is part of the model; set lora_rank, lora_alpha, ... in args")
        model, processing_class = _load(model, processing_class, args)
        if data_collator is None:
            _check_columns("train_dataset", train_dataset)
            named = eval_dataset.items() if isinstance(eval_dataset, dict) else [("", eval_dataset)]
            for name, dataset in named:
                _check_columns(f"eval_dataset {name}".strip(), dataset)
            processing_class = keep_fit(processing_class, args.fit)
            data_collator = self.default_collator(processing_class, model, args)
        if isinstance(data_collator, CaptionsByLengthCollator):
            _check_lengths(train_dataset, data_collator, args)
        super().__init__(model, args, train_dataset, eval_dataset, processing_class, data_collator, **kwargs)

    def default_collator(
        self, processor: ProcessorMixin, model: PreTrainedModel, args: ContrastiveTrainingArguments, **options: Any
    ) -> Callable[[list[dict[str, Any]]], Batch]:
        """Make the collator that is used if none is given."""
        return CaptionsByLengthCollator(
            processor,
            short_below=args.short_below,
            long_from=args.long_from,
            long_to=args.long_to,
            image_token_id=model.config.image_token_id,
            fit=args.fit,
            skip_bad_images=args.skip_bad_images,
            text_kwargs=text_padding(processor, model.config),
            **options,
        )

    # The loss

    def encode(self, model: torch.nn.Module, batch: Batch) -> Embeds:
        """Embed the rows of a batch and continue its long captions; see [`ContrastiveTrainer.encode`]."""
        short = batch["short_mask"]
        # Without any short caption one empty text is read, so that the graph has the same parameters in every step.
        rows = short.nonzero().flatten() if short.any() else torch.zeros(1, dtype=torch.long, device=short.device)
        inputs = strings_of_patches({name: value for name, value in batch.items() if name not in _NOT_OF_IMAGES})
        for name in ("input_ids", "attention_mask"):
            inputs[name] = batch[name][rows]
        continues = self.args.next_token_weight > 0
        if continues:
            inputs |= {name: batch[name] for name in ("caption_input_ids", "caption_attention_mask")}
        outputs = model(**inputs)
        images, texts = outputs.image_embeds, outputs.text_embeds
        embeds = {
            "image_embeds": images,
            "text_embeds": torch.zeros_like(images).masked_scatter(short[:, None], texts.to(images.dtype)),
            "logit_scale": self._base_model.logit_scale.exp().reshape(()),
        }
        if continues:
            losses = next_token_loss(
                outputs.caption_hidden_states,
                self._base_model.lm_head,
                outputs.caption_labels,
                chunk_size=self.args.vocabulary_chunk,
                reduction="none",
            )
            owners = outputs.caption_rows
            embeds["next_token_losses"] = losses.new_zeros(len(short)).index_add(0, owners, losses)
            embeds["next_token_counts"] = torch.bincount(owners, minlength=len(short))
        return embeds

    def compute_loss_from_embeddings(
        self, embeds: Embeds, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a whole contrastive batch; see [`ContrastiveTrainer.compute_loss_from_embeddings`]."""
        rows = batch["short_mask"].nonzero().flatten()
        pairs = {**embeds, **{name: embeds[name][rows] for name in ("image_embeds", "text_embeds")}}
        if len(rows):
            itc, parts = super().compute_loss_from_embeddings(pairs, {"image_ids": batch["image_ids"][rows]})
        else:
            itc = 0.0 * (embeds["image_embeds"].sum() + embeds["text_embeds"].sum() + embeds["logit_scale"])
            parts = {"itc_loss": itc}
        loss = self.args.contrastive_weight * itc
        parts["captions/short"] = batch["short_mask"].sum()
        if "next_token_losses" in embeds:
            counts = embeds["next_token_counts"]
            continued = embeds["next_token_losses"].sum() / counts.sum().clamp(min=1)
            loss = loss + self.args.next_token_weight * continued
            parts |= {"next_token_loss": continued, "captions/long": (counts > 0).sum()}
        parts["captions/left_out"] = batch["left_out_captions"].sum()
        return loss, parts

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Names of the parameters with weight decay: not the soft prompts, which start at embeddings of words."""
        return [name for name in super().get_decay_parameter_names(model) if "soft_prompts" not in name]

    # Checkpoints

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if self._whole_checkpoints:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self._load_adapters(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        if self._whole_checkpoints:
            super()._load_best_model()
        else:
            self._load_adapters(self.state.best_model_checkpoint)

    @property
    def _whole_checkpoints(self) -> bool:
        """Whether checkpoints hold the LVLM too, which is in no place of its own."""
        return self._base_model.config.base_name_or_path is None

    def _load_adapters(self, folder: str | os.PathLike[str]) -> None:
        try:
            put_adapters(folder, self._base_model, read_adapters(folder, {}))
        except ValueError as error:
            raise CheckpointError(f"{error}. Resume with the settings of the first run") from error


def _load(
    model: Any, processor: Any, args: DiscriminativeLVLMTrainingArguments
) -> tuple[DiscriminativeLVLMModel, DiscriminativeLVLMProcessor]:
    """Make a discriminative LVLM and its processor of what was given."""
    settings = {name: getattr(args, name) for name in MODEL_SETTINGS if getattr(args, name) is not None}
    name = model_name(model) or type(model).__name__
    named = isinstance(model, (str, os.PathLike))
    # Anything but "name" or "owner/name" can only have been meant as a path.
    if named and not os.path.exists(name) and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise CheckpointError(f"{name}: there is no such folder")
    try:
        if named:
            # Frozen weights need no room for small steps; adapters are in float32 all the same.
            dtype = torch.bfloat16 if args.bf16 else torch.float32
            if _type_of(name) == DiscriminativeLVLMConfig.model_type:
                model = DiscriminativeLVLMModel.from_pretrained(name, dtype=dtype)
            else:
                set_seed(args.seed)  # a new LoRA is random
                model = DiscriminativeLVLMModel.from_lvlm(name, processor=processor, dtype=dtype, **settings)
        elif not isinstance(model, DiscriminativeLVLMModel):
            if not isinstance(model, PreTrainedModel):
                raise ArgumentError(f"model is a {type(model).__name__}; pass a checkpoint's name or a loaded model")
            set_seed(args.seed)
            model = DiscriminativeLVLMModel.from_lvlm(model, processor=processor, **settings)
        if processor is None:
            processor = _processor_of(model)
    except VlcompError:
        raise
    except StrictDataclassError as error:  # of a configuration, around what is wrong with it
        raise ArgumentError(first_cause(error)) from error
    except (ValueError, OSError, ImportError) as error:
        raise CheckpointError(f"{name}: {error}") from error
    for setting, wanted in settings.items():
        found = getattr(model.config, setting)
        if found != wanted:
            raise ArgumentError(
                f"{setting}={wanted!r}, but {name} has {found!r}, which its weights belong to; leave it out, or start "
                "from the LVLM"
            )
    require_processor(processor, name)
    if not isinstance(processor, DiscriminativeLVLMProcessor):
        # The LVLM's own would put image tokens into texts, and is not what a checkpoint is to be used with.
        template = getattr(processor, "chat_template", None)
        processor = DiscriminativeLVLMProcessor(processor.image_processor, processor.tokenizer, chat_template=template)
    return model, processor


def _type_of(name: str) -> str | None:
    try:
        return AutoConfig.from_pretrained(name).model_type
    # What is wrong with it is said where it is loaded as an LVLM.
    except (OSError, ValueError, KeyError):
        return None


def _processor_of(model: DiscriminativeLVLMModel) -> Any:
    """The processor of a model's checkpoint, or of the LVLM that it was made from."""
    if model.name_or_path and _type_of(model.name_or_path) == DiscriminativeLVLMConfig.model_type:
        return AutoProcessor.from_pretrained(model.name_or_path)
    if model.config.base_name_or_path is None:
        raise ArgumentError(
            f"the {type(model).__name__} was not loaded from a checkpoint, so its processor is not known; pass "
            "processing_class"
        )
    return DiscriminativeLVLMProcessor.from_lvlm(model.config.base_name_or_path, revision=model.config.base_revision)


def _check_lengths(
    dataset: Any, collator: CaptionsByLengthCollator, args: DiscriminativeLVLMTrainingArguments
) -> None:
    """Warn if one of the losses is likely to have nothing to learn from, as the first captions say."""
    if not isinstance(dataset, Dataset):
        return
    present = [column for column in COLUMNS if column in dataset.column_names]
    rows = dataset.select_columns(present).select(range(min(len(dataset), _LOOKED_AT)))
    texts = [row[column] for row in rows for column in present if isinstance(row[column], str)]
    if not texts:
        return
    lengths = [len(ids) for ids in collator.processor.tokenizer(texts, add_special_tokens=False)["input_ids"]]
    seen = f"{min(lengths)} to {max(lengths)} tokens in the first {len(rows)} rows"
    if args.contrastive_weight and min(lengths) >= args.short_below:
        logger.warning(
            f"no caption has fewer than short_below={args.short_below} tokens ({seen}), so there may be nothing to "
            "contrast; raise short_below"
        )
    if args.next_token_weight and not any(args.long_from <= length <= args.long_to for length in lengths):
        logger.warning(
            f"no caption has {args.long_from} to {args.long_to} tokens ({seen}), so there may be no next-token loss; "
            "lower long_from, raise long_to, or set next_token_weight=0"
        )


def _check_columns(name: str, dataset: Any) -> None:
    check_dataset(name, dataset, ("image",))
    present = getattr(dataset, "column_names", None)
    if present and not set(COLUMNS) & set(present):
        raise DataError(
            f"{name} has no column 'caption' and no column 'long_caption', only {', '.join(present)}; use "
            "dataset.rename_column, or load it with vlcomp.load_captioned(..., caption_column=...)"
        )
