"""VSR, zero-shot split: is a sentence about the places of two objects true of an image?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ..encoding import check_model
from ..scoring import check_scores, settle
from ..task import Score, TaskResult
from .base import BenchmarkTask, Prepared
from .comparisons import Item, Picture
from .facts import COCO_2017, Benchmark, OfficialFile, Published
from .files import read_json_lines, required_number, required_text
from .verification import auc_score, best_threshold


class Vsr(BenchmarkTask):
    """Is a sentence about the places of two objects true or false of an image?

    *Source*: https://huggingface.co/datasets/cambridgeltl/vsr_zeroshot, JSON lines with `image`, `caption`, `label`
    (1 or 0) and `relation`; images are COCO train2017 and val2017.

    *Licence*: Apache-2.0 (the repository; the card on the hub says CC-BY-4.0); images see `facts.images`.

    *Convention*: accuracy on the test split is the official score, and it needs a yes or no. The authors get it from
    models that are trained on the train split; their CLIP (frozen) is a classifier on CLIP's features. For a dual
    encoder there is no official rule. Here a sentence counts as true if its score lies above a threshold, the one with
    the highest accuracy on the dev split (340 items); the 1,222 test items are not used for it. `accuracy` is the
    headline; `auc`, the probability that a true item scores strictly higher than a false one, needs no threshold.
    Beside it stands `majority`: the more frequent answer of the dev split given to every item.

    With `limit` the test items are limited; the dev split is always used as a whole.

    Args are those of [`BenchmarkTask`].
    """

    facts = Benchmark(
        name="vsr",
        title="VSR (zero-shot split)",
        folder="vsr_zeroshot",
        url="https://huggingface.co/datasets/cambridgeltl/vsr_zeroshot",
        licence="Apache-2.0 (repository), CC-BY-4.0 (card on the hub)",
        citation="Liu, Emerson, Collier, Visual Spatial Reasoning, TACL 2023, arXiv:2205.00363",
        images=COCO_2017,
        files=(
            OfficialFile("dev.jsonl", 340, "0abda42fe9333ab6a8671b32886738b5cfa6d37a8c277b56d8368c339c8dffce", 107245),
            OfficialFile(
                "test.jsonl", 1222, "914d9156723b912d8f794b179248af865a68c5f81c9d8e3a21d007778cacaad4", 380380
            ),
        ),
        items=1562,
        published=(
            Published(
                "CLIP (frozen, with a trained classifier)",
                {"accuracy": 0.545},
                "github.com/cambridgeltl/visual-spatial-reasoning, README",
            ),
        ),
        human=Published("human", {"accuracy": 0.954}, "github.com/cambridgeltl/visual-spatial-reasoning, README"),
        notes="The published accuracies belong to trained classifiers, not to a threshold on similarities. "
        "train.jsonl (3,489 items) is not used.",
    )
    version = "1"
    description = "is a sentence on spatial relations true of an image: accuracy and AUC"
    convention = "accuracy on test at the threshold that is best on dev; AUC with ties wrong"
    headline = "accuracy"
    own_texts = {}

    def read(self, path: Path, file: OfficialFile) -> Iterable[Item]:
        """Read one split; see [`BenchmarkTask.read`]."""
        for key, where, row in read_json_lines(path):
            label = required_number(row, "label", where)
            if label not in (0, 1):
                raise DataError(f"{where} has label={label}; expected 0 or 1")
            tags = frozenset({path.stem, *(["true"] if label else [])})
            name, caption = required_text(row, "image", where), required_text(row, "caption", where)
            relation = required_text(row, "relation", where)
            yield Item(f"{path.stem}/{key}", (Picture(name),), (caption,), relation, tags=tags)

    def limited(self, items: list[Item], limit: int) -> list[Item]:
        """About `limit` items of the test split, and the whole dev split."""
        dev = [item for item in items if "dev" in item.tags]
        return dev + super().limited([item for item in items if "test" in item.tags], limit)

    def _official_items(self) -> Prepared:
        prepared = super()._official_items()
        for split in ("dev", "test"):
            if len({"true" in item.tags for item in prepared.items if split in item.tags}) < 2:
                raise DataError(
                    f"task {self.name!r} needs true and false items in both splits, the threshold from dev.jsonl and "
                    f"the scores from test.jsonl; {self.folder / split}.jsonl does not hold both"
                )
        return prepared

    def run(self, model: Any, *, progress: bool = False) -> TaskResult:
        """Measure a model; see [`~vlcomp.evaluation.Task.run`]."""
        check_model(model)
        warnings = self._warnings()
        scorer = self.embedding_scorer(model, warnings, progress=progress)
        items = self.prepared.items
        scores = scorer(list(range(len(items))), ("it", 0, 0))
        check_scores(scores[:, None], [item.item_id for item in items])
        labels = np.array(["true" in item.tags for item in items])
        dev = np.array(["dev" in item.tags for item in items])
        threshold = best_threshold(scores[dev], labels[dev])
        test = np.flatnonzero(~dev)
        clusters = [items[i].independent for i in test]
        margins = settle(scores - threshold)
        correct = np.where(labels, margins > 0, margins < 0)
        found = {
            "accuracy": Score.from_values(correct[test], clusters, ties=int((margins[test] == 0).sum()), chance=0.5),
        }
        if len(set(labels[test].tolist())) == 2:  # a small limit may leave only one kind
            found["auc"] = auc_score(scores[test], labels[test], clusters)
        rows = [
            {
                "task": self.name,
                "item_id": items[i].item_id,
                "subset": items[i].subset,
                "cluster": str(items[i].independent),
                "correct": bool(correct[i]),
                "tie": bool(margins[i] == 0),
                "margin": float(margins[i]) * (1 if labels[i] else -1),
                "true_score": float(scores[i]) if labels[i] else float(threshold),
                "false_score": float(threshold) if labels[i] else float(scores[i]),
                "text": items[i].texts[0] if labels[i] else None,
                "false_text": None if labels[i] else items[i].texts[0],
                "image": self.prepared.image_names[self.prepared.image_at[i][0]],
            }
            for i in test
        ]
        result = self.result(found, rows, warnings, shown=[int(i) for i in test])
        result.config |= {"threshold": threshold, "threshold_from": f"dev split, {int(dev.sum())} items"}
        return result

    def reference_scores(self) -> dict[str, dict[str, Score]]:
        """The more frequent answer of the dev split."""
        items = self.prepared.items
        labels = np.array(["true" in item.tags for item in items])
        dev = np.array(["dev" in item.tags for item in items])
        answer = labels[dev].mean() > 0.5
        clusters = [item.independent for item, other in zip(items, dev, strict=True) if not other]
        return {"majority": {"accuracy": Score.from_values(labels[~dev] == answer, clusters, chance=0.5)}}
