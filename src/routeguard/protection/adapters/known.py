"""The adapters there are, each loaded with its framework: the package itself needs none."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from routeguard.protection.adapters.protocol import not_an_application

if TYPE_CHECKING:
    from collections.abc import Iterator

    from routeguard.protection.adapters.protocol import Adapter

# What is made of another stands before that.
_KNOWN: Final = (
    ("fastapi", "routeguard.protection.adapters.fastapi.adapter"),
    ("starlette", "routeguard.protection.adapters.starlette.adapter"),
)


def adapters() -> Iterator[Adapter]:
    """Yield the adapters of the frameworks that this process has loaded: it has no application of another."""
    for framework, module in _KNOWN:
        if framework in sys.modules:
            yield import_module(module).ADAPTER


def adapter_for(app: Any) -> Adapter:
    """Return the adapter for an application or router. Raises ConfigError for what is neither."""
    for adapter in adapters():
        if adapter.handles(app):
            return adapter
    raise not_an_application(app)


def is_routed(app: Any) -> bool:
    """Whether an object is an application or router of a framework, whose handlers are asked about one by one."""
    return any(adapter.handles(app) for adapter in adapters())


def take_seams() -> None:
    """Take the seam of every framework that is installed, loading the one that the others are made of.

    Before the first mark is made: an application whose `install` was forgotten is refused what carries a mark, and it
    may be made, and its framework loaded, after that.
    """
    with suppress(ModuleNotFoundError):
        import_module("starlette")
    for adapter in adapters():
        adapter.take_seam()
