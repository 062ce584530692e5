"""The exact folder that is published: what goes in, what stays out, and the checks before."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import ArgumentError, CheckpointError, DataError
from ..evaluation.results import RESULTS_FILE, Report
from .cards import MARK, dataset_card, model_card
from .leaks import check_leaks, is_path, without_leaks
from .remote_code import add_remote_code

CARD_FILE, TRAINING_FILE, EVALUATION_FOLDER = "README.md", "train.yaml", "evaluation"
NEGATIVES_FILE, METADATA_FILE = "negatives.json", "metadata.jsonl"
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
# What a checkpoint of transformers consists of; anything else in the folder is left out and named.
_MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    *WEIGHTS,
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "chat_template.json",
    "chat_template.jinja",
)
_TEMPLATES = ("has been generated automatically", "[More Information Needed]")
_ADAPTER = "adapter"
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Staged:
    """A folder that is ready to be published.

    Args:
        folder (`Path`):
            The folder.
        files (`list[str]`):
            Its files, in order.
        left_out (`list[str]`):
            What lies in the source and is not published.
    """

    folder: Path
    files: list[str]
    left_out: list[str]


def stage_model(
    source: Path,
    target: Path,
    repo_id: str,
    *,
    report: Report | None = None,
    base: Report | None = None,
    license: str | None = None,
    link: bool = False,
) -> Staged:
    """Write what a push of a checkpoint publishes.

    Args:
        source (`Path`):
            Checkpoint with its processor; nothing in it is changed.
        target (`Path`):
            Where to; empty or missing.
        repo_id (`str`):
            `owner/name`, for the card.
        report ([`~vlcomp.evaluation.Report`], *optional*):
            Measurements of the model; those in the folder's `evaluation`, if there are any.
        base ([`~vlcomp.evaluation.Report`], *optional*):
            Measurements of the model it was trained from, for the card.
        license (`str`, *optional*):
            Licence of the weights.
        link (`bool`, defaults to `False`):
            Refer to the weights instead of copying them.

    Returns:
        [`Staged`]

    Raises:
        CheckpointError: if the folder has no configuration, no safetensors weights, no processor, or weights that are
            not finite.
        ArgumentError: if the target is not empty, or the report is of another model.
        DataError: if a file holds a secret or an absolute path.
    """
    names = _check_checkpoint(source)
    _make_target(target)
    if report is None:
        report = _report_beside(source)
    if report is not None:
        _check_same_model(report, source)
    for name in names:
        if fnmatch(name, "*.safetensors") and link:
            _link(source / name, target / name)
        else:
            shutil.copyfile(source / name, target / name)
    adapter = source / _ADAPTER
    if adapter.is_dir() and all((adapter / name).is_file() for name in _ADAPTER_FILES):
        (target / _ADAPTER).mkdir()
        for name in _ADAPTER_FILES:
            shutil.copyfile(adapter / name, target / _ADAPTER / name)
    for name in ("config.json", "adapter_config.json", f"{_ADAPTER}/adapter_config.json"):
        _drop_local_names(target / name)
    add_remote_code(target)
    if (source / TRAINING_FILE).is_file():
        _write_training_file(source / TRAINING_FILE, target / TRAINING_FILE)
    if report is not None:
        (target / EVALUATION_FOLDER).mkdir()
        results = without_leaks(report.results)
        results["model"]["name"] = repo_id
        text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (target / EVALUATION_FOLDER / RESULTS_FILE).write_text(text, encoding="utf-8")
    own = _own_card(source)
    card = own if own is not None else model_card(target, repo_id, report=report, base=base, license=license)
    (target / CARD_FILE).write_text(card, encoding="utf-8")
    check_leaks(target, (source,))
    return _staged(source, target)


def stage_dataset(source: Path, target: Path, repo_id: str, *, license: str, link: bool = False) -> Staged:
    """Write what a push of generated negatives publishes.

    Args:
        source (`Path`):
            Folder of `vlcomp negatives`.
        target (`Path`):
            Where to; empty or missing.
        repo_id (`str`):
            `owner/name`, for the card.
        license (`str`):
            Licence of captions, negatives and, where they are part of it, pictures.
        link (`bool`, defaults to `False`):
            Refer to the pictures instead of copying them.

    Returns:
        [`Staged`]

    Raises:
        DataError: if the folder is not a finished one of `vlcomp negatives`, or holds a secret or an absolute path.
        ArgumentError: if the target is not empty.
    """
    for name in (NEGATIVES_FILE, METADATA_FILE):
        if not (source / name).is_file():
            raise DataError(f"{source} has no {name}; --dataset publishes a finished folder of `vlcomp negatives`")
    if (source / ".negatives").exists():
        raise DataError(f"{source} is not finished; run the same `vlcomp negatives` again, it goes on from there")
    settings = json.loads((source / NEGATIVES_FILE).read_text(encoding="utf-8"))
    rows = _rows(source / METADATA_FILE)
    _make_target(target)
    inside = all(_is_inside(row["file_name"], source) for row in rows)
    pictures = sorted({row["file_name"] for row in rows}) if inside else []
    counts = {"captions": len(rows), "with_negatives": 0, "pictures": len(pictures)}
    names = [] if inside else _common_names([row["file_name"] for row in rows], source)
    for number, row in enumerate(rows):
        counts["with_negatives"] += bool(row["negative_types"])
        for kind in row["negative_types"]:
            counts[kind] = counts.get(kind, 0) + 1
        if not inside:
            del row["file_name"]
            rows[number] = {"image_file": names[number], **row}
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
    (target / METADATA_FILE).write_text(text, encoding="utf-8")
    for name in pictures:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (_link if link else shutil.copyfile)(source / name, target / name)
    settings = without_leaks(settings)
    (target / NEGATIVES_FILE).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    own = _own_card(source)
    card = own if own is not None else dataset_card(repo_id, settings, counts, license)
    (target / CARD_FILE).write_text(card, encoding="utf-8")
    check_leaks(target, (source,))
    return _staged(source, target)


# -- checks ------------------------------------------------------------------------------------------------


def _check_checkpoint(source: Path) -> list[str]:
    """Names of the files of a checkpoint that can be used."""
    if not source.exists():
        raise CheckpointError(f"{source}: there is no such folder")
    if not source.is_dir():
        raise CheckpointError(f"{source} is a file; pass the folder that holds it")
    names = sorted(p.name for p in source.iterdir() if p.is_file() and any(fnmatch(p.name, m) for m in _MODEL_FILES))
    weights = [name for name in names if name.endswith(".safetensors") and _is_weights(name)]
    names = [name for name in names if not name.endswith(".safetensors") or name in weights]
    inside = sorted(child.name for child in source.glob("checkpoint-*") if (child / "config.json").is_file())
    hint = f"; did you mean {source / inside[-1]}?" if inside else ""
    if "adapter_config.json" in names:
        adapter = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
        _check_base(source, adapter, "base_model_name_or_path", needed=True)
    elif "config.json" not in names:
        raise CheckpointError(f"{source}: no config.json in this folder, so it is not a checkpoint{hint}")
    else:
        _check_base(source, json.loads((source / "config.json").read_text(encoding="utf-8")), "base_name_or_path")
    if not weights:
        other = sorted(p.name for p in source.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
        other = [name for name in other if name != "training_args.bin"]
        fix = hint or "; save the model with model.save_pretrained(...)"
        if other:
            fix = f"; {other[0]} may run code when it is loaded: load it yourself and save it with save_pretrained"
        raise CheckpointError(f"{source}: no weights (model.safetensors) in this folder{fix}")
    if not {"tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model"} & set(names):
        raise CheckpointError(f"{source}: no tokenizer in this folder; save it with processor.save_pretrained(...)")
    if not {"processor_config.json", "preprocessor_config.json"} & set(names):
        raise CheckpointError(
            f"{source}: no image processor in this folder; save it with processor.save_pretrained(...)"
        )
    for index in (name for name in names if name.endswith(".index.json")):
        listed = set(json.loads((source / index).read_text(encoding="utf-8"))["weight_map"].values())
        lacking = sorted(listed - set(weights))
        if lacking:
            raise CheckpointError(f"{source}: {index} names {lacking[0]}, which is not in this folder")
    for name in weights:
        _check_finite(source / name)
    return names


def _is_weights(name: str) -> bool:
    # Not the state of an optimiser or a loss that lies beside them.
    return bool(re.fullmatch(r"(model|adapter_model)([.-].*)?\.safetensors", name))


def _check_finite(path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a dictionary)
                value = weights.get_tensor(name)
                if value.is_floating_point() and not torch.isfinite(value).all():
                    raise CheckpointError(f"{path}: {name} is NaN or infinite; training diverged, use an earlier one")
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _check_base(source: Path, config: Mapping[str, Any], key: str, *, needed: bool = False) -> None:
    """Weights that go onto those of another model are of use only where that model can be had."""
    base = config.get(key)
    if (base or needed) and (not base or is_path(base) or os.path.exists(base)):
        raise CheckpointError(
            f"{source} holds an adapter alone, and its base {base!r} is not on the Hub, so nobody else could load it; "
            "start from a model of the Hub, or save the merged model (model.merge_and_save of a discriminative LVLM, "
            "merge_adapter=True for PEFT)"
        )


def _report_beside(source: Path) -> Report | None:
    """The report that `vlcomp train` and `vlcomp evaluate` write into a model's folder."""
    folder = source / EVALUATION_FOLDER
    if not (folder / RESULTS_FILE).is_file():
        return None
    newest = max(path.stat().st_mtime for path in source.glob("*.safetensors"))
    # A second of grace: copying a folder renews times in any order.
    if (folder / RESULTS_FILE).stat().st_mtime < newest - 1:
        raise ArgumentError(
            f"{folder / RESULTS_FILE} is older than the weights, so it may be of other weights; measure again "
            f"(`vlcomp evaluate {source} --output {folder}`), or name it with --report if you are sure"
        )
    return Report.load(folder)


