"""The limits and the de-duplication that operations of the identity service have unless the operator says otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from routeguard.core.policy import Policy
from routeguard.core.rate import parse_rate
from routeguard.protection.traffic.deduplicate import deduplicate
from routeguard.protection.traffic.models import OFF, TrafficSettings
from routeguard.protection.traffic.rate_limit import OnOutage, RateLimit, rate_limit

if TYPE_CHECKING:
    from routeguard.core.services import Services

SIGN_IN: Final = "sign-in"
SIGN_UP: Final = "sign-up"
_LEASE: Final = "10s"
"""As long as an equal request waits: one whose leader was killed goes on itself, and is not sent away."""
REFRESH: Final = "refresh"

_REFRESH_BURST: Final = 60
"""At once from one address: offices share one, and each of its people refreshes once in a quarter of an hour."""


def operation(services: Services, name: str, *, show_remaining: bool = False, on_outage: OnOutage = "refuse") -> Policy:
    """Return the limit by address of one operation: all of its entry points share one budget (attack RL-19).

    With `show_remaining` passing answers state what is left of it. While the store is away `on_outage` says whether
    requests are refused or counted in this process. The defaults are for operations that take an address, a password
    or a token. A request that an outage answers with 503 does not count. Empty where the operator turned the limit off.
    """
    settings = services.find(TrafficSettings) or TrafficSettings()
    own = {SIGN_IN: settings.sign_in, SIGN_UP: settings.sign_up, REFRESH: settings.refresh}
    rate = own.get(name, settings.identity)
    if rate == OFF:
        return Policy()
    burst = min(_REFRESH_BURST, parse_rate(rate).limit) if name == REFRESH else None
    limit = rate_limit(rate, burst=burst, name=name, remaining=show_remaining, on_outage=on_outage)
    return Policy(tuple(replace(check, refund=True) for check in limit.find(RateLimit)))


def once(services: Services, name: str, *, show_remaining: bool = False, on_outage: OnOutage = "refuse") -> Policy:
    """Return `operation`, and let equal requests at the same time do its work once.

    An answer with cookies goes to all who sent that very request, in this process: a caller that can send it, its
    password or its session's cookie included, needs no other's answer to be signed in or out (attack DDP-01).
    """
    return operation(services, name, show_remaining=show_remaining, on_outage=on_outage) & deduplicate(
        share_cookies=True, lease=_LEASE
    )
