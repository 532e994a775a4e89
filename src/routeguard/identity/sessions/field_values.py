"""Which values a field can hold, as far as its annotation says so."""

from __future__ import annotations

import difflib
import enum
import types
import typing
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final

from typing_extensions import TypeAliasType

COLLECTIONS: Final = (list, tuple, set, frozenset)
_COLLECTION_HINTS: Final = (*COLLECTIONS, Sequence, AbstractSet)
_PLAIN: Final = (str, int, bool, float, bytes, types.NoneType)
_ALIAS: Final[Any] = TypeAliasType


@dataclass(frozen=True, slots=True)
class Values:
    """Any value of the types `kinds`, and the single ones of `listed` (from Literal and Enum)."""

    kinds: list[type[Any]] = field(default_factory=list)
    listed: list[Any] = field(default_factory=list)

    def finding(self, expected: Any) -> str | None:
        """Return why a field never equals `expected`, or None. Equality takes the type in: 1 is not True."""
        if type(expected) in self.kinds or any(type(one) is type(expected) and one == expected for one in self.listed):
            return None
        kinds = [kind for kind in (*self.kinds, *map(type, self.listed)) if kind is not types.NoneType]
        if type(expected) in kinds:
            held = " or ".join(repr(one) for one in self.listed if one is not None)
        else:
            held = " or ".join(dict.fromkeys(kind.__name__ for kind in kinds))
        return f"holds {held} and never equals {expected!r}{self._nearest(expected)}"

    def _nearest(self, expected: Any) -> str:
        for one in self.listed:
            if isinstance(one, enum.Enum) and expected in (one.name, one.value):
                return f"; did you mean {type(one).__name__}.{one.name}?"
        return nearest(expected, [one for one in self.listed if type(one) is str])


def values_of(hint: Any) -> Values | None:
    """Return the values of an annotation, of a collection's elements where it is one; None when they are not known."""
    found = Values()
    for member in members(hint):
        origin = typing.get_origin(member) or member
        if origin is typing.Literal:
            found.listed.extend(typing.get_args(member))
        elif isinstance(origin, type) and issubclass(origin, enum.Enum) and not issubclass(origin, enum.Flag):
            found.listed.extend(origin)
        elif origin in _PLAIN:
            found.kinds.append(origin)
        else:
            inner = _elements(member) if origin in _COLLECTION_HINTS else None
            if inner is None:
                return None
            found.kinds.extend(inner.kinds)
            found.listed.extend(inner.listed)
    return found


def _elements(hint: Any) -> Values | None:
    found = Values()
    arguments = [one for one in typing.get_args(hint) if one is not Ellipsis]
    for argument in arguments:
        nested = any((typing.get_origin(one) or one) in _COLLECTION_HINTS for one in members(argument))
        inner = None if nested else values_of(argument)
        if inner is None:
            return None
        found.kinds.extend(inner.kinds)
        found.listed.extend(inner.listed)
    return found if arguments else None


def members(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the hint itself, aliases and new types resolved."""
    while isinstance(hint, (typing.NewType, _ALIAS)):
        hint = hint.__supertype__ if isinstance(hint, typing.NewType) else hint.__value__
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return tuple(inner for argument in typing.get_args(hint) for inner in members(argument))
    return (hint,)


def nearest(name: Any, known: Sequence[str]) -> str:
    """Return which of `known` was probably meant by a misspelt name, as the rest of a sentence."""
    found = difflib.get_close_matches(name, known, n=1) if isinstance(name, str) else []
    return f"; did you mean {found[0]!r}?" if found else ""
