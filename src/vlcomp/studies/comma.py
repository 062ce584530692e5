"""COMMA on Scenes: prompts learned from 16 pictures of each class, and what they do to classes they have not seen."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..data.classification_sets import ClassificationSet, load_classification_set
from ..data.fewshot import base_and_novel
from ..evaluation import Report
from ..evaluation.statistics import mean_interval
from ..protocols import base_to_novel, cross_dataset, domain_generalization
from ..protocols.prompted import FewShot
from .clip import IMAGE_SIZE, measure_on_scenes, pretrain_on_scenes
from .frame import Study

# The base is pre-trained briefly: it then names 84 % of the attribute-noun classes and 45 % of the nouns, about what
# OpenAI's CLIP does on the eleven sets. After the 700 steps of the study `clip` it is 98 and 91 %, and nothing is
# left to learn. Pictures of the classification sets are draws of their own: none of them is seen here.
BASE_STEPS = 350
NUM_IMAGES = 40_000
SHOTS = 16
BASE_TO_NOVEL = "scenes/attribute-noun"
DOMAINS = "scenes/noun"
SEEDS = (1, 2, 3, 4, 5)

# One learned vector where the paper has two: the template of Scenes, "a {}", has one word to take the place of. The
# second vector starts at random and moves all words by a position, which costs this base 4 to 9 points at the start.
# Batches of 32 where the paper has 4: encoding the texts of all classes is most of a step. No crops and no mirrored
# pictures, because objects stand on a grid that the patches of the base fit (see LATTICE of the world).
TRAINING: dict[str, Any] = {
    "n_ctx": 1,
    "per_device_train_batch_size": 32,
    "num_train_epochs": 20.0,
    "random_crop": None,
    "random_flip": False,
    "dataloader_drop_last": False,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "CoOp": {"prompt_variant": "coop", "kd_weight": 0.0},
    "MaPLe": {"prompt_variant": "maple", "kd_weight": 0.0},
    "COMMA, detached generator": {"prompt_variant": "comma", "detach_generator": True},
    "COMMA": {"prompt_variant": "comma"},
}
# Of each method its own; the selection compares others.
LEARNING_RATES = {"CoOp": 0.1, "MaPLe": 0.1, "COMMA, detached generator": 0.1, "COMMA": 0.1}
RATES = (0.03, 0.1, 0.3)
LENGTHS = (20.0, 40.0)


def pretrained_base(folder: Path, *, steps: int = BASE_STEPS, progress: bool = False) -> Path:
    """The CLIP that all runs start from: trained once, then read.

    Args:
        folder (`Path`):
            Where it is kept.
        steps (`int`, defaults to 350):
            Optimiser steps.
        progress (`bool`, defaults to `False`):
            Show progress bars.

    Returns:
        `Path`: the checkpoint.
    """
    model = folder / "model"
    if not (folder / "curve.json").exists():
        making = folder / "making"
        for old in (making, model):
            shutil.rmtree(old, ignore_errors=True)
        made = pretrain_on_scenes(
            making, steps=steps, num_images=NUM_IMAGES, eval_steps=max(1, steps // 4), progress=progress
        )
        os.replace(making, model)
        # Written last: half a base does not count as one.
        (folder / "curve.json").write_text(json.dumps(made.curve, indent=1) + "\n", encoding="utf-8")
    return model


def selection_set() -> ClassificationSet:
    """The base classes of the study alone: settings are chosen on halves of them, so novel classes stay unseen.

    Returns:
        [`~vlcomp.data.classification_sets.ClassificationSet`]
    """
    return base_and_novel(load_classification_set(BASE_TO_NOVEL, image_size=IMAGE_SIZE))[0]


def few_shot_run(
    protocol: str, settings: Mapping[str, Any], seed: int, base: Path, *, chosen_on_validation: bool = False
) -> dict[str, Any]:
    """One run of a protocol.

    Args:
        protocol (`str`):
            `"base-to-novel"`, `"cross-dataset"` or `"domain-generalization"`.
        settings (`Mapping[str, Any]`):
            Fields of [`~vlcomp.CommaTrainingArguments`].
        seed (`int`):
            Seed of pictures, prompts and order.
        base (`Path`):
            The CLIP.
        chosen_on_validation (`bool`, defaults to `False`):
            Measure validation pictures of halves of the base classes, to choose settings on.

    Returns:
        `dict[str, Any]`: `metrics`.
    """
    function = {
        "base-to-novel": base_to_novel,
        "cross-dataset": cross_dataset,
        "domain-generalization": domain_generalization,
    }[protocol]
    data: Any = DOMAINS if protocol == "domain-generalization" else BASE_TO_NOVEL
    result = function(
        base,
        selection_set() if chosen_on_validation else data,
        shots=SHOTS,
        seeds=[seed],
        arguments=settings,
        split="validation" if chosen_on_validation else "test",
        image_size=IMAGE_SIZE,
        batch_size=250,
        log=lambda line: None,
    )
    return {"metrics": result.metrics}


def _run(protocol: str, depth: int, settings: Mapping[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    return few_shot_run(protocol, settings, seed, pretrained_base(folder.parents[depth] / "pretrained"))


def _validate(settings: Mapping[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    base = pretrained_base(folder.parents[2] / "pretrained")
    return few_shot_run("base-to-novel", settings, seed, base, chosen_on_validation=True)


# Every setting that matters is in the result files, so that runs with others are not mixed in.
def _settings(name: str, **over: Any) -> dict[str, Any]:
    return {**TRAINING, "learning_rate": LEARNING_RATES[name], **VARIANTS[name], **over}


ZERO_SHOT = {"prompt_variant": "zero-shot"}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "zero-shot": ZERO_SHOT,
    **{name: _settings(name) for name in VARIANTS},
}
_COLUMNS = {"base": "base", "novel": "novel", "harmonic_mean": "harmonic mean"}


def gains(runs: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Differences in one metric to zero-shot, and of COMMA to each, paired by seed, as a Markdown table.

    Args:
        runs (`Sequence[Mapping]`):
            Result files.
        metric (`str`):
            The metric.

    Returns:
        `str`: in points.
    """
    values: dict[str, dict[int, float]] = {}
    for run in runs:
        values.setdefault(run["configuration"], {})[run["seed"]] = 100 * run["metrics"][metric]
    lines = ["| | over zero-shot | COMMA over it |", "|---|---|---|"]
    zero = next(iter(values.get("zero-shot", {}).values()), None)
    for name, found in values.items():
        over = [] if zero is None or name == "zero-shot" else [value - zero for value in found.values()]
        comma = values.get("COMMA", {})
        if name == "zero-shot":
            found = dict.fromkeys(comma, zero)
        against = [] if name == "COMMA" else [comma[seed] - found[seed] for seed in comma if seed in found]
        lines.append(f"| {name} | {_points(over)} | {_points(against)} |")
    return "\n".join(lines)


