"""What a protocol gives: one file a seed, means with intervals, a table."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from .._version import __version__
from ..errors import ArgumentError, DataError
from ..evaluation.results import markdown_table
from ..evaluation.statistics import Interval, mean_interval
from ..files import write_atomic

SCHEMA = "vlcomp-protocol/1"


def harmonic_mean(base: float, novel: float) -> float:
    """Harmonic mean of two accuracies.

    Args:
        base (`float`):
            Accuracy on base classes.
        novel (`float`):
            Accuracy on novel classes.

    Returns:
        `float`: 0 if one of them is 0.

    Example:
        >>> from vlcomp.protocols import harmonic_mean
        >>> round(harmonic_mean(0.8, 0.6), 4)
        0.6857
    """
    return 2 * base * novel / (base + novel) if base and novel else 0.0


@dataclass(frozen=True)
class ProtocolResult:
    """Accuracies of a protocol, one record a set and seed.

    Args:
        protocol (`str`):
            `"base-to-novel"`, `"cross-dataset"` or `"domain-generalization"`.
        columns (`Mapping[str, str]`):
            Metric to column heading, in the order of the table.
        records (`list[dict]`):
            `set`, `seed`, `metrics` and what the run was made with; the content of the files.
    """

    protocol: str
    columns: Mapping[str, str]
    records: list[dict[str, Any]] = field(repr=False)

    @property
    def sets(self) -> list[str]:
        """Names of the sets that were trained on."""
        return list(dict.fromkeys(record["set"] for record in self.records))

    def values(self, metric: str, data: str | None = None) -> dict[int, float]:
        """A metric by seed.

        Args:
            metric (`str`):
                Name of the metric (`"harmonic_mean"`).
            data (`str`, *optional*):
                Name of a set; the mean over all sets, of the seeds that all of them have, if not given.

        Returns:
            `dict[int, float]`

        Raises:
            ArgumentError: if there is no such metric or set.
        """
        if metric not in self.columns:
            raise ArgumentError(f"metric={metric!r} is not one of {', '.join(self.columns)}")
        if data is not None and data not in self.sets:
            raise ArgumentError(f"data={data!r} is not one of {', '.join(self.sets)}")
        wanted = self.sets if data is None else [data]
        found = [{r["seed"]: r["metrics"][metric] for r in self.records if r["set"] == name} for name in wanted]
        seeds = [seed for seed in found[0] if all(seed in values for values in found)]
        return {seed: sum(values[seed] for values in found) / len(found) for seed in seeds}

    def interval(self, metric: str, data: str | None = None) -> Interval:
        """Mean of a metric over seeds with its 95 % t-interval.

        Args:
            metric (`str`):
                Name of the metric.
            data (`str`, *optional*):
                Name of a set; over the mean of all sets if not given.

        Returns:
            [`~vlcomp.evaluation.statistics.Interval`]: of one seed, both ends are NaN.
        """
        return mean_interval(list(self.values(metric, data).values()))

    @property
    def metrics(self) -> dict[str, float]:
        """Mean of each metric over seeds and sets."""
        return {metric: self.interval(metric).value for metric in self.columns}

    def to_markdown(self) -> str:
        """A table in percent: one row a set, means over seeds with 95 % t-intervals, and the mean of the sets.

        Returns:
            `str`
        """
        seeds = {name: len(self.values(next(iter(self.columns)), name)) for name in self.sets}
        rows = [[name, str(seeds[name]), *self._cells(name)] for name in self.sets]
        if len(rows) > 1:
            rows.append(["mean of sets", str(min(seeds.values())), *self._cells(None)])
        return markdown_table(["trained on", "seeds", *self.columns.values()], rows)

    def _cells(self, data: str | None) -> list[str]:
        cells = []
        for metric in self.columns:
            values = [100 * value for value in self.values(metric, data).values()]
            if len(values) < 2:
                cells.append(f"{values[0]:.1f}" if values else "")
            else:
                interval = mean_interval(values)
                cells.append(f"{interval.value:.1f} ± {(interval.high - interval.low) / 2:.1f}")
        return cells


class Runs:
    """The files of a protocol: read before the first run starts, written after each.

    Args:
        output (`str` or `os.PathLike`, *optional*):
            Folder of the files, `<set>/seed<k>.json`; nothing is kept if not given.
        log (`Callable`):
            Receives one line a run.
    """

    def __init__(self, output: str | os.PathLike[str] | None, log: Callable[[str], None]) -> None:
        self.root = None if output is None else Path(output)
        self.log = log

    def __call__(
        self,
        identities: Sequence[tuple[str, int, Mapping[str, Any]]],
        run: Callable[[int, Path | None], Mapping[str, Any]],
    ) -> list[dict[str, Any]]:
        """Do the runs that have no file yet.

        Args:
            identities (`Sequence`):
                Set, seed and settings of each run; a file of other settings is refused.
            run (`Callable`):
                `run(number, folder) -> dict` does run `number`, with `folder` as its place for files, and returns
                `{"metrics": {name: float}, ...}`.

        Returns:
            `list[dict]`: the records.

        Raises:
            DataError: if a file is unreadable or of other settings.
        """
        # A stale file should not be found hours later.
        done = [self._read(name, seed, identity) for name, seed, identity in identities]
        records = []
        for number, ((name, seed, identity), known) in enumerate(zip(identities, done, strict=True)):
            label = f"[{number + 1}/{len(done)}] {name}, seed {seed}"
            if known is not None:
                self.log(f"{label}: done before")
                records.append(known)
                continue
            start = time.time()
            folder = self._path(name, seed)
            outcome = dict(run(number, None if folder is None else folder.with_suffix("")))
            record = {
                "schema": SCHEMA,
                "set": name,
                "seed": seed,
                **_plain(identity),
                "metrics": outcome.pop("metrics"),
                **outcome,
                "seconds": round(time.time() - start, 1),
                "environment": {
                    "vlcomp": __version__,
                    "torch": torch.__version__,
                    "transformers": transformers.__version__,
                    "python": platform.python_version(),
                },
            }
            self._write(record)
            shown = ", ".join(f"{metric} {100 * value:.1f}" for metric, value in record["metrics"].items())
            self.log(f"{label}: {shown} ({record['seconds']:.0f} s)")
            records.append(record)
        return records

    def _path(self, name: str, seed: int) -> Path | None:
        return None if self.root is None else self.root / slug(name) / f"seed{seed}.json"

    def _read(self, name: str, seed: int, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        path = self._path(name, seed)
        if path is None or not path.exists():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            schema = record.get("schema")
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
            raise DataError(f"{path} is not a result of a protocol ({error}); delete it to run it again") from error
        if schema != SCHEMA:
            raise DataError(f"{path} is of schema {schema!r}, not {SCHEMA!r}; give another output folder (--output)")
        for key, value in _plain({"set": name, "seed": seed, **identity}).items():
            if record.get(key) != value:
                raise DataError(
                    f"{path} was made with {key}={record.get(key)!r}, and now it is {value!r}; give another output "
                    "folder (--output), or delete the file to run it again"
                )
        return record

    def _write(self, record: Mapping[str, Any]) -> None:
        path = self._path(record["set"], record["seed"])
        if path is None or os.environ.get("RANK", "0") != "0":
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record, indent=1) + "\n"
        write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def slug(name: str) -> str:
    """A set's name as the name of a folder.

    Args:
        name (`str`):
            For instance `"scenes/noun"`.

    Returns:
        `str`: `"scenes-noun"`.
    """
    return re.sub(r"[^\w.+-]+", "-", name).strip("-") or "set"


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As it is read back from JSON."""
    return json.loads(json.dumps(dict(values), default=str))
