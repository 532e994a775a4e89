"""Asking the service what a credential is worth (RFC 7662)."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import msgspec

from routeguard.core.errors import Unavailable
from routeguard.core.principal import Assurance
from routeguard.identity.api_keys.models import ApiKey  # noqa: TC001 - msgspec reads it
from routeguard.identity.sessions.models import SessionId, UserSession
from routeguard.remote.breaker import SERVICE
from routeguard.remote.transport import decode

if TYPE_CHECKING:
    from routeguard.core.address import Address
    from routeguard.remote.transport import Transport
    from routeguard.remote.users import RemoteUsers

logger = logging.getLogger("routeguard.remote")

_LIMIT: Final = 64 * 1024
_AT_ONCE: Final = 16
"""Fewer than the pool has connections: the feed must get through whatever the crowd asks."""
_STRANGERS: Final = 12
"""Of them, for credentials that were not good before: those who make them up leave a turn to those who do not."""
_OK: Final = 200
_Seconds: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]
"""Since the epoch, up to the year 9999."""


class IntrospectionResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the service answered. Of an invalid credential nothing is said but, for some keys, why."""

    active: bool
    token_type: str = ""
    sub: str = ""
    sid: str = ""
    aud: str = ""
    iss: str = ""
    auth_time: _Seconds = 0
    acr: str = ""
    amr: tuple[str, ...] = ()
    user: dict[str, Any] | None = None
    organization: str | dict[str, Any] | None = None
    role: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    exp: float | None = None
    key: ApiKey | None = None
    reason: str = ""
    retry_after: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 1

    def __repr__(self) -> str:
        """Tell nothing of the person."""
        return f"IntrospectionResult({self.token_type or self.reason})"


class Introspector:
    """Asks, a few at a time."""

    def __init__(self, transport: Transport, *, timeout: float) -> None:
        self._transport = transport
        self._timeout = timeout
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._for_strangers = asyncio.Semaphore(_STRANGERS)
        self._decoder = msgspec.json.Decoder(IntrospectionResult)
        self._refused = False

    async def start(self) -> None:
        """Count turns anew: those who held one in an event loop that has ended give none back."""
        self._turns, self._for_strangers = asyncio.Semaphore(_AT_ONCE), asyncio.Semaphore(_STRANGERS)

    async def ask(self, credential: str, *, address: Address | None = None, known: bool = False) -> IntrospectionResult:
        """Return what a credential is worth that was sent from `address`. Raises Unavailable.

        One that is `known` was good before; some turns are kept for those.
        """
        asked = {"token": credential} if address is None else {"token": credential, "address": str(address)}
        async with AsyncExitStack() as turn:
            try:
                async with asyncio.timeout(self._timeout):
                    if not known:
                        await turn.enter_async_context(self._for_strangers)
                    await turn.enter_async_context(self._turns)
            except TimeoutError as error:
                raise Unavailable(f"{SERVICE} (too many questions)") from error
            answer = await self._transport.call("POST", "/oauth/introspect", msgspec.json.encode(asked), limit=_LIMIT)
        if answer.status != _OK:
            self._log(answer.status)
            raise Unavailable(f"{SERVICE} (introspection answered {answer.status})")
        self._refused = False
        return decode(self._decoder, answer, "its answer")

    def _log(self, status: int) -> None:
        if not self._refused:
            self._refused = True
            logger.error(
                "the identity service refuses our calls with %d: are client id, secret, URL and clock right?", status
            )


def session_of(result: IntrospectionResult, users: RemoteUsers[Any]) -> UserSession[Any]:
    """Return the session the service told of. Raises Unavailable for an answer that lacks what a session has."""
    if not (result.sub and result.sid and result.user and result.created_at and result.expires_at):
        raise Unavailable(f"{SERVICE} (its answer lacks what a session has)")
    user = users.read(result.user)
    if user.id != result.sub:
        raise Unavailable(f"{SERVICE} (its answer contradicts itself)")
    authenticated_at = datetime.fromtimestamp(result.auth_time, UTC)
    return UserSession(
        SessionId(result.sid),
        user,
        result.created_at,
        authenticated_at,
        result.expires_at,
        result.organization,
        result.role,
        assurance_of(result.acr, result.amr, authenticated_at),
    )


def assurance_of(acr: str, amr: tuple[str, ...], authenticated_at: datetime) -> Assurance:
    """Return how the user signed in; a level that is not told is the lowest."""
    level = acr.removeprefix("aal")
    return Assurance(int(level) if level in {"1", "2", "3"} else 1, amr, authenticated_at)
