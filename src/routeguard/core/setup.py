"""What a feature plugs in while the services are made: the only way into the services of another slice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple

from typing_extensions import TypeVar

from routeguard.core.changes import ChangeHook, Changes
from routeguard.core.errors import ConfigError
from routeguard.core.events import Event
from routeguard.core.order import in_order
from routeguard.core.principal import PrincipalWatchers
from routeguard.core.security_schemes import SecuritySchemes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from routeguard.core.endings import Ending
    from routeguard.core.principal import PrincipalWatcher
    from routeguard.core.security_schemes import SecurityScheme
    from routeguard.core.services import Services

S = TypeVar("S", default=Any)
E = TypeVar("E", bound=Event)
C = TypeVar("C")
Take = Callable[..., Any]


class Place(Enum):
    """A place that features plug into. Its value says what is plugged in, for findings."""

    LISTENER = "a listener to events"
    SIGN_IN_STEP = "a step of the sign-in"
    CREDENTIAL = "a kind of credential"
    COOKIE_CREDENTIAL = "a cookie beside the session's own"
    LINKED_CREDENTIAL = "a credential that ends with its session"
    READINESS = "a condition of readiness"
    PURPOSE = "a purpose of one-time tokens"


_OPTIONAL: Final = frozenset({Place.READINESS})
"""Where nothing asks, nothing is missed."""


class _Plug(NamedTuple):
    feature: str
    place: Place
    arguments: tuple[Any, ...]
    after: tuple[str, ...] = ()


class Plugs:
    """What the features of one assembly plug in, kept until all are set up and then handed to the owner of each place.

    So no feature depends on another one that only owns a place to have been set up before it.
    """

    __slots__ = ("_handed_over", "_owners", "_plugged")

    def __init__(self) -> None:
        self._handed_over = False
        self._owners: dict[Place, Take] = {}
        self._plugged: list[_Plug] = []

    def own(self, place: Place, take: Take) -> None:
        """Hand to `take` whatever is plugged in at a place. Raises ConfigError where another one takes it."""
        if place in self._owners:
            raise ConfigError(f"two features take what is plugged in as {place.value}")
        self._owners[place] = take

    def add(self, plug: _Plug) -> None:
        """Keep what a feature plugs in. Raises ConfigError after everything was handed over."""
        if self._handed_over:
            # Nothing would ask it: a step of the sign-in that is dropped in silence lets every user pass.
            raise ConfigError(f"{plug.feature} plugs in {plug.place.value} after its setup has returned")
        self._plugged.append(plug)

    def hand_over(self, features: Sequence[str]) -> list[str]:
        """Hand everything over, in the order it was plugged in but for `after`. Returns what is wrong, all of it."""
        self._handed_over = True
        findings: list[str] = []
        for place in Place:
            plugged, take = [one for one in self._plugged if one.place is place], self._owners.get(place)
            if take is None:
                findings += [] if place in _OPTIONAL else [_unowned(one) for one in plugged]
                continue
            ordered, wrong = _ordered(plugged, features)
            findings += wrong
            for one in ordered:
                try:
                    take(*one.arguments)
                except ConfigError as error:
                    findings += error.findings
        return list(dict.fromkeys(findings))


def _unowned(plug: _Plug) -> str:
    return f"{plug.feature} plugs in {plug.place.value}, and no feature in features takes one"


def _ordered(plugged: Sequence[_Plug], features: Sequence[str]) -> tuple[list[_Plug], list[str]]:
    """Return what was plugged in at one place in its order, and what is wrong with that order."""
    # A step of a feature that has none today (its settings say so) is no fault, but a feature that is not there is.
    wrong = [
        f"{one.feature}: {one.place.value} comes after {name!r}, which is not in features"
        for one in plugged
        for name in one.after
        if name not in features
    ]
    after: dict[str, list[str]] = {}
    for one in plugged:
        after.setdefault(one.feature, []).extend(one.after)
    names, cycle = in_order(list(after), after)
    if cycle:
        wrong.append(f"{plugged[0].place.value} comes after itself: {' -> '.join(cycle)}")
    return [one for name in names for one in plugged if one.feature == name], wrong


class Setup(Generic[S]):
    """All that a feature sees of the others: it registers services in `services`, and plugs into the places below."""

    __slots__ = ("_feature", "_plugs", "deployment", "services", "settings", "user_class")

    def __init__(
        self, feature: str, plugs: Plugs, *, settings: S, services: Services, deployment: Any, user_class: type[Any]
    ) -> None:
        self.settings = settings
        """The feature's own settings; None where it declares none."""
        self._feature = feature
        self._plugs = plugs
        self.services = services
        """Everything registered so far; of the features in `requires`, all of it."""
        self.deployment = deployment
        """The `Settings` of the deployment, with those of every feature."""
        self.user_class = user_class
        """The application's class of users."""

    def on(self, event: type[E], listener: Callable[[E], Awaitable[None]], *, name: str | None = None) -> None:
        """Call `listener` with every committed event of exactly this class, at least once.

        `Event` itself stands for the events that all features declare, each delivered as its own class.
        It is tried again when it raises. `name` says in the stored rows whom they are for (the qualified name unless
        told otherwise): keep it when the function moves.
        """
        self._plug(Place.LISTENER, event, listener, name)

    def within(self, change: type[C], hook: ChangeHook[C]) -> None:
        """Call `hook` in the transaction of every change of exactly this class, which another feature declares.

        What it raises undoes the change.
        """
        self.services.get(Changes).add(change, hook)

    def sign_in_step(self, step: Any, *, after: Iterable[str] = ()) -> None:
        """Ask `step` between proof and session, for every sign-in method.

        `after` are features whose steps are asked before it; otherwise the order is that of the features.
        """
        self._plug(Place.SIGN_IN_STEP, step, after=tuple(after))

    def credential(self, kind: str, source: Any) -> None:
        """Let `source` find the sessions of credentials of a kind, which programs put into a header field."""
        self._plug(Place.CREDENTIAL, kind, source)

    def cookie_credential(self, source: Any) -> None:
        """Let `source` find the session of a cookie, where the session's own cookie says nothing."""
        self._plug(Place.COOKIE_CREDENTIAL, source)

    def linked_credential(self, credential: Any) -> None:
        """End and rotate `credential` together with the session it stands for."""
        self._plug(Place.LINKED_CREDENTIAL, credential)

    def purpose(self, name: str, *, ends_with: Iterable[Ending]) -> None:
        """Register a purpose of one-time tokens: each of these changes of a user voids them, in its transaction."""
        self._plug(Place.PURPOSE, name, frozenset(ends_with))

    def watch(self, kind: type[Any], watcher: PrincipalWatcher) -> None:
        """Let `watcher` say when a principal of class `kind` has ended: open sockets and streams end then."""
        self.services.get(PrincipalWatchers).add(kind, watcher)

    def describe(self, *schemes: SecurityScheme, narrowing: tuple[type[Any], ...] = ()) -> None:
        """Say by which security schemes the checks are described in OpenAPI.

        `narrowing` are checks that refuse a caller whom no other check has identified, and read no credential.
        """
        known = self.services.get(SecuritySchemes)
        known.narrowing += narrowing
        for scheme in schemes:
            known.add(scheme)

    def ready(self, check: Callable[[], Awaitable[object]]) -> None:
        """Be ready for requests only while `check` returns. It raises Unavailable when its part is away."""
        self._plug(Place.READINESS, check)

    def own(self, place: Place, take: Take) -> None:
        """Take whatever any feature plugs in at `place`, once all features are set up."""
        self._plugs.own(place, take)

    def _plug(self, place: Place, *arguments: Any, after: tuple[str, ...] = ()) -> None:
        self._plugs.add(_Plug(self._feature, place, arguments, after))
