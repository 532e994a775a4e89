"""Refuses, when a class of checks is made, every member that the guard would not read as it was meant."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import Field
from difflib import SequenceMatcher
from functools import cached_property, partialmethod
from types import FunctionType, MemberDescriptorType
from typing import Any, ClassVar, Final, get_origin

if sys.version_info >= (3, 14):
    from annotationlib import Format, get_annotations

    def _annotations(kind: type[Any]) -> dict[str, Any]:
        return get_annotations(kind, format=Format.FORWARDREF)  # They may name what is not defined yet.

else:
    from inspect import get_annotations as _annotations

_CLASS_VAR: Final[Any] = ClassVar
_REPLACED: Final = {"unfit": "conflicts", "unfit_with": "conflicts", "presents_for": "presents"}
"""Names that members had before; a method left under one would be skipped without a word."""
_ALIKE: Final = 0.9
"""A letter too many, too few or wrong: `attack`, `described`, `atacks`. Not `status` (statuses) or `nonce` (once)."""
_PER_INSTANCE: Final = (property, cached_property, MemberDescriptorType, Field)
"""What may stand in a class for a `stage` that each of its instances has for itself."""


def findings_of(cls: type[Any], base: type[Any], stages: type[Any]) -> list[str]:
    """Return what is wrong with a subclass of `base`, whose public members are those that the guard reads.

    A field, or a helper of any other name, is the check's own. Called again for the class that
    ``@dataclass(slots=True)`` makes of the first one.
    """
    declared = {name: member for name, member in vars(base).items() if not name.startswith("_")}
    fields = {name for kind in _between(cls, base) for name in _fields(kind)}
    findings = [f"{cls.__qualname__}.{line}" for line in _misspelt(cls, base, (*declared, "stage"))]
    for name, member in declared.items():
        found = inspect.getattr_static(cls, name)
        what: str | None
        if name in fields:
            what = f"{name} is a field, but the guard reads {_signature(name, member)} of the class: rename the field"
        elif found is member:
            continue
        elif isinstance(member, FunctionType):
            what = _wrong_method(name, found, member, cls)
        else:
            what = _wrong_value(name, found, member)
        findings += [f"{cls.__qualname__}.{what}"] if what else []
    if not _is_abstract(cls) and (what := _wrong_stage(cls, stages, is_field="stage" in fields)):
        findings.append(f"{cls.__qualname__}.{what}")
    return findings


def takes(function: Callable[..., Any], count: int) -> bool:
    """Return whether `function` can be called with `count` arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # Written in C, without a signature.
        return True
    return True


def _is_abstract(cls: type[Any]) -> bool:
    """Return whether `cls` leaves a method to its subclasses. ABCMeta says so only when the class is complete."""
    return any(getattr(inspect.getattr_static(cls, name, None), "__isabstractmethod__", False) for name in dir(cls))


def _between(cls: type[Any], base: type[Any]) -> Iterator[type[Any]]:
    """Yield `cls` and what it is made of beside `base`."""
    return (kind for kind in cls.__mro__ if kind not in base.__mro__)


def _fields(kind: type[Any]) -> Iterator[str]:
    """Yield the names that a class annotates, those of class variables excepted."""
    for name, annotation in _annotations(kind).items():
        # With `from __future__ import annotations`, it is text.
        text = annotation if isinstance(annotation, str) else ""
        of_class = annotation is _CLASS_VAR or get_origin(annotation) is _CLASS_VAR
        if not of_class and not text.split("[")[0].endswith("ClassVar"):
            yield name


def _misspelt(cls: type[Any], base: type[Any], names: Iterable[str]) -> Iterator[str]:
    """Yield the members of a class that mean to be declared ones."""
    for kind in _between(cls, base):
        if kind is not cls and issubclass(kind, base):
            continue  # Looked at when it was made.
        own = set(_fields(kind))
        for name in vars(kind):
            if name.startswith("_") or name in own or name in names:
                continue
            if name in _REPLACED:
                yield f"{name} is not read any more: write {_signature(_REPLACED[name], vars(base)[_REPLACED[name]])}"
            elif meant := next((known for known in names if _is_like(name, known)), None):
                yield f"{name} is not read: write {meant} if that is meant, else give it another name"


def _is_like(name: str, known: str) -> bool:
    """Return whether `name` is `known` with a letter wrong, or with letters in another order."""
    if sorted(name) == sorted(known) and name[0] == known[0]:
        return True
    return SequenceMatcher(None, name, known).ratio() > _ALIKE


def _wrong_method(name: str, found: Any, member: FunctionType, cls: type[Any]) -> str | None:
    wanted = _signature(name, member)
    plain = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
    if isinstance(found, type) or not (callable(plain) or isinstance(plain, partialmethod)):
        return f"{name} is a {type(found).__name__}, but the guard calls {wanted}: give it another name"
    if inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain):
        return f"{name} is asynchronous, but the guard calls {wanted} at start-up without awaiting it"
    count = len(inspect.signature(member).parameters)
    if isinstance(found, FunctionType):
        fits = takes(found, count)
    else:
        bound: Any = found.__get__(object(), cls) if hasattr(found, "__get__") else found
        fits = takes(bound, count - 1)
    return None if fits else f"{name} does not take what the guard calls it with: {wanted}"


def _wrong_value(name: str, found: Any, default: Any) -> str | None:
    if type(found) is not type(default):
        return f"{name} is {found!r}, not a {type(default).__name__} such as {default!r}"
    if isinstance(found, tuple) and not all(isinstance(one, int) for one in found):
        return f"{name} is {found!r}, not HTTP statuses"
    return None


def _wrong_stage(cls: type[Any], stages: type[Any], *, is_field: bool) -> str | None:
    found = inspect.getattr_static(cls, "stage", None)
    if isinstance(found, (stages, *_PER_INSTANCE)) or (found is None and is_field):
        return None
    if found is None:
        return "stage is missing: write `stage = Stage.ACCESS`, or another of routeguard.Stage, in the class"
    return f"stage is {found!r}, not one of routeguard.Stage, a field or a property"


def _signature(name: str, member: Any) -> str:
    if not isinstance(member, FunctionType):
        return f"`{name}`"
    return f"`{name}({', '.join(inspect.signature(member).parameters)})`"
