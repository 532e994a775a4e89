"""What a credential is worth, told to a service that was shown it (RFC 7662)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from routeguard.core.credentials import Credential
from routeguard.core.exchange import Exchange
from routeguard.core.problem import Problem
from routeguard.core.request import RequestView
from routeguard.identity.users.models import public_user

if TYPE_CHECKING:
    from routeguard.core.address import Address
    from routeguard.identity.api_keys.models import KeyVerifier
    from routeguard.identity.sessions.models import UserSession
    from routeguard.identity.sessions.resolver import CookieSessions
    from routeguard.identity.sessions.sources import SessionSources
    from routeguard.identity.tokens.access import AccessTokens

INACTIVE: Final[dict[str, Any]] = {"active": False}
"""The one answer for any invalid token: it does not say whether it ever was valid (RFC 7662 section 2.2, OAP-29)."""

_KEY_PREFIX: Final = "rg_"
_COOKIE_VALUE: Final = re.compile(r"[A-Za-z0-9_-]{1,4096}\.[A-Za-z0-9_-]{1,128}", re.ASCII)
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,4096}\.[A-Za-z0-9_-]{1,16384}\.[A-Za-z0-9_-]{1,4096}", re.ASCII)
_KEY: Final = re.compile(r"rg_[A-Za-z0-9_]{1,200}", re.ASCII)
_FROM_TOKEN: Final = ("exp", "iat", "jti", "client_id", "scope", "aud", "iss")
_TOLD: Final = frozenset({403, 429})


class Introspection:
    """Looks at a credential exactly as the guards of this service do, so that both always agree."""

    def __init__(
        self,
        sources: SessionSources[Any],
        cookies: CookieSessions[Any],
        *,
        cookie_name: str,
        access: AccessTokens | None,
        keys: KeyVerifier | None,
    ) -> None:
        self._sources = sources
        self._cookies = cookies
        self._cookie = cookie_name.encode("ascii")
        self._access = access
        self._keys = keys

    async def introspect(self, token: str, *, address: Address | None = None) -> dict[str, Any]:
        """Return what RFC 7662 section 2.2 answers about an access token, a session cookie's value or an API key.

        Which of them it is, its form says; a hint could only be wrong. `address` is that of the person or program
        that sent the credential, for keys bound to networks. Raises Unavailable when it cannot be told.
        """
        if token.startswith(_KEY_PREFIX):
            return await self._key(token, address)
        if _TOKEN.fullmatch(token) is not None:
            return await self._access_token(token.encode("ascii"))
        return await self._session(token)

    async def _access_token(self, token: bytes) -> dict[str, Any]:
        session = await self._sources.resume_by(_asking(), Credential("token", token))
        # Verified just above, and remembered: only for the members that a session does not have.
        claims = None if session is None or self._access is None else self._access.verify(token)
        if session is None or claims is None:
            return INACTIVE
        own = {name: getattr(claims, name) for name in _FROM_TOKEN if getattr(claims, name) is not None}
        return {"active": True, "token_type": "access_token", **_session(session), **own}

    async def _session(self, value: str) -> dict[str, Any]:
        if _COOKIE_VALUE.fullmatch(value) is None:
            return INACTIVE
        # What the cookie would be renewed to is dropped with this exchange: only its browser may hold it.
        session = await self._cookies.resume(_asking((b"cookie", self._cookie + b"=" + value.encode("ascii"))))
        if session is None:
            return INACTIVE
        times = {"iat": int(session.created_at.timestamp()), "exp": int(session.expires_at.timestamp())}
        return {"active": True, "token_type": "session", **_session(session), **times}

    async def _key(self, key: str, address: Address | None) -> dict[str, Any]:
        if self._keys is None or _KEY.fullmatch(key) is None:
            return INACTIVE
        found = await self._keys.verify(key.encode("ascii"), address=address)
        if not isinstance(found, Problem):
            return {"active": True, "token_type": "api_key", "sub": found.user_id, "key": found}
        if found.status not in _TOLD:
            return INACTIVE
        # A valid key in the wrong place: its caller must receive 403 or 429, and not 401.
        retry_after = dict(found.headers).get("retry-after")
        told = {} if retry_after is None else {"retry_after": int(retry_after)}
        return {**INACTIVE, "reason": found.type.code, **told}


def _asking(*headers: tuple[bytes, bytes]) -> Exchange:
    """Return a request that carries these header fields and nothing else."""
    return Exchange(RequestView({"type": "http", "method": "GET", "path": "/", "headers": list(headers)}))


def _session(session: UserSession[Any]) -> dict[str, Any]:
    assurance = session.assurance
    return {
        "sub": session.principal_id,
        "sid": session.id,
        "auth_time": int(session.authenticated_at.timestamp()),
        "acr": f"aal{assurance.aal}",
        "amr": assurance.amr,
        "user": public_user(session.user),
        "organization": session.organization,
        "role": session.role,
        "created_at": session.created_at,
        "expires_at": session.expires_at,
    }
