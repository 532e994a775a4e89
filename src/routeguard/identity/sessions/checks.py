"""Session policies for any route: signed in, perhaps signed in, signed in lately."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import anyio
from typing_extensions import override

from routeguard.core.check_class import takes
from routeguard.core.clock import Clock, SteadyClock
from routeguard.core.errors import ConfigError, ProblemError, Unavailable
from routeguard.core.overrides import identified, presented
from routeguard.core.policy import Attack, BoundCheck, Check, Outcome, Policy, Stage
from routeguard.core.problem import PERMISSION_DENIED, authentication_required
from routeguard.core.provided import Provided
from routeguard.core.security_schemes import SecurityScheme
from routeguard.identity.sessions.identify import IdentifiedSession, ResolvedSessions
from routeguard.identity.sessions.match import FieldMatch, Match, check_fields, flatten
from routeguard.identity.sessions.models import COOKIE_NAME, PLAIN_COOKIE_NAME, SessionResolver, UserSession
from routeguard.identity.sessions.problems import step_up_required
from routeguard.identity.users.models import User, UserSettings
from routeguard.protection.traffic.streams import StreamEnd, stream_policy

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services

U = TypeVar("U")
Rule = Callable[[UserSession[U]], "bool | Awaitable[bool]"]

logger = logging.getLogger("routeguard.sessions")

_RULE_DEADLINE: Final = 10.0
"""Seconds an asynchronous rule may take; longer is "cannot tell"."""
_FORGED: Final = "A" * 120 + "." + "A" * 43
_FUTURE: Final = timedelta(seconds=60)


def session(*, user: Match | None = None, rule: Rule[Any] | None = None, stream: StreamEnd = "end") -> Policy:
    """Return the policy that asks for a signed-in user: 401 without one.

    `user` are fields that must match (see `match_user`), `rule` a function of the session, sync or async, that
    returns a bool; when both are given both must hold, and the rule is not called after a mismatch. Either refusal
    is the same 403. A misspelt field is a ConfigError when the policy is bound. A streamed response ends with the
    session; ``stream="finish"`` sends one that has begun to its end.
    """
    required = Policy((SessionRequired(),)) & stream_policy(stream)
    if user is None and rule is None:
        return required
    if user is not None and not isinstance(user, Mapping):
        raise ConfigError(f"session(user={user!r}) is not a table of fields: write session(user={{'role': {user!r}}})")
    return required & SessionAllowed(flatten(user or {}), rule)


def optional_session(*, stream: StreamEnd = "end") -> Policy:
    """Return the policy that lets every caller in and says who it is, when a user is signed in.

    A store that does not answer is 503, never a guest. `stream` as with `session`.
    """
    return Policy((OptionalSession(),)) & stream_policy(stream)


def fresh(within: timedelta) -> Policy:
    """Return the policy that asks for an authentication no older than `within` (ASVS v5.0.0-7.5.1).

    Combine it: ``session() & fresh(timedelta(minutes=5))``. Refuses with 401 step-up-required (RFC 9470).
    """
    return Policy((Fresh(within),))


def asks_for_session(policy: Policy) -> bool:
    """Return whether no caller passes a policy without a session."""
    return any(isinstance(check, SessionRequired) for check in policy.checks)


@dataclass(frozen=True, slots=True)
class SessionRequired(Check):
    """A live session."""

    stage = Stage.IDENTITY
    statuses: ClassVar[tuple[int, ...]] = (401, 503)

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile against the resolver."""
        resume = _resolver(services).resume

        async def signed_in(exchange: Exchange) -> Outcome:
            found = await resume(exchange)
            if found is None:
                return _REFUSED
            exchange.principal = found
            return None

        return identified(services, UserSession, signed_in, _REFUSED)

    @override
    def describe(self) -> str:
        return "signed in"

    @override
    def attacks(self) -> Iterable[Attack]:
        """Yield a caller without a credential, and one with a made-up cookie."""
        yield Attack(name="no credential", status=401, anonymous=True)
        for name in (COOKIE_NAME, PLAIN_COOKIE_NAME):
            forged = (("cookie", f"{name}={_FORGED}"),)
            yield Attack(name=f"made-up {name} cookie", status=401, anonymous=True, headers=forged)

    @override
    def presents(self, services: Services) -> Callable[[Exchange], bool]:
        """Return what tells whether the credential was sent: the resolver's own word.

        A resolver without one, such as the application's own sign-in, may read anything, so it is always asked.
        """
        found: Callable[[Exchange], bool] = getattr(_resolver(services), "presents", _always)
        return presented(services, UserSession, found)


