"""Who is calling as a test says it, in test mode only: what identity checks ask before they look for a credential."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from routeguard.core.credentials import Credential
from routeguard.core.problem import authentication_required

if TYPE_CHECKING:
    from routeguard.core.check import BoundCheck, Check, Outcome
    from routeguard.core.exchange import Exchange
    from routeguard.core.problem import Problem
    from routeguard.core.services import Services

P = TypeVar("P")

OVERRIDE: Final = Credential("override")
"""By what a principal is found that a test gave."""
NOT_OVERRIDDEN: Final = object()
"""In place of a principal: the credential of the request decides."""


class OverrideRaised(Exception):
    """Carries what an override raised past the rule that a policy which raises refuses: a test has to see it."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(repr(error))


class IdentityOverrides(Protocol):
    """The identities that a test has put in the place of credentials. A service in test mode, and in no other."""

    def may_hold(self, exchange: Exchange, kind: type[Any]) -> bool:
        """Return whether an override of this request may give a principal of class `kind`, or a guest."""
        ...

    def kind_of(self, check: Check) -> type[Any] | None:
        """Return the class of principals that an identity check of another feature finds, by what that provides."""
        ...

    async def find(self, exchange: Exchange, kind: type[Any]) -> Any:
        """Return a principal of class `kind`, None for a guest, or NOT_OVERRIDDEN. Raises what the override raises."""
        ...


def is_overridden(exchange: Exchange) -> bool:
    """Return whether the principal, as it is now, is one that a test gave: no credential of a browser carries it."""
    return exchange.credential is OVERRIDE


def identified(services: Services, kind: type[Any], check: BoundCheck, refused: Problem | None) -> BoundCheck:
    """Return the identity check that asks the overrides for a principal of class `kind` first, then `check`.

    Outside test mode that is `check` itself. `refused` is its outcome for a guest.
    """
    overrides = services.find(IdentityOverrides)
    if overrides is None:
        return check

    async def by_override(exchange: Exchange) -> Outcome:
        try:
            found = await overrides.find(exchange, kind)
        except Exception as error:  # noqa: BLE001 - foreign code, whose error is handed on as it is
            raise OverrideRaised(error) from None
        if found is NOT_OVERRIDDEN:
            return await check(exchange)
        exchange.principal = found
        return refused if found is None else None

    return by_override


def presented(services: Services, kind: type[Any], presents: Callable[[Exchange], bool]) -> Callable[[Exchange], bool]:
    """Return what tells whether a credential, or an override in its place, is there."""
    overrides = services.find(IdentityOverrides)
    if overrides is None:
        return presents
    return lambda exchange: overrides.may_hold(exchange, kind) or presents(exchange)


def bound_for_tests(services: Services, check: Check, bound: BoundCheck) -> BoundCheck:
    """Return a bound check that asks the overrides first where `check` is the identity check of another feature.

    The built-in ones do so themselves. Outside test mode that is `bound` itself.
    """
    kind = _kind_for_tests(services, check)
    if kind is None:
        return bound
    return identified(services, kind, bound, authentication_required("a test says that a guest is calling"))


def sent_for_tests(services: Services, check: Check, sent: Callable[[Exchange], bool]) -> Callable[[Exchange], bool]:
    """Return what tells whether the credential of a check, or in test mode an override in its place, is there."""
    kind = _kind_for_tests(services, check)
    return sent if kind is None else presented(services, kind, sent)


def _kind_for_tests(services: Services, check: Check) -> type[Any] | None:
    overrides = services.find(IdentityOverrides)
    return None if overrides is None else overrides.kind_of(check)


def resumed(
    services: Services, kind: type[P], resume: Callable[[Exchange], Awaitable[P | None]]
) -> Callable[[Exchange], Awaitable[P | None]]:
    """Return what finds the principal of an exchange: by an override where there is one, else by `resume`."""
    overrides = services.find(IdentityOverrides)
    if overrides is None:
        return resume

    async def find(exchange: Exchange) -> P | None:
        found: Any = await overrides.find(exchange, kind)
        return await resume(exchange) if found is NOT_OVERRIDDEN else found

    return find


def unless_overridden(services: Services, check: BoundCheck) -> BoundCheck:
    """Return a check that passes where a test gave the principal; outside test mode, `check` itself."""
    if services.find(IdentityOverrides) is None:
        return check

    async def asked(exchange: Exchange) -> Outcome:
        return None if is_overridden(exchange) else await check(exchange)

    return asked
