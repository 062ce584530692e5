"""Settings of a contrastive training run."""

import math
from dataclasses import dataclass, field

from transformers import TrainingArguments

from ..errors import ArgumentError, check_count, check_number

LOSSES = ("auto", "softmax", "sigmoid")
TOWERS = ("vision", "text")
FITS = ("crop", "squash", "pad")


@dataclass
class ContrastiveTrainingArguments(TrainingArguments):
    """Settings of [`ContrastiveTrainer`]: those of `transformers.TrainingArguments` and the ones below.

    Two defaults differ from `TrainingArguments`: `remove_unused_columns=False`, because the collator needs the images
    and captions, and `dataloader_drop_last=True`, because a smaller last batch has fewer negatives and so is another
    loss. The batch of the contrastive loss is `per_device_train_batch_size` times the number of processes.
    `gradient_accumulation_steps` averages the losses of several such batches, which is *not* the loss of the large
    batch (each caption sees only the negatives of its own small batch); to train with a batch that does not fit in
    memory set `mini_batch_size`, which is exact.

    Args:
        loss (`str`, defaults to `"auto"`):
            `"softmax"` (CLIP), `"sigmoid"` (SigLIP), or `"auto"`: sigmoid if the model has a `logit_bias`.
        mini_batch_size (`int`, *optional*):
            Rows per device that are encoded at a time (gradient cache). Gives the gradients of the whole batch, with
            the memory of this many rows and one more forward pass.
        use_hard_negatives (`bool`, defaults to `False`):
            Use the data set's `negative_captions` as further negatives of the loss (NegCLIP).
        generate_negatives (`str`, *optional*):
            Make hard negatives of rows without `negative_captions` while training, other ones in each epoch: a type or
            a set of types of [`~vlcomp.data.NegativeGenerator`] (`"default"`, `"paper"`, ...), whose words come from
            the training captions. Needs `use_hard_negatives`; not for streamed data.
        max_negatives (`int`, *optional*):
            At most this many hard negatives per row.
        freeze (`str`, *optional*):
            `"vision"` or `"text"`: do not train that tower and its projection, and keep its dropout off.
        layer_decay (`float`, *optional*):
            Layer-wise learning rates: each block of a tower learns this factor slower than the block above it, the
            embeddings slowest. Projections and the logit scale have the full rate.
        logit_scale_max (`float`, defaults to 100.0):
            Upper limit of the multiplicative scale under the softmax loss, kept after each optimiser step; the lower
            limit is 1. The sigmoid loss has no limits, as in SigLIP.
        freeze_logit_scale (`bool`, defaults to `False`):
            Leave the logit scale as it is. The intra-modal loss of [`ImcCmrTrainer`] can fall by the scale alone,
            which shows at learning rates far above those of CLIP fine-tuning.
        unique_images (`bool`, defaults to `True`):
            Put an image at most once in a batch. Needs an `image_id` column.
        fit (`str`, *optional*):
            How pictures become square: `"crop"`, `"squash"` or `"pad"`; by default as the processor is configured. The
            saved processor does the first two by itself from then on.
        random_crop (`float`, *optional*):
            Train on random parts of the images, with at least this part of the area (`0.7`); the same ones when a run
            is resumed. Not for streamed data.
        max_text_length (`int`, *optional*):
            Cut captions to this many tokens; by default the model's own limit.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out rows whose image cannot be read instead of stopping.
        merge_adapter (`bool`, defaults to `True`):
            With `peft_config`: save checkpoints with the adapter merged into the weights, so that `AutoModel` and
            `pipeline` load them as they are, and the adapter itself in the subfolder `adapter`. `False` saves a PEFT
            folder with only the adapter, which needs the base model to be loaded.
        interpolate (`float`, *optional*):
            After training replace the weights by this much of the trained ones and the rest of the starting ones
            (WiSE-FT; 0.5 is the middle). Fine-tuning on hard negatives costs zero-shot accuracy; this buys a part of
            it back. Checkpoints hold the trained weights as they are.
        stop_on_nan_loss (`bool`, defaults to `True`):
            Stop with an error at the first step whose loss is not finite.

    Raises:
        ArgumentError: if a value is not allowed, or `load_best_model_at_end` comes without `metric_for_best_model`.

    Example:
        >>> from vlcomp import ContrastiveTrainingArguments
        >>> args = ContrastiveTrainingArguments("output", per_device_train_batch_size=256, mini_batch_size=32)
        >>> args.loss
        'auto'
    """

    dataloader_drop_last: bool = field(
        default=True, metadata={"help": "Leave out the last batch of an epoch if it is smaller than the others."}
    )
    remove_unused_columns: bool | None = field(
        default=False, metadata={"help": "Drop columns that the model's forward does not name."}
    )
    loss: str = field(
        default="auto",
        metadata={"help": "softmax (CLIP), sigmoid (SigLIP) or auto: sigmoid if the model has a logit bias."},
    )
    mini_batch_size: int | None = field(
        default=None,
        metadata={"help": "Rows per device encoded at a time (gradient cache): exact, and saves memory."},
    )
    use_hard_negatives: bool = field(
        default=False, metadata={"help": "Use the data's negative_captions as further negatives of the loss."}
    )
    generate_negatives: str | None = field(
        default=None,
        metadata={"help": "Make hard negatives while training: default, paper, sugarcrepe, all, or a type."},
    )
    max_negatives: int | None = field(default=None, metadata={"help": "At most this many hard negatives per row."})
    freeze: str | None = field(default=None, metadata={"help": "Tower that is not trained: vision or text."})
    layer_decay: float | None = field(
        default=None, metadata={"help": "Factor of the learning rate from each block to the one below, such as 0.75."}
    )
    logit_scale_max: float = field(
        default=100.0, metadata={"help": "Upper limit of the multiplicative logit scale under the softmax loss."}
    )
    freeze_logit_scale: bool = field(default=False, metadata={"help": "Leave the logit scale as it is."})
    unique_images: bool = field(default=True, metadata={"help": "Put an image at most once in a batch."})
    fit: str | None = field(
        default=None, metadata={"help": "How pictures become square: crop, squash or pad; default as configured."}
    )
    random_crop: float | None = field(
        default=None, metadata={"help": "Train on random parts of the images, of at least this part of the area."}
    )
    max_text_length: int | None = field(default=None, metadata={"help": "Cut captions to this many tokens."})
    skip_bad_images: bool = field(
        default=False, metadata={"help": "Leave out rows whose image cannot be read instead of stopping."}
    )
    merge_adapter: bool = field(
        default=True, metadata={"help": "Save LoRA runs merged into the weights (adapter in a subfolder)."}
    )
    interpolate: float | None = field(
        default=None,
        metadata={"help": "Share of the trained weights in the final ones, the rest being the starting ones."},
    )
    stop_on_nan_loss: bool = field(
        default=True, metadata={"help": "Stop with an error at the first loss that is not finite."}
    )

    def __post_init__(self):
        _one_of("loss", self.loss, LOSSES)
        _one_of("freeze", self.freeze, TOWERS, none=True)
        _one_of("fit", self.fit, FITS, none=True)
        _check_ranges(self)
        for name in ("mini_batch_size", "max_negatives", "max_text_length"):
            value = getattr(self, name)
            if value is not None:
                check_count(name, value)
        for name in ("layer_decay", "random_crop", "logit_scale_max", "interpolate"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name))
        if self.generate_negatives is not None and not self.use_hard_negatives:
            raise ArgumentError(
                f"generate_negatives={self.generate_negatives!r} makes hard negatives that nothing uses; set "
                "use_hard_negatives=True too"
            )
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ArgumentError(f"layer_decay={self.layer_decay} must lie in (0, 1]; common values are 0.65 to 0.9")
        if self.random_crop is not None and not 0 < self.random_crop <= 1:
            raise ArgumentError(f"random_crop={self.random_crop} must lie in (0, 1]; common values are 0.5 to 0.9")
        if self.interpolate is not None and not 0 <= self.interpolate <= 1:
            raise ArgumentError(
                f"interpolate={self.interpolate} must lie between 0 (starting weights) and 1 (trained weights)"
            )
        if self.logit_scale_max < 1:
            raise ArgumentError(f"logit_scale_max={self.logit_scale_max} must be at least 1; CLIP uses 100")
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            raise ArgumentError(
                "load_best_model_at_end needs metric_for_best_model: the loss of an evaluation set depends "
                "on the evaluation batch size, so it is not used by default. Name a metric of an evaluator, such as "
                '"retrieval/image_to_text/recall@1", or "loss" if you mean it'
            )
        super().__post_init__()
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # nothing to copy to, and torch would warn