@dataclass(frozen=True, slots=True)
class SessionAllowed(Check):
    """The signed-in user matches every field and passes the rule: which of the two refused is not told."""

    stage = Stage.ACCESS  # After the identity: 401 comes before 403.
    statuses: ClassVar[tuple[int, ...]] = (403,)

    fields: tuple[FieldMatch, ...] = ()
    rule: Rule[Any] | None = None

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Check the fields against the user class. Raises ConfigError for a misspelt one and a value it never has."""
        user_class = _resolver(services).user_class
        findings = check_fields(self.fields, user_class, listed=_listed(services, user_class))
        if self.rule is not None and not callable(self.rule):
            findings.append(f"rule {self.rule!r} cannot be called")
        elif self.rule is not None and not takes(self.rule, 1):
            findings.append(f"rule {self.rule!r} does not take what it is called with: the session")
        if findings:
            raise ConfigError(findings)
        fields, rule = [(field, field.compiled(user_class)) for field in self.fields], self.rule
        resolver = _resolver(services)
        if isinstance(resolver, ResolvedSessions):
            resolver.copy(self.fields)
            fields = [(field, _by_copy(field)) for field in self.fields]
        whole = isinstance(resolver, ResolvedSessions)

        async def allowed(exchange: Exchange) -> Outcome:
            found = exchange.principal
            if not isinstance(found, UserSession):
                return _REFUSED if found is None else _DENIED.with_debug("the caller is not a user session")
            for field, holds in fields:
                if not holds(found if whole else found.user):
                    return _DENIED.with_debug(f"not so: {field.describe()}")
            return None if rule is None else await _ask(rule, found)

        return allowed

    @override
    def describe(self) -> str:
        words = [one.describe() for one in self.fields]
        if self.rule is not None:
            words.append(f"rule {getattr(self.rule, '__name__', type(self.rule).__name__)}")
        return ", ".join(words) or "any user"


@dataclass(frozen=True, slots=True)
class OptionalSession(Check):
    """A session when there is one."""

    stage = Stage.IDENTITY
    statuses: ClassVar[tuple[int, ...]] = (503,)

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile against the resolver."""
        resume = _resolver(services).resume

        async def perhaps(exchange: Exchange) -> Outcome:
            # An outage raises Unavailable here and must stay one: a guest's answer could hide it (attack AZ-16).
            exchange.principal = await resume(exchange)
            return None

        return identified(services, UserSession, perhaps, None)

    @override
    def describe(self) -> str:
        return "anyone, signed in or not"


@dataclass(frozen=True, slots=True)
class Fresh(Check):
    """The caller's last proof of identity is no older than `within`."""

    stage = Stage.ASSURANCE
    statuses: ClassVar[tuple[int, ...]] = (401,)

    within: timedelta

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile against the clock. Raises ConfigError for a duration that is not positive."""
        if not isinstance(self.within, timedelta) or self.within <= timedelta(0):
            raise ConfigError("fresh() needs a positive duration, such as fresh(minutes=5)")
        # Sessions are stamped with a clock that rides out steps back; their age is told by the same one.
        clock: Clock = services.find(SteadyClock) or services.get(Clock)
        problem = step_up_required(max_age=self.within, debug="the authentication is too old")
        unknown, within = problem.with_debug("the caller is not a user session"), self.within

        async def recent(exchange: Exchange) -> Outcome:
            principal = exchange.principal
            if not isinstance(principal, UserSession):
                return _REFUSED if principal is None else unknown
            age = clock.now() - principal.authenticated_at
            # A time in the future means the clock was set back; it must not make an old proof new (attack SES-27).
            return None if -_FUTURE <= age <= within else problem

        return recent

    @override
    def describe(self) -> str:
        return f"authenticated within {_words(self.within)}"


def _by_copy(field: FieldMatch) -> Callable[[Any], bool]:
    """Return what looks at the value that was read when `identify` returned the user."""

    def holds(session: UserSession[Any]) -> bool:
        if isinstance(session, IdentifiedSession) and field.path in session.copied:
            return field.admits(session.copied[field.path])
        return field.holds(session.user)

    return holds


def _always(exchange: Exchange) -> bool:  # noqa: ARG001 - the shape of `presents`
    return True


_REFUSED: Final = authentication_required("no live session")
_DENIED: Final = PERMISSION_DENIED()
"""One body for a mismatch and a refusing rule: the caller does not learn which."""


def _words(duration: timedelta) -> str:
    seconds = int(duration.total_seconds())
    for name, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds % size == 0:
            count = seconds // size
            return f"{count} {name}" if count == 1 else f"{count} {name}s"
    return f"{seconds} seconds"


def _listed(services: Services, user_class: type[Any] | None) -> dict[str, tuple[str, ...]]:
    """Return the fields whose values the settings list: the role of our own users, and of no others."""
    own = services.find(UserSettings)
    return {} if own is None or user_class is None or not issubclass(user_class, User) else {"role": own.roles}


def _resolver(services: Services) -> SessionResolver:
    return services.get(SessionResolver)


async def _ask(rule: Rule[Any], found: UserSession[Any]) -> Outcome:
    """Ask the application's rule. Only True passes: a truthy answer of another type is a fault (attack AZ-16)."""
    try:
        answer: object = rule(found)
        if inspect.isawaitable(answer):
            with anyio.fail_after(_RULE_DEADLINE):
                answer = await answer
    except (ProblemError, Unavailable):
        raise
    except (TimeoutError, ConnectionError) as error:
        raise Unavailable("a session rule") from error
    except Exception:
        # Foreign code, and it decides about access: whatever it raises is a refusal, and is logged (attack AZ-16).
        logger.exception("a session rule failed and the request is refused: %r", rule)
        return _DENIED.with_debug("the rule raised")
    if not isinstance(answer, bool):
        logger.error("a session rule answered %s, not bool: refused: %r", type(answer).__name__, rule)
        return _DENIED.with_debug("the rule did not answer with a bool")
    return None if answer else _DENIED.with_debug("the rule said no")


NARROWING: Final = (SessionAllowed, Fresh)
"""Checks that refuse a caller whom no other check has identified."""


def session_scheme(cookie: str) -> SecurityScheme:
    """Return the description of our cookie."""
    return SecurityScheme(
        name="session",
        description={"type": "apiKey", "in": "cookie", "name": cookie},
        required_by=(SessionRequired,),
        read_by=(OptionalSession,),
    )


BEARER_SCHEME: Final = SecurityScheme(
    name="bearer",
    description={"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    required_by=(SessionRequired,),
    read_by=(OptionalSession,),
    exclusive=True,
)
"""Access tokens, which stand for a session."""

PROVIDED: Final = Provided(UserSession, by=session())
