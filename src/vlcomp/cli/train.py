"""`vlcomp train METHOD`: fine-tune or pre-train a model on image-caption data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..methods import METHODS
from . import _labelled, _protocol
from ._train_options import (
    COMMAND_DEFAULTS,
    EPILOG,
    EPILOG_GENERATIONS,
    EPILOG_PRETRAINED,
    FIELDS,
    GENERATIONS,
    SIZES,
    add_method,
    read_settings,
)

SHUFFLE_BUFFER = 1000
HELP = "Fine-tune a checkpoint, or train a small model from scratch, on images with captions."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb.

    Args:
        parser (`argparse.ArgumentParser`):
            Parser of the verb.
    """
    parser.epilog = "example:\n  vlcomp train clip --help"
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD", title="methods")
    for name, method in METHODS.items():
        epilog = EPILOG if method.new is not None else EPILOG_PRETRAINED
        if name in GENERATIONS:
            epilog = EPILOG_GENERATIONS
        if method.data == "labels":
            epilog = _labelled.EPILOG
        add_method(
            methods.add_parser(
                name,
                help=method.title,
                description=f"Train {method.title}.",
                epilog=epilog.format(name=name),
                formatter_class=argparse.RawDescriptionHelpFormatter,
                allow_abbrev=False,
                argument_default=argparse.SUPPRESS,
            ),
            name,
        )


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
    for name, field in FIELDS.items():
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
    options, settings = read_settings(args, method.load("arguments"))
    labelled = method.data == "labels"
    # Shots are for plain training too.
    if labelled and _protocol.wanted({**options, "shots": None}):
        return _protocol.run(args.method, options, settings)
    for name, what in (("data", "the images to train on"), ("output", "the folder to write to")):
        if options.get(name) is None:
            raise ArgumentError(f"--{name} is missing: {what}")
    if not labelled:
        if method.new is None and options.get("model") is None:
            raise ArgumentError("--model is missing: the checkpoint to start from")
        if method.new is not None and (options.get("model") is None) == (options.get("from_scratch") is None):
            raise ArgumentError("give either --model CHECKPOINT or --from-scratch small")
        _check_options(options, settings)

    from transformers.utils.logging import disable_progress_bar

    from ..files import check_output

    disable_progress_bar()  # of files being written, twice a checkpoint
    check_output(settings.output_dir, "output_dir")
    if args.method in GENERATIONS and not settings.resume_from_checkpoint:
        _refuse_another_run(settings.output_dir)
    more_tasks = _eval_tasks(options)
    if labelled:
        trainer, tasks = _labelled.make_trainer(method, options, settings)
    else:
        train, validation, tasks = _data(options, settings)
        model, processor = _model(method, options, settings, train)
        trainer = method.load("trainer")(
            model,
            settings,
            train,
            processing_class=processor,
            evaluators=[validation] if validation is not None else None,
            peft_config=_lora(options),
        )
    if args.method in GENERATIONS:
        passes = _passes(settings, train)
        print(f"{settings.num_generations} generations of {settings.generation_steps:,} steps{passes}")
    trainer.train(resume_from_checkpoint=_resume(settings))
    trainer.save_model()
    if trainer.is_world_process_zero():
        _record(options, settings)
        print(f"saved {settings.output_dir}")
        report = _measure(trainer, [*tasks, *more_tasks])
        if settings.push_to_hub and report is not None:
            trainer.push_to_hub(report=report)  # once more: the card of the first push could not have scores
    return 0


