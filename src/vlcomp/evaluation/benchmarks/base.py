"""The common part of benchmarks that are read from official files: a benchmark is its facts and a reader."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...data.rows import plural
from ...errors import ArgumentError, DataError
from ..choice import Indexer, check_limit, sample_clusters
from ..encoding import Unencoded, check_model, embed_images, embed_texts, pair_scores, unreadable_images
from ..gallery import build_gallery
from ..task import Score, Task, TaskResult
from .comparisons import Cell, Item, Outcome, Prepared, Rule, Scorer, choose_text, judge
from .facts import Benchmark, OfficialFile
from .files import ImageFinder, check_count_of, find_data, image_source, sha256_of
from .references import reference_outcomes


class BenchmarkTask(Task):
    """Base of the benchmarks.

    A subclass has `facts` and `read`; most need nothing else. Counting against the official numbers, refusal of
    duplicate ids, finding images, encoding of each distinct image and text once, strict comparison, all averages by
    name, intervals, reference scorers, the table of items and the gallery are here.

    Scores are named `<metric>` for a benchmark without categories, otherwise `micro/<metric>` (over items),
    `macro/<metric>` (over categories), `macro_groups/<metric>` (over groups of categories, where there are some) and
    `<category>/<metric>`. Intervals are clustered by image.

    Args:
        data (`str` or `os.PathLike`, *optional*):
            Folder of the official files, or a folder that holds it under its usual name. `$VLCOMP_DATA` if not given.
        images (`str` or `os.PathLike`, *optional*):
            Folder of the images. If not given they are looked for beside the official files and in the usual folders
            of `$VLCOMP_DATA`.
        allow_partial (`bool`, defaults to `False`):
            Measure on files that are incomplete; the result says so.
        limit (`int`, *optional*):
            Measure on about this many items: whole clusters, drawn at random with a fixed seed.
        references (`bool`, defaults to `True`):
            Also score the reference scorers.
        reference_captions (`Sequence[str]`, *optional*):
            Captions for the n-gram reference scorer, such as a model's training captions.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out items with a missing or damaged image, and count them, instead of raising.
        gallery (`bool`, defaults to `True`):
            Keep thumbnails of some items for the report.

    Raises:
        ArgumentError: if nothing says where the official files are.
        DataError: if files are missing, incomplete or malformed.

    Attributes:
        facts ([`Benchmark`]):
            What is known about the benchmark.
        rules (`dict[str, Rule]`):
            What makes an item right, by metric.
        groups (`Mapping[str, str]`, *optional*):
            Group of each category.
        views (`Mapping[str, str | None]`):
            Sets of items that are scored: prefix of the names, and the tag that an item must have.
        own_texts (`Mapping[int, tuple[int, ...]]`):
            Which texts of an item are true of its images, by position; the bag of words needs to know.
        subset_scores (`bool`):
            Whether each category gets scores of its own; the averages over categories do not depend on it.
    """

    facts: ClassVar[Benchmark]
    rules: ClassVar[Mapping[str, Rule]] = {"accuracy": choose_text}
    groups: ClassVar[Mapping[str, str] | None] = None
    views: ClassVar[Mapping[str, str | None]] = {"": None}
    own_texts: ClassVar[Mapping[int, tuple[int, ...]]] = {0: (0,)}
    subset_scores: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        facts = cls.__dict__.get("facts")
        if facts is not None:
            cls.name, cls.source, cls.citation = facts.name, facts.url, facts.citation
            gate = f"; {facts.gated}" if facts.gated else ""
            cls.licence = f"{facts.licence}; images: {facts.images.licence}{gate}"

    def __init__(
        self,
        data: str | os.PathLike[str] | None = None,
        *,
        images: str | os.PathLike[str] | None = None,
        allow_partial: bool = False,
        limit: int | None = None,
        references: bool = True,
        reference_captions: Sequence[str] | None = None,
        skip_bad_images: bool = False,
        gallery: bool = True,
    ) -> None:
        self.data, self.image_folder = data, images
        self.allow_partial = allow_partial
        self.limit = check_limit(limit)
        self.references = references
        self.reference_captions = reference_captions
        self.skip_bad_images = skip_bad_images
        self.gallery = gallery
        self.folder = find_data(self.facts, data)
        self.find_image = ImageFinder(self.facts, self.folder, images)
        # What is missing is told now, before a model is loaded, which may take minutes.
        self.prepared = self._prepare()

    @abstractmethod
    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read one official file.

        Args:
            path (`Path`):
                Where it is.
            file ([`OfficialFile`]):
                Which it is.

        Returns:
            `Iterable[Item]`: with ids that are unique within the benchmark.

        Raises:
            DataError: if it is malformed.
        """

    def official_files(self) -> Sequence[OfficialFile]:
        """The files to read; those of `facts` unless a benchmark is a folder of files whose names are not fixed."""
        return self.facts.files

    # -- loading -------------------------------------------------------------------------------------------

    def _prepare(self) -> Prepared:
        prepared = self._official_items()
        if self.limit is not None:
            prepared.items = self.limited(prepared.items, self.limit)
        self._find_images(prepared)
        texts = Indexer()
        prepared.text_at = [tuple(texts(text) for text in item.texts) for item in prepared.items]
        prepared.texts = texts.values
        return prepared

    def limited(self, items: list[Item], limit: int) -> list[Item]:
        """About `limit` of the items: whole clusters, drawn at random with a fixed seed."""
        return [items[i] for i in sample_clusters([item.independent for item in items], limit)]

    def _official_items(self) -> Prepared:
        prepared = Prepared([])
        seen: dict[str, str] = {}
        wrong = []
        for file in self.official_files():
            path = self.folder / file.name
            if not path.is_file():
                wrong.append(str(check_count_of(file, path, None)))
                continue
            found = list(self.read(path, file))
            for item in found:
                if item.item_id in seen:
                    raise DataError(
                        f"item id {item.item_id!r} occurs twice, in {seen[item.item_id]} and in {path}; ids must be "
                        "unique, or items would be counted twice"
                    )
                seen[item.item_id] = str(path)
            problem = check_count_of(file, path, len(found))
            if problem:
                wrong.append(problem)
            elif file.sha256 and sha256_of(path) != file.sha256:
                prepared.partial.append(f"{path.name} is not the official file, byte by byte")
            prepared.items += found
        expected = self.facts.items
        if not wrong and expected is not None and len(prepared.items) != expected:
            wrong.append(f"{self.folder} holds {len(prepared.items):,} items in all, the official files {expected:,}")
        if wrong and not self.allow_partial and self.limit is None:
            more = f" (and {plural(len(wrong) - 1, 'more such file')})" if len(wrong) > 1 else ""
            raise DataError(
                f"task {self.name!r} is incomplete: {wrong[0]}{more}. Get the official files from {self.facts.url}, "
                "or measure on what is there with allow_partial=True"
            )
        prepared.partial += wrong
        if not prepared.items:
            raise DataError(f"task {self.name!r}: the files in {self.folder} hold no items")
        return prepared

    def _find_images(self, prepared: Prepared) -> None:
        wanted = list(dict.fromkeys(picture for item in prepared.items for picture in item.images))
        index: dict[Any, int] = {}
        absent = []
        for picture in wanted:
            source: Any = None
            if picture.content is not None:
                source = {"bytes": picture.content, "path": picture.name}
            else:
                path = self.find_image(picture.name)
                if path is None:
                    absent.append(picture.name)
                    continue
                source = image_source(picture, path)
            index[picture] = len(prepared.sources)
            prepared.sources.append(source)
            cut = "" if picture.box is None else f" {list(picture.box)}"
            prepared.image_names.append(picture.name + cut)
        absent = list(dict.fromkeys(absent))
        total = len({picture.name for picture in wanted})
        if absent and (not self.skip_bad_images or len(absent) == total):
            raise DataError(self.find_image.missing(absent, total))
        prepared.skipped = [f"{name}: there is no such file" for name in absent]
        if self.skip_bad_images:
            bad = unreadable_images(prepared.sources, prepared.image_names)
            # Several parts of one file are one bad image.
            prepared.skipped += {p.name: bad[i] for p, i in index.items() if i in bad}.values()
            good = {p for p, i in index.items() if i not in bad}
            prepared.items = [item for item in prepared.items if all(p in good for p in item.images)]
            if not prepared.items:
                raise DataError(f"task {self.name!r}: no item has all of its images; first: {prepared.skipped[0]}")
            shown = {p for item in prepared.items for p in item.images}
            used = [p for p in index if p in shown]
            prepared.sources = [prepared.sources[index[p]] for p in used]
            prepared.image_names = [prepared.image_names[index[p]] for p in used]
            index = {p: i for i, p in enumerate(used)}
        prepared.image_at = [tuple(index[p] for p in item.images) for item in prepared.items]

    # -- scores --------------------------------------------------------------------------------------------

    def in_macro(self, subset: str, count: int) -> bool:
        """Whether a category of `count` items takes part in the average over categories."""
        return True

    def scores(self, outcomes: Mapping[str, Outcome], *, expected: bool = False) -> dict[str, Score]:
        """All averages of all metrics, by name; `expected` counts ties as broken at random (reference scorers)."""
        found: dict[str, Score] = {}
        for prefix, tag in self.views.items():
            items = self.prepared.items
            at = [i for i, item in enumerate(items) if tag is None or tag in item.tags]
            if not at:
                continue
            for metric, outcome in outcomes.items():
                values = outcome.expected[at] if expected else outcome.correct[at].astype(float)
                rows = _Rows([items[i] for i in at], values, outcome.tie[at], outcome.chance[at])
                found |= {prefix + name: score for name, score in self._averages(rows, metric).items()}
        return found

    def _averages(self, rows: _Rows, metric: str) -> dict[str, Score]:
        subsets = [item.subset for item in rows.items]
        if None in subsets:
            return {metric: rows.score()}
        found = {f"micro/{metric}": rows.score()}
        counts = Counter(subsets)
        # A few items may hold no category that takes part; the average is then over what there is.
        chosen = [name for name, count in counts.items() if self.in_macro(str(name), count)] or list(counts)
        found[f"macro/{metric}"] = rows.macro(chosen)
        if len(chosen) < len(counts):
            found[f"macro_all/{metric}"] = rows.macro(list(counts))
        if self.groups is not None:
            sizes = Counter(self.groups[str(name)] for name in counts)
            weights = {name: 1.0 / (len(sizes) * sizes[self.groups[str(name)]]) for name in counts}
            found[f"macro_groups/{metric}"] = rows.macro(list(counts), weights)
            for group in sizes if len(sizes) < len(counts) else ():
                members = [name for name in counts if self.groups[str(name)] == group]
                if len(members) > 1:
                    found[f"{group}/{metric}"] = rows.macro(members)
        if self.subset_scores:
            found |= {f"{name}/{metric}": rows.macro([name]) for name in counts}
        return found

    def config(self) -> dict[str, Any]:
        """What the scores depend on beside the model."""
        return {
            "data": self.folder.name,
            "limit": self.limit,
            "scoring": "strict",
            "official": not self.prepared.partial and self.limit is None,
        }

    # -- reference scorers ---------------------------------------------------------------------------------

    def reference_scores(self) -> dict[str, dict[str, Score]]:
        """Scores of scorers that lack what the benchmark is about."""
        outcomes = reference_outcomes(
            self.prepared, self.rules, own_texts=self.own_texts, captions=self.reference_captions
        )
        return {scorer: self.scores(found, expected=True) for scorer, found in outcomes.items()}

    @cached_property
    def _references(self) -> dict[str, dict[str, Score]]:
        return self.reference_scores() if self.references else {}

    # -- running -------------------------------------------------------------------------------------------

    def embedding_scorer(self, model: Any, warnings: list[str], *, progress: bool) -> Scorer:
        """Encode everything once; scores are cosines."""
        prepared = self.prepared
        images = embed_images(model, prepared.sources, prepared.image_names, warnings, progress=progress)
        texts = embed_texts(model, prepared.texts, warnings, progress=progress)
        if isinstance(images, Unencoded):
            # All pairs in one call, so that a pair scorer can read each image once for all of its texts.
            pairs = {
                (prepared.image_at[position][image], prepared.text_at[position][text])
                for position, item in enumerate(prepared.items)
                for rule in self.rules.values()
                for comparison in rule(len(item.images), len(item.texts))
                for kind, image, text in comparison
                if kind == "it"
            }
            pair_scores(images, texts, *np.array(sorted(pairs)).reshape(-1, 2).T)

        def score(positions: list[int], cell: Cell) -> np.ndarray:
            kind, first, second = cell
            left = prepared.image_at if kind == "it" else prepared.text_at
            a = np.array([left[p][first] for p in positions])
            b = np.array([prepared.text_at[p][second] for p in positions])
            return pair_scores(images if kind == "it" else texts, texts, a, b)

        return score

    def run(self, model: Any, *, progress: bool = False) -> TaskResult:
        """Measure a model; see [`Task.run`]."""
        check_model(model)
        warnings = self._warnings()
        score = self.embedding_scorer(model, warnings, progress=progress)
        outcomes = {metric: judge(self.prepared.items, rule, score) for metric, rule in self.rules.items()}
        return self.result(self.scores(outcomes), self._rows(outcomes), warnings)

    def result(
        self,
        scores: dict[str, Score],
        rows: list[dict[str, Any]],
        warnings: list[str],
        *,
        shown: Sequence[int] | None = None,
    ) -> TaskResult:
        """Everything that belongs to a result beside the scores.

        Args:
            scores (`dict[str, Score]`):
                The task's numbers.
            rows (`list[dict]`):
                The table of items.
            warnings (`list[str]`):
                What a reader should know.
            shown (`Sequence[int]`, *optional*):
                Item of each row; `rows` holds as many rows for each item, in order, if not given.

        Returns:
            [`~vlcomp.evaluation.TaskResult`]
        """
        if self.headline not in scores:
            raise ArgumentError(f"task {self.name!r} has no score {self.headline!r} on these items; raise limit")
        prepared = self.prepared
        config = {**self.config(), "images": len(prepared.sources), "texts": len(prepared.texts)}
        if self.skip_bad_images:
            skipped = prepared.skipped
            config |= {"skip_bad_images": True, "skipped": len(skipped), "skipped_images": skipped}
        step = max(1, len(rows) // len(prepared.items))

        def pictures(position: int) -> list[Any]:
            item = position // step if shown is None else shown[position]
            return [prepared.sources[i] for i in dict.fromkeys(prepared.image_at[item])][:2]

        return TaskResult(
            task=self.name,
            version=self.version,
            scores=scores,
            references=self._references,
            items=rows,
            config=config,
            headline=self.headline,
            gallery=build_gallery(rows, pictures, seed=self.name) if self.gallery else [],
            warnings=warnings,
        )

    def _warnings(self) -> list[str]:
        prepared = self.prepared
        found = [f"incomplete: {problem}" for problem in prepared.partial]
        if prepared.skipped:
            found.append(f"{plural(len(prepared.skipped), 'image')} could not be read; their items are left out")
        same = sum(
            any(item.texts[k] == item.texts[o] for k in range(len(item.texts)) if k not in own for o in own)
            for item in prepared.items
            for own in (self.own_texts.get(0, ()),)
        )
        if same:
            found.append(
                f"{plural(same, 'item has', 'items have')} the same text as true and as false, and cannot be got right"
            )
        return found

    def _rows(self, outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
        """One row for each item and metric."""
        rows = []
        for position, item in enumerate(self.prepared.items):
            at = self.prepared.image_at[position]
            for metric, outcome in outcomes.items():
                (kind, image, text), (_, false_image, false_text) = outcome.closest[position]
                pair = [image, false_image] if kind == "it" else [0, 0]
                names = [self.prepared.image_names[at[i]] for i in pair]
                rows.append(
                    {
                        "task": self.name,
                        "item_id": item.item_id if len(outcomes) == 1 else f"{item.item_id}/{metric}",
                        "subset": item.subset,
                        "cluster": str(item.independent),
                        "correct": bool(outcome.correct[position]),
                        "tie": bool(outcome.tie[position]),
                        "rank": outcome.rank[position],
                        "margin": float(outcome.margin[position]),
                        "true_score": float(outcome.true_score[position]),
                        "false_score": float(outcome.false_score[position]),
                        "text": item.texts[text],
                        "false_text": item.texts[false_text] if false_text != text else None,
                        "image": names[0],
                        "false_image": names[1] if pair[0] != pair[1] else None,
                    }
                )
        return rows


@dataclass
class _Rows:
    """Values of some items by one metric."""

    items: list[Item]
    values: np.ndarray
    ties: np.ndarray
    chance: np.ndarray

    def score(self) -> Score:
        return Score.from_values(
            self.values,
            [item.independent for item in self.items],
            ties=int(self.ties.sum()),
            chance=float(self.chance.mean()),
        )

    def macro(self, subsets: Sequence[Any], weights: dict[Hashable, float] | None = None) -> Score:
        """Mean of the means of categories."""
        labels = [item.subset for item in self.items]
        chosen = set(subsets)
        at = [i for i, label in enumerate(labels) if label in chosen]
        strata = [labels[i] for i in at]
        means = {name: float(np.mean([self.chance[i] for i in at if labels[i] == name])) for name in chosen}
        if len(chosen) == 1:
            strata, chance = None, float(self.chance[at].mean())
        elif weights is None:
            chance = float(np.mean(list(means.values())))
        else:
            chance = sum(means[name] * weights[name] for name in chosen)
        return Score.from_values(
            self.values[at],
            [self.items[i].independent for i in at],
            ties=int(self.ties[at].sum()),
            chance=chance,
            strata=strata,
            weights=weights,
        )
