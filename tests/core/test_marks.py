"""Marks: what can carry one, what of it is found again, and what is a ConfigError at the line that wrote it."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from routeguard.core.errors import ConfigError
from routeguard.core.marks import mark, policy_of
from routeguard.core.policy import Policy, public
from tests.conformance.wire import Key, admin, key

if TYPE_CHECKING:
    from collections.abc import Callable

other = Policy.of(Key(b"x-other"))


async def handler(*_: Any) -> str:
    """Stand for any handler."""
    return "handler"


def fresh() -> Any:
    """Return a new handler, so that marks do not meet."""

    async def handler(*_: Any) -> str:
        return "handler"

    return handler


class View:
    """Groups handlers, as class-based views of other libraries do."""

    async def list(self) -> str:
        return "list"

    @property
    def shown(self) -> str:
        return "shown"

    partial = functools.partialmethod(handler)


class Slotted:
    """Has nowhere to keep a mark."""

    __slots__ = ()

    async def __call__(self) -> str:
        return "slotted"


class Forgetful(View):
    """Keeps no attribute it is given."""

    def __setattr__(self, name: str, value: Any) -> None:
        return None

    async def __call__(self) -> str:
        return "forgetful"


class Model(BaseModel):
    """An object of pydantic, which is careful about attributes."""

    async def __call__(self) -> str:
        return "model"


@pytest.mark.parametrize(
    "target",
    [
        "handler",
        None,
        1,
        True,
        [],
        {},
        object(),
        math,
        public,
        View(),
        View,
        BaseModel,
        dict,
        View().list,
        View.shown,
        View.__dict__["partial"],
        Slotted(),
        Forgetful(),
        print,
        len,
        functools.partial,
        3.5,
        b"handler",
        ...,
    ],
    ids=lambda target: type(target).__name__,
)
def test_what_cannot_keep_a_policy_is_an_error_where_it_is_written(target: Any) -> None:
    with pytest.raises(ConfigError):
        mark(target, key)


def test_a_coroutine_is_no_handler() -> None:
    called = handler()
    with pytest.raises(ConfigError):
        mark(called, key)
    called.close()


def wraps(function: Any, **options: Any) -> Any:
    @functools.wraps(function, **options)
    async def wrapper(*arguments: Any) -> Any:
        return await function(*arguments)

    return wrapper


class Callables:
    """Objects that are called."""

    async def __call__(self) -> str:
        return "called"

    async def other(self) -> str:
        return "other"


class MarkedCall:
    """Its `__call__` carries the mark."""

    async def __call__(self) -> str:
        return "called"

    async def other(self) -> str:
        return "other"


@functools.partial(mark, policy=key)
class Marked:
    """It carries the mark itself."""

    async def __call__(self) -> str:
        return "called"


mark(MarkedCall.__call__, key)

MADE: dict[str, Callable[[], Any]] = {
    "function": lambda: mark(fresh(), key),
    "lambda": lambda: mark(lambda *_: None, key),
    "partial": lambda: mark(functools.partial(fresh()), key),
    "partial of a marked one": lambda: functools.partial(functools.partial(mark(fresh(), key))),
    "object": lambda: mark(Callables(), key),
    "object with a marked __call__": MarkedCall,
    "partial of an object with a marked __call__": lambda: functools.partial(MarkedCall()),
    "object of pydantic": lambda: mark(Model(), key),
    "object of a marked class": Marked,
    "object of a class made from a marked one": type("Own", (Marked,), {}),
    "above a decorator": lambda: mark(wraps(fresh()), key),
    "below a decorator": lambda: wraps(mark(fresh(), key)),
    "below a decorator that copies no attributes": lambda: wraps(mark(fresh(), key), updated=()),
    "below two of them": lambda: wraps(wraps(mark(fresh(), key), updated=()), updated=()),
    "cached": lambda: functools.lru_cache(mark(fresh(), key)),
    "bound method": lambda: type("Own", (), {"show": mark(fresh(), key)})().show,
    "bound __call__ of a marked object": lambda: mark(Callables(), key).__call__,
    "bound __call__ of a marked class": lambda: Marked().__call__,
    "bound method of a marked object": lambda: mark(Callables(), key).other,
    "bound method of a class made from a marked one": lambda: type("Own", (Marked,), {"show": fresh()})().show,
    "partial of a bound method of a marked object": lambda: functools.partial(mark(Callables(), key).other),
    "class method of a marked class": lambda: type("Own", (Marked,), {"show": classmethod(fresh())}).show,
    "static method": lambda: type("Own", (), {"show": mark(staticmethod(fresh()), key)}).show,
    "static method of an object": lambda: type("Own", (), {"show": mark(staticmethod(fresh()), key)})().show,
    "marked below @staticmethod": lambda: type("Own", (), {"show": staticmethod(mark(fresh(), key))}).show,
    "class method": lambda: type("Own", (), {"show": mark(classmethod(fresh()), key)}).show,
    "marked below @classmethod": lambda: type("Own", (), {"show": classmethod(mark(fresh(), key))})().show,
}


@pytest.mark.parametrize("name", MADE)
def test_a_mark_is_found_again(name: str) -> None:
    assert policy_of(MADE[name]()) == key


@pytest.mark.parametrize(
    "handler",
    [
        fresh(),
        functools.partial(fresh()),
        Callables(),
        Callables,
        wraps(fresh()),
        Callables().other,
        MarkedCall().other,
    ],
)
def test_what_is_not_marked_has_no_policy(handler: Any) -> None:
    assert policy_of(handler) is None


class Base:
    """Marked, and the classes made from it are marked again."""

    async def __call__(self) -> str:
        return "called"


def twice() -> dict[str, Any]:
    base = mark(type("Marked", (Base,), {}), key)
    return {
        "the same": mark(mark(fresh(), key), admin),
        "a partial": mark(functools.partial(mark(fresh(), key)), admin),
        "a decorator": mark(wraps(mark(fresh(), key)), admin),
        "a decorator that copies no attributes": mark(wraps(mark(fresh(), key), updated=()), admin),
        "a class and its object": mark(base(), admin),
        "a class and one made from it": mark(type("Child", (base,), {}), admin)(),
        "an object and its __call__": mark(MarkedCall(), admin),
    }


@pytest.mark.parametrize("name", twice())
def test_marks_add_up(name: str) -> None:
    policy = policy_of(twice()[name])
    assert policy is not None
    assert set(policy.checks) == set((key & admin).checks)
    assert len(policy.checks) == 2


def test_marking_a_class_or_a_partial_leaves_what_it_is_made_of_alone() -> None:
    function = fresh()
    mark(functools.partial(function), key)
    mark(wraps(function), key)
    assert policy_of(function) is None
    child = mark(type("Child", (Base,), {}), key)
    assert policy_of(Base) is None
    mark(child(), other)
    assert policy_of(child()) == key


def test_a_circle_ends() -> None:
    one, two = fresh(), fresh()
    one.__wrapped__, two.__wrapped__ = two, one
    mark(two, key)
    assert policy_of(one) == key
