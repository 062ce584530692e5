"""Exceptions for input that vlcomp cannot work with.

Each message names the argument or file, the value received and the fix; the command line prints it as one line.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any


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


def check_count(name: str, value: Any, least: int = 1, note: str = "") -> None:
    """Refuse what is no whole number, or too small.

    Args:
        name (`str`):
            The argument.
        value (`Any`):
            What was given for it.
        least (`int`, defaults to 1):
            The smallest value allowed.
        note (`str`, *optional*):
            More on what is allowed, such as `", or None for all items"`.

    Raises:
        ArgumentError: names the argument and the value.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ArgumentError(f"{name}={value!r} must be a whole number{note}")
    if value < least:
        raise ArgumentError(f"{name}={value} must be at least {least}{note}")


def check_number(name: str, value: Any) -> None:
    """Refuse what is no number.

    Args:
        name (`str`):
            The argument.
        value (`Any`):
            What was given for it.

    Raises:
        ArgumentError: names the argument and the value.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentError(f"{name}={value!r} must be a number")
