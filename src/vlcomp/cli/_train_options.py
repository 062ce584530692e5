"""Options of `vlcomp train`: their declaration, and how defaults, config file and command line are put together."""

from __future__ import annotations

import argparse
import json
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..methods import METHODS
from . import _labelled

EPILOG = """examples:
  fine-tune a checkpoint on a folder with metadata.jsonl, measure retrieval on a tenth of it:
    vlcomp train {name} --data photos/ --model openai/clip-vit-base-patch32 --output runs/clip --test-fraction 0.1
  a large batch in little memory, vision tower locked:
    vlcomp train {name} --data photos/ --model MODEL --output runs/lit --batch-size 1024 --mini-batch-size 64 \\
        --freeze vision
  from scratch, related captions kept in one split:
    vlcomp train {name} --data emoji/ --from-scratch small --output runs/emoji --test-fraction 0.1 \\
        --group-by caption --group-pattern '^[^:]*'
  settings from a file; what the command line says wins:
    vlcomp train {name} --config run.yaml --learning-rate 5e-6

Any other field of the training arguments is an option too (--weight_decay 0.1, --activation_checkpointing true,
--report_to tensorboard, --save_steps 100, --resume_from_checkpoint last). A config file holds the same names."""

# Of a method that trains from scratch, by generations.
EPILOG_GENERATIONS = """examples:
  four generations on a folder with metadata.jsonl, retrieval measured on a tenth of it:
    vlcomp train {name} --data photos/ --from-scratch small --num_generations 4 --generation_steps 400 \\
        --output runs/iterated --test-fraction 0.1
  the baselines at equal steps: a codebook without spawns, and a plain CLIP:
    vlcomp train {name} --data photos/ --from-scratch small --num_generations 1 --generation_steps 1600 \\
        --warmup_steps 33 --output runs/codebook
    vlcomp train {name} --data photos/ --from-scratch small --num_generations 1 --generation_steps 1600 \\
        --warmup_steps 33 --no-use-codebook --output runs/plain
  a model of the paper's size, and the paper's 12 generations of 6,000 steps:
    python examples/new_iterated_clip.py --output start
    vlcomp train {name} --data 'cc3m/*.tar' --streaming --max-steps 72000 --model start --output runs/cc3m
  settings from a file; what the command line says wins:
    vlcomp train {name} --config run.yaml --learning-rate 1e-4

Any other field of the training arguments is an option too (--codebook_freeze_steps 100, --agent vision,
--activation_checkpointing true, --resume_from_checkpoint last). A config file holds the same names."""

# Of a method that starts from a pre-trained model only.
EPILOG_PRETRAINED = """examples:
  train on a folder whose metadata.jsonl has caption, long_caption or both, measure retrieval on a tenth of it:
    vlcomp train {name} --data photos/ --model llava-hf/llava-1.5-7b-hf --output runs/lvlm --test-fraction 0.1
  a large batch in little memory, soft prompts without LoRA:
    vlcomp train {name} --data photos/ --model MODEL --output runs/prompts --batch-size 1024 --mini-batch-size 16 \\
        --lora_rank 0
  settings from a file; what the command line says wins:
    vlcomp train {name} --config run.yaml --learning-rate 5e-5

Any other field of the training arguments is an option too (--next_token_weight 0.5, --lora_rank 32,
--activation_checkpointing true, --resume_from_checkpoint last). A config file holds the same names."""

# Options of this command that are fields of the training arguments under a longer name.
FIELDS = {"batch_size": "per_device_train_batch_size", "epochs": "num_train_epochs", "output": "output_dir"}
# What the command does where neither the command line nor the file says anything. The training defaults are those
# of CLIP fine-tuning in the literature, and for small models from scratch what did best on validation rows.
_DEFAULTS: dict[str, Any] = {"split": "train", "image_column": "image", "caption_column": "caption"}
_TRAINING = {
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "weight_decay": 0.1,
    "adam_beta2": 0.98,
    "adam_epsilon": 1e-6,
    "logging_steps": 10,
    "save_steps": 500,
    "save_total_limit": 2,
}
# Where a method learns from images with classes, its training arguments have the paper's defaults.
_LABELLED = {name: _TRAINING[name] for name in ("logging_steps", "save_steps", "save_total_limit")}
_FINE_TUNING = {"learning_rate": 1e-5, "num_train_epochs": 5, "per_device_train_batch_size": 64}
_FROM_SCRATCH = {"learning_rate": 1e-3, "num_train_epochs": 15, "per_device_train_batch_size": 128}
# Settings whose default is not that of their class, but of the command.
COMMAND_DEFAULTS = frozenset({*_TRAINING, *_FINE_TUNING, *_FROM_SCRATCH})
SIZES = {
    "small": {"image_size": 64, "patch_size": 16, "width": 128, "layers": 4, "vocab_size": 2048, "text_length": 32},
}


