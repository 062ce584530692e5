"""Training with hard-negative captions: intra-modal contrast and adaptive cross-modal rank."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute
import torch
from datasets import Dataset
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel, ProcessorMixin

from ..data.collator import NEGATIVE_TYPES
from ..data.negatives import NegativeGenerator
from ..errors import ArgumentError, CheckpointError, check_number
from ..losses import cross_modal_rank_loss, intra_modal_contrastive_loss
from ..losses.cross_modal_rank import rank_gap_sums, thresholds_from_gaps
from ..losses.intra_modal import MODES
from ..models.imc_cmr_clip import ImcCmrCLIPModel
from .adapters import base_model
from .arguments import ContrastiveTrainingArguments
from .contrastive import Batch, ContrastiveTrainer, Embeds
from .setup import check_arguments

# The ladder of the paper's ablation: which losses use the hard negatives.
OBJECTIVES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "negclip": ("itc",),
    "imc": ("itc", "imc"),
    "cmr": ("itc", "cmr"),
    "imc_cmr": ("itc", "imc", "cmr"),
}
NEGATIVE_CHOICES = ("first", "random")
THRESHOLDS_FILE = "rank_thresholds.safetensors"
# Name of the one type of negatives that come without `negative_types`.
UNTYPED = "any"


@dataclass
class ImcCmrTrainingArguments(ContrastiveTrainingArguments):
    """Settings of [`ImcCmrTrainer`]: those of [`ContrastiveTrainingArguments`] and the ones below.

    The defaults are the method's: contrastive loss with hard negatives, plus 0.2 times intra-modal contrast, plus 0.2
    times cross-modal rank with adaptive thresholds of at most 0.1 in cosine.

    Args:
        objective (`str`, defaults to `"imc_cmr"`):
            Which losses are trained, a step of the paper's ablation: `"plain"` (no hard negatives), `"negclip"` (hard
            negatives in the image-text contrastive loss), `"imc"` and `"cmr"` (that and one of the two losses), or
            `"imc_cmr"` (all).
        imc_weight (`float`, defaults to 0.2):
            Weight of the intra-modal contrastive loss.
        imc_mode (`str`, defaults to `"paper"`):
            Form of that loss: `"paper"`, `"image_anchor"` or `"released"`; see
            [`~vlcomp.losses.intra_modal_contrastive_loss`].
        cmr_weight (`float`, defaults to 0.2):
            Weight of the cross-modal rank loss.
        threshold_upper_bound (`float`, defaults to 0.1):
            Largest threshold of the rank loss, as a cosine: the loss is on logits, so the bound is this times the
            logit scale of the moment (10 at CLIP's 100).
        negative_types (`list[str]`, *optional*):
            Train on hard negatives of these types only, each with a threshold of its own. By default on all types
            that the data have. Data without the column `negative_types` have one type, `any`.
        negative_choice (`str`, defaults to `"random"`):
            Which hard negatives `max_negatives` keeps: the `"first"` of each row, or `"random"` ones, drawn anew each
            time.

    Raises:
        ArgumentError: if a value is not allowed, or hard negatives are switched off that the objective needs.

    Example:
        >>> from vlcomp import ImcCmrTrainingArguments
        >>> args = ImcCmrTrainingArguments("output", per_device_train_batch_size=256, interpolate=0.5)
        >>> args.objective, args.imc_weight, args.cmr_weight
        ('imc_cmr', 0.2, 0.2)
    """

    use_hard_negatives: bool = field(
        default=True, metadata={"help": "Use the data's negative_captions; the objective decides in which losses."}
    )
    objective: str = field(
        default="imc_cmr",
        metadata={"help": "Losses on hard negatives: plain (none), negclip, imc, cmr or imc_cmr (all)."},
    )
    imc_weight: float = field(default=0.2, metadata={"help": "Weight of the intra-modal contrastive loss."})
    imc_mode: str = field(
        default="paper", metadata={"help": "Form of that loss: paper, image_anchor or released (ablation only)."}
    )
    cmr_weight: float = field(default=0.2, metadata={"help": "Weight of the cross-modal rank loss."})
    threshold_upper_bound: float = field(
        default=0.1, metadata={"help": "Largest threshold of the rank loss, as a cosine."}
    )
    negative_types: list[str] | None = field(
        default=None, metadata={"help": "Train on hard negatives of these types only; default all in the data."}
    )
    negative_choice: str = field(
        default="random", metadata={"help": "Which negatives max_negatives keeps: first or random."}
    )

    def __post_init__(self):
        for name, allowed in (
            ("objective", OBJECTIVES),
            ("imc_mode", MODES),
            ("negative_choice", NEGATIVE_CHOICES),
        ):
            if getattr(self, name) not in allowed:
                raise ArgumentError(f"{name}={getattr(self, name)!r} is not one of {', '.join(map(repr, allowed))}")
        for name in ("imc_weight", "cmr_weight", "threshold_upper_bound"):
            value = getattr(self, name)
            check_number(name, value)
            if not 0 <= value < math.inf:
                raise ArgumentError(f"{name}={value} must be 0 or more")
        if self.threshold_upper_bound > 2:
            raise ArgumentError(
                f"threshold_upper_bound={self.threshold_upper_bound} is a cosine and must not exceed 2; the paper's "
                "10 logits at CLIP's scale of 100 are 0.1"
            )
        if self.objective == "plain":
            self.use_hard_negatives = False
        elif not self.use_hard_negatives:
            raise ArgumentError(
                f"objective={self.objective!r} trains on hard negatives, but use_hard_negatives is False; set "
                "objective='plain', or leave use_hard_negatives out"
            )
        if self.negative_types is not None:
            names = self.negative_types
            if isinstance(names, str) or not names or len(set(names)) < len(names):
                raise ArgumentError(f"negative_types={names!r} must be a list of different names, or None for all")
        super().__post_init__()


class ImcCmrTrainer(ContrastiveTrainer):
    """Fine-tunes a dual encoder with hard-negative captions (IMC/CMR-CLIP, known as CE-CLIP).

    A [`ContrastiveTrainer`] whose loss is `itc_loss + imc_weight * imc_loss + cmr_weight * cmr_loss`: the image-text
    contrastive loss with hard negatives, their intra-modal contrast with the caption, and a rank loss whose margin for
    each type of negative follows what the model already tells apart. It trains CLIP, SigLIP, SigLIP2 and models built
    like them; `objective` takes single losses away.

    The thresholds belong to the run: they are computed from the whole contrastive batch (all processes, all cached
    mini-batches, all accumulated batches), set once after each optimiser step, saved with every checkpoint
    (`rank_thresholds.safetensors`) and restored on resume. Logged are every part of the loss, every threshold
    (`rank_threshold/<type>`, in logits, averaged since the last entry) and the share of captions with a negative of
    each type (`valid_negatives/<type>`).

    A CLIP checkpoint given by name becomes an [`~vlcomp.models.ImcCmrCLIPModel`], whose configuration records with
    what it was trained.

    Args:
        model (`str` or `PreTrainedModel`):
            As in [`ContrastiveTrainer`].
        args (`ImcCmrTrainingArguments`, *optional*):
            Settings; the defaults write to `<model name>-imc-cmr`.
        train_dataset (`Dataset`, *optional*):
            Rows with `image`, `caption`, `negative_captions` (a list, possibly empty) and, best, `negative_types`
            (the type of each). `vlcomp negatives` and [`~vlcomp.data.generate_negatives`] make them.
        eval_dataset (the same, or a dictionary of them, *optional*):
            As in [`ContrastiveTrainer`].
        processing_class (`ProcessorMixin`, *optional*):
            The processor; by default the one of the checkpoint.
        **kwargs:
            Further arguments of [`ContrastiveTrainer`].

    Raises:
        ArgumentError: if arguments do not fit each other.
        CheckpointError: if the model or processor cannot be used.
        DataError: if the data set is empty or lacks a column.

    Reference:
        Zhang, Awal, Agrawal 2024 (CVPR, arXiv 2306.08832).

    Example:
        >>> import tempfile
        >>> from datasets import Dataset
        >>> from vlcomp import ImcCmrTrainer, ImcCmrTrainingArguments
        >>> from vlcomp.testing import tiny_captions, tiny_clip, tiny_images, tiny_processor
        >>> data = Dataset.from_dict(
        ...     {
        ...         "image": tiny_images(8),
        ...         "caption": tiny_captions(8),
        ...         "negative_captions": [[f"no {text}"] for text in tiny_captions(8)],
        ...         "negative_types": [["negation"]] * 8,
        ...     }
        ... )
        >>> args = ImcCmrTrainingArguments(
        ...     tempfile.mkdtemp(), per_device_train_batch_size=4, max_steps=2, disable_tqdm=True, save_strategy="no"
        ... )
        >>> trainer = ImcCmrTrainer(tiny_clip(), args, data, processing_class=tiny_processor())
        >>> trainer.train().global_step  # doctest: +ELLIPSIS
        {'train_runtime': ...}
        2
        >>> trainer.negative_types, trainer.rank_thresholds.shape
        (('negation',), torch.Size([1]))
    """

    arguments_class = ImcCmrTrainingArguments
    output_suffix = "imc-cmr"
    model_classes = {"clip": ImcCmrCLIPModel}

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: ImcCmrTrainingArguments | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: ProcessorMixin | None = None,
        data_collator: Callable[[list[dict[str, Any]]], Batch] | None = None,
        **kwargs: Any,
    ) -> None:
        args = check_arguments(model, args, self.arguments_class, suffix=self.output_suffix)
        self.negative_types: tuple[str, ...] = ()
        if OBJECTIVES[args.objective]:
            known = getattr(data_collator, "negative_types", None)
            if data_collator is None and args.generate_negatives is not None:
                known = NegativeGenerator(args.negative_types or args.generate_negatives).types
            elif args.negative_types is not None:
                _check_types(args.negative_types, train_dataset)
            self.negative_types = tuple(args.negative_types or known or types_of(train_dataset))
        super().__init__(
            model,
            args,
            train_dataset,
            eval_dataset,
            processing_class,
            data_collator,
            **kwargs,
        )
        self.rank_thresholds = torch.zeros(len(self.negative_types), device=args.device)
        self._gaps: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    # The loss

    def compute_loss_from_embeddings(
        self, embeds: Embeds, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a whole contrastive batch; see [`ContrastiveTrainer.compute_loss_from_embeddings`]."""
        loss, parts = super().compute_loss_from_embeddings(embeds, batch)
        terms = OBJECTIVES[self.args.objective]
        if not terms:
            return loss, parts
        negatives = self._negatives(embeds, batch)
        common = (embeds["image_embeds"], embeds["text_embeds"], negatives["embeds"], embeds["logit_scale"])
        if "imc" in terms:
            imc = intra_modal_contrastive_loss(*common, negative_mask=negatives["mask"], mode=self.args.imc_mode)
            loss, parts = loss + self.args.imc_weight * imc, {**parts, "imc_loss": imc}
        types = {"negative_type_ids": negatives["types"], "negative_mask": negatives["mask"]}
        if "cmr" in terms:
            thresholds = self.rank_thresholds
            cmr = cross_modal_rank_loss(*common, thresholds, **types)
            loss, parts = loss + self.args.cmr_weight * cmr, {**parts, "cmr_loss": cmr}
            parts |= {f"rank_threshold/{n}": thresholds[i] for i, n in enumerate(self.negative_types)}
        if self.model.training:
            shares = self._shares(negatives)
            parts |= {f"valid_negatives/{n}": shares[i] for i, n in enumerate(self.negative_types)}
            if "cmr" in terms:
                self._note(*rank_gap_sums(*common, len(self.negative_types), **types), embeds["logit_scale"])
        return loss, parts

    def _negatives(self, embeds: Embeds, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Hard negatives of a batch; one without any has zero slots."""
        texts = embeds["text_embeds"]
        if "negative_text_embeds" not in embeds:
            empty = torch.zeros(len(texts), 0, dtype=torch.long, device=texts.device)
            return {"embeds": texts[:, None, :][:, :0], "mask": empty.bool(), "types": empty}
        mask = batch["negative_mask"]
        types = batch.get("negative_type_ids")
        if types is None or self.negative_types == (UNTYPED,):
            types = torch.zeros_like(mask, dtype=torch.long)
        return {"embeds": embeds["negative_text_embeds"], "mask": mask, "types": types}

    def _shares(self, negatives: dict[str, torch.Tensor]) -> torch.Tensor:
        """Share of the rows that have a negative of each type, [types]."""
        names = torch.arange(len(self.negative_types), device=negatives["mask"].device)
        members = negatives["mask"][..., None] & (negatives["types"][..., None] == names)
        return members.any(dim=1).float().mean(dim=0)

    # Thresholds

    def _note(self, sums: torch.Tensor, counts: torch.Tensor, scale: torch.Tensor) -> None:
        # Sums, not thresholds: the accumulated batches of one step are pooled.
        if self._gaps is not None:
            sums, counts = self._gaps[0] + sums, self._gaps[1] + counts
        self._gaps = (sums, counts, scale.detach())

    def after_optimizer_step(self) -> None:
        """Set the thresholds of the next step from the gaps of this one, and keep the logit scale in its limits."""
        super().after_optimizer_step()
        if self._gaps is not None:
            sums, counts, scale = self._gaps
            bound = self.args.threshold_upper_bound * scale.item()
            self.rank_thresholds = thresholds_from_gaps(sums, counts, self.rank_thresholds, upper_bound=bound)
            self._gaps = None

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; see `transformers.Trainer.train`. Without a checkpoint to resume from, thresholds start at 0."""
        self.rank_thresholds = torch.zeros_like(self.rank_thresholds)
        self._gaps = None
        return super().train(resume_from_checkpoint, **kwargs)

    # Data

    def default_collator(
        self, processor: ProcessorMixin, model: PreTrainedModel, args: ContrastiveTrainingArguments, **options: Any
    ) -> Callable[[list[dict[str, Any]]], Batch]:
        """Make the collator that is used if none is given."""
        if not self.negative_types:
            return super().default_collator(processor, model, args, **options)
        options = {"negative_choice": args.negative_choice, **options}
        if self.negative_types == (UNTYPED,):
            return super().default_collator(processor, model, args, **options)
        options = {"negative_types": self.negative_types, **options}
        return _OfTypes(super().default_collator(processor, model, args, **options), self.negative_types)

    # Checkpoints

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        self._write_record()
        super()._save(output_dir, state_dict)
        if self._ranks and self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            save_file(
                {"rank_thresholds": self.rank_thresholds.cpu()},
                folder / THRESHOLDS_FILE,
                metadata={"negative_types": json.dumps(self.negative_types)},
            )

    @property
    def _ranks(self) -> bool:
        return "cmr" in OBJECTIVES[self.args.objective]

    def _write_record(self) -> None:
        """Write into the model's configuration how it is trained."""
        config = base_model(self.model).config
        if not hasattr(type(config), "rank_thresholds"):
            return
        terms = OBJECTIVES[self.args.objective]
        config.itc_hard_negatives = "itc" in terms
        config.imc_weight = self.args.imc_weight if "imc" in terms else 0.0
        config.imc_mode = self.args.imc_mode if "imc" in terms else None
        config.cmr_weight = self.args.cmr_weight if "cmr" in terms else 0.0
        config.threshold_upper_bound = self.args.threshold_upper_bound if "cmr" in terms else None
        config.rank_thresholds = None  # not one of the old types beside the new names
        config.negative_types = list(self.negative_types) or None
        config.rank_thresholds = self.rank_thresholds.tolist() if "cmr" in terms else None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_thresholds(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._load_thresholds(self.state.best_model_checkpoint)

    def _load_thresholds(self, folder: str | os.PathLike[str]) -> None:
        if not self._ranks:
            return
        path = Path(folder, THRESHOLDS_FILE)
        if not path.is_file():
            raise CheckpointError(
                f"{folder} has no {THRESHOLDS_FILE}, so it was not written with objective={self.args.objective!r}; "
                "resume with the objective of the first run, or start a new run from it with model="
            )
        with safe_open(path, framework="pt") as file:
            types = tuple(json.loads(file.metadata()["negative_types"]))
            thresholds = file.get_tensor("rank_thresholds")
        if types != self.negative_types:
            raise CheckpointError(
                f"{path} has thresholds for the negative types {', '.join(types)}, and this run for "
                f"{', '.join(self.negative_types)}; resume with the same data and negative_types"
            )
        self.rank_thresholds = thresholds.to(self.rank_thresholds.device)


def types_of(dataset: Any) -> tuple[str, ...]:
    """Names of the types of hard negatives in a data set.

    Args:
        dataset (`datasets.Dataset` or any data set):
            With the column `negative_types`. One that cannot be read as a whole may have all known types.

    Returns:
        `tuple[str, ...]`: in the order of [`~vlcomp.data.NEGATIVE_TYPES`], then others by name; `("any",)` if
        negatives come without types.

    Example:
        >>> from datasets import Dataset
        >>> from vlcomp.training.imc_cmr import types_of
        >>> types_of(Dataset.from_dict({"negative_types": [["swap_object", "object"], [], ["object"]]}))
        ('swap_object', 'object')
    """
    columns = getattr(dataset, "column_names", None)
    if columns is not None and "negative_types" not in columns:
        return (UNTYPED,)
    if not isinstance(dataset, Dataset):
        return NEGATIVE_TYPES
    table = dataset.select_columns(["negative_types"]).with_format("arrow")[:]
    values = pyarrow.compute.list_flatten(table.column("negative_types"))
    found = set(pyarrow.compute.unique(values).to_pylist()) - {None}
    known = [name for name in NEGATIVE_TYPES if name in found]
    return tuple(known + sorted(found - set(known))) or (UNTYPED,)


def _check_types(wanted: Sequence[str], dataset: Any) -> None:
    """Refuse types that the data do not have: nothing would be trained on, and nothing would say so."""
    if not isinstance(dataset, Dataset):
        return  # a stream shows its types only as it is read
    present = types_of(dataset)
    absent = [name for name in wanted if name not in present]
    if absent:
        found = "none with a type" if present == (UNTYPED,) else ", ".join(present)
        raise ArgumentError(
            f"negative_types: train_dataset has no hard negatives of type {absent[0]!r}; it has {found}"
        )


class _OfTypes:
    """A collator that sees hard negatives of some types only."""

    def __init__(self, collator: Callable[[list[dict[str, Any]]], Batch], types: Sequence[str]) -> None:
        self.collator = collator
        self.types = frozenset(types)

    def set_epoch(self, epoch: int) -> None:
        self.collator.set_epoch(epoch)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        return self.collator([self._kept(row) for row in rows])

    def _kept(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        names, texts = row.get("negative_types"), row.get("negative_captions")
        if not names or not texts or len(names) != len(texts) or self.types.issuperset(names):
            return row  # as it is, or for the collator to refuse
        kept = [(name, text) for name, text in zip(names, texts, strict=True) if name in self.types]
        return {
            **row,
            "negative_types": [name for name, _ in kept],
            "negative_captions": [text for _, text in kept],
        }
