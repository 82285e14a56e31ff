"""Functions of whole numbers that stay so when a sweep reads many points at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def elementwise(function: F) -> F:
    """*function*, which of numbers that stand for many points returns what it returns of each.

    Such numbers have a method ``each(function, arguments)``. For rules that search or count, where arithmetic on all
    points at once cannot go.

    >>> elementwise(max)(1, 2)
    2
    """

    @wraps(function)
    def call(*arguments: Any) -> Any:
        for argument in arguments:
            each = getattr(argument, "each", None)
            if each is not None:
                return each(function, arguments)
        return function(*arguments)

    return cast(F, call)
