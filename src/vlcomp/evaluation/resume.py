"""What is finished of an evaluation, kept on disk task by task, so that a killed one can go on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow.parquet as pq

from ..errors import ArgumentError, DataError
from ..files import check_output, write_atomic
from .results import RESULTS_FILE, plain, write_items
from .scoring import SCORING_VERSION
from .task import Score, TaskResult

# Within the output folder while an evaluation runs; what a killed one left behind.
UNFINISHED = ".unfinished"
_RUN_FILE = "run.json"


@dataclass
class Part:
    """A finished task of an evaluation.

    Args:
        task (`str`):
            Its name.
        entry (`dict`):
            Its entry in the results file.
        items (`list[dict]`):
            Its rows in the table of items.
        gallery (`list[dict]`):
            Its example items.
    """

    task: str
    entry: dict[str, Any]
    items: list[dict[str, Any]] = field(default_factory=list)
    gallery: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, result: TaskResult, **more: Any) -> Part:
        """The part of a result; `more` goes into its entry.

        The version in the entry is that of the task and, after a dot, that of the rules by which scores are compared.
        """
        entry = plain({**result.to_dict(), **more})
        entry["version"] = f"{result.version}.{SCORING_VERSION}"
        return cls(result.task, entry, result.items, plain(result.gallery))

    def result(self) -> TaskResult:
        """The scores as a task returned them, for averages over tasks."""
        entry = self.entry
        return TaskResult(
            task=self.task,
            version=entry["version"].removesuffix(f".{SCORING_VERSION}"),
            scores={name: Score(**score) for name, score in entry["scores"].items()},
            references={
                scorer: {name: Score(**score) for name, score in scores.items()}
                for scorer, scores in entry["references"].items()
            },
            headline=entry["headline"],
        )


class Unfinished:
    """What is finished of an evaluation that still runs, or was killed, in its output folder.

    Each finished task is written at once. An evaluation that is started again with the same model and settings reads
    what is there; with others it is refused.

    Args:
        folder (`str` or `os.PathLike`):
            The output folder.
        identity (`dict[str, Any]`):
            JSON-able: everything on which all scores depend.
        overwrite (`bool`, defaults to `False`):
            Throw away what another evaluation left behind.

    Raises:
        ArgumentError: if the folder holds finished tasks of another evaluation.
        DataError: if what is there cannot be read.
    """

    def __init__(self, folder: str | os.PathLike[str], identity: dict[str, Any], *, overwrite: bool = False) -> None:
        self.output = check_output(folder)
        self.folder = self.output / UNFINISHED
        identity = plain(identity)
        file = self.folder / _RUN_FILE
        if self.folder.is_dir() and (overwrite or not file.is_file()):
            shutil.rmtree(self.folder)
        if file.is_file():
            before = _read_json(file)
            different = [key for key in {**before, **identity} if before.get(key) != identity.get(key)]
            if different and not self.finished:
                shutil.rmtree(self.folder)  # nothing that could be lost
            elif different:
                key = different[0]
                raise ArgumentError(
                    f"output={str(folder)!r} holds {len(self.finished)} finished task(s) of an evaluation that was "
                    f"stopped, with {key}={before.get(key)!r}; now it is {identity.get(key)!r}. Run it as before to "
                    "finish it, name another output folder, or start anew with overwrite=True (--overwrite)"
                )
        check_output(self.folder)
        write_atomic(file, lambda path: path.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8"))

    @property
    def finished(self) -> list[str]:
        """Files of the finished tasks."""
        return sorted(path.name for path in self.folder.glob("*.task.json"))

    def _files(self, task: str) -> tuple[Path, Path]:
        name = quote(task, safe="")
        return self.folder / f"{name}.task.json", self.folder / f"{name}.items.parquet"

    def add(self, part: Part, signature: str) -> None:
        """Write a finished task.

        Args:
            part ([`Part`]):
                The task.
            signature (`str`):
                Its items and options, in short.
        """
        file, items = self._files(part.task)
        write_items(items, part.items)
        content = {"task": part.task, "signature": signature, "entry": part.entry, "gallery": part.gallery}
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
        write_atomic(file, lambda path: path.write_text(text, encoding="utf-8"))

    def get(self, task: str, signature: str) -> Part | None:
        """A task that was finished before.

        Args:
            task (`str`):
                Its name.
            signature (`str`):
                Its items and options, in short.

        Returns:
            [`Part`] or `None`

        Raises:
            ArgumentError: if it was finished with other items or options.
        """
        file, items = self._files(task)
        if not file.is_file():
            return None
        content = _read_json(file)
        if content.get("signature") != signature:
            raise ArgumentError(
                f"output={str(self.output)!r} holds task {task!r} of an evaluation that was stopped, with other items "
                "or options. Run it as before to finish it, name another output folder, or start anew with "
                "overwrite=True (--overwrite)"
            )
        return Part(task, content["entry"], pq.read_table(items).to_pylist(), content["gallery"])

    def done(self) -> None:
        """Remove everything: the report is saved."""
        (self.folder / _RUN_FILE).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def check_replaced(folder: str | os.PathLike[str], model: str, tasks: Sequence[str]) -> None:
    """Refuse to replace a finished evaluation by one that is not the same made again.

    Args:
        folder (`str` or `os.PathLike`):
            The output folder.
        model (`str`):
            Name of the model that is to be measured.
        tasks (`Sequence[str]`):
            The tasks.

    Raises:
        ArgumentError: if the folder holds results of another model, or of tasks that are not among these.
        DataError: if what is there cannot be read.
    """
    if not Path(folder, RESULTS_FILE).is_file():
        return
    before = _read_json(Path(folder, RESULTS_FILE))
    name = before.get("model", {}).get("name")
    lost = [task for task in before.get("settings", {}).get("tasks", []) if task not in tasks]
    if name != model or lost:
        what = f"of the model {name!r}" if name != model else f"of {', '.join(map(repr, lost[:3]))}"
        raise ArgumentError(
            f"output={os.fspath(folder)!r} holds results {what}{' and more' * (len(lost) > 3)}, which this evaluation "
            "would throw away; name another output folder, or replace them with overwrite=True (--overwrite)"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid JSON: {error}; delete the folder {path.parent} and run again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds {type(content).__name__}; delete the folder {path.parent} and run again")
    return content


def collect(parts: Sequence[Part]) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, list]]:
    """Finished tasks as the `tasks` part of a results file, rows of items and galleries."""
    tasks = {part.task: part.entry for part in parts}
    items = [item for part in parts for item in part.items]
    return tasks, items, {part.task: part.gallery for part in parts if part.gallery}