def _check_ranges(args: ContrastiveTrainingArguments) -> None:
    """Values that `TrainingArguments` takes but that train nothing, or fail once the model is loaded."""
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
        check_count(name, getattr(args, name))
    for name in ("max_steps", "num_train_epochs"):
        check_number(name, getattr(args, name))
    for name in ("learning_rate", "weight_decay", "dataloader_num_workers"):
        check_number(name, getattr(args, name))
        if not 0 <= getattr(args, name) < math.inf:
            raise ArgumentError(f"{name}={getattr(args, name)} must be 0 or more")
    for name in ("adam_beta1", "adam_beta2"):
        check_number(name, getattr(args, name))
        if not 0 <= getattr(args, name) < 1:
            raise ArgumentError(
                f"{name}={getattr(args, name)} must lie between 0 and 1; common values are 0.9 to 0.999"
            )
    check_number("adam_epsilon", args.adam_epsilon)
    if not 0 <= args.adam_epsilon < math.inf:
        raise ArgumentError(f"adam_epsilon={args.adam_epsilon} must be 0 or more")
    for name in ("seed", "data_seed"):
        value = getattr(args, name)
        if value is not None:
            check_count(name, value, 0)
        if value is not None and value >= 2**32:
            raise ArgumentError(f"{name}={value} must lie between 0 and 2**32 - 1")
    if args.max_steps != -1 and args.max_steps < 1:
        raise ArgumentError(
            f"max_steps={args.max_steps} must be at least 1; leave it out to train for num_train_epochs"
        )
    if args.max_steps == -1 and not 0 < args.num_train_epochs < math.inf:
        raise ArgumentError(f"num_train_epochs={args.num_train_epochs} must be above 0")


def _one_of(name: str, value: str | None, allowed: tuple[str, ...], none: bool = False) -> None:
    if value not in allowed and not (none and value is None):
        raise ArgumentError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}")
