"""JSON Web Tokens (RFC 7519): what a verified payload has to say before it is believed (RFC 8725)."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from routeguard.core.clock import SystemClock
from routeguard.foundation.jose.models import InvalidToken

_MOST_LEEWAY: Final = 300.0
_SKEW: Final = 60.0
"""Seconds a token may have been issued ahead of our clock."""
_LONGEST_SUBJECT: Final = 255
_CONTROLS: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a token must say; None leaves a thing unchecked. Times are in seconds."""

    issuer: str | None = None
    audience: str | Collection[str] | None = None
    typ: str | None = "at+jwt"
    leeway: float = 0.0
    skew: float = _SKEW


def verify_jwt(
    token: str | bytes,
    keys: Any,
    *,
    algorithms: Sequence[str] | None = None,
    issuer: str | None = None,
    audience: str | Collection[str] | None = None,
    typ: str | None = "at+jwt",
    leeway: float | timedelta = 0,
    now: float | datetime | None = None,
) -> dict[str, Any]:
    """Return the claims of a token that one of `keys` signed and that counts now. Raises InvalidToken, and only that.

    `keys` is a JWKS, a JWK, a list of JWKs, the PEM of a public key, a secret of 32 bytes or more, or a `KeySet`. The
    algorithm follows from the key: its `alg`, else EdDSA, RS256, HS256 or that of its curve; `algorithms` narrows it,
    and is how an RSA key without `alg` is used for PS256. The header's word has to be the same.

    **Say `issuer` and `audience`**: None leaves that claim unchecked. They are
    compared exactly. A token for several audiences passes only when `audience` is a collection that has them all.
    `typ` is the header's type, so that no ID token passes as an access token (RFC 9068 section 4); None for any.
    `exp` is required, `nbf` is heeded; `leeway` (seconds, at most 300) is how far our clock may be off. `now` is in
    seconds since the epoch. Raises ValueError when the arguments themselves make no sense.
    """
    from routeguard.foundation.jose.jws import verify_jws  # noqa: PLC0415 - the identity extra

    seconds = leeway.total_seconds() if isinstance(leeway, timedelta) else leeway
    if not 0 <= seconds <= _MOST_LEEWAY:
        raise ValueError("leeway is between 0 and 300 seconds")
    moment = now.timestamp() if isinstance(now, datetime) else SystemClock().time() if now is None else now
    header, payload = verify_jws(token, keys, algorithms=algorithms)
    expected = Expected(issuer=issuer, audience=audience, typ=typ, leeway=seconds)
    return check_claims(header, payload, expected=expected, now=moment)


def check_claims(header: dict[str, Any], payload: bytes, *, expected: Expected, now: float) -> dict[str, Any]:
    """Return the claims of a payload whose signature was verified. Raises InvalidToken."""
    from routeguard.foundation.jose.jws import read_object  # noqa: PLC0415 - the identity extra

    _check_type(header, expected)
    claims = read_object(payload)
    _check_times(claims, expected, now)
    _check_parties(claims, expected)
    _check_subject(claims)
    return claims


def _check_type(header: dict[str, Any], expected: Expected) -> None:
    typ = header.get("typ")
    if not isinstance(typ, str | None):
        raise InvalidToken("type")
    # Attacks JWT-19, JWT-20: every purpose has a type of its own (RFC 8725 section 3.11).
    if expected.typ is not None and (typ is None or _media_type(typ) != _media_type(expected.typ)):
        raise InvalidToken("type")


def _media_type(typ: str) -> str:
    """Return a type in one spelling: RFC 7515 section 4.1.9 lets "application/" be left out."""
    return typ.lower().removeprefix("application/") if typ.isascii() else typ


def _check_times(claims: dict[str, Any], expected: Expected, now: float) -> None:
    expires, begins, issued = (_number(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is None:
        raise InvalidToken("expiry")
    # RFC 7519 section 4.1.4: on or after it, it must not be accepted.
    if now - expected.leeway >= expires:
        raise InvalidToken("expired")
    if begins is not None and now + expected.leeway < begins:
        raise InvalidToken("not-yet")
    if issued is not None and now + max(expected.leeway, expected.skew) < issued:
        raise InvalidToken("not-yet")


def _number(claims: dict[str, Any], name: str) -> float | None:
    """Return a NumericDate. Raises InvalidToken for what only looks like one: true is an int here (attack JWT-23)."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise InvalidToken("time")
    return value


def _check_parties(claims: dict[str, Any], expected: Expected) -> None:
    issuer = claims.get("iss")
    if ("iss" in claims and not isinstance(issuer, str)) or (expected.issuer is not None and issuer != expected.issuer):
        raise InvalidToken("issuer")
    found = _audiences(claims)
    if expected.audience is None:
        return
    ours = {expected.audience} if isinstance(expected.audience, str) else set(expected.audience)
    # Attack JWT-21: every audience must be known; another recipient could present the token here.
    if not found or not set(found) <= ours:
        raise InvalidToken("audience")


def _audiences(claims: dict[str, Any]) -> list[str]:
    if "aud" not in claims:
        return []
    value = claims["aud"]
    found = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in found):
        raise InvalidToken("audience")
    return found


def _check_subject(claims: dict[str, Any]) -> None:
    """Attack JWT-35: a subject is a short word, so that logs and stores can take it safely."""
    for name in ("sub", "jti"):
        value = claims.get(name, "")
        if not isinstance(value, str) or len(value) > _LONGEST_SUBJECT:
            raise InvalidToken("subject")
        if any(unicodedata.category(letter) in _CONTROLS for letter in value):
            raise InvalidToken("subject")
