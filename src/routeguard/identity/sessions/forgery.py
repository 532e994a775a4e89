"""Which policies a browser's own credential may pass, and which of them go without the CSRF check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from routeguard.core.request import SAFE_METHODS
from routeguard.identity.sessions.checks import OptionalSession, SessionRequired
from routeguard.protection.traffic.csrf import Csrf, WithoutCsrf

if TYPE_CHECKING:
    from routeguard.core.policy import Policy

_OPEN_ACROSS_SITES: Final = (
    "goes without the CSRF check (unsafe_without_csrf), and with cookies.same_site 'none' any site's page acts here as "
    "the user: leave the exemption out, trust the page's origin by trusted_origins, or take another credential, such "
    "as guard.api_key()"
)


def is_ambient(policy: Policy) -> bool:
    """Return whether a cookie may be the credential of a policy: browsers add it to a foreign page's request too."""
    return any(policy.find(SessionRequired)) or any(policy.find(OptionalSession))


def open_across_sites(policy: Policy, method: str) -> list[str]:
    """Return what is wrong with a policy where browsers send the session's cookie from pages of every site.

    Nothing is left between such a page and a route that is exempt from the CSRF check (attack CSRF-01): not SameSite
    either. A WebSocket's handshake is exempt from the look at its Origin with it (attack WS-01). Safe methods have
    none to be exempt from: that they change nothing is the application's part (attack CSRF-12).
    """
    exempt = any(isinstance(check, WithoutCsrf) for check in policy.checks)
    checked = any(isinstance(check, Csrf) for check in policy.checks)
    return [_OPEN_ACROSS_SITES] if method not in SAFE_METHODS and exempt and not checked and is_ambient(policy) else []
