"""Studies: configurations x seeds as independent runs, one result file each, and a table with intervals.

A run that has its result file is not run again, so starting the same command again continues where it stopped.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
import transformers

from .._version import __version__
from ..errors import ArgumentError, DataError
from ..evaluation.statistics import mean_interval
from ..files import write_atomic

RUN_SCHEMA = "vlcomp-run/1"


@dataclass(frozen=True)
class Study:
    """A comparison of configurations over seeds.

    Args:
        name (`str`):
            The method's name on the command line.
        title (`str`):
            Heading of the table.
        version (`str`):
            Part of every result file; runs of another version are refused, not mixed in.
        configurations (`Mapping[str, Mapping[str, Any]]`):
            Settings of each configuration, JSON-able.
        seeds (`Sequence[int]`):
            Seeds that the published table uses.
        run (`Callable`):
            `run(settings, seed, folder) -> dict` does one run in `folder` (its scratch space) and returns
            `{"metrics": {name: float}, ...}`; whatever else it returns is kept in the result file.
        columns (`Mapping[str, str]`):
            Metric to column heading, in the order of the table.
        notes (`str`):
            What the table shows, printed under it.
        percent (`bool`, defaults to `True`):
            Print metrics times 100.
        details (`Callable`, *optional*):
            `details(runs) -> str`: more Markdown under the notes, such as curves.
        seedless (`Sequence[str]`):
            Configurations that do not depend on the seed: run once, with the first seed.
        parts (`Mapping[str, Study]`):
            Further studies of the method by name, such as the runs on the validation split by which settings were
            chosen (`vlcomp reproduce METHOD --part selection`).
        figures (`Callable`, *optional*):
            `figures(runs) -> dict[str, str]`: SVG documents by file name, written beside the table.
        task (`str`, defaults to `""`):
            Task of all metrics for the model index of the card, where their names do not begin with it.
    """

    name: str
    title: str
    version: str
    configurations: Mapping[str, Mapping[str, Any]]
    seeds: Sequence[int]
    run: Callable[[Mapping[str, Any], int, Path], dict[str, Any]]
    columns: Mapping[str, str]
    notes: str = ""
    percent: bool = True
    details: Callable[[Sequence[Mapping[str, Any]]], str] | None = None
    seedless: Sequence[str] = ()
    parts: Mapping[str, Study] = field(default_factory=dict)
    figures: Callable[[Sequence[Mapping[str, Any]]], dict[str, str]] | None = None
    task: str = ""


def run_study(
    study: Study,
    output: str | os.PathLike[str],
    *,
    configurations: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    log: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Do the runs that have no result file yet, then return all of them.

    Args:
        study (`Study`):
            What to run.
        output (`str` or `os.PathLike`):
            Folder of the result files, `<configuration>/seed<k>.json`; scratch files go to `<configuration>/seed<k>/`.
        configurations (`Sequence[str]`, *optional*):
            Only these.
        seeds (`Sequence[int]`, *optional*):
            Only these; the study's own if not given.
        log (`Callable`, defaults to `print`):
            Receives one line a run.

    Returns:
        `list[dict]`: the result files asked for, in order.

    Raises:
        ArgumentError: for an unknown configuration.
        DataError: if a result file is unreadable, or is of other settings or another version of the study.
    """
    names = list(configurations or study.configurations)
    for name in names:
        if name not in study.configurations:
            close = get_close_matches(name, study.configurations, 1) or study.configurations
            known = ", ".join(map(repr, close))
            raise ArgumentError(f"configuration {name!r} is not part of the study; known: {known}")
    seeds = list(study.seeds if seeds is None else seeds)
    plan = [(name, study.seeds[0]) for name in names if name in study.seedless]
    plan += [(name, seed) for seed in seeds for name in names if name not in study.seedless]
    root = Path(output)
    results = []
    # Files of all runs are read before the first new run starts: a stale one should not be found hours later.
    done = {(name, seed): _read(study, root, name, seed) for name, seed in plan}
    for number, (name, seed) in enumerate(plan, 1):
        label = f"[{number}/{len(plan)}] {name}, seed {seed}"
        existing = done[name, seed]
        if existing is not None:
            log(f"{label}: done before ({existing['seconds'] / 60:.1f} min)")
            results.append(existing)
            continue
        log(f"{label}: running")
        settings = dict(study.configurations[name])
        folder = root / name / f"seed{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        start = time.time()
        outcome = study.run(settings, seed, folder)
        record = {
            "schema": RUN_SCHEMA,
            "study": study.name,
            "study_version": study.version,
            "configuration": name,
            "seed": seed,
            "settings": settings,
            "seconds": round(time.time() - start, 1),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "environment": {
                "vlcomp": __version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "python": platform.python_version(),
                "threads": torch.get_num_threads(),
            },
            **outcome,
        }
        _write(_path(root, name, seed), record)
        log(f"{label}: {record['seconds'] / 60:.1f} min")
        results.append(record)
    return results