_MAY_DIFFER = ("transformers_version", "dtype", "torch_dtype", "architectures", "auto_map", "_name_or_path")


def _check_same_model(report: Report, source: Path) -> None:
    """A report of another kind or size of model is a mistake."""
    file = source / "config.json"
    if not file.is_file():
        return
    config = json.loads(file.read_text(encoding="utf-8"))
    measured = report.results["model"].get("config") or {}
    own, its = config.get("model_type"), report.results["model"].get("model_type")
    found = (
        f"a model of type {its!r}, this one is {own!r}" if its and its != own else _first_difference(measured, config)
    )
    if found:
        raise ArgumentError(
            f"report={report.name!r} was measured on another model ({found}); give the one of {source}"
        )


def _first_difference(measured: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    for key, value in measured.items():
        if key in _MAY_DIFFER or key not in config:
            continue
        if isinstance(value, Mapping) and isinstance(config[key], Mapping):
            inner = _first_difference(value, config[key])
            if inner:
                return f"{key}.{inner}"
        elif value != config[key] and isinstance(value, (int, str)):
            return f"{key} {value!r}, here {config[key]!r}"
    return None


# -- writing -----------------------------------------------------------------------------------------------


def _make_target(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise ArgumentError(f"--dry-run {target} is a file; give a folder")
    if target.is_dir() and any(target.iterdir()):
        raise ArgumentError(f"--dry-run {target} is not empty; give a new folder, so that it shows the exact push")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"--dry-run {target} cannot be written: {error.strerror}") from error


def _link(source: Path, target: Path) -> None:
    try:
        os.symlink(source.resolve(), target)
    except OSError:  # where links are not allowed
        shutil.copyfile(source, target)


def _drop_local_names(file: Path) -> None:
    """Take names of local folders out of a configuration."""
    if not file.is_file():
        return
    content = json.loads(file.read_text(encoding="utf-8"))
    cleaned = _without_local_names(content)
    if cleaned != content:
        file.write_text(json.dumps(cleaned, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _without_local_names(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    found = {}
    for key, entry in value.items():
        local = isinstance(entry, str) and (is_path(entry) or os.path.exists(entry))
        if key == "base_model_name_or_path" and local:
            found[key] = None  # PEFT asks for the key; null says that the base is not published
        elif not (key in ("_name_or_path", "name_or_path") and local):
            found[key] = _without_local_names(entry)
    return found


def _write_training_file(source: Path, target: Path) -> None:
    import yaml

    try:
        settings = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{source} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, Mapping):
        raise DataError(f"{source} must hold `name: value` lines, not a {type(settings).__name__}")
    # Where it was written to is of no use to anybody else.
    kept = {key: value for key, value in without_leaks(settings).items() if key not in ("output", "output_dir")}
    target.write_text(yaml.safe_dump(kept, allow_unicode=True), encoding="utf-8")


def _own_card(source: Path) -> str | None:
    """A card that a person wrote; ours and the templates of transformers and PEFT are renewed."""
    file = source / CARD_FILE
    if not file.is_file():
        return None
    text = file.read_text(encoding="utf-8")
    return None if any(sign in text for sign in (MARK, *_TEMPLATES)) else text


def _staged(source: Path, target: Path) -> Staged:
    files = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    own = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    left = sorted(own - set(files))
    # A folder of which nothing is published is named once.
    published = {part for name in files for part in _parents(name)}
    folded = dict.fromkeys(next((p + "/" for p in _parents(name) if p not in published), name) for name in left)
    return Staged(target, files, list(folded))


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _rows(file: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            rows.append({**row, "file_name": row["file_name"], "negative_types": row["negative_types"]})
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file}:{number}: not a row of `vlcomp negatives` ({error!r})") from error
    if not rows:
        raise DataError(f"{file} has no rows")
    return rows


def _is_inside(name: str, source: Path) -> bool:
    path = (source / name).resolve()
    return path.is_relative_to(source.resolve()) and path.suffix.lower() in _IMAGES


def _common_names(names: list[str], source: Path) -> list[str]:
    """Names of files relative to the deepest folder that holds all of them."""
    paths = [os.path.abspath(source / name) for name in names]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [Path(os.path.relpath(path, root)).as_posix() for path in paths]
