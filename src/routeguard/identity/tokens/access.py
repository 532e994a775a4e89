"""Access tokens: what a session may do, signed, so that others can read it without asking (RFC 9068)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from routeguard.core.secret import digest, new_token
from routeguard.foundation.jose.jws import LONGEST, read_header, sign_jws, verify_parts
from routeguard.foundation.jose.jwt import Expected, check_claims
from routeguard.foundation.jose.models import InvalidToken
from routeguard.identity.sessions.by_id import proof_time
from routeguard.identity.users.models import public_user

if TYPE_CHECKING:
    from routeguard.core.clock import SteadyClock
    from routeguard.foundation.jose.jwk import Key, KeySet
    from routeguard.identity.sessions.models import UserSession
    from routeguard.identity.tokens.models import TokenSettings

TYPE: Final = "at+jwt"
_CAPACITY: Final = 8192
"""Verified tokens remembered by a process; the oldest makes room. About 2 KB each."""
_LONGEST_USER: Final = 2048
"""Bytes of JSON. A cookie holds 4096 in all, and what it does not hold is asked of the service."""
_UNKNOWN: Final = "unknown-key"


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a verified access token of ours says, by the names of RFC 9068. Times are in seconds since the epoch."""

    iss: str
    sub: str
    """The user's id."""
    aud: str
    client_id: str
    iat: int
    exp: int
    jti: str
    sid: str
    """The session's id."""
    auth_time: int
    acr: str = ""
    amr: tuple[str, ...] = ()
    scope: str | None = None
    session_authenticated_at: float = 0.0
    """`auth_time` to the microsecond; 0 in tokens of releases before it was told."""
    session_created_at: float = 0.0
    session_expires_at: float = 0.0
    user: dict[str, Any] | None = None
    """What `public_user` shows of the user; left out when it is long."""

    @property
    def proven_at(self) -> float:
        """When the user last proved who they are, as exactly as the token says."""
        return self.session_authenticated_at or float(self.auth_time)

    @property
    def whole_seconds(self) -> bool:
        """Whether `proven_at` is in whole seconds."""
        return not self.session_authenticated_at

    def __repr__(self) -> str:
        """Name the token and tell nothing of the user."""
        return f"Claims({self.jti})"


class AccessKeys(Protocol):
    """The keys of access tokens: those of this service, or what another one publishes."""

    epoch: int
    """Changes when a key was taken out of use before its time: what was verified before is void."""

    def find(self, kid: str) -> KeySet | None:
        """Return the key of this id if its tokens count."""
        ...

    async def refresh(self) -> None:
        """Look again for an id that is not known, but not too often. Raises Unavailable when that cannot be done."""
        ...

    def signer(self) -> Key:
        """Return the key that signs now. Raises Unavailable where there is none."""
        ...


class _Known(msgspec.Struct, frozen=True):
    claims: Claims
    kid: str
    epoch: int


class AccessTokens:
    """Makes access tokens of sessions, and tells which are ours. What a session's end means is asked elsewhere."""

    def __init__(
        self, keys: AccessKeys, *, clock: SteadyClock, settings: TokenSettings, issuer: str, skew: float
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._issuer = issuer
        self._audience = settings.audience or issuer
        self._life = settings.access.total_seconds()
        self._expected = Expected(issuer=issuer, audience=self._audience, typ=TYPE, skew=skew)
        # Not `Remembered`: that a signature was valid stays true whatever is revoked. Only the end of the token or of
        # its key voids it, also while the feed is away; whether the session lives is asked of others each time.
        self._known: dict[bytes, _Known] = {}

    def mint(
        self, session: UserSession[Any], *, client_id: str, now: float | None = None, include_user: bool = True
    ) -> str:
        """Return a new token for a session. `now` is in seconds since the epoch. Raises Unavailable without a key.

        Without `include_user` it has no `user` claim: for a cookie, which only this service reads.

        It ends with the session at the latest. Only what the user may see is in it: it is signed, not
        encrypted, and others read it.
        """
        issued = int(self._clock.time() if now is None else now)
        end = session.expires_at.timestamp()
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": session.principal_id,
            "aud": self._audience,
            "client_id": client_id,
            "iat": issued,
            "exp": int(min(issued + self._life, end)),
            "jti": new_token(16),
            "sid": session.id,
            "auth_time": int(proof_time(session)),
            "session_authenticated_at": proof_time(session),
            "acr": f"aal{session.assurance.aal}",
            "amr": session.assurance.amr,
            "session_created_at": session.created_at.timestamp(),
            "session_expires_at": end,
        }
        user = msgspec.json.encode(public_user(session.user))
        if len(user) <= _LONGEST_USER and include_user:
            claims["user"] = msgspec.Raw(user)
        return sign_jws({"typ": TYPE}, msgspec.json.encode(claims), self._keys.signer())

    def verify(self, token: bytes) -> Claims | None:
        """Return what a token says, or None when it is not ours or has expired. Waits for nothing.

        A token by a key made a moment ago may not be known yet: `find` asks.
        """
        try:
            return self._remembered(token) or self._read(token)
        except InvalidToken:
            return None

    async def find(self, token: bytes) -> Claims:
        """Return what a token says. Raises InvalidToken, and Unavailable when an unknown key cannot be asked for."""
        known = self._remembered(token)
        if known is not None:
            return known
        try:
            return self._read(token)
        except InvalidToken as error:
            if error.reason != _UNKNOWN:
                raise
        await self._keys.refresh()
        return self._read(token)

    def _remembered(self, token: bytes) -> Claims | None:
        if len(token) > LONGEST:
            return None
        known = self._known.get(digest(token))
        if known is None or known.epoch != self._keys.epoch or self._clock.time() >= known.claims.exp:
            return None
        # The key may have come to its end since: a token must not outlive it for having been seen.
        if self._keys.find(known.kid) is None:
            return None
        return known.claims

    def _read(self, token: bytes) -> Claims:
        header, parts = read_header(token)
        kid = header.get("kid")
        # Attacks JWT-08 to JWT-10: a name among those of our keys, or nothing.
        if not isinstance(kid, str):
            raise InvalidToken("header")
        keys, epoch = self._keys.find(kid), self._keys.epoch
        if keys is None:
            raise InvalidToken(_UNKNOWN)
        payload = verify_parts(header, parts, keys)
        check_claims(header, payload, expected=self._expected, now=self._clock.time())
        try:
            claims = msgspec.json.decode(payload, type=Claims)
        except msgspec.DecodeError:
            raise InvalidToken("claims") from None
        if len(self._known) >= _CAPACITY:
            del self._known[next(iter(self._known))]
        self._known[digest(token)] = _Known(claims, kid, epoch)
        return claims
