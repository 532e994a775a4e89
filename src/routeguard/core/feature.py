"""A feature: one frozen value that says all a slice contributes. Built-in ones use the same mechanism."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

if TYPE_CHECKING:
    from pathlib import Path

    from routeguard.core.events import Event
    from routeguard.core.problem import ProblemType
    from routeguard.core.provided import Provided
    from routeguard.core.services import Services
    from routeguard.core.setup import Setup

S = TypeVar("S", default=Any)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature(Generic[S]):
    """What one slice contributes, passed in a list: ``Routeguard(features=[*defaults(), device_trust])``.

    `setup` is called once per event loop, in the order of `requires`, with all that it may plug into. What a feature
    declares here is compared with what the others declare: a name that two of them use is a ConfigError at start-up.
    """

    name: str
    requires: tuple[str, ...] = ()
    """Features that must be in the list too. They are set up before this one, wherever they stand in it."""
    settings: type[S] | None = None
    """The dataclass of its own settings: `ROUTEGUARD_<NAME>_...` and `[tool.routeguard.<name>]`, all with defaults."""
    setup: Callable[[Setup[S]], None] | None = None
    """Registers services and plugs them in. Raises ConfigError for whatever can be known to be wrong."""
    routes: Callable[[Services], Sequence[Any]] | None = None
    """Returns its `Endpoint`s, once the services of all features exist. Starlette's routes, marked, will do too."""
    tables: tuple[Any, ...] = ()
    """Tables in `routeguard.records.metadata`, called `routeguard_...`; a deployment's prefix takes that place."""
    migrations: Path | None = None
    """The folder of the revisions that make and change its tables: `0001_first.py` with the revision `<name>_0001`."""
    problems: tuple[ProblemType, ...] = ()
    events: tuple[type[Event], ...] = ()
    """The classes of the events that it records."""
    changes: tuple[type[Any], ...] = ()
    """The classes of the changes into whose transaction others may put a hook (`Setup.within`)."""
    provides: tuple[Provided[Any], ...] = ()
    """The principals that handlers may take by ``Depends(guard.provided(Kind))``, and what each requires."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """Commands of `routeguard`: the ``"package.module:name"`` of a function or a cyclopts `App`, imported when run."""
    verify: Callable[[Any, type[Any]], Iterable[str]] | None = None
    """Returns what is wrong with the settings or the application's class of users, before anything is made."""
    records: bool = True
    """Whether it needs the database, or a slice that does. Without any that do, none is opened."""
