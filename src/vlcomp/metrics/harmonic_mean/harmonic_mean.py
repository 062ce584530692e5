"""Harmonic mean of the accuracies on base and novel classes, as a metric of `evaluate`."""

import math

import datasets
import evaluate

from vlcomp.errors import EvaluationError

_DESCRIPTION = """Harmonic mean of two accuracies, which is near the lower one: prompt learning is judged by it, for
base classes (seen in training) and novel ones. Of several runs or data sets it is taken for each, and then averaged.
Papers also take it of the two averages, which is a different number; both are given."""

_INPUTS = """
Args:
    base (`list[float]`):
        Accuracy on base classes, for each run or data set.
    novel (`list[float]`):
        Accuracy on novel classes, for each run or data set.

Returns:
    `dict`: `harmonic_mean`, the average of the harmonic means; `harmonic_mean_of_averages`; `base` and `novel`, the
    averages.

Raises:
    EvaluationError: if an accuracy is negative or not finite; names the run.

Example:
    >>> import evaluate
    >>> from vlcomp import metrics
    >>> metric = evaluate.load(metrics.path("harmonic_mean"))
    >>> found = metric.compute(base=[82.42], novel=[75.87])
    >>> round(found["harmonic_mean"], 2)
    79.01
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class HarmonicMean(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"base": number, "novel": number}),
        )

    def _compute(self, base: list[float], novel: list[float]) -> dict[str, float]:
        for name, values in (("base", base), ("novel", novel)):
            for index, value in enumerate(values):
                if not math.isfinite(value) or value < 0:
                    raise EvaluationError(f"{name}[{index}] is {value}; an accuracy is finite and not negative")
        averages = sum(base) / len(base), sum(novel) / len(novel)
        return {
            "harmonic_mean": sum(map(_harmonic, base, novel)) / len(base),
            "harmonic_mean_of_averages": _harmonic(*averages),
            "base": averages[0],
            "novel": averages[1],
        }


def _harmonic(one: float, other: float) -> float:
    return 2 * one * other / (one + other) if one + other else 0.0
