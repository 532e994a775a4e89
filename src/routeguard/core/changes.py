"""Hooks in the transaction of a change: what they write and the change are stored together, or neither is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

C = TypeVar("C")

ChangeHook = Callable[[Any, C], Awaitable[None]]
"""Takes the transaction and the change. What it raises undoes the change."""


class Changes:
    """Hooks by the class of the change. Complete before the first request."""

    __slots__ = ("_hooks",)

    def __init__(self) -> None:
        self._hooks: dict[type[Any], list[ChangeHook[Any]]] = {}

    def add(self, change: type[C], hook: ChangeHook[C]) -> None:
        """Call `hook` for every change of exactly this class, after those added before."""
        self._hooks.setdefault(change, []).append(hook)

    def unknown(self, declared: Iterable[type[Any]]) -> list[str]:
        """Return a finding for every class that has hooks and is not among those that features declare."""
        known = set(declared)
        names = [kind.__qualname__ for kind in self._hooks if kind not in known]
        return [f"a hook waits for changes of the class {name}, which no feature in features makes" for name in names]

    async def run(self, tx: Any, change: Any) -> None:
        """Call the hooks of a change in its transaction, in order."""
        for hook in self._hooks.get(type(change), ()):
            await hook(tx, change)
