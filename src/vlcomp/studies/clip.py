"""Plain CLIP on Scenes: the failure that the package is about, and whether longer training cures it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoModel, AutoProcessor

from ..data.scenes import load_scenes
from ..data.scenes.items import CATEGORIES, SYSTEMATIC_CATEGORIES
from ..data.tokenization import train_clip_tokenizer
from ..evaluation import Report, evaluate
from ..evaluation.tasks import ScenesChoice, ScenesRetrieval
from ..models.from_scratch import new_clip, new_processor
from ..training import ContrastiveTrainer, ContrastiveTrainingArguments
from .frame import Study

logger = logging.getLogger(__name__)

# Side of the pictures. Objects are 11 to 16 pixels wide, larger than a patch of 8 pixels, and
# their boxes start where patches do (see LATTICE of the world).
IMAGE_SIZE = 40
SELECTION_METRIC = "scenes/retrieval/image_to_text/recall@1"
SCENES_TASKS = (
    *(f"scenes/{name}" for name in CATEGORIES),
    *(f"scenes/systematic/{name}" for name in SYSTEMATIC_CATEGORIES),
    "scenes/retrieval",
    "scenes/winoground",
    "scenes/classification/clean",
)


@dataclass(frozen=True)
class Pretrained:
    """A pre-trained model's folder and what was measured on the validation split while it trained.

    Args:
        folder (`Path`):
            Model and processor, as `from_pretrained` reads them: the checkpoint with the best validation R@1.
        curve (`list[dict]`):
            One entry an evaluation: `step` and metrics by name.
        best_step (`int`):
            Step of the checkpoint that was kept.
    """

    folder: Path
    curve: list[dict[str, float]]
    best_step: int


def pretrain_on_scenes(
    folder: str | Path,
    *,
    steps: int,
    seed: int = 0,
    num_images: int = 40_000,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    image_size: int = IMAGE_SIZE,
    patch_size: int = 8,
    width: int = 128,
    layers: int = 4,
    eval_steps: int | None = None,
    eval_items: int = 500,
    progress: bool = True,
) -> Pretrained:
    """Pre-train a small CLIP on Scenes and keep the checkpoint with the best validation R@1.

    Args:
        folder (`str` or `Path`):
            Where the model goes.
        steps (`int`):
            Optimiser steps.
        seed (`int`, defaults to 0):
            Seed of the weights and the order of the data. The data themselves are the same for every seed.
        num_images (`int`, defaults to 40,000):
            Training pictures, one caption each.
        batch_size (`int`, defaults to 128):
            Pairs in a batch.
        learning_rate (`float`, defaults to 2e-3):
            Peak of a cosine schedule with 100 steps of warm-up.
        image_size (`int`, defaults to 40):
            Side of the pictures in pixels.
        patch_size (`int`, defaults to 8):
            Side of a patch in pixels.
        width (`int`, defaults to 128):
            Hidden size of both towers.
        layers (`int`, defaults to 4):
            Blocks of each tower.
        eval_steps (`int`, *optional*):
            Steps between two measurements on the validation split; a tenth of `steps` if not given.
        eval_items (`int`, defaults to 500):
            Items of each measured category (retrieval always has its gallery of 1,000).
        progress (`bool`, defaults to `True`):
            Show progress bars.

    Returns:
        [`Pretrained`]
    """
    folder = Path(folder)
    rows = load_scenes("train", size=num_images, image_size=image_size)
    tokenizer = train_clip_tokenizer(rows["caption"], vocab_size=1024, max_length=32)
    model = new_clip(
        tokenizer,
        image_size=image_size,
        patch_size=patch_size,
        width=width,
        layers=layers,
        projection_dim=width,
        seed=seed,
    )
    common: dict[str, Any] = {"split": "validation", "image_size": image_size, "references": False, "gallery": False}
    evaluators: list[Any] = [ScenesRetrieval(**common)]
    evaluators += [ScenesChoice(name, size=eval_items, **common) for name in CATEGORIES]
    eval_steps = eval_steps or max(1, steps // 10)
    arguments = ContrastiveTrainingArguments(
        output_dir=str(folder / "training"),
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=250,
        max_steps=steps,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(100, max(1, steps // 4)),
        weight_decay=0.1,
        adam_beta2=0.98,
        adam_epsilon=1e-6,
        seed=seed,
        eval_strategy="steps",
        eval_steps=eval_steps,
        save_strategy="steps",
        save_steps=eval_steps,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model=SELECTION_METRIC,
        logging_steps=max(1, min(50, steps // 8)),
        disable_tqdm=not progress,
        report_to=[],
    )
    trainer = ContrastiveTrainer(
        model, arguments, rows, processing_class=new_processor(tokenizer, image_size), evaluators=evaluators
    )
    trainer.train()
    trainer.save_model(str(folder))
    curve = [
        {"step": entry["step"]}
        | {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_scenes/")}
        for entry in trainer.state.log_history
        if f"eval_{SELECTION_METRIC}" in entry
    ]
    best = max(curve, key=lambda entry: entry[SELECTION_METRIC])
    shutil.rmtree(folder / "training")
    return Pretrained(folder, curve, int(best["step"]))


def measure_on_scenes(
    folder: str | Path, *, name: str | None = None, image_size: int = IMAGE_SIZE, progress: bool = True, **options: Any
) -> Report:
    """Measure a checkpoint on the test split of every part of Scenes.

    Args:
        folder (`str` or `Path`):
            The checkpoint.
        name (`str`, *optional*):
            What to call it in the report.
        image_size (`int`, defaults to 40):
            Side of the pictures in pixels.
        progress (`bool`, defaults to `True`):
            Show progress bars.
        **options:
            Further arguments of [`~vlcomp.evaluate`].

    Returns:
        [`~vlcomp.evaluation.Report`]
    """
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    return evaluate(
        model,
        processor,
        options.pop("tasks", list(SCENES_TASKS)),
        image_size=image_size,
        batch_size=250,
        name=name,
        progress=progress,
        **options,
    )


def curve_table(curve: list[dict[str, float]]) -> str:
    """The validation curve as a Markdown table, in percent.

    Args:
        curve (`list[dict]`):
            From [`Pretrained`].

    Returns:
        `str`
    """
    columns = [SELECTION_METRIC, *(f"scenes/{name}/accuracy" for name in CATEGORIES)]
    heads = ["R@1", *(name.replace("_", "-") for name in CATEGORIES)]
    lines = ["| step | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for entry in curve:
        lines.append(f"| {entry['step']:.0f} | " + " | ".join(f"{100 * entry[c]:.1f}" for c in columns) + " |")
    return "\n".join(lines)


def _run(settings: Mapping[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    pretrained = pretrain_on_scenes(folder / "model", seed=seed, **settings)
    report = measure_on_scenes(pretrained.folder, progress=False)
    metrics = dict(report.metrics)
    for category in CATEGORIES:
        references = report.results["tasks"][f"scenes/{category}"]["references"]
        for scorer, scores in references.items():
            metrics[f"{scorer}/{category}"] = scores["accuracy"]["value"]
    return {"metrics": metrics, "best_step": pretrained.best_step, "curve": pretrained.curve}


def _curves(runs: Sequence[Mapping[str, Any]]) -> str:
    parts = ["## Validation curves\n"]
    for run in runs:
        title = f"{run['configuration']}, seed {run['seed']} (kept: step {run['best_step']})"
        parts.append(f"### {title}\n\n{curve_table(run['curve'])}\n")
    return "\n".join(parts)


STEPS = 700
# Enough to know the words and not how they belong together, and the start of the methods that fine-tune.
BASE_STEPS = 350

STUDY = Study(
    name="clip",
    title="Plain CLIP pre-trained on Scenes",
    version="1",
    configurations={"clip": {"steps": STEPS}, "clip, three times as long": {"steps": 3 * STEPS}},
    seeds=(0, 1, 2),
    run=_run,
    columns={
        "scenes/retrieval/image_to_text/recall@1": "R@1 image to text",
        "scenes/retrieval/text_to_image/recall@1": "R@1 text to image",
        **{f"scenes/{name}/accuracy": name.replace("_", "-") for name in CATEGORIES},
        "scenes/mean/accuracy": "mean of seven",
        "scenes/systematic/swap_attribute/accuracy": "swap-attribute, unseen pairs",
        "scenes/winoground/group_score": "Winoground-style group",
    },
    notes=(
        "Test split; the checkpoint is the one with the best validation R@1 (image to text, gallery of 1,000). "
        "Text-only scorers are at 50 % in every category by construction, the oracle bag of words on both swaps."
    ),
    details=_curves,
)


def demo(folder: Path, *, quick: bool = False, progress: bool = True, start: Path | None = None) -> Report:
    """The demo's first row: pre-train a small CLIP, briefly, and measure it.

    Args:
        folder (`Path`):
            Output folder of the demo; the model goes to its subfolder `clip`.
        quick (`bool`, defaults to `False`):
            A few steps: shows that everything runs, and little about models.
        progress (`bool`, defaults to `True`):
            Show progress bars.
        start (`Path`, *optional*):
            Not used: this row is the start of others.

    Returns:
        [`~vlcomp.evaluation.Report`]
    """
    steps, images, items = (60, 4_000, 400) if quick else (BASE_STEPS, 40_000, None)
    pretrained = pretrain_on_scenes(
        folder / "clip", steps=steps, num_images=images, eval_steps=max(1, steps // 4), progress=progress
    )
    options = {"limit": items} if items else {}
    return measure_on_scenes(pretrained.folder, name="CLIP", progress=progress, **options)