def _points(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "".join(f"{value:+.1f}" for value in values)
    interval = mean_interval(values)
    return f"{interval.value:+.1f} ± {(interval.high - interval.low) / 2:.1f}"


def _details(metric: str, runs: Sequence[Mapping[str, Any]]) -> str:
    return f"## Differences in {metric.replace('_', ' ')}, in points\n\n{gains(runs, metric)}\n"


_WHAT = (
    f"{SHOTS} pictures a class, the same base (CLIP of 1.7 M parameters, {BASE_STEPS} steps on Scenes), pictures and "
    "epochs for all; seeds differ in the pictures, the prompts and the order. Learning rates: "
    + ", ".join(f"{name} {rate:g}" for name, rate in LEARNING_RATES.items())
    + " (the selection compares others on halves of the base classes)."
)
_ABLATION: dict[str, dict[str, Any]] = {
    "COMMA": {},
    **{f"depth {depth}": {"prompt_depth": depth} for depth in (1, 2, 3)},
    **{f"n_ctx {count}": {"n_ctx": count} for count in (2, 4)},
    **{f"kd_weight {weight:g}": {"kd_weight": weight} for weight in (0.0, 0.3, 3.0)},
    **{f"kd_layers {layers}": {"kd_layers": layers} for layers in (2, 4)},
    "without MLP": {"generator_mlp": False},
    "a generator for each layer": {"share_generator": False},
}
_OTHERS: dict[str, dict[str, Any]] = {
    "deep text only": {"prompt_variant": "deep-text"},
    "deep vision only": {"prompt_variant": "deep-vision", "kd_weight": 0.0},
    "independent": {"prompt_variant": "independent"},
    "MaPLe with knowledge term": {"prompt_variant": "maple"},
    "COMMA, detached generator": {"detach_generator": True},
}

SELECTION = Study(
    name="comma",
    title="COMMA on Scenes: learning rate and length, on validation pictures of halves of the base classes",
    version="1",
    configurations={
        f"{name}, learning rate {rate:g}, {length:g} epochs": _settings(
            name, learning_rate=rate, num_train_epochs=length
        )
        for name in VARIANTS
        for length in LENGTHS
        for rate in RATES
    },
    seeds=(0,),
    run=_validate,
    columns=_COLUMNS,
    notes="20 base classes trained, the other 20 as novel ones; one seed. No novel class of the study is seen.",
)
ABLATION = Study(
    name="comma",
    title="COMMA on Scenes: what matters",
    version="1",
    configurations={name: _settings("COMMA", **over) for name, over in {**_ABLATION, **_OTHERS}.items()},
    seeds=(0, 1, 2),
    run=_validate,
    columns=_COLUMNS,
    notes=(
        "Validation pictures of halves of the base classes, as in the selection; all else as COMMA (4 layers with "
        "prompts, n_ctx 1, kd_weight 1, kd_layers 1)."
    ),
)
CROSS_DATASET = Study(
    name="comma",
    title="COMMA on Scenes: attribute-noun classes to other sets",
    version="1",
    configurations=CONFIGURATIONS,
    seeds=SEEDS,
    run=partial(_run, "cross-dataset", 2),
    columns={
        "source": "attribute-noun",
        "scenes/noun": "noun",
        "scenes/colour": "colour",
        "scenes/background": "background",
        "mean": "mean of three",
    },
    notes="Test pictures. Trained on all 80 attribute-noun classes, prompts in 3 layers. " + _WHAT,
    details=partial(_details, "mean"),
    seedless=("zero-shot",),
)
DOMAIN_GENERALIZATION = Study(
    name="comma",
    title="COMMA on Scenes: nouns in other styles of drawing",
    version="1",
    configurations=CONFIGURATIONS,
    seeds=SEEDS,
    run=partial(_run, "domain-generalization", 2),
    columns={
        "source": "clean",
        **{f"scenes/noun/{style}": style for style in ("outline", "noise", "palette", "sketch")},
        "mean": "mean of four",
    },
    notes="Test pictures. Trained on 19 nouns drawn as the base knows them, prompts in 3 layers. " + _WHAT,
    details=partial(_details, "mean"),
    seedless=("zero-shot",),
)
STUDY = Study(
    name="comma",
    title="COMMA on Scenes: base to novel classes",
    version="1",
    configurations=CONFIGURATIONS,
    seeds=SEEDS,
    run=partial(_run, "base-to-novel", 1),
    columns=_COLUMNS,
    notes="Test pictures, 40 base and 40 novel classes with other nouns, each half among its own classes. " + _WHAT,
    details=partial(_details, "harmonic_mean"),
    seedless=("zero-shot",),
    parts={
        "cross-dataset": CROSS_DATASET,
        "domain-generalization": DOMAIN_GENERALIZATION,
        "ablation": ABLATION,
        "selection": SELECTION,
    },
)


def demo(folder: Path, *, quick: bool = False, progress: bool = True, start: Path | None = None) -> Report:
    """The demo's row of COMMA: prompts for attribute-noun classes in a CLIP that is pre-trained as the study's base.

    Args:
        folder (`Path`):
            Output folder of the demo; the models go to its subfolders `comma-start` and `comma`.
        quick (`bool`, defaults to `False`):
            A few steps: shows that everything runs, and little about models.
        progress (`bool`, defaults to `True`):
            Show progress bars.
        start (`Path`, *optional*):
            CLIP of the demo's first row; one is pre-trained in the subfolder `comma-start` if not given.

    Returns:
        [`~vlcomp.evaluation.Report`]
    """
    steps, images, items = (60, 4_000, 400) if quick else (BASE_STEPS, NUM_IMAGES, None)
    if start is None:
        start = folder / "comma-start"
        pretrain_on_scenes(start, steps=steps, num_images=images, eval_steps=max(1, steps // 4), progress=progress)
    settings = {**CONFIGURATIONS["COMMA"], **({"max_steps": 5, "warmup_epochs": 0} if quick else {})}
    base = base_and_novel(load_classification_set(BASE_TO_NOVEL, image_size=IMAGE_SIZE))[0]
    prompted = FewShot(str(start), settings, SHOTS, progress=progress).train(base, 0, None)
    for part in (prompted.model, prompted.processor):
        part.save_pretrained(folder / "comma")
    options = {"limit": items} if items else {}
    return measure_on_scenes(folder / "comma", name="COMMA", progress=progress, **options)
