"""Matching of user fields: which users a policy such as ``session(user={"role": ["admin", "moderator"]})`` admits."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from routeguard.identity.sessions.field_values import COLLECTIONS, Values, members, nearest, values_of

Match: TypeAlias = Mapping[str, Any]
"""Field names, dotted names or nested mappings to what is expected of them; all must hold."""

_MISSING: Final = object()
_EXACT: Final = frozenset({str, int, bool})
_SENTINELS: Final = (Ellipsis, NotImplemented, dataclasses.MISSING, inspect.Parameter.empty, inspect.Signature.empty)


@dataclass(frozen=True, slots=True)
class FieldMatch:
    """One requirement: the field at `path` is one of `any_of`; None asks only that the field is there.

    `kinds` are the types of `any_of`. They take part in equality, because 1 == True and yet is not the same wish.
    """

    path: tuple[str, ...]
    any_of: tuple[Any, ...] | None
    kinds: tuple[type[Any], ...] = ()

    def holds(self, user: Any) -> bool:
        """Return whether `user` meets it. A field that is missing or None never does."""
        return self.admits(self.read(user))

    def read(self, user: Any) -> Any:
        """Return the field of `user`; a missing one is None, which nothing matches."""
        value = user
        for name in self.path:
            value = _field(value, name)
            if value is _MISSING or value is None:
                return None
        return value

    def admits(self, value: Any) -> bool:
        """Return whether a value of the field meets it."""
        if value is None:
            return False
        if self.any_of is None:
            return True
        for one in value if isinstance(value, COLLECTIONS) else (value,):
            for expected in self.any_of:
                if _same(one, expected):
                    return True
        return False

    def compiled(self, user_class: type[Any] | None) -> Callable[[Any], bool]:
        """Return `holds` for users of one class: a look into a set where the field is a plain one of theirs."""
        if len(self.path) != 1 or not self.any_of or user_class is None or not dataclasses.is_dataclass(user_class):
            return self.holds
        name = self.path[0]
        if name not in {field.name for field in dataclasses.fields(user_class)}:
            return self.holds
        read = operator.attrgetter(name)
        try:
            wanted = frozenset((type(one), one) for one in self.any_of)
        except TypeError:
            return self.holds

        def among(user: Any) -> bool:
            if type(user) is not user_class:
                return self.holds(user)
            value = read(user)
            # Equal and of the same type; a collection's members, and what cannot be hashed, are looked at one by one.
            return (type(value), value) in wanted if type(value) in _EXACT else self.holds(user)

        return among

    def describe(self) -> str:
        """Return it in words, for the matrix."""
        name = ".".join(self.path)
        if self.any_of is None:
            return f"user.{name} is set"
        return f"user.{name} is {' or '.join(map(_word, self.any_of)) or 'nothing that exists'}"


def match_user(user: Any, match: Match) -> bool:
    """Return whether `user` (an object or a mapping) meets every requirement of `match`.

    An expected scalar must be equal and of the same type: no coercion, so 1 is not True and "1" is not 1. An expected
    list, tuple or set means any of its elements. Dotted names and nested mappings reach into nested values. A field
    that holds a collection matches when an expected value is in it. ``{}`` matches every user and ``[]`` none. A
    missing field never matches, whatever is expected; nor does None, so that an unset variable admits no user.
    """
    return all(requirement.holds(user) for requirement in flatten(match))


def flatten(match: Match, prefix: tuple[str, ...] = ()) -> tuple[FieldMatch, ...]:
    """Return `match` as hashable requirements, in the order written."""
    found: list[FieldMatch] = []
    for name, expected in match.items():
        path = (*prefix, *str(name).split("."))
        if isinstance(expected, Mapping):
            found.extend(flatten(expected, path) if expected else [FieldMatch(path, None)])
            continue
        # Sets have no order of their own; policies are compared and printed, so they get one.
        wanted = sorted(expected, key=repr) if isinstance(expected, AbstractSet) else expected
        any_of = tuple(wanted) if isinstance(wanted, COLLECTIONS) else (wanted,)
        found.append(FieldMatch(path, any_of, tuple(type(one) for one in any_of)))
    return tuple(found)


def check_fields(
    requirements: Iterable[FieldMatch],
    user_class: type[Any] | None,
    *,
    listed: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """Return what is wrong with `requirements` for a user class; an empty list when nothing is.

    A misspelt field, or a value the field never has, refuses every user; an expectation of None admits none or, read
    otherwise, everybody. All of these can be told before the first request. `listed` are the values of fields whose
    annotation does not list them.
    """
    findings: list[str] = []
    for requirement in requirements:
        name = ".".join(requirement.path)
        for expected in requirement.any_of or ():
            if _is_unset(expected):
                findings.append(f"user field {name!r} is expected to be {expected!r}: is a variable unset?")
            elif isinstance(expected, (*COLLECTIONS, Mapping)):
                findings.append(f"user field {name!r} expects a {type(expected).__name__} inside a list: flatten it")
        found = [] if user_class is None else _check_path(requirement, user_class)
        if not found and listed is not None and name in listed:
            found = _check_values(requirement, Values([], list(listed[name])))
        findings += found
    return findings


def _is_unset(expected: Any) -> bool:
    return expected is None or any(expected is sentinel for sentinel in _SENTINELS)


def _check_path(requirement: FieldMatch, user_class: type[Any]) -> list[str]:
    hint: Any = user_class
    for name in requirement.path:
        owners = [kind for kind in members(hint) if kind is not types.NoneType]
        if not owners or any(_is_open(kind) for kind in owners):
            return []
        hints = [found for kind in owners if (found := _hint(kind, name)) is not _MISSING]
        if not hints:
            path = ".".join(requirement.path)
            within = "" if path == name else f", which {path!r} names"
            return [f"{owners[0].__name__} has no field {name!r}{within}{nearest(name, _names(owners[0]))}"]
        hint = hints[0] if len(hints) == 1 else Any
    values = values_of(hint)
    return [] if values is None else _check_values(requirement, values)


def _check_values(requirement: FieldMatch, values: Values) -> list[str]:
    """Name expectations the field never meets."""
    name = ".".join(requirement.path)
    comparable = [
        one for one in requirement.any_of or () if not _is_unset(one) and not isinstance(one, (*COLLECTIONS, Mapping))
    ]
    return [f"user field {name!r} {finding}" for one in comparable if (finding := values.finding(one))]


def _names(kind: Any) -> list[str]:
    """Return the names of a class's fields, for a word on the one that was meant."""
    origin: type[Any] = typing.get_origin(kind) or kind
    return [name for base in origin.__mro__ for name in vars(base).get("__annotations__", ())]


