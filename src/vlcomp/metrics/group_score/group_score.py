"""Text, image and group score of items with two images and two captions, as a metric of `evaluate`."""

import datasets
import evaluate

from vlcomp.errors import ArgumentError
from vlcomp.evaluation.scoring import winoground_scores

_CITATION = """@inproceedings{thrush2022winoground,
  title={Winoground: Probing Vision and Language Models for Visio-Linguistic Compositionality},
  author={Thrush, Tristan and Jiang, Ryan and Bartolo, Max and Singh, Amanpreet and Williams, Adina and Kiela, Douwe
    and Ross, Candace},
  booktitle={CVPR},
  year={2022}
}"""

_DESCRIPTION = """An item has two images and two captions; caption i is true of image i. The text score counts items
for which both images score their own caption higher than the other one, the image score those for which both captions
score their own image higher, and the group score those with both. Higher means strictly higher: ties (scores within
1e-6) are wrong, and counted."""

_INPUTS = """
Args:
    scores (`list` of shape [items, 2, 2]):
        `scores[n][i][c]` is the score of image `i` with caption `c` of item `n`.

Returns:
    `dict`: `text_score`, `image_score` and `group_score` as shares of the items; `text_ties` and `image_ties`, the
    number of items with a tied comparison; `items`.

Raises:
    EvaluationError: if a score is not finite; names the item.

Example:
    >>> import evaluate
    >>> from vlcomp import metrics
    >>> metric = evaluate.load(metrics.path("group_score"))
    >>> found = metric.compute(scores=[[[0.9, 0.3], [0.5, 0.6]], [[0.5, 0.5], [0.2, 0.8]]])
    >>> found["text_score"], found["image_score"], found["group_score"], found["text_ties"]
    (0.5, 1.0, 0.5, 1)
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class GroupScore(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        pair = datasets.Sequence(datasets.Sequence(datasets.Value("float64")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"scores": pair}),
        )

    def _compute(self, scores: list) -> dict[str, float]:
        outcome = winoground_scores(_table(scores))
        return {
            "text_score": float(outcome.text.mean()),
            "image_score": float(outcome.image.mean()),
            "group_score": float(outcome.group.mean()),
            "text_ties": int(outcome.text_tie.sum()),
            "image_ties": int(outcome.image_tie.sum()),
            "items": len(outcome.group),
        }


def _table(scores: list) -> list:
    for index, item in enumerate(scores):
        if len(item) != 2 or any(len(row) != 2 for row in item):
            raise ArgumentError(f"scores[{index}] has rows of {[len(row) for row in item]} scores; expected [2, 2]")
    return scores
