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


class PrincipalWatcher(Protocol):
    """Waits for the end of a principal: what ends an open WebSocket or stream (attack WS-05)."""

    async def wait_until_revoked(self, principal: Any, /) -> None:
        """Return once the principal has ended: signed out, revoked, suspended, expired, or changed."""
        ...


class PrincipalWatchers:
    """The `PrincipalWatcher` of an application: asks what is registered for principals of that class.

    A principal of a class that is not registered ends with its connection.
    """

    __slots__ = ("_by_class",)

    def __init__(self) -> None:
        self._by_class: dict[type[Any], PrincipalWatcher] = {}

    def __bool__(self) -> bool:
        """Whether there is a watcher for any class."""
        return bool(self._by_class)

    def add(self, kind: type[Any], watcher: PrincipalWatcher) -> None:
        """Ask `watcher` about principals of class `kind`."""
        self._by_class[kind] = watcher

    async def wait_until_revoked(self, principal: Any) -> None:
        """Return once the principal has ended; never for a class without a watcher."""
        known = (self._by_class[kind] for kind in type(principal).__mro__ if kind in self._by_class)
        watcher = next(known, None)
        if watcher is None:
            await asyncio.Event().wait()
        else:
            await watcher.wait_until_revoked(principal)
