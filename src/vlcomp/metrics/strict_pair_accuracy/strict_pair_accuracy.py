"""Accuracy of choosing the true one of two alternatives, ties wrong, as a metric of `evaluate`."""

import datasets
import evaluate

from vlcomp.evaluation.scoring import compare_pairs

_DESCRIPTION = """Share of items whose true alternative scores strictly higher than the false one. A tie (scores within
1e-6) is wrong, and counted: taking the first of equal scores, as `argmax` does, makes a model that scores everything
alike perfect. A score that is not a number stops the computation."""

_INPUTS = """
Args:
    true_scores (`list[float]`):
        Score of the true alternative of each item.
    false_scores (`list[float]`):
        Score of the false alternative of each item.

Returns:
    `dict`: `accuracy`; `ties`, the number of tied items; `expected_accuracy`, in which a tie counts one half (for
    reference scorers, which tie by construction); `items`.

Raises:
    EvaluationError: if a score is not finite; names the item.

Example:
    >>> import evaluate
    >>> from vlcomp import metrics
    >>> metric = evaluate.load(metrics.path("strict_pair_accuracy"))
    >>> found = metric.compute(true_scores=[0.9, 0.5, 0.2, 0.8], false_scores=[0.1, 0.5, 0.4, 0.3])
    >>> found["accuracy"], found["ties"], found["expected_accuracy"]
    (0.5, 1, 0.625)
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class StrictPairAccuracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"true_scores": number, "false_scores": number}),
        )

    def _compute(self, true_scores: list[float], false_scores: list[float]) -> dict[str, float]:
        outcome = compare_pairs(true_scores, false_scores)
        return {
            "accuracy": float(outcome.correct.mean()),
            "ties": int(outcome.tie.sum()),
            "expected_accuracy": float(outcome.expected.mean()),
            "items": len(outcome.correct),
        }
