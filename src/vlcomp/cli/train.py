"""`vlcomp train METHOD`: fine-tune or pre-train a model on image-caption data."""

from __future__ import annotations

import argparse
import json
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..methods import METHODS

HELP = "Fine-tune a checkpoint, or train a small model from scratch, on images with captions."

_EPILOG = """examples:
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

# Options of this command that are fields of the training arguments under a longer name.
_FIELDS = {"batch_size": "per_device_train_batch_size", "epochs": "num_train_epochs", "output": "output_dir"}
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
_FINE_TUNING = {"learning_rate": 1e-5, "num_train_epochs": 5, "per_device_train_batch_size": 64}
_FROM_SCRATCH = {"learning_rate": 1e-3, "num_train_epochs": 15, "per_device_train_batch_size": 128}
_SIZES = {
    "small": {"image_size": 64, "patch_size": 16, "width": 128, "layers": 4, "vocab_size": 2048, "text_length": 32},
}


# What people try that has another name here.
_HINTS = {
    "device": "the GPU is used if there is one, CUDA_VISIBLE_DEVICES says which, and --use_cpu leaves it alone",
    "template": "templates belong to `vlcomp evaluate` and `vlcomp classify`",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb.

    Args:
        parser (`argparse.ArgumentParser`):
            Parser of the verb.
    """
    parser.epilog = "example:\n  vlcomp train clip --help"
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD", title="methods")
    for name, method in METHODS.items():
        _add_method(
            methods.add_parser(
                name,
                help=method.title,
                description=f"Train {method.title}.",
                epilog=_EPILOG.format(name=name),
                formatter_class=argparse.RawDescriptionHelpFormatter,
                allow_abbrev=False,
                argument_default=argparse.SUPPRESS,
            )
        )


def _add_method(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--data", metavar="DATA", help="folder with metadata.jsonl, shards, Hub data set, or 'scenes'")
    data.add_argument("--split", help="split to train on (default: train)")
    data.add_argument("--image-column", metavar="NAME", help="column of the images (default: image)")
    data.add_argument("--caption-column", metavar="NAME", help="column of the captions (default: caption)")
    data.add_argument("--streaming", action="store_true", help="read the data while training; needs --max-steps")
    data.add_argument("--fit", help="how pictures become square: crop, squash or pad (default: as the checkpoint)")
    data.add_argument("--random-crop", type=float, metavar="AREA", help="train on random crops of at least this area")
    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="MODEL", help="checkpoint folder or Hub repository to start from")
    model.add_argument("--from-scratch", choices=sorted(_SIZES), help="start from random weights and a new tokenizer")
    for name, what in (
        ("image-size", "pixels of a side"),
        ("patch-size", "pixels of a patch's side"),
        ("width", "hidden size"),
        ("layers", "blocks of each tower"),
        ("vocab-size", "size of the vocabulary"),
        ("text-length", "tokens of the longest caption"),
    ):
        default = _SIZES["small"][name.replace("-", "_")]
        model.add_argument(f"--{name}", type=int, metavar="N", help=f"from scratch: {what} (small: {default})")
    model.add_argument("--freeze", help="tower that is not trained: vision or text")
    model.add_argument("--lora", type=int, metavar="RANK", help="train LoRA adapters of this rank, not the weights")
    run = parser.add_argument_group("training")
    run.add_argument("--output", metavar="FOLDER", help="where checkpoints, the model and its evaluation go")
    run.add_argument("--batch-size", type=int, metavar="N", help="pairs per device in a contrastive batch")
    run.add_argument("--mini-batch-size", type=int, metavar="N", help="pairs in memory at a time; the result is equal")
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


def parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Parse the command line; what is not declared is kept as training arguments.

    Args:
        parser (`argparse.ArgumentParser`):
            Parser of the verb.
        arguments (`list[str]`):
            The command line after the verb.

    Returns:
        `argparse.Namespace`
    """
    args, rest = parser.parse_known_args(arguments)
    args.rest = rest
    for name, field in _FIELDS.items():
        twice = [word for word in rest if word.split("=")[0].replace("-", "_") == f"__{field}"]
        if twice and hasattr(args, name):
            parser.error(f"--{name.replace('_', '-')} and {twice[0].split('=')[0]} are one setting; give one of them")
    return args


def run(args: argparse.Namespace) -> int:
    """Train, save and measure.

    Args:
        args (`argparse.Namespace`):
            From [`parse`].

    Returns:
        `int`: 0.

    Raises:
        VlcompError: if an option, the data or the checkpoint cannot be used.
    """
    from ..errors import ArgumentError

    method = METHODS[args.method]
    options, settings = _settings(args, method.load("arguments"))
    for name, what in (("data", "the images to train on"), ("output", "the folder to write to")):
        if options.get(name) is None:
            raise ArgumentError(f"--{name} is missing: {what}")
    if (options.get("model") is None) == (options.get("from_scratch") is None):
        raise ArgumentError("give either --model CHECKPOINT or --from-scratch small")
    _check_options(options, settings)

    from transformers.utils.logging import disable_progress_bar

    from ..training.setup import check_writable

    disable_progress_bar()  # of files being written, twice a checkpoint
    check_writable(settings.output_dir)
    more_tasks = _eval_tasks(options)
    train, validation, tasks = _data(options, settings)
    model, processor = _model(options, settings, train)
    trainer = method.load("trainer")(
        model,
        settings,
        train,
        processing_class=processor,
        evaluators=[validation] if validation is not None else None,
        peft_config=_lora(options),
    )
    trainer.train(resume_from_checkpoint=_resume(settings))
    trainer.save_model()
    if trainer.is_world_process_zero():
        _record(options, settings)
        print(f"saved {settings.output_dir}")
        _measure(trainer, [*tasks, *more_tasks])
    return 0


def _check_options(options: dict[str, Any], settings: Any) -> None:
    """Find options that exclude each other, or that would do nothing."""
    from ..errors import ArgumentError

    given = {key for key, value in options.items() if value is not None and value is not False}
    fractions = given & {"test_fraction", "validation_fraction"}
    if {"test_fraction", "eval_data"} <= given:
        raise ArgumentError("--test-fraction and --eval-data exclude each other: which rows should be measured?")
    if "streaming" in given and fractions:
        raise ArgumentError("streamed data cannot be split; use --eval-data")
    if "streaming" in given and settings.max_steps < 1:
        raise ArgumentError("--streaming needs --max-steps: how many rows there are is not known in advance")
    if "streaming" in given and "from_scratch" in given:
        raise ArgumentError("--from-scratch learns a tokenizer from all captions and cannot be used with --streaming")
    for name in ("group_by", "group_pattern", "split_seed"):
        if name in given and not fractions:
            raise ArgumentError(
                f"--{name.replace('_', '-')} is about splitting: give --test-fraction or --validation-fraction too"
            )
    for name in sorted(fractions):
        if not 0 < options[name] < 1:
            raise ArgumentError(f"--{name.replace('_', '-')} {options[name]} must lie between 0 and 1, both excluded")
    evaluates = settings.eval_strategy != "no"
    if "validation_fraction" in given and not evaluates:
        raise ArgumentError(
            "--validation-fraction needs --eval_strategy epoch (or steps): when should it be measured?"
        )
    if evaluates and "validation_fraction" not in given:
        raise ArgumentError(
            f"--eval_strategy {settings.eval_strategy.value} has nothing to measure; give --validation-fraction too"
        )
    for name in _SIZES["small"]:
        if name in given and "model" in given:
            raise ArgumentError(f"--{name.replace('_', '-')} goes with --from-scratch; --model has its own sizes")
        if options.get(name) is not None and options[name] < 1:
            raise ArgumentError(f"--{name.replace('_', '-')} {options[name]} must be at least 1")
    if options.get("lora") is not None and options["lora"] < 1:
        raise ArgumentError(f"--lora {options['lora']} must be a rank of at least 1")


def _eval_tasks(options: dict[str, Any]) -> list[Any]:
    from ..errors import ArgumentError
    from ..evaluation import list_tasks, resolve_tasks
    from ..evaluation.suite import prepare_tasks

    if not options.get("eval_tasks"):
        return []
    names = resolve_tasks(options["eval_tasks"])
    for info in list_tasks():
        if info.name in names and info.data:
            own = "--eval-data or --test-fraction measures it" if info.name == "retrieval" else "run `vlcomp evaluate`"
            raise ArgumentError(f"--eval-tasks {info.name} needs data of its own ({info.data}): {own}")
    return prepare_tasks(names)


def _settings(args: argparse.Namespace, arguments_class: type) -> tuple[dict[str, Any], Any]:
    """Options of the command, and training arguments, from defaults, the config file and the command line."""
    from dataclasses import fields

    from transformers import HfArgumentParser

    from ..errors import ArgumentError

    class Parser(HfArgumentParser):
        def error(self, message: str) -> None:
            raise ArgumentError(message)

    given = {key: value for key, value in vars(args).items() if key not in ("method", "rest", "config")}
    trained = {field.name for field in fields(arguments_class) if field.init}
    own = set(_option_names())
    config = _read_config(args.config, own | trained | set(_FIELDS)) if hasattr(args, "config") else {}
    config = {key: _typed(args.config, key, value) if key in own else value for key, value in config.items()}
    merged = {**_DEFAULTS, **{key: value for key, value in config.items() if key in own}, **given}

    defaults = {**_TRAINING, **(_FROM_SCRATCH if merged.get("from_scratch") else _FINE_TUNING)}
    if merged.get("max_steps") or config.get("max_steps"):
        defaults.pop("num_train_epochs")
    if not sys.stderr.isatty():
        defaults["disable_tqdm"] = True  # in a log file a bar is a line for each step
    tokens: list[str] = []
    for source in (defaults, {k: v for k, v in config.items() if k in trained}, merged):
        for key, value in source.items():
            field = _FIELDS.get(key, key)
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


def _option_names() -> list[str]:
    return list(_actions())


def _actions() -> dict[str, argparse.Action]:
    """The options of this command, as they are declared."""
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    _add_method(parser)
    return {action.dest: action for action in parser._actions if action.dest not in ("help", "config")}


def _typed(path: Path, key: str, value: Any) -> Any:
    """A value of the config file, in the type that the command line would have given it."""
    from ..errors import ArgumentError

    action = _actions()[key]
    if value is None:
        return None
    if action.nargs == 0:
        expected, right = "true or false", isinstance(value, bool)
    elif action.nargs == "+":
        value = [value] if isinstance(value, str) else value
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


def _data(options: dict[str, Any], settings: Any) -> tuple[Any, Any, list[Any]]:
    """Training rows, the validation task if wanted, and the retrieval task of the held-out rows if any."""
    from ..data import check_images, load_captioned, split_captioned
    from ..evaluation.tasks import Retrieval

    columns = {"image_column": options["image_column"], "caption_column": options["caption_column"]}
    rows = load_captioned(
        options["data"],
        split=options["split"],
        streaming=bool(options.get("streaming")),
        skip_bad_images=settings.skip_bad_images,
        **columns,
    )
    if not options.get("streaming") and not settings.skip_bad_images:
        check_images(rows, options["data"])
    seed = options.get("split_seed") or 0
    grouping = {"group_by": options.get("group_by"), "pattern": options.get("group_pattern")}
    tasks, validation = [], None
    if options.get("test_fraction") is not None:
        rows, test = split_captioned(rows, test_fraction=options["test_fraction"], seed=seed, **grouping)
        tasks = [Retrieval(test)]
        print(f"{len(rows):,} rows to train on, {len(test):,} held out")
    elif options.get("eval_data") is not None:
        tasks = [Retrieval(options["eval_data"], **columns, skip_bad_images=settings.skip_bad_images)]
        if not settings.skip_bad_images:
            check_images(tasks[0].pairs.images, options["eval_data"])
    if options.get("validation_fraction") is not None:
        # Another seed than the test rows' split, or the same groups would come first again.
        rows, held = split_captioned(rows, test_fraction=options["validation_fraction"], seed=seed + 1, **grouping)
        validation = Retrieval(held, name="validation", gallery=False)
        print(f"{len(rows):,} rows to train on, {len(held):,} for validation")
    for task in [*tasks, validation]:
        if task is not None:
            len(task.pairs.captions)  # a mistake in the data shows now and not after training
    return rows, validation, tasks


def _model(options: dict[str, Any], settings: Any, train: Any) -> tuple[Any, Any]:
    from ..models.from_scratch import new_clip, new_processor

    if options.get("model") is not None:
        return options["model"], None
    from ..data.tokenization import train_clip_tokenizer

    size = {name: options.get(name, default) for name, default in _SIZES[options["from_scratch"]].items()}
    tokenizer = train_clip_tokenizer(
        train["caption"], vocab_size=size.pop("vocab_size"), max_length=size.pop("text_length")
    )
    model = new_clip(tokenizer, **size, projection_dim=size["width"], seed=settings.seed)
    fit = settings.fit if settings.fit in ("crop", "squash") else "squash"
    return model, new_processor(tokenizer, size["image_size"], fit=fit)


def _lora(options: dict[str, Any]) -> Any:
    if options.get("lora") is None:
        return None
    from peft import LoraConfig

    return LoraConfig(r=options["lora"], lora_alpha=options["lora"])


def _resume(settings: Any) -> str | bool | None:
    from transformers.trainer_utils import get_last_checkpoint

    from ..errors import ArgumentError

    wanted = settings.resume_from_checkpoint
    if wanted in ("last", "true", "True"):
        found = get_last_checkpoint(settings.output_dir)
        if found is None:
            raise ArgumentError(f"--resume_from_checkpoint last: there is no checkpoint in {settings.output_dir}")
        return found
    if wanted and not Path(wanted).is_dir():
        raise ArgumentError(f"--resume_from_checkpoint {wanted}: there is no such folder")
    return wanted


def _record(options: dict[str, Any], settings: Any) -> None:
    """Write what was asked for beside the model, in the form of a config file."""
    from dataclasses import fields

    import yaml

    chosen = {key: value for key, value in options.items() if value is not None}
    always = ("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "weight_decay", "seed")
    machine = ("output_dir", "logging_dir", "run_name", "resume_from_checkpoint", "disable_tqdm", "use_cpu")
    for field in fields(settings):
        value = getattr(settings, field.name)
        value = getattr(value, "value", value)  # of an enumeration
        simple = value is None or isinstance(value, (bool, int, float, str)) or _is_list_of_text(value)
        default = getattr(field.default, "value", field.default)
        known = field.init and simple and field.name not in machine and not field.name.startswith("_")
        if known and (field.name in always or (value is not None and value != default)):
            chosen[field.name] = value
    chosen = {key: value for key, value in chosen.items() if key not in _FIELDS}
    text = yaml.safe_dump({**chosen, "output": settings.output_dir})
    Path(settings.output_dir, "train.yaml").write_text(text, encoding="utf-8")


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, str) for entry in value)


def _measure(trainer: Any, tasks: list[Any]) -> None:
    from ..evaluation import evaluate
    from ..training.adapters import base_model

    if not tasks:
        print("nothing was measured; --test-fraction 0.1, --eval-data or --eval-tasks do that", file=sys.stderr)
        return
    output = Path(trainer.args.output_dir, "evaluation")
    report = evaluate(
        base_model(trainer.model),
        trainer.processing_class,
        tasks,
        batch_size=trainer.args.per_device_eval_batch_size,
        fit=trainer.args.fit,
        output=output,
        overwrite=True,  # a stopped evaluation of the weights before these is of no use
        name=trainer.args.output_dir,
        progress=not trainer.args.disable_tqdm,
    )
    print(report.to_markdown())
    print(f"results in {output}")
