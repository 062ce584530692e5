"""Hard-negative captions: false captions that differ from a true one by a word, or by the order of words."""

from .generator import (
    RULES_VERSION,
    TYPE_SETS,
    Negative,
    NegativeGenerator,
    generate_negatives,
    run,
    to_columns,
)

__all__ = [
    "RULES_VERSION",
    "TYPE_SETS",
    "Negative",
    "NegativeGenerator",
    "generate_negatives",
    "run",
    "to_columns",
]
