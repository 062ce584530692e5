"""Exceptions for input that vlcomp cannot work with.

Each message names the argument or file, the value received and the fix; the command line prints it as one line.
"""


class VlcompError(ValueError):
    """Base class of the errors that a user can fix."""


class ArgumentError(VlcompError):
    """An argument or a combination of arguments is not allowed."""


class DataError(VlcompError):
    """A file, folder or data set cannot be read as what it should be."""


class CheckpointError(VlcompError):
    """A model folder or hub repository lacks something or holds unusable weights."""


class EvaluationError(VlcompError):
    """A measurement cannot be trusted, for instance because a score is not a number."""
