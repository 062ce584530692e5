"""Analyses of trained models: ease of learning, smoothness, use of the codebook, topographic similarity."""

import importlib
from typing import Any

# Loaded on first use: the analyses have little in common but their place.
_LAZY: dict[str, str] = {
    "Checkpoint": "runs",
    "CodeUse": "codebook",
    "CodebookReport": "codebook",
    "EaseOfLearning": "ease",
    "Smoothness": "lipschitz",
    "TopographicSimilarity": "topography",
    "codebook_report": "codebook",
    "ease_of_learning": "ease",
    "line_chart": "figures",
    "list_checkpoints": "runs",
    "smoothness": "lipschitz",
    "topographic_similarity": "topography",
    "write_codebook_page": "codebook",
    "write_figure": "figures",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
