"""`evaluate`: a model on several tasks."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import torch
import transformers
from tqdm.auto import tqdm

from .._version import __version__
from ..data.scenes.items import CATEGORIES
from ..embeddings import Embedder, load_embedder
from ..errors import ArgumentError
from .encoding import check_model
from .registry import get_task, list_tasks, resolve_tasks
from .results import SCHEMA, Report, check_output, collect, plain, source_commit
from .statistics import Interval, combine_independent
from .task import Score, Task, TaskResult

_SCENES_MEAN = "scenes/mean"


def evaluate(
    model: Any,
    processor: Any = None,
    tasks: str | Task | Sequence[str | Task] = "scenes",
    *,
    data: Any = None,
    images: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    fit: str | None = None,
    num_workers: int = 0,
    limit: int | None = None,
    skip_bad_images: bool = False,
    references: bool = True,
    output: str | os.PathLike[str] | None = None,
    name: str | None = None,
    progress: bool = True,
    **options: Any,
) -> Report:
    """Measure a model on one or more tasks.

    Args:
        model (`str`, `PreTrainedModel`, [`~vlcomp.Embedder`] or any object):
            Checkpoint folder or hub name; a dual encoder with its `processor`; or an object with
            `encode_images(list of PIL images)` and `encode_texts(list of str)`.
        processor (`ProcessorMixin`, *optional*):
            Needed with a `PreTrainedModel`, and with a checkpoint that has none.
        tasks (`str`, `Task` or a list of them, defaults to `"scenes"`):
            Names, groups, patterns (see [`~vlcomp.evaluation.resolve_tasks`]) or task objects.
        data (`Any`, *optional*):
            What tasks on your own data read: one value for all of them, or a dict by task name.
        images (`str` or `os.PathLike`, *optional*):
            Folder of the images, for tasks whose files name images that lie elsewhere.
        batch_size (`int`, defaults to 64):
            Inputs in one forward pass.
        device (`str` or `torch.device`, *optional*):
            Where to run.
        dtype (`torch.dtype` or `str`, *optional*):
            Type of the weights.
        fit (`str`, *optional*):
            `"crop"`, `"squash"` or `"pad"`: how pictures are brought to the model's shape; `None` does as the
            processor is configured.
        num_workers (`int`, defaults to 0):
            Threads that read and decode images.
        limit (`int`, *optional*):
            About how many items to measure on, drawn at random with a fixed seed.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out unreadable images, and count them.
        references (`bool`, defaults to `True`):
            Also score the reference scorers of each task.
        output (`str` or `os.PathLike`, *optional*):
            Folder to save the report in; checked before anything runs.
        name (`str`, *optional*):
            What to call the model in the report.
        progress (`bool`, defaults to `True`):
            Show progress bars.
        **options:
            Options of the tasks (`size`, `split`, `seed`, `templates`, `class_names`, ...); each goes to the tasks
            that have it.

    Returns:
        [`~vlcomp.evaluation.Report`]

    Raises:
        ArgumentError: for an unknown task, or an option that no task has.
        CheckpointError: if the model cannot be loaded.
        EvaluationError: if its output cannot be scored.

    Example:
        >>> from vlcomp import evaluate
        >>> from vlcomp.testing import tiny_clip, tiny_processor
        >>> report = evaluate(tiny_clip(), tiny_processor(), tasks=["scenes/retrieval"], size=20, progress=False)
        >>> report.score("scenes/retrieval/image_to_text/recall@1").chance
        0.05
    """
    if output is not None:
        check_output(output)
    # Only options that were set are passed on: a task object carries its own.
    common = {
        "images": images,
        "limit": limit,
        "skip_bad_images": skip_bad_images or None,
        "references": None if references else False,
    }
    chosen = {key: value for key, value in common.items() if value is not None} | options
    prepared = prepare_tasks(tasks, data=data, optional=("references",), **chosen)
    embedder = _as_embedder(
        model,
        processor,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        fit=fit,
        num_workers=num_workers,
        progress=progress,
    )
    results = []
    bar = tqdm(prepared, desc="tasks", disable=not progress)
    for task in bar:
        bar.set_postfix_str(task.name)
        results.append(task.run(embedder, progress=progress))
    results += group_means(results)
    entries, items, gallery = collect(results)
    settings = {
        "tasks": [task.name for task in prepared],
        "batch_size": getattr(embedder, "batch_size", None),
        "device": str(getattr(embedder, "device", None)),
        "dtype": str(getattr(embedder, "dtype", None)).removeprefix("torch."),
        "fit": getattr(embedder, "fit", None),
        "seed": 0,
        "limit": limit,
        **options,
    }
    report = Report(
        {
            "schema": SCHEMA,
            "vlcomp_version": __version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "commit": source_commit(),
            "model": _describe(embedder, name),
            "settings": plain(settings),
            "environment": {
                "python": platform.python_version(),
                "platform": platform.platform(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            "tasks": entries,
        },
        items,
        gallery,
    )
    if output is not None:
        report.save(output)
    return report


def prepare_tasks(
    tasks: str | Task | Sequence[str | Task], *, data: Any = None, optional: Sequence[str] = (), **options: Any
) -> list[Task]:
    """Make tasks of names, each with the options that it has.

    Args:
        tasks (`str`, `Task` or a list of them):
            Names, groups, patterns or task objects; objects are used as they are.
        data (`Any`, *optional*):
            What tasks on your own data read: one value, or a dict by task name.
        optional (`Sequence[str]`):
            Options that it is no mistake to give where no task has them.
        **options:
            Options of the tasks.

    Returns:
        `list[Task]`

    Raises:
        ArgumentError: for an unknown task, missing data, or an option that no task has.
    """
    wanted = [tasks] if isinstance(tasks, (str, Task)) else list(tasks)
    if not wanted:
        raise ArgumentError("tasks is empty; name at least one (`vlcomp tasks` lists them)")
    infos = {info.name: info for info in list_tasks()}
    made: list[Task] = []
    used: set[str] = set()
    data_used = False
    for entry in wanted:
        if not isinstance(entry, str):
            if not callable(getattr(entry, "run", None)):
                raise ArgumentError(f"tasks contains {entry!r}; expected names or Task objects")
            made.append(entry)
            continue
        for name in resolve_tasks(entry):
            info = infos[name]
            own = {key: value for key, value in options.items() if key in info.options}
            used |= set(own)
            task_data = None
            if info.data:
                task_data = data.get(name) if isinstance(data, dict) else data
                data_used = True
            made.append(get_task(name, data=task_data, **own))
    names = [task.name for task in made]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ArgumentError(f"task {repeated[0]!r} is given more than once; give one of them another name=")
    lost = [key for key in options if key not in used and key not in optional]
    if lost:
        raise ArgumentError(f"none of the tasks {', '.join(names[:5])} has an option {lost[0]!r}")
    if data is not None and not data_used:
        raise ArgumentError(f"none of the tasks {', '.join(names[:5])} reads data; leave data (--data) out")
    return made


def group_means(results: Sequence[TaskResult]) -> list[TaskResult]:
    """Means over groups whose tasks all ran: `scenes/mean` over the seven categories.

    Args:
        results (`Sequence[TaskResult]`):
            Results of single tasks.

    Returns:
        `list[TaskResult]`
    """
    names = [f"scenes/{category}" for category in CATEGORIES]
    by_name = {result.task: result for result in results}
    if any(name not in by_name for name in names):
        return []
    members = [by_name[name] for name in names]
    scorers = [s for s in members[0].references if all(s in member.references for member in members)]
    return [
        TaskResult(
            task=_SCENES_MEAN,
            version="+".join(sorted({member.version for member in members})),
            scores={"accuracy": _mean_score([member.scores["accuracy"] for member in members])},
            references={
                scorer: {"accuracy": _mean_score([member.references[scorer]["accuracy"] for member in members])}
                for scorer in scorers
            },
            config={"over": names},
            headline="accuracy",
        )
    ]


def _mean_score(scores: Sequence[Score]) -> Score:
    # Categories are drawn apart from each other, so their errors are independent.
    errors = [math.nan if s.standard_error is None else s.standard_error for s in scores]
    parts = [Interval(s.value, e, s.value, s.value, s.n, s.n) for s, e in zip(scores, errors, strict=True)]
    score = Score.from_interval(combine_independent(parts), chance=sum(s.chance or 0.0 for s in scores) / len(scores))
    return replace(score, ties=sum(s.ties or 0 for s in scores))


def _as_embedder(model: Any, processor: Any, **settings: Any) -> Any:
    if isinstance(model, (str, os.PathLike)):
        return load_embedder(os.fspath(model), processor=processor, **settings)
    if isinstance(model, torch.nn.Module) and not callable(getattr(model, "encode_images", None)):
        if processor is None:
            raise ArgumentError("processor is missing; evaluate(model, processor, ...) needs it with a model object")
        return Embedder(model, processor, **settings)
    check_model(model)
    ignored = [name for name in ("device", "dtype", "fit") if settings.get(name) is not None]
    ignored += ["processor"] if processor is not None else []
    if ignored:
        raise ArgumentError(
            f"{ignored[0]} has no effect on a {type(model).__name__}, which encodes by itself; set it there"
        )
    return model


def _describe(embedder: Any, name: str | None) -> dict[str, Any]:
    model = getattr(embedder, "model", None)
    config = getattr(model, "config", None)
    described = {
        "name": name or str(getattr(embedder, "name", None) or type(embedder).__name__),
        "class": type(model if isinstance(model, torch.nn.Module) else embedder).__name__,
    }
    if isinstance(model, torch.nn.Module):
        described["parameters"] = sum(p.numel() for p in model.parameters())
    if config is not None and hasattr(config, "to_diff_dict"):
        described["model_type"] = getattr(config, "model_type", None)
        described["config"] = config.to_diff_dict()
    return plain(described)
