"""The tasks by name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from typing import Any

from ..data.scenes import list_scenes
from ..errors import ArgumentError
from .benchmarks import BENCHMARKS, DATA_VARIABLE, Benchmark
from .task import Task
from .tasks import (
    CaptionChoice,
    ImageChoice,
    LinearProbe,
    Retrieval,
    ScenesChoice,
    ScenesClassification,
    ScenesRetrieval,
    ScenesWinoground,
    ZeroShotClassification,
)


@dataclass(frozen=True)
class TaskInfo:
    """What there is to know about a task before running it.

    Args:
        name (`str`):
            Name for `get_task` and `--task`.
        description (`str`):
            What it measures.
        data (`str`):
            What `data` must be; empty if the task needs none.
        licence (`str`):
            Licence of the data.
        source (`str`):
            Where the benchmark comes from.
        citation (`str`):
            What to cite.
        convention (`str`):
            How it is scored.
        version (`str`):
            Version of the task.
        factory (`Callable[..., Task]`):
            Makes the task from keyword options.
        facts ([`~vlcomp.evaluation.benchmarks.Benchmark`], *optional*):
            Official files, images, published scores and human score of a benchmark.
    """

    name: str
    description: str
    data: str
    licence: str
    source: str
    citation: str
    convention: str
    version: str
    factory: Callable[..., Task]
    facts: Benchmark | None = None

    @property
    def data_required(self) -> bool:
        """Whether `data` must be given; benchmarks are also looked for below `$VLCOMP_DATA`."""
        return bool(self.data) and self.facts is None

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that the task takes."""
        parameters = inspect.signature(self.factory).parameters
        return tuple(name for name in parameters if name != "self")


_REGISTERED: dict[str, TaskInfo] = {}


def register_task(
    name: str, task: type[Task], *, description: str | None = None, data: str = "", **fixed: Any
) -> TaskInfo:
    """Make a task known by name, to `evaluate`, trainers and the command line.

    Args:
        name (`str`):
            Its name; a `/` makes groups.
        task (`type[Task]`):
            The class.
        description (`str`, *optional*):
            One line; the class's own if not given.
        data (`str`, defaults to `""`):
            What `data` must be.
        **fixed:
            Options that belong to the name, given to the class.

    Returns:
        [`TaskInfo`]

    Raises:
        ArgumentError: if the name is taken.
    """
    if name in _built_in() or name in _REGISTERED:
        raise ArgumentError(f"a task named {name!r} exists already")
    _REGISTERED[name] = _info(name, task, description or task.description, data, **fixed)
    return _REGISTERED[name]


def _info(name: str, task: type[Task], description: str, data: str, **fixed: Any) -> TaskInfo:
    factory = partial(task, **fixed) if fixed else task
    facts = getattr(task, "facts", None)
    about = (task.licence, task.source, task.citation, task.convention, task.version)
    return TaskInfo(name, description, data, *about, factory, facts)


@lru_cache(maxsize=1)
def _built_in() -> dict[str, TaskInfo]:
    found = []
    for subset in list_scenes():
        name = f"scenes/{subset}"
        if subset.partition("/")[0] == "train":
            continue
        if subset == "retrieval":
            found.append(_info(name, ScenesRetrieval, ScenesRetrieval.description, ""))
        elif subset == "winoground":
            found.append(_info(name, ScenesWinoground, ScenesWinoground.description, ""))
        elif subset.startswith("classification/"):
            style = subset.removeprefix("classification/")
            description = f"name the object among 20, style {style}"
            found.append(_info(name, ScenesClassification, description, "", style=style))
        else:
            unseen = ", unseen colour-noun pairs" if subset.startswith("systematic/") else ""
            description = f"choose the true caption: {subset.rpartition('/')[2].replace('_', ' ')}{unseen}"
            found.append(_info(name, ScenesChoice, description, "", subset=subset))
    found += [
        _info("retrieval", Retrieval, Retrieval.description, "captioned images: folder, hub name or shards"),
        _info(
            "caption_choice",
            CaptionChoice,
            CaptionChoice.description,
            "SugarCrepe-format JSON, a folder of them, or an imagefolder with negative_caption",
        ),
        _info("image_choice", ImageChoice, ImageChoice.description, "JSONL with sentence, true_file, false_file"),
        _info(
            "zero_shot_classification",
            ZeroShotClassification,
            ZeroShotClassification.description,
            "folder with a subfolder of images for each class",
        ),
        _info(
            "linear_probe",
            LinearProbe,
            LinearProbe.description,
            "folder with train/ and test/, each with a subfolder of images for each class",
        ),
    ]
    for task in BENCHMARKS:
        data = f"folder of the official files (default: ${DATA_VARIABLE}/{task.facts.folder})"
        found.append(_info(task.facts.name, task, task.description, data))
    return {info.name: info for info in found}