# Methods that count generations in steps. All of them are kept, because the analyses compare them.
GENERATIONS = ("iterated-clip",)

# What people try that has another name here.
_HINTS = {
    "device": "the GPU is used if there is one, CUDA_VISIBLE_DEVICES says which, and --use_cpu leaves it alone",
    "template": "templates belong to `vlcomp evaluate` and `vlcomp classify`",
}


def add_method(parser: argparse.ArgumentParser, method: str) -> None:
    if METHODS[method].data == "labels":
        _labelled.add_arguments(parser)
        return
    data = parser.add_argument_group("data")
    data.add_argument("--data", metavar="DATA", help="folder with metadata.jsonl, shards, Hub data set, or 'scenes'")
    data.add_argument("--split", help="split to train on (default: train)")
    data.add_argument("--image-column", metavar="NAME", help="column of the images (default: image)")
    data.add_argument("--caption-column", metavar="NAME", help="column of the captions (default: caption)")
    data.add_argument("--streaming", action="store_true", help="read the data while training; needs --max-steps")
    data.add_argument(
        "--shuffle-buffer",
        type=int,
        metavar="N",
        help="streamed rows held in memory to draw from, in another order each epoch (default: 1000; 1: as they come)",
    )
    data.add_argument("--fit", help="how pictures become square: crop, squash or pad (default: as the checkpoint)")
    data.add_argument("--random-crop", type=float, metavar="AREA", help="train on random crops of at least this area")
    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="MODEL", help="checkpoint folder or Hub repository to start from")
    if METHODS[method].new is not None:
        model.add_argument(
            "--from-scratch", choices=sorted(SIZES), help="start from random weights and a new tokenizer"
        )
        for name, what in (
            ("image-size", "pixels of a side"),
            ("patch-size", "pixels of a patch's side"),
            ("width", "hidden size"),
            ("layers", "blocks of each tower"),
            ("vocab-size", "size of the vocabulary"),
            ("text-length", "tokens of the longest caption"),
        ):
            default = SIZES["small"][name.replace("-", "_")]
            model.add_argument(f"--{name}", type=int, metavar="N", help=f"from scratch: {what} (small: {default})")
        for option, kind, what in METHODS[method].options:
            typed = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind, "metavar": "N"}
            model.add_argument(f"--{option.replace('_', '-')}", help=f"from scratch: {what}", **typed)
        model.add_argument("--freeze", help="tower that is not trained: vision or text")
        if method not in GENERATIONS:
            model.add_argument(
                "--lora", type=int, metavar="RANK", help="train LoRA adapters of this rank, not the weights"
            )
    run = parser.add_argument_group("training")
    run.add_argument("--output", metavar="FOLDER", help="where checkpoints, the model and its evaluation go")
    run.add_argument("--batch-size", type=int, metavar="N", help="pairs per device in a contrastive batch")
    run.add_argument("--mini-batch-size", type=int, metavar="N", help="pairs in memory at a time; the result is equal")
    if method in GENERATIONS:
        run.add_argument("--max-steps", type=int, metavar="N", help="optimiser steps: all generations together")
    else:
        run.add_argument("--epochs", type=float, metavar="N", help="passes over the data")
        run.add_argument("--max-steps", type=int, metavar="N", help="optimiser steps, instead of --epochs")
    run.add_argument("--learning-rate", type=float, metavar="RATE", help="peak learning rate")
    run.add_argument("--seed", type=int, metavar="N", help="seed of weights and order (default: 42)")
    run.add_argument("--config", type=Path, metavar="FILE", help="YAML file with any of these options")
    measure = parser.add_argument_group("evaluation")
    measure.add_argument("--eval-data", metavar="DATA", help="captioned images to measure retrieval on afterwards")
    measure.add_argument("--test-fraction", type=float, metavar="PART", help="hold out this part of --data instead")
    measure.add_argument(
        "--validation-fraction",
        type=float,
        metavar="PART",
        help="hold out this part of the training rows too, and measure retrieval on it during training "
        "(metrics validation/...; set --eval_strategy)",
    )
    measure.add_argument("--group-by", metavar="COLUMN", help="rows with one value here stay in one split")
    measure.add_argument("--group-pattern", metavar="REGEX", help="compare this part of the value")
    measure.add_argument("--split-seed", type=int, metavar="N", help="seed of the split (default: 0)")
    measure.add_argument("--eval-tasks", nargs="+", metavar="TASK", help="tasks to run afterwards (`vlcomp tasks`)")


