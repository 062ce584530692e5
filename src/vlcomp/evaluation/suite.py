"""`evaluate`: a model on several tasks."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

import torch
import transformers
from tqdm.auto import tqdm

from .._version import __version__
from ..data.scenes.items import CATEGORIES
from ..embeddings import Embedder, load_embedder
from ..errors import ArgumentError, DataError
from ..files import check_output
from ..scorers import SCORERS, LVLMScorer
from .cache import Remembered, fingerprint, remembered
from .diagnostics import TextOnly, breakdown, compares_texts, compositional, contents, diagnose, signature
from .diagnostics import text_scorer as _text_scorer
from .encoding import check_model, is_pair_scorer
from .leakage import TrainingImages
from .registry import get_task, list_tasks, resolve_tasks
from .results import SCHEMA, Report, plain, source_commit
from .resume import Part, Unfinished, check_replaced, collect
from .scoring import TIE_TOLERANCE
from .statistics import Interval, combine_independent
from .task import Score, Task, TaskResult

logger = logging.getLogger(__name__)

_SCENES_MEAN = "scenes/mean"
SUITES = ("full",)
# Built in, so that the suite has all three kinds of tasks wherever it runs.
_SCENES_OF_SUITE = (
    *(f"scenes/{category}" for category in CATEGORIES),
    "scenes/winoground",
    "scenes/retrieval",
    "scenes/classification/clean",
)


def evaluate(
    model: Any,
    processor: Any = None,
    tasks: str | Task | Sequence[str | Task] | None = None,
    *,
    suite: str | None = None,
    scorer: str | None = None,
    question: str | None = None,
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
    allow_partial: bool = False,
    diagnostics: bool = False,
    text_scorer: Any = None,
    training_images: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    name: str | None = None,
    progress: bool = True,
    **options: Any,
) -> Report:
    """Measure a model on one or more tasks.

    With `output` each finished task is written at once, and so are the embeddings of the others: an evaluation that
    was killed and is started again goes on where it stopped, and ends with the same results file.

    Args:
        model (`str`, `PreTrainedModel`, [`~vlcomp.Embedder`] or any object):
            Checkpoint folder or hub name; a dual encoder with its `processor`; an object with
            `encode_images(list of PIL images)` and `encode_texts(list of str)`; or a pair scorer, an object with
            `score_pairs(list of PIL images, list of str)` that gives each pair a number, higher for a better match.
            Scores that differ by at most 1e-6 tie, so log-odds or log-probabilities are better than probabilities.
        processor (`ProcessorMixin`, *optional*):
            Needed with a `PreTrainedModel`, and with a checkpoint that has none.
        tasks (`str`, `Task` or a list of them, *optional*):
            Names, groups, patterns (see [`~vlcomp.evaluation.resolve_tasks`]) or task objects; `"scenes"` if neither
            these nor `suite` are given.
        suite (`str`, *optional*):
            `"full"`: compositional tasks, retrieval and zero-shot classification together, all whose data are found;
            the report says what was left out and why.
        scorer (`str`, *optional*):
            For an LVLM, or a discriminative LVLM without its adapters. `"yes"`: it is asked about each pair of image
            and caption, and the score is the probability of "Yes" against "No" ([`~vlcomp.scorers.YesScorer`]);
            `"likelihood"`: the score is the likelihood of the caption as its description of the image
            ([`~vlcomp.scorers.LikelihoodScorer`]). By default scores are cosines of embeddings.
        question (`str`, *optional*):
            What the scorer asks: with `"yes"` a question with `{}` for the caption, with `"likelihood"` the
            instruction that the caption answers.
        data (`Any`, *optional*):
            What tasks on your own data read: one value for all of them, or a dict by task name. With `suite` one value
            is the folder that holds the benchmarks.
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
        allow_partial (`bool`, defaults to `False`):
            Measure benchmarks on official files that are incomplete; the results say so.
        diagnostics (`bool`, defaults to `False`):
            Also measure compositional tasks with the words of the captions shuffled and with the images exchanged;
            costs another pass over the texts.
        text_scorer (`str` or `Callable`, *optional*):
            Causal language model (folder or hub name), or a function from texts to numbers, to measure compositional
            tasks with, without a look at the pictures.
        training_images (`str` or `os.PathLike`, *optional*):
            Folder of training pictures to look for the tasks' pictures in, by name and by what they look like.
        cache (`str` or `os.PathLike`, *optional*):
            Folder in which embeddings are kept, by weights, processor and content of files, for later evaluations.
        output (`str` or `os.PathLike`, *optional*):
            Folder to save the report in; checked before anything runs.
        overwrite (`bool`, defaults to `False`):
            Throw away what is in `output` of another model, of other tasks, or of another evaluation that was stopped.
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
        ArgumentError: for an unknown task, an option that no task has, or an `output` that holds results of another
            model or of other tasks, or in which an evaluation with other settings was stopped.
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
    if suite is not None and tasks is not None:
        raise ArgumentError(f"suite={suite!r} chooses the tasks; leave tasks out, or pass only tasks")
    _check_scorer(scorer, question)
    # Only options that were set are passed on: a task object carries its own.
    common = {
        "images": images,
        "limit": limit,
        "skip_bad_images": skip_bad_images or None,
        "references": None if references else False,
        "allow_partial": allow_partial or None,
    }
    chosen = {key: value for key, value in common.items() if value is not None} | options
    left_out: dict[str, str] = {}
    if suite is not None:
        prepared, left_out = prepare_suite(suite, data=data, **chosen)
    else:
        optional = ("references", "allow_partial")
        prepared = prepare_tasks("scenes" if tasks is None else tasks, data=data, optional=optional, **chosen)
    blind = None if text_scorer is None else _text_scorer(text_scorer, device=device)
    asked = {} if question is None else {SCORERS[scorer].asks: question}
    embedder = (_as_embedder if scorer is None else partial(_as_scorer, scorer))(
        model,
        processor,
        **asked,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        fit=fit,
        num_workers=num_workers,
        progress=progress,
    )
    if suite is not None and is_pair_scorer(embedder):
        prepared, more = _pairs_only(prepared)
        left_out |= more
    for task, reason in left_out.items():
        logger.info("left out %s: %s", task, reason)
    settings = {
        "tasks": [task.name for task in prepared],
        "batch_size": getattr(embedder, "batch_size", None),
        "device": str(getattr(embedder, "device", None)),
        "dtype": str(getattr(embedder, "dtype", None)).removeprefix("torch."),
        "fit": getattr(embedder, "fit", None),
        "seed": 0,
        "limit": limit,
        "tie_tolerance": TIE_TOLERANCE,
        "diagnostics": diagnostics,
        **({} if suite is None else {"suite": suite}),
        **({"scorer": {"name": embedder.kind, **embedder.settings}} if isinstance(embedder, LVLMScorer) else {}),
        **{key: _short(value) for key, value in options.items()},
    }
    described, commit = _describe(embedder, name), source_commit()
    identity = fingerprint(embedder) if output is not None or cache is not None else None
    unfinished = None
    if output is not None:
        if not overwrite:
            check_replaced(output, described["name"], settings["tasks"])
        # Of the settings, those that only tell how fast it runs may change.
        fixed = {key: value for key, value in settings.items() if key not in ("tasks", "batch_size")}
        fixed |= {key: value for key, value in common.items() if key not in fixed}
        reader = text_scorer if isinstance(text_scorer, str) or blind is None else type(text_scorer).__name__
        fixed |= {"text_scorer": reader, "training_images": training_images}
        about = {"vlcomp_version": __version__, "schema": SCHEMA, **fixed}
        unfinished = Unfinished(
            output, {"model": described["name"], **about, "weights": identity}, overwrite=overwrite
        )
    work = embedder
    if cache is not None:
        work = remembered(embedder, cache, identity=identity, progress=progress)
    elif unfinished is not None:
        # What of a task was finished is kept too, until all is.
        own = identity or f"{described['class']} {described['name']}"
        work = remembered(embedder, unfinished.folder / "embeddings", identity=own, progress=progress)
    known = None
    if training_images is not None:
        known = TrainingImages(training_images, num_workers=num_workers, progress=progress)
    parts: list[Part] = []
    bar = tqdm(prepared, desc="tasks", disable=not progress)
    try:
        for task in bar:
            bar.set_postfix_str(task.name)
            sign = signature(task) if unfinished is not None else ""
            part = None if unfinished is None else unfinished.get(task.name, sign)
            if part is None:
                part = _measure(task, work, progress, diagnostics, blind, known, num_workers)
                if unfinished is not None:
                    unfinished.add(part, sign)
            parts.append(part)
    except BaseException:
        if unfinished is not None and parts:
            logger.warning(
                "stopped in task %s; %d of %d tasks are finished and kept: the same command goes on from there",
                task.name,
                len(parts),
                len(prepared),
            )
        raise
    parts += [Part.of(result) for result in group_means([part.result() for part in parts])]
    entries, items, gallery = collect(parts)
    report = Report(
        {
            "schema": SCHEMA,
            "vlcomp_version": __version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "commit": commit,
            "model": described,
            "settings": plain(settings),
            "environment": {
                "python": platform.python_version(),
                "platform": platform.platform(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            "tasks": entries,
            **({"left_out": left_out} if suite is not None else {}),
        },
        items,
        gallery,
    )
    if output is not None:
        report.save(output)
        unfinished.done()
    return report


def _short(value: Any) -> Any:
    """An option as it stands in a results file: long lists (captions to learn from) by their number and their hash."""
    if not isinstance(value, (list, tuple)) or len(value) <= 100:
        return value
    digest = hashlib.blake2b(repr(list(value)).encode(errors="surrogatepass"), digest_size=8).hexdigest()
    return f"{len(value)} values, {digest}"


def _measure(
    task: Task,
    model: Any,
    progress: bool,
    diagnostics: bool,
    blind: TextOnly | None,
    known: TrainingImages | None,
    num_workers: int,
) -> Part:
    """A task with everything that stands beside its scores."""
    # Diagnostics need the same embeddings again; they are forgotten with the task.
    model = remembered(model) if diagnostics and not isinstance(model, Remembered) else model
    result = task.run(model, progress=progress)
    more: dict[str, Any] = {}
    if compositional(task):
        found = diagnose(task, model, shuffle=diagnostics, scorer=blind)
        result = replace(result, references={**result.references, **found})
        more["breakdown"] = breakdown(result)
    leak = None if known is None else known.leakage(task, num_workers=num_workers, progress=progress)
    if leak is not None:
        more["leakage"] = leak.to_dict()
        if leak.same_pictures:
            count = f"{len(leak.same_pictures)} of its {leak.images} images are among the training images"
            result = replace(result, warnings=[*result.warnings, count])
    return Part.of(result, **more)


def prepare_suite(suite: str, *, data: Any = None, **options: Any) -> tuple[list[Task], dict[str, str]]:
    """The tasks of a suite whose data are found.

    `"full"` holds the built-in tasks on Scenes, all benchmarks (composition, retrieval on COCO and Flickr30k, ImageNet
    and its variants), and of the tasks on your own data those that `data` names.

    Args:
        suite (`str`):
            `"full"`.
        data (`Any`, *optional*):
            Folder that holds the benchmarks, each in a folder of its usual name; or a dict by task name, in which
            `"benchmarks"` may name that folder. `$VLCOMP_DATA` if not given.
        **options:
            Options of the tasks; each goes to the tasks that have it.

    Returns:
        `tuple[list[Task], dict[str, str]]`: the tasks, and why others are left out, by name.

    Raises:
        ArgumentError: for an unknown suite, an option that no task has, or data for a task that there is not.
    """
    if suite not in SUITES:
        raise ArgumentError(f"suite={suite!r} is not known; there is {' and '.join(map(repr, SUITES))}")
    infos = [i for i in list_tasks() if i.name in _SCENES_OF_SUITE or not i.name.startswith("scenes/")]
    by_name = data if isinstance(data, dict) else {}
    strange = [key for key in by_name if key != "benchmarks" and key not in {info.name for info in infos}]
    if strange:
        resolve_tasks(strange[:1])  # tells which name was likely meant
        raise ArgumentError(f"data names {strange[0]!r}, which is not part of the suite")
    root = by_name.get("benchmarks") if isinstance(data, dict) else data
    lost = [key for key in options if not any(key in info.options for info in infos)]
    if lost:
        raise ArgumentError(f"no task of the suite has an option {lost[0]!r}")
    made: dict[str, Task] = {}
    left_out: dict[str, str] = {}
    # Those named first: what is wrong with them is an error, which should not come after minutes of loading.
    for info in sorted(infos, key=lambda info: info.name not in by_name):
        own = {key: value for key, value in options.items() if key in info.options}
        if info.data:
            where = by_name.get(info.name, root if info.facts is not None else None)
            if where is not None:
                own["data"] = where
            elif info.facts is None:
                left_out[info.name] = f"no data named for it ({info.data})"
                continue
        try:
            task = info.factory(**own)
            contents(task)
        except (ArgumentError, DataError) as error:
            if info.name in by_name:
                raise
            left_out[info.name] = str(error)
            continue
        made[info.name] = task
    order = [info.name for info in infos]
    return [made[name] for name in order if name in made], {n: left_out[n] for n in order if n in left_out}


def _pairs_only(tasks: Sequence[Task]) -> tuple[list[Task], dict[str, str]]:
    """What a pair scorer can do in reasonable time."""
    kept = [task for task in tasks if compositional(task) and not compares_texts(task)]
    why = "a pair scorer has no embeddings: every image with every text would be a pass of the model of its own"
    return kept, {task.name: why for task in tasks if task not in kept}


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


def _check_scorer(scorer: str | None, question: str | None) -> None:
    if scorer is not None and scorer not in SCORERS:
        raise ArgumentError(f"scorer={scorer!r} is not known; there is {' and '.join(map(repr, SCORERS))}, or None")
    if question is not None and scorer is None:
        raise ArgumentError(f"question={question!r} is asked only with scorer='yes' or 'likelihood' (--scorer)")
    if scorer is not None:
        SCORERS[scorer].check(question)


def _as_scorer(scorer: str, model: Any, processor: Any, **settings: Any) -> LVLMScorer:
    if isinstance(model, (str, os.PathLike)):
        return SCORERS[scorer].from_pretrained(model, processor=processor, **settings)
    if isinstance(model, torch.nn.Module):
        if processor is None:
            raise ArgumentError("processor is missing; evaluate(model, processor, ...) needs it with a model object")
        return SCORERS[scorer](model, processor, **settings)
    raise ArgumentError(
        f"scorer={scorer!r} asks a generative model; a {type(model).__name__} scores by itself, so leave scorer out, "
        "or pass an LVLM"
    )


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
