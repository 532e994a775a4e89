"""What an ASGI application wraps: the places in which Python keeps one callable inside another."""

from __future__ import annotations

from collections import deque
from functools import partial
from inspect import getattr_static
from types import CellType, FunctionType, MemberDescriptorType, MethodType
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.routing import Router

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_NESTED: Final = 4
_MOST: Final = 1000
"""How many objects are looked at in one application: a bound for object graphs that were made to be large."""


def wrapped_by(app: Any) -> Iterator[Any]:
    """Yield every callable that an ASGI application keeps, nearest first: attributes, slots, closures and arguments.

    Classes and routers are yielded and not opened: a class keeps nothing for one request, and a router has routes.
    """
    pending, seen = deque([app]), {id(app)}
    while pending:
        holder = pending.popleft()
        if isinstance(holder, type) or is_router(holder):
            continue
        for kept, _ in references(holder):
            if id(kept) in seen or not callable(kept):
                continue
            if len(seen) > _MOST:
                return
            seen.add(id(kept))
            yield kept
            pending.append(kept)


def hidden_in(handler: Any) -> Iterator[Any]:
    """Yield the functions that a decorator kept in the closure of the handler it made, and those in their closures.

    Not those beside which the handler was defined: it calls them by their names, and wraps none.
    """
    function = _function_of(handler)
    pending, seen = deque([function]), {id(function)}
    while pending and len(seen) < _MOST:
        outer = pending.popleft()
        for kept, _ in _cells(outer) if outer is not None else ():
            inner = _function_of(kept)
            if inner is None or id(inner) in seen:
                continue
            seen.add(id(inner))
            pending.append(inner)
            if inner.__module__ != function.__module__ or _scope(inner) != _scope(function):
                yield kept


def _function_of(callable_: Any) -> Any:
    """Return the function that a function, a method or a partial runs; None for anything else."""
    while isinstance(callable_, MethodType | partial):
        callable_ = callable_.__func__ if isinstance(callable_, MethodType) else callable_.func
    return callable_ if isinstance(callable_, FunctionType) else None


def _scope(function: Any) -> str:
    """Return the name of the function in which another was defined."""
    scope: str = function.__qualname__.rpartition("<locals>.")[0]
    return scope


def references(holder: Any) -> Iterator[tuple[Any, Callable[[Any], None] | None]]:
    """Yield what an object keeps, each with a function that puts another in its place; attributes `app` first.

    What it keeps in lists, dictionaries, tuples and sets is yielded too. Nothing can be put into the last two.
    """
    for kept, put in _kept_by(holder):
        yield kept, put
        yield from _contained(kept, 0)


def _contained(kept: Any, depth: int) -> Iterator[tuple[Any, Callable[[Any], None] | None]]:
    if depth > _NESTED or not isinstance(kept, dict | list | tuple | set | frozenset):
        return
    places: Iterable[tuple[Any, Any]] = list(kept.items()) if isinstance(kept, dict) else enumerate(list(kept))
    for place, each in places:
        yield each, partial(kept.__setitem__, place) if isinstance(kept, dict | list) else None
        yield from _contained(each, depth + 1)


def _kept_by(holder: Any) -> Iterator[tuple[Any, Callable[[Any], None] | None]]:
    if isinstance(holder, MethodType):
        # Its object is no other application: what that keeps is what the method can call.
        if is_router(holder.__self__):
            yield holder.__self__, None
        elif not isinstance(holder.__self__, type):
            yield from _kept_by(holder.__self__)
        yield from _kept_by(holder.__func__)
        return
    kept = vars(holder) if hasattr(holder, "__dict__") else {}
    for name in sorted(kept, key=lambda name: name != "app"):
        yield kept[name], partial(kept.__setitem__, name)
    if isinstance(holder, partial):
        yield from _arguments(holder)
    elif isinstance(holder, FunctionType):
        yield from _cells(holder)
        yield from _defaults(holder)
    else:
        yield from _slots(holder)
        # A class that was made inside a function keeps in its methods what the function was given.
        called = getattr_static(type(holder), "__call__", None)
        if isinstance(called, FunctionType):
            yield from _cells(called)
            yield from _defaults(called)


def is_router(app: Any) -> bool:
    """Whether `app` hands requests to routes that the guard stands before. Other frameworks' `routes` are not."""
    return isinstance(app, (Starlette, Router))


def _cells(function: FunctionType) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    for cell in function.__closure__ or ():
        if cell != CellType():
            yield cell.cell_contents, partial(setattr, cell, "cell_contents")


def _defaults(function: FunctionType) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    for at, kept in enumerate(function.__defaults__ or ()):
        yield kept, partial(_put_default, function, at)
    named = function.__kwdefaults__ or {}
    for name, kept in list(named.items()):
        yield kept, partial(named.__setitem__, name)


def _put_default(function: FunctionType, at: int, made: Any) -> None:
    kept = function.__defaults__ or ()
    function.__defaults__ = (*kept[:at], made, *kept[at + 1 :])


def _slots(holder: Any) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    for kind in type(holder).__mro__:
        if "__slots__" not in vars(kind):
            continue
        for name, slot in list(vars(kind).items()):
            if isinstance(slot, MemberDescriptorType) and (kept := getattr(holder, name, None)) is not None:
                yield kept, partial(slot.__set__, holder)


def _arguments(holder: partial[Any]) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    for at, kept in enumerate((holder.func, *holder.args)):
        yield kept, partial(_put_argument, holder, at)
    for name, kept in list(holder.keywords.items()):
        yield kept, partial(holder.keywords.__setitem__, name)


def _put_argument(holder: partial[Any], at: int, made: Any) -> None:
    func, *args = [made if here == at else kept for here, kept in enumerate((holder.func, *holder.args))]
    holder.__setstate__((func, tuple(args), holder.keywords, vars(holder)))  # type: ignore[attr-defined]