def read_settings(args: argparse.Namespace, arguments_class: type) -> tuple[dict[str, Any], Any]:
    """Options of the command, and training arguments, from defaults, the config file and the command line."""
    from dataclasses import fields

    from transformers import HfArgumentParser

    from ..errors import ArgumentError
    from ..training import ContrastiveTrainingArguments

    class Parser(HfArgumentParser):
        def error(self, message: str) -> None:
            raise ArgumentError(message)

    given = {key: value for key, value in vars(args).items() if key not in ("method", "rest", "config")}
    trained = {field.name for field in fields(arguments_class) if field.init}
    labelled = METHODS[args.method].data == "labels"
    own = set(_option_names(args.method))
    config = _read_config(args.config, own | trained) if hasattr(args, "config") else {}
    config = {
        key: _typed(args.config, key, value, args.method) if key in own else value for key, value in config.items()
    }
    merged = {
        **({} if labelled else _DEFAULTS),
        **{key: value for key, value in config.items() if key in own},
        **given,
    }

    defaults = {**_TRAINING, **(_FROM_SCRATCH if merged.get("from_scratch") else _FINE_TUNING)}
    if labelled:
        defaults = dict(_LABELLED)
    # Where a method has settings of its own, those of its paper, they are the defaults here too.
    common = {field.name: field.default for field in fields(ContrastiveTrainingArguments)}
    for field in fields(arguments_class):
        if field.name in defaults and field.default != common.get(field.name, field.default):
            del defaults[field.name]
    if args.method in GENERATIONS:
        del defaults["save_total_limit"]
    if args.method in GENERATIONS or merged.get("max_steps") or config.get("max_steps"):
        defaults.pop("num_train_epochs", None)
    if not sys.stderr.isatty():
        defaults["disable_tqdm"] = True  # in a log file a bar is a line for each step
    tokens: list[str] = []
    for source in (defaults, {k: v for k, v in config.items() if k in trained}, merged):
        for key, value in source.items():
            field = FIELDS.get(key, key)
            if field in trained and value is not None:
                tokens += _token(field, value)
    parser = Parser(arguments_class, allow_abbrev=False)
    try:
        parsed, unknown = parser.parse_args_into_dataclasses(
            [*tokens, *args.rest], return_remaining_strings=True, look_for_args_file=False
        )
    except ArgumentError:
        raise
    except ValueError as error:
        raise ArgumentError(str(error).strip()) from error
    if unknown:
        names = [*(name.replace("_", "-") for name in own), *trained]
        raise ArgumentError(_unknown("argument", unknown[0], names, "--"))
    return merged, parsed


def _option_names(method: str) -> list[str]:
    return list(_actions(method))


def _actions(method: str) -> dict[str, argparse.Action]:
    """The options of this command, as they are declared."""
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    add_method(parser, method)
    return {action.dest: action for action in parser._actions if action.dest not in ("help", "config")}


def _typed(path: Path, key: str, value: Any, method: str) -> Any:
    """A value of the config file, in the type that the command line would have given it."""
    from ..errors import ArgumentError

    action = _actions(method)[key]
    if value is None:
        return None
    if action.nargs == 0:
        expected, right = "true or false", isinstance(value, bool)
    elif action.nargs == "+":
        value = [value] if isinstance(value, (str, int)) else value
        if isinstance(value, list):
            value = [str(entry) if type(entry) is int else entry for entry in value]  # seeds
        expected, right = "a list of texts", isinstance(value, list) and all(isinstance(v, str) for v in value)
    elif action.type in (int, float):
        expected, right = ("a whole number" if action.type is int else "a number"), not isinstance(value, bool)
        try:
            # YAML reads 1e-3 as a text; a whole number must not lose what is behind its point.
            number = action.type(value) if right else 0
            right = right and (not isinstance(value, float) or number == value or value != value)
            value = number
        except (TypeError, ValueError, OverflowError):
            right = False
    else:
        expected, right = "a text", not isinstance(value, (dict, list, bool))
        value = str(value)
    if right and action.choices is not None and value not in action.choices:
        expected, right = f"one of {', '.join(action.choices)}", False
    if not right:
        raise ArgumentError(f"--config {path}: {key}: {value!r} is not {expected}")
    return value


def _token(field: str, value: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [f"--{field}", *map(str, value)]
    return [f"--{field}", json.dumps(value) if isinstance(value, dict) else str(value)]


def _unknown(what: str, name: str, known: list[str], prefix: str = "") -> str:
    word = name.lstrip("-").split("=")[0]
    if word in _HINTS and prefix:
        return f"{what} {name!r} is not known; {_HINTS[word]}"
    close = get_close_matches(word, known, 2)
    hint = f"; did you mean {' or '.join(prefix + c for c in close)}?" if close else ""
    return f"{what} {name!r} is not known{hint}"


def _read_config(path: Path, known: set[str]) -> dict[str, Any]:
    import yaml

    from ..errors import ArgumentError

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArgumentError(f"--config {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ArgumentError(f"--config {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ArgumentError(f"--config {path} must hold `name: value` lines, not a {type(content).__name__}")
    config = {str(key).replace("-", "_"): value for key, value in content.items()}
    for key in config:
        if key not in known:
            raise ArgumentError(f"--config {path}: {_unknown('key', key, sorted(known))}")
    return config