def list_tasks(pattern: str | None = None) -> list[TaskInfo]:
    """All tasks, or those that match a pattern.

    Args:
        pattern (`str`, *optional*):
            A name, a group (`"scenes"`), a pattern with `*`, or a part of a name or description.

    Returns:
        `list[TaskInfo]`

    Example:
        >>> from vlcomp.evaluation import list_tasks
        >>> [info.name for info in list_tasks("scenes/swap_*")]
        ['scenes/swap_object', 'scenes/swap_attribute']
    """
    infos = [*_built_in().values(), *_REGISTERED.values()]
    if pattern is None:
        return infos
    exact = [info for info in infos if _matches(info.name, pattern)]
    lowered = pattern.lower()
    return exact or [info for info in infos if lowered in info.name or lowered in info.description.lower()]


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or name.startswith(f"{pattern.rstrip('/')}/") or fnmatchcase(name, pattern)


def resolve_tasks(names: str | Sequence[str]) -> list[str]:
    """Expand groups and patterns to the names of tasks.

    Args:
        names (`str` or `Sequence[str]`):
            Names, groups (`"scenes"` is everything that begins with `scenes/`) and patterns (`"scenes/swap_*"`).

    Returns:
        `list[str]`: names without repetition, in order.

    Raises:
        ArgumentError: for a name that matches nothing, with the closest ones.

    Example:
        >>> from vlcomp.evaluation import resolve_tasks
        >>> resolve_tasks(["scenes/systematic"])[0]
        'scenes/systematic/replace_object'
    """
    known = [info.name for info in list_tasks()]
    found: list[str] = []
    for name in [names] if isinstance(names, str) else names:
        matches = [name] if name in known else [other for other in known if _matches(other, name)]
        if not matches:
            candidates = known + [other.rpartition("/")[2] for other in known] + ["scenes"]
            close = list(dict.fromkeys(get_close_matches(name, candidates, 3)))
            # An own name comes before the end of another one.
            full = list(
                dict.fromkeys(c if c in known else next((k for k in known if k.endswith(f"/{c}")), c) for c in close)
            )
            hint = f"did you mean {' or '.join(full)}?" if full else "`vlcomp tasks` lists all"
            raise ArgumentError(f"there is no task {name!r}; {hint}")
        found += [other for other in matches if other not in found]
    return found


def get_task(name: str, *, data: Any = None, **options: Any) -> Task:
    """Make a task by its name.

    Args:
        name (`str`):
            Name of one task.
        data (`Any`, *optional*):
            What the task reads, if it needs data.
        **options:
            Options of the task's class, for instance `limit`, `size` or `references`.

    Returns:
        [`Task`]

    Raises:
        ArgumentError: if there is no such task, data is missing or not wanted, or an option is unknown.

    Example:
        >>> from vlcomp.evaluation import get_task
        >>> get_task("scenes/swap_attribute", size=100).name
        'scenes/swap_attribute'
    """
    (resolved, *others) = resolve_tasks([name])
    if others:
        raise ArgumentError(f"{name!r} is a group of {1 + len(others)} tasks; use resolve_tasks([{name!r}])")
    info = {info.name: info for info in list_tasks()}[resolved]
    if info.data_required and data is None:
        raise ArgumentError(f"task {name!r} needs data ({info.data}); pass data=PATH (--data PATH)")
    if data is not None:
        if not info.data:
            raise ArgumentError(f"task {name!r} has its own data; data={os.fspath(data)!r} cannot be used")
        options["data"] = data
    unknown = [option for option in options if option not in info.options]
    if unknown:
        raise ArgumentError(f"task {name!r} has no option {unknown[0]!r}; it has {', '.join(info.options)}")
    return info.factory(**options)
