"""The only place where vlcomp registers classes with transformers.

Importing :mod:`vlcomp` runs :func:`register`, so that ``AutoModel``, ``AutoProcessor`` and ``pipeline`` know the
models.
"""


def register() -> None:
    """Register every model, processor and pipeline of the package with transformers (idempotent)."""
