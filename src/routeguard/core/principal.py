"""Who is calling."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from datetime import datetime


@runtime_checkable
class Principal(Protocol):
    """A caller: a user session, an API key, a client. Anonymous callers have none (`None`)."""

    @property
    def principal_id(self) -> str:
        """A stable id with its kind as prefix (`usr_`, `key_`), for quotas, ownership and the log."""
        ...


@dataclass(frozen=True, slots=True)
class Assurance:
    """How strongly, by what and when the caller proved an identity (NIST SP 800-63B, RFC 8176, OIDC auth_time)."""

    aal: int = 1
    amr: tuple[str, ...] = ()
    authenticated_at: datetime | None = None


class Standing(Protocol):
    """Knows how long a principal stands: what an open WebSocket waits for (attack WS-05)."""

    async def until_ended(self, principal: Any, /) -> None:
        """Return once the principal is none any more: signed out, revoked, suspended, expired, or changed."""
        ...


class Standings:
    """The `Standing` of an application: asks what is registered for principals of that class.

    A principal of a class that is not registered stands for as long as its connection is open.
    """

    __slots__ = ("_by_class",)

    def __init__(self) -> None:
        self._by_class: dict[type[Any], Standing] = {}

    def __bool__(self) -> bool:
        """Return whether anybody speaks for any principal."""
        return bool(self._by_class)

    def add(self, kind: type[Any], standing: Standing) -> None:
        """Let `standing` speak for principals of class `kind`."""
        self._by_class[kind] = standing

    async def until_ended(self, principal: Any) -> None:
        """Return once the principal is none any more."""
        known = (self._by_class[kind] for kind in type(principal).__mro__ if kind in self._by_class)
        standing = next(known, None)
        if standing is None:
            await asyncio.Event().wait()
        else:
            await standing.until_ended(principal)
