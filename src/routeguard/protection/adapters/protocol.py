"""What an adapter does for one framework: list handlers, install a guard, find the exchange of a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import TypedDict

from routeguard.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from routeguard.core.errors import GuardNotApplied
    from routeguard.core.exchange import Exchange
    from routeguard.core.policy import Policy
    from routeguard.protection.adapters.security import Credentials
    from routeguard.protection.guard.asgi import App
    from routeguard.protection.guard.guard import Guard
    from routeguard.protection.guard.inventory import Handler
    from routeguard.protection.guard.matrix import Entry


class Options(TypedDict, total=False):
    """What `install` takes for some frameworks only; its adapter names those it knows."""

    docs: Policy | None
    frontend: Policy | None


@dataclass(frozen=True, slots=True)
class Parts:
    """What a guard brings into an application."""

    edge: Callable[[App], App]
    """Puts the edge around what it is given."""
    routes: Sequence[Any]
    """The routes of the identity service, as the framework has them."""
    credentials: Callable[[], Credentials]
    """What the checks read, for descriptions of the application."""
    signed_in: Policy
    """For the pages of the framework's own, unless an option says otherwise."""


class Adapter(Protocol):
    """One framework."""

    options: frozenset[str]
    """Which of `Options` it has a use for."""

    def take_seam(self) -> None:
        """Let the guard stand between "this handler was chosen" and "it runs", for the whole process. Repeatable."""
        ...

    def handles(self, app: Any) -> bool:
        """Return whether `app` is an application or a router of this framework."""
        ...

    def inventory(self, app: Any) -> Iterator[Handler]:
        """Yield every handler of an application or router, guarded or not. Changes nothing, and reads no mark."""
        ...

    def entries(self, app: Any, guard: Guard, parts: Parts) -> Iterable[Entry]:
        """Return every handler of a guarded application, with what its marks say. Asked at each start."""
        ...

    def describe(self, app: Any, guard: Guard, parts: Parts, around: tuple[Any, ...] = ()) -> None:
        """Say in the framework's own description of an application what the guard answers. Repeatable.

        `around` is what stands around it where it is mounted.
        """
        ...

    def install(self, app: Any, guard: Guard, options: Options, parts: Parts) -> None:
        """Guard an application. Raises ConfigError or RuntimeError for what cannot be, and then leaves no trace."""
        ...

    def connection_of(self, value: Any) -> Exchange | None:
        """Return the exchange of what the framework hands to its handlers; None where no guard opened one."""
        ...

    def not_installed(self, words: str) -> GuardNotApplied:
        """Return the error of a handler that asks a guard which is not there: the framework answers it with 500."""
        ...


def not_an_application(given: Any) -> ConfigError:
    """Return the error for what `install` cannot guard."""
    kind = f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
    return ConfigError(
        f"install() takes a Starlette or FastAPI application, and was given {kind}; routers are marked: "
        "guard(policy)(router)"
    )
