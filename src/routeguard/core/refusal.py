"""The seam through which a refusal becomes a page for a person, wherever in the application it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from routeguard.core.decision import Reply
    from routeguard.core.exchange import Exchange
    from routeguard.core.problem import Problem


class SignInPage(NamedTuple):
    """The page that browsers are sent to instead of a 401. Registered by the feature that has one."""

    path: str


class RefusalPages(Protocol):
    """Shows refusals to browsers. Found by the edge among the services; without one every refusal is JSON."""

    async def page(self, exchange: Exchange, problem: Problem, instance: str) -> Reply | None:
        """Return a page with the problem's own status, or None when no person waits for one.

        `instance` is the request's id, for the person to quote. A redirect is 303 and only ever to a path of ours.
        """
        ...