def _check_options(options: dict[str, Any], settings: Any) -> None:
    """Find options that exclude each other, or that would do nothing."""
    from ..errors import ArgumentError

    given = {key for key, value in options.items() if value is not None and value is not False}
    fractions = given & {"test_fraction", "validation_fraction"}
    if {"test_fraction", "eval_data"} <= given:
        raise ArgumentError("--test-fraction and --eval-data exclude each other: which rows should be measured?")
    if "shuffle_buffer" in given and "streaming" not in given:
        raise ArgumentError("--shuffle-buffer is about streamed data, and other data are shuffled whole; leave it out")
    if options.get("shuffle_buffer") is not None and options["shuffle_buffer"] < 1:
        raise ArgumentError(f"--shuffle-buffer {options['shuffle_buffer']} must be at least 1")
    if options.get("use_codebook") is False:
        for name in ("codebook_size", "temperature"):
            if name in given:
                raise ArgumentError(f"--{name.replace('_', '-')} goes with a codebook; leave out --no-use-codebook")
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
    for name in (*SIZES["small"], *(option for method in METHODS.values() for option, _, _ in method.options)):
        if name in {key for key, value in options.items() if value is not None} and "model" in given:
            raise ArgumentError(f"--{name.replace('_', '-')} goes with --from-scratch; --model has its own sizes")
        if name in SIZES["small"] and options.get(name) is not None and options[name] < 1:
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
    if options.get("streaming"):
        # In the order of the shards a batch would hold the same rows in each epoch, and neighbours always together.
        seed = settings.seed if settings.data_seed is None else settings.data_seed
        rows = rows.shuffle(seed=seed, buffer_size=options.get("shuffle_buffer") or SHUFFLE_BUFFER)
    elif not settings.skip_bad_images:
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


def _model(method: Any, options: dict[str, Any], settings: Any, train: Any) -> tuple[Any, Any]:
    from ..models.from_scratch import new_processor

    if options.get("model") is not None:
        return options["model"], None
    from ..data.rows import require_captions
    from ..data.tokenization import train_clip_tokenizer

    require_captions(train, str(options["data"]))
    size = {name: options.get(name, default) for name, default in SIZES[options["from_scratch"]].items()}
    tokenizer = train_clip_tokenizer(
        train["caption"], vocab_size=size.pop("vocab_size"), max_length=size.pop("text_length")
    )
    own = {name: options[name] for name, _, _ in method.options if options.get(name) is not None}
    model = method.load("new")(tokenizer, **size, projection_dim=size["width"], seed=settings.seed, **own)
    fit = settings.fit if settings.fit in ("crop", "squash") else "squash"
    return model, new_processor(tokenizer, size["image_size"], fit=fit)


def _lora(options: dict[str, Any]) -> Any:
    if options.get("lora") is None:
        return None
    from peft import LoraConfig

    return LoraConfig(r=options["lora"], lora_alpha=options["lora"])


def _refuse_another_run(folder: str) -> None:
    """All checkpoints of generations are kept and compared: those of two runs in one folder would be mixed."""
    from ..errors import ArgumentError

    found = sorted(path.name for path in Path(folder).glob("checkpoint-*"))
    if found:
        raise ArgumentError(
            f"--output {folder} holds checkpoints of another run ({found[0]} and so on), which the analyses would "
            "take for those of this one; go on with it by --resume_from_checkpoint last, or give another folder"
        )


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


def _passes(settings: Any, rows: Any) -> str:
    if not hasattr(rows, "__len__"):
        return ""
    pairs = settings.max_steps * settings.train_batch_size * settings.gradient_accumulation_steps * settings.world_size
    return f": {pairs / len(rows):,.1f} passes over {len(rows):,} rows"


def _record(options: dict[str, Any], settings: Any) -> None:
    """Write what was asked for beside the model, in the form of a config file."""
    import yaml

    from ..training.publishing import training_settings

    chosen = {key: value for key, value in options.items() if value is not None}
    # What this command sets by itself, too: a value that is the class's default is not the command's.
    chosen |= training_settings(settings, {"max_steps", "seed", *COMMAND_DEFAULTS})
    chosen = {key: value for key, value in chosen.items() if key not in FIELDS}
    text = yaml.safe_dump({**chosen, "output": settings.output_dir})
    Path(settings.output_dir, "train.yaml").write_text(text, encoding="utf-8")


def _measure(trainer: Any, tasks: list[Any]) -> Any:
    """Measure what was trained; gives the report, or nothing if there is nothing to measure on."""
    from ..evaluation import evaluate
    from ..training.adapters import base_model

    if not tasks:
        print("nothing was measured; --test-fraction 0.1, --eval-data or --eval-tasks do that", file=sys.stderr)
        return None
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
    return report