def load_runs(study: Study, output: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the result files there are, without running anything.

    Args:
        study (`Study`):
            The study they belong to.
        output (`str` or `os.PathLike`):
            Folder given to :func:`run_study`.

    Returns:
        `list[dict]`: in the order of the study's configurations, then of the seeds.
    """
    root = Path(output)
    runs = []
    for name in study.configurations:
        found = []
        for path in (root / name).glob("seed*.json"):
            seed = path.stem.removeprefix("seed")
            if seed.isdigit():
                found.append(int(seed))
        runs += [run for seed in sorted(found) if (run := _read(study, root, name, seed)) is not None]
    return runs


def study_table(study: Study, runs: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table: one row a configuration, mean over seeds with its 95 % t-interval.

    Args:
        study (`Study`):
            Gives the columns and the order of the rows.
        runs (`Sequence[Mapping]`):
            Result files of :func:`run_study`.

    Returns:
        `str`
    """
    scale, digits = (100, 1) if study.percent else (1, 3)
    lines = [
        "| configuration | seeds | " + " | ".join(study.columns.values()) + " |",
        "|---|---|" + "---|" * len(study.columns),
    ]
    for name in study.configurations:
        rows = [run for run in runs if run["configuration"] == name]
        if not rows:
            continue
        cells = []
        for metric in study.columns:
            values = [run["metrics"][metric] * scale for run in rows if metric in run["metrics"]]
            cells.append(interval(values, f".{digits}f") if values else "")
        lines.append(f"| {name} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences(
    runs: Sequence[Mapping[str, Any]],
    pairs: Sequence[tuple[str, str]],
    columns: Mapping[str, str],
    *,
    seedless: Sequence[str] = (),
) -> str:
    """Differences between configurations in points, paired by seed, as a Markdown table.

    Args:
        runs (`Sequence[Mapping]`):
            Result files of the study.
        pairs (`Sequence[tuple[str, str]]`):
            The configurations to compare, the second taken from the first. Those without a run are left out.
        columns (`Mapping[str, str]`):
            Metric to column heading.
        seedless (`Sequence[str]`):
            Configurations with one run for all seeds.

    Returns:
        `str`: with 95 % t-intervals where there are two seeds or more.
    """
    by_name: dict[str, dict[int, Mapping[str, float]]] = {}
    for run in runs:
        by_name.setdefault(run["configuration"], {})[run["seed"]] = run["metrics"]
    lines = [
        "| difference in points | seeds | " + " | ".join(columns.values()) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for first, second in pairs:
        mine, other = by_name.get(first, {}), by_name.get(second, {})
        if second in seedless and other:
            other = dict.fromkeys(mine, next(iter(other.values())))
        seeds = [seed for seed in mine if seed in other]
        if seeds:
            cells = [
                interval([100 * (mine[seed][metric] - other[seed][metric]) for seed in seeds], "+.1f")
                for metric in columns
            ]
            lines.append(f"| {first} - {second} | {len(seeds)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def interval(values: Sequence[float], style: str) -> str:
    """A mean with its 95 % t-interval as text; one value alone as it is.

    Args:
        values (`Sequence[float]`):
            One for each seed.
        style (`str`):
            Format of the mean, such as `"+.1f"`.

    Returns:
        `str`
    """
    if len(values) == 1:
        return format(values[0], style)
    found = mean_interval(values)
    return f"{found.value:{style}} ± {(found.high - found.low) / 2:{style.lstrip('+')}}"


def _path(root: Path, name: str, seed: int) -> Path:
    return root / name / f"seed{seed}.json"


def _read(study: Study, root: Path, name: str, seed: int) -> dict[str, Any] | None:
    path = _path(root, name, seed)
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not a result file ({error}); delete it to run this configuration again") from error
    settings = json.loads(json.dumps(dict(study.configurations[name])))
    if record.get("study_version") != study.version or record.get("settings") != settings:
        raise DataError(
            f"{path} was made by version {record.get('study_version')!r} of the study or with other settings; "
            "give another --output, or delete the file to run this configuration again"
        )
    return record


def _write(path: Path, record: Mapping[str, Any]) -> None:
    # A run that is killed here leaves no half file that would count as done.
    write_atomic(path, lambda temporary: temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8"))
