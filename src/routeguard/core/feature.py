"""A feature: one frozen value that says all a slice contributes. Built-in ones use the same mechanism."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routeguard.core.events import Event
    from routeguard.core.problem import ProblemType
    from routeguard.core.services import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """What one slice can contribute, passed in a list: ``Routeguard(features=[*defaults(), DeviceTrust()])``.

    `register` puts its services into the look-up, in list order; `routes` returns its HTTP endpoints once services
    exist; `listeners` are called with committed events. Nothing else of a slice reaches the application.
    """

    name: str
    register: Callable[[Services, Any], None] | None = None
    routes: Callable[[Services], Sequence[Any]] | None = None
    tables: tuple[Any, ...] = ()
    problems: tuple[ProblemType, ...] = ()
    events: tuple[type[Event], ...] = ()
    listeners: Callable[[Services], Sequence[tuple[type[Event], Any]]] | None = None
    records: bool = True
    """Whether it needs the database, or a slice that does. Without any that do, none is opened."""
    steps: Callable[[Services], Sequence[Any]] | None = None
    """Sign-in steps between proof and session, in the order of the feature list."""
