"""The check of the one route whose credential may come in its body or by itself in a cookie."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from routeguard.core.policy import Attack, BoundCheck, Outcome, Policy
from routeguard.identity.tokens.cookies import TokenCookies
from routeguard.protection.traffic.csrf import Csrf

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services


def csrf_for_refresh() -> Policy:
    """Return the policy that asks for what `csrf` asks for when a refresh token came as a cookie.

    A request that has none carries its token in the body: a caller that can send that needs no cookie.
    """
    return Policy((RefreshCsrf(),))


@dataclass(frozen=True, slots=True)
class RefreshCsrf(Csrf):
    """No foreign page makes a browser rotate its tokens. Stands in the place of the default check."""

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile against the cookies and the default check."""
        cookies, csrf_checked = services.get(TokenCookies), Csrf.bind(self, services)

        async def check(exchange: Exchange) -> Outcome:
            return await csrf_checked(exchange) if cookies.presented(exchange) else None

        return check

    @override
    def describe(self) -> str:
        return "CSRF-checked where a cookie carries the token"

    @override
    def attacks(self) -> Iterable[Attack]:
        """Yield a foreign page's request with a token cookie, under whichever name is ours."""
        names = ("routeguard-refresh", "routeguard-partitioned-refresh")
        each = "; ".join(f"{prefix}{name}=x" for prefix in ("__Host-", "__Secure-", "") for name in names)
        headers = (("cookie", each), ("origin", "https://attacker.example"))
        yield Attack(name="cross-site with a refresh cookie", status=403, method="POST", headers=headers)
