"""Scores as metrics of the `evaluate` library; each one a folder that `evaluate.load` takes by its path."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from ..errors import ArgumentError

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Names of the metrics.

    Returns:
        `list[str]`

    Example:
        >>> from vlcomp import metrics
        >>> metrics.names()
        ['group_score', 'harmonic_mean', 'retrieval_recall', 'strict_pair_accuracy']
    """
    return sorted(file.stem for file in _FOLDER.glob("*/*.py") if file.stem == file.parent.name)


def path(name: str) -> str:
    """Where a metric is, for `evaluate.load`.

    Args:
        name (`str`):
            One of [`names`].

    Returns:
        `str`: a folder.

    Raises:
        ArgumentError: for an unknown name.

    Example:
        >>> import evaluate
        >>> from vlcomp import metrics
        >>> metric = evaluate.load(metrics.path("strict_pair_accuracy"))
        >>> metric.compute(true_scores=[0.9, 0.5], false_scores=[0.1, 0.5])["accuracy"]
        0.5
    """
    known = names()
    if name not in known:
        close = get_close_matches(name, known, 2) or known
        raise ArgumentError(f"name={name!r} is no metric; did you mean {' or '.join(map(repr, close))}?")
    return str(_FOLDER / name)
