"""Iterated-CLIP on Scenes: a codebook, generations, and whether they bring composition, at equal steps."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..analysis import codebook_report, ease_of_learning, list_checkpoints, smoothness, topographic_similarity
from ..checkpoints import load_dual_encoder
from ..data.images import process_images
from ..data.scenes import load_scenes
from ..data.scenes.items import CATEGORIES, SYSTEMATIC_CATEGORIES
from ..data.tokenization import train_clip_tokenizer
from ..embeddings import Embedder
from ..evaluation import Report
from ..evaluation.tasks import ScenesChoice, ScenesRetrieval
from ..models.from_scratch import new_iterated_clip, new_processor
from ..training import IteratedCLIPTrainer, IteratedCLIPTrainingArguments
from . import clip
from .clip import IMAGE_SIZE
from .frame import Study, differences
from .iterated_clip_tables import COMPARED, PAIRS, codes_table, figures, over_generations

# All runs have the same steps; with its measurements one took 13 minutes on two cores.
STEPS = 1_500
GENERATION_STEPS = 750
# Of runs without spawns, between two checkpoints.
CHECKPOINT_STEPS = STEPS // 4
FREEZE_STEPS = GENERATION_STEPS // 4
CODES = 512
TEMPERATURE = 125.0
# One at which few codes are active.
_SPARSE = 31.25
LEARNING_RATE = 2e-3
NUM_IMAGES = 40_000
BATCH_SIZE = 128
WARMUP_STEPS = 100
# Of the analyses of each checkpoint: steps of a new language agent, pairs it sees, pictures of the Lipschitz bound.
EASE_STEPS, EASE_ROWS, SMOOTH_IMAGES = 60, 7_680, 16
# The multiplicative logit scale that training starts with.
FIRST_SCALE = 1 / 0.07
VALIDATION_ITEMS = 500
# Pictures with captions on which active codes are counted.
CODE_ROWS = 1_000


def train_on_scenes(
    folder: str | Path,
    *,
    steps: int,
    generation_steps: int,
    freeze_steps: int,
    generations: int,
    codebook: bool,
    codes: int = CODES,
    temperature: float = TEMPERATURE,
    agent: str = "language",
    seed: int = 0,
    num_images: int = NUM_IMAGES,
    batch_size: int = BATCH_SIZE,
    learning_rate: float = LEARNING_RATE,
    warmup_steps: int = WARMUP_STEPS,
    patch_size: int = 8,
    width: int = 128,
    layers: int = 4,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train a CLIP, Codebook-CLIP or Iterated-CLIP from scratch on Scenes.

    Args:
        folder (`str` or `Path`):
            Where the model goes, and its weights after each `generation_steps` as `checkpoint-<step>`.
        steps (`int`):
            Optimiser steps of the run.
        generation_steps (`int`):
            Steps of a generation; of a run without spawns, the steps between two checkpoints.
        freeze_steps (`int`):
            Steps after each spawn with a frozen codebook.
        generations (`int`):
            1 for a run without spawns, else `steps / generation_steps`.
        codebook (`bool`):
            Whether the model has a codebook; without one it is a plain CLIP.
        codes (`int`, defaults to 512):
            Size of the codebook.
        temperature (`float`, defaults to 125.0):
            Its temperature.
        agent (`str`, defaults to `"language"`):
            Which agent is replaced.
        seed (`int`, defaults to 0):
            Seed of the weights, the spawns and the order of the data. The data are the same for every seed.
        num_images (`int`, defaults to 40,000):
            Training pictures, one caption each.
        batch_size (`int`, defaults to 128):
            Pairs in a batch.
        learning_rate (`float`, defaults to 2e-3):
            Peak of the schedule; the default is that of the study `clip`.
        warmup_steps (`int`, defaults to 100):
            Steps of the first warm-up.
        patch_size (`int`, defaults to 8):
            Side of a patch in pixels, of pictures of 40; objects have diameters of 11 to 16.
        width (`int`, defaults to 128):
            Hidden size of both towers, and size of the embeddings.
        layers (`int`, defaults to 4):
            Blocks of each tower.
        progress (`bool`, defaults to `True`):
            Show progress bars.

    Returns:
        `list[dict]`: the log of the training: steps with losses, learning rates, numbers of active codes, and events.
    """
    rows = load_scenes("train", size=num_images, image_size=IMAGE_SIZE)
    tokenizer = train_clip_tokenizer(rows["caption"], vocab_size=1024, max_length=32)
    model = new_iterated_clip(
        tokenizer,
        image_size=IMAGE_SIZE,
        patch_size=patch_size,
        width=width,
        layers=layers,
        projection_dim=width,
        use_codebook=codebook,
        codebook_size=codes,
        temperature=temperature,
        seed=seed,
    )
    length = steps if generations == 1 else generation_steps
    arguments = IteratedCLIPTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        num_generations=generations,
        generation_steps=length,
        codebook_freeze_steps=freeze_steps if generations > 1 else 0,
        rewarmup_steps=generation_steps // 12 if generations > 1 else 0,
        warmup_steps=warmup_steps,
        agent=agent,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        weight_decay=0.1,
        adam_beta2=0.98,
        adam_epsilon=1e-6,
        seed=seed,
        save_strategy="steps",
        save_steps=generation_steps,
        save_only_model=True,
        logging_steps=max(1, min(25, generation_steps // 4)),
        disable_tqdm=not progress,
        report_to=[],
    )
    trainer = IteratedCLIPTrainer(model, arguments, rows, processing_class=new_processor(tokenizer, IMAGE_SIZE))
    trainer.train()
    trainer.save_model()
    kept = ("step", "loss", "learning_rate", "logit_scale", "generation", "spawn", "freeze", "thaw")
    kept += ("active_codes/image", "active_codes/text")
    log = [{name: entry[name] for name in kept if name in entry} for entry in trainer.state.log_history]
    return [entry for entry in log if len(entry) > 1]


def validate(embedder: Embedder, *, items: int = VALIDATION_ITEMS) -> dict[str, float]:
    """Seven categories, their mean and retrieval of a model on the validation split.

    Args:
        embedder ([`~vlcomp.Embedder`]):
            The model.
        items (`int`, defaults to 500):
            Items of each category (retrieval always has its gallery of 1,000).

    Returns:
        `dict[str, float]`: metrics by name.
    """
    common: dict[str, Any] = {"split": "validation", "image_size": IMAGE_SIZE, "references": False, "gallery": False}
    tasks: list[Any] = [ScenesRetrieval(**common)]
    tasks += [ScenesChoice(name, size=items, **common) for name in CATEGORIES]
    found: dict[str, float] = {}
    for task in tasks:
        found.update(task.run(embedder).metrics)
    found["scenes/mean/accuracy"] = sum(found[f"scenes/{name}/accuracy"] for name in CATEGORIES) / len(CATEGORIES)
    return found


def analyse(folder: Path, seed: int, *, ease_rows: int = EASE_ROWS, items: int = VALIDATION_ITEMS) -> list[dict]:
    """Validation scores, ease of learning and smoothness of each checkpoint of a run.

    Ease is measured twice, at the logit scale of each checkpoint and at that of the start, which leaves out that a
    larger one slows a new agent down; on pictures that no run has seen.

    Args:
        folder (`Path`):
            The run.
        seed (`int`):
            Seed of the new language agents; the same for all checkpoints.
        ease_rows (`int`, defaults to 7,680):
            Rows of the validation split that a new agent sees.
        items (`int`, defaults to 500):
            Validation items of each category.

    Returns:
        `list[dict]`: one entry a checkpoint, by step.
    """
    rows = load_scenes("train", size=ease_rows, image_size=IMAGE_SIZE, split="validation")
    images, captions = rows["image"][:], rows["caption"][:]
    found = []
    for checkpoint in list_checkpoints(folder):
        model, processor = load_dual_encoder(checkpoint.where)
        batch = min(BATCH_SIZE, len(images))
        ease, at_start = (
            ease_of_learning(
                model,
                processor,
                images,
                captions,
                steps=EASE_STEPS,
                batch_size=batch,
                learning_rate=1e-3,
                logit_scale=scale,
                seed=seed,
            )
            for scale in (None, FIRST_SCALE)
        )
        pixels = process_images(processor.image_processor, images[:SMOOTH_IMAGES])["pixel_values"]
        smooth = smoothness(model, pixels)
        found.append(
            {
                "step": checkpoint.step,
                "generation": checkpoint.generation,
                "logit_scale": model.logit_scale.exp().item(),
                "ease_mean": ease.mean,
                "ease_final": ease.final,
                "ease_curve": [round(value, 4) for value in ease.accuracy],
                "ease_at_first_scale_mean": at_start.mean,
                "ease_at_first_scale_curve": [round(value, 4) for value in at_start.accuracy],
                "log10_bound": smooth.log10_bound,
                "log10_bound_here": smooth.log10_bound_here,
                "slope": smooth.slope,
                "validation": validate(Embedder(model, processor, batch_size=250), items=items),
            }
        )
    return found


def codes_and_structure(folder: Path) -> dict[str, float]:
    """Numbers of codes that a model uses, and its topographic similarity, on the validation split.

    Args:
        folder (`Path`):
            The model.

    Returns:
        `dict[str, float]`: metrics by name; those of codes are left out for a model without a codebook.
    """
    model, processor = load_dual_encoder(folder)
    structure = topographic_similarity(Embedder(model, processor), image_size=IMAGE_SIZE, split="validation")
    found = {f"topography/{name}": getattr(structure, name) for name in ("image", "text", "image_words", "text_words")}
    if model.config.use_codebook:
        rows = load_scenes("retrieval", size=CODE_ROWS, image_size=IMAGE_SIZE, split="validation")
        codes = codebook_report(model, processor, rows["image"][:], rows["caption"][:], top=1, examples=1)
        found |= {f"active_codes/{name}": value for name, value in codes.active.items()}
        found |= {f"used_codes/{name}": float(value) for name, value in codes.used.items()}
    return found


def _run(settings: Mapping[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    model = folder / "model"
    shutil.rmtree(model, ignore_errors=True)  # of a run that was stopped
    log = train_on_scenes(model, seed=seed, progress=False, **settings)
    report = clip.measure_on_scenes(model, progress=False, references=False)
    metrics = {**report.metrics, **codes_and_structure(model)}
    systematic = [metrics[f"scenes/systematic/{name}/accuracy"] for name in SYSTEMATIC_CATEGORIES]
    metrics["scenes/systematic/mean/accuracy"] = sum(systematic) / len(systematic)
    checkpoints = analyse(model, seed)
    last = checkpoints[-1]
    metrics |= {name: last[name] for name in ("ease_mean", "ease_final", "log10_bound", "log10_bound_here", "slope")}
    shutil.rmtree(model)
    return {"metrics": metrics, "checkpoints": checkpoints, "log": log}


def _validate(settings: Mapping[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """A run of the selection: measured on the validation split only."""
    model = folder / "model"
    shutil.rmtree(model, ignore_errors=True)
    log = train_on_scenes(model, seed=seed, progress=False, **settings)
    loaded, processor = load_dual_encoder(model)
    metrics = {**validate(Embedder(loaded, processor, batch_size=250)), **codes_and_structure(model)}
    shutil.rmtree(model)
    return {"metrics": metrics, "log": log}


# Every setting that matters is in the result files, so that runs with others are not mixed in.
_COMMON = {
    "steps": STEPS,
    "generation_steps": CHECKPOINT_STEPS,
    "freeze_steps": CHECKPOINT_STEPS // 4,  # without effect where there are no spawns
    "codes": CODES,
    "temperature": TEMPERATURE,
    "learning_rate": LEARNING_RATE,
    "warmup_steps": WARMUP_STEPS,
    "batch_size": BATCH_SIZE,
    "num_images": NUM_IMAGES,
    "agent": "language",
}
# What a codebook alone has is not in the settings of a model without one.
_CLIP = {k: v for k, v in _COMMON.items() if k not in ("codes", "temperature")} | {"codebook": False, "generations": 1}
_CODEBOOK = {**_COMMON, "codebook": True, "generations": 1}
_ITERATED = {
    **_COMMON,
    "codebook": True,
    "generation_steps": GENERATION_STEPS,
    "generations": STEPS // GENERATION_STEPS,
    "freeze_steps": FREEZE_STEPS,
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "CLIP": _CLIP,
    "Codebook-CLIP": _CODEBOOK,
    "Iterated-CLIP": _ITERATED,
    "Iterated-CLIP, four generations": {
        **_ITERATED,
        "generation_steps": STEPS // 4,
        "generations": 4,
        "freeze_steps": STEPS // 16,
    },
}
_COLUMNS = {
    "scenes/mean/accuracy": "mean of seven",
    **{f"scenes/{name}/accuracy": name.replace("_", "-") for name in CATEGORIES},
    "scenes/systematic/mean/accuracy": "mean of four, unseen pairs",
    "scenes/systematic/swap_attribute/accuracy": "swap-attribute, unseen pairs",
    "scenes/winoground/group_score": "Winoground-style group",
    "scenes/retrieval/image_to_text/recall@1": "R@1 image to text",
    "scenes/retrieval/text_to_image/recall@1": "R@1 text to image",
    "scenes/classification/clean/accuracy": "zero-shot classification",
}


def _details(runs: Sequence[Mapping[str, Any]]) -> str:
    table = differences(runs, PAIRS, COMPARED)
    return (
        f"## Differences\n\n{table}\n\nPaired by seed, 95 % t-intervals. The paper reports +4.7 points of "
        "Iterated-CLIP over CLIP on SugarCrepe.\n\n"
        f"## Over generations\n\n{over_generations(runs)}\n\nEase of learning: mean in-batch accuracy (%) of a new "
        f"language agent in its first {EASE_STEPS} steps against the frozen vision agent, on unseen pictures, with "
        "the checkpoint's logit scale (which slows an agent down the larger it is) and with "
        f"{FIRST_SCALE:.1f}. Bounds and slope: see `vlcomp.analysis.smoothness`; those of a model with a codebook "
        "count its head too and compare with each other only. Scores on the validation split. Checkpoints of a run "
        "with spawns are of the last step of each generation.\n\n"
        f"## Codes and structure\n\n{codes_table(runs)}\n\nOn the validation split.\n"
    )


def _selection_details(runs: Sequence[Mapping[str, Any]]) -> str:
    return f"## Codes and structure\n\n{codes_table(runs)}\n"


_SHORT = STEPS // 2


def _searched() -> dict[str, dict[str, Any]]:
    """Temperature and size of the codebook, without spawns in half the steps; the rest in all of them."""
    found: dict[str, dict[str, Any]] = {}
    # From the temperature that the paper's own 1000 for 4,096 codes corresponds to, down to one that leaves a model
    # nearly dead (a fourth of that, 1.95, ends at one code and a loss of ln B).
    tried = [(512, 1000 * 512 / 4096 / part) for part in (1, 2, 4, 16)]
    # Sizes at the temperature that corresponds to the chosen one.
    tried += [(codes, TEMPERATURE * codes / CODES) for codes in (128, 2048)]
    for codes, temperature in tried:
        found[f"Codebook-CLIP, {codes} codes, temperature {temperature:g}"] = {
            **_CODEBOOK,
            "steps": _SHORT,
            "codes": codes,
            "temperature": temperature,
        }
    lengths = [(TEMPERATURE, STEPS // parts, 0.25) for parts in (6, 4)]
    lengths += [(TEMPERATURE, STEPS // 2, share) for share in (0.0, 0.25, 0.5)]
    # At the sparser temperature swaps are told apart after half of the steps and not after all of them: agents that
    # are replaced by then might keep it.
    lengths.append((_SPARSE, STEPS // 2, 0.25))
    for temperature, length, share in lengths:
        found[f"Iterated-CLIP, temperature {temperature:g}, generations of {length}, {share:.0%} frozen"] = {
            **_ITERATED,
            "temperature": temperature,
            "generation_steps": length,
            "generations": STEPS // length,
            "freeze_steps": int(share * length),
        }
    # What half the steps say of a temperature is not what all of them say: sparser codes are learned later. The study
    # itself has the validation scores of all steps at the chosen temperature, and of CLIP.
    found[f"Codebook-CLIP, {CODES} codes, temperature {_SPARSE:g}, {STEPS} steps"] = {
        **_CODEBOOK,
        "temperature": _SPARSE,
    }
    return found


SELECTION = Study(
    name="iterated-clip",
    title="Iterated-CLIP on Scenes: settings, on the validation split",
    version="1",
    configurations=_searched(),
    seeds=(0,),
    run=_validate,
    columns={
        name: title
        for name, title in _COLUMNS.items()
        if not any(word in name for word in ("systematic", "winoground", "classification"))
    },
    notes=(
        f"Validation split, {VALIDATION_ITEMS} items a category, one seed. Temperature, then size of the codebook in "
        f"{_SHORT} steps without spawns, then length and freeze of generations in {STEPS} steps; the learning rate "
        "is that of the study `clip`. Chosen by the mean of the seven categories; of settings less than half a point "
        "apart, about one standard error, the one that computes less, if any. "
        "The second clause was added when the sizes had been run: by the mean alone 2048 codes would be chosen."
    ),
    details=_selection_details,
)

# A patch that holds a whole object; the study's own, of 8 px, hold a part of one.
_BIG_PATCH = 20
PATCHES = Study(
    name="iterated-clip",
    title="A codebook and patches as large as objects",
    version="1",
    configurations={
        f"CLIP, patches of {_BIG_PATCH} px": {**_CLIP, "patch_size": _BIG_PATCH},
        **{
            f"Codebook-CLIP, temperature {temperature:g}, patches of {_BIG_PATCH} px": {
                **_CODEBOOK,
                "temperature": temperature,
                "patch_size": _BIG_PATCH,
            }
            for temperature in (TEMPERATURE, _SPARSE)
        },
    },
    seeds=(0,),
    run=_validate,
    columns=SELECTION.columns,
    notes=(
        f"Validation split, {VALIDATION_ITEMS} items a category, {STEPS} steps without spawns, one seed; pictures of "
        f"{IMAGE_SIZE} px with objects of 11 to 16, so four patches. For patches of 8 px see the last checkpoints of "
        f"the study and, at temperature {_SPARSE:g}, the selection."
    ),
    details=_selection_details,
)

STUDY = Study(
    name="iterated-clip",
    title="Iterated-CLIP on Scenes",
    version="1",
    configurations=CONFIGURATIONS,
    seeds=(0, 1, 2, 3, 4),
    run=_run,
    columns=_COLUMNS,
    notes=(
        f"Test split, last weights of {STEPS} steps from scratch, the same for all (1.73 M parameters, with a "
        f"codebook 1.83 M; {IMAGE_SIZE} px, patches of 8 px, batch {BATCH_SIZE}). "
        f"Iterated-CLIP: {STEPS // GENERATION_STEPS} generations of "
        f"{GENERATION_STEPS} steps, codebook of {CODES} codes frozen for {FREEZE_STEPS}, temperature {TEMPERATURE:g}. "
        "Seeds differ in weights, spawns and order of the data. Settings were chosen on the validation split (see the "
        "selection)."
    ),
    details=_details,
    figures=figures,
    parts={"selection": SELECTION, "patches": PATCHES},
)


def demo(folder: Path, *, quick: bool = False, progress: bool = True, start: Path | None = None) -> Report:
    """The demo's row of the method: two short generations.

    Args:
        folder (`Path`):
            Output folder of the demo; the model goes to its subfolder `iterated-clip`.
        quick (`bool`, defaults to `False`):
            A few steps: shows that everything runs, and little about models.
        progress (`bool`, defaults to `True`):
            Show progress bars.
        start (`Path`, *optional*):
            Not used: the method trains from scratch.

    Returns:
        [`~vlcomp.evaluation.Report`]
    """
    length, images, items = (15, 2_000, 400) if quick else (250, NUM_IMAGES, None)
    train_on_scenes(
        folder / "iterated-clip",
        steps=2 * length,
        generation_steps=length,
        freeze_steps=length // 4,
        generations=2,
        codebook=True,
        codes=CODES,
        temperature=TEMPERATURE,
        num_images=images,
        warmup_steps=min(WARMUP_STEPS, length // 4),
        progress=progress,
    )
    options = {"limit": items} if items else {}
    return clip.measure_on_scenes(folder / "iterated-clip", name="Iterated-CLIP", progress=progress, **options)