def _is_open(kind: Any) -> bool:
    """Whether fields of `kind` cannot be known: Any, mappings, classes without annotations."""
    origin = typing.get_origin(kind) or kind
    if not isinstance(origin, type) or origin is object:
        return True
    if typing.is_typeddict(origin):
        return False
    return issubclass(origin, Mapping)


def _hint(kind: Any, name: str) -> Any:
    """Return the annotation of field `name`, Any when it exists without one, or _MISSING."""
    origin: Any = typing.get_origin(kind) or kind
    if name.startswith("_"):
        return _MISSING
    try:
        hints = typing.get_type_hints(origin)
    except NameError:
        # Annotations that only exist for type checkers cannot be read; their names still can.
        hints = {field: Any for base in origin.__mro__ for field in vars(base).get("__annotations__", {})}
    if name in hints:
        return Any if isinstance(hints[name], typing.TypeVar) else hints[name]
    return Any if _declares(origin, name) else _MISSING


@functools.lru_cache(maxsize=1024)
def _declares(kind: Any, name: str) -> bool:
    """Whether instances have a property or a slot of that name. Methods and constants of the class are no fields."""
    found = inspect.getattr_static(kind, name, _MISSING)
    return isinstance(found, property) or inspect.isdatadescriptor(found)


def _field(value: Any, name: str) -> Any:
    """Return a field's value, or _MISSING. Private names and what a class merely inherits are never fields."""
    if isinstance(value, Mapping):
        return value.get(name, _MISSING)
    if name.startswith("_"):
        return _MISSING
    kind: Any = type(value)
    if _declares(kind, name) or name in getattr(value, "__dict__", ()):
        return getattr(value, name, _MISSING)
    return _MISSING


def _same(value: Any, expected: Any) -> bool:
    return type(value) is type(expected) and expected is not None and bool(value == expected)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
