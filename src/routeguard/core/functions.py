"""What is asked of functions that other people wrote."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any


def is_coroutine_function(function: Any) -> bool:
    """Whether calling `function` runs nothing yet: `async def`, also behind `partial`, or as `__call__` of a class."""
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
