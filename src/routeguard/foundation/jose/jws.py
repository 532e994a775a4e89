"""Signed messages in their compact form (RFC 7515), in the narrowest reading of it."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any, Final

import msgspec
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from routeguard.core.strict_json import JSONRefused, load_json
from routeguard.foundation.jose.jwk import Key, KeySet, decode_base64url
from routeguard.foundation.jose.models import InvalidToken

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LONGEST: Final = 16 * 1024
"""Bytes of a token."""
_DOTS: Final = 2
_DEPTH: Final = 16
_REFUSED: Final = ("crit", "b64", "zip", "enc", "jwk", "jku", "x5u", "x5c")
"""Header members that would change what is verified, or bring or fetch the key to verify it with."""
_CURVE_ORDERS: Final = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": int(
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16
    ),
    "ES512": int(
        "01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA"
        "51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409",
        16,
    ),
}
_ORDER_SIZES: Final = {"ES256": 32, "ES384": 48, "ES512": 66}


def verify_jws(
    compact: str | bytes, keys: Any, *, algorithms: Sequence[str] | None = None
) -> tuple[dict[str, Any], bytes]:
    """Return the header and the payload of a compact JWS that one of `keys` signed. Raises InvalidToken.

    `keys` is what `KeySet.load` takes. The key says the algorithm, and the token has to agree (RFC 8725 section 3.1);
    size and shape are checked before anything is decoded. What the payload says is another question: `verify_jwt`.
    """
    loaded = KeySet.load(keys, algorithms=algorithms)
    header, parts = read_header(compact)
    return header, verify_parts(header, parts, loaded)


def verify_parts(header: dict[str, Any], parts: list[bytes], keys: KeySet) -> bytes:
    """Return the payload of what `read_header` has read, if one of `keys` signed it. Raises InvalidToken."""
    algorithm, kid = header.get("alg"), header.get("kid")
    # Attacks JWT-01, JWT-10: compared with what the keys are for, so "none" in any spelling finds no key.
    if not isinstance(algorithm, str) or not isinstance(kid, str | None):
        raise InvalidToken("header")
    candidates = keys.find(kid, algorithm)
    if not candidates:
        raise InvalidToken("key")
    head, body, tail = parts
    payload, signature = _decode(body), _decode(tail)
    signed = head + b"." + body
    if not any(_is_signature(key, algorithm, signed, signature) for key in candidates):
        raise InvalidToken("signature")
    return payload


def read_header(compact: str | bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Return the header of a compact JWS, unverified, and its three parts as sent. Raises InvalidToken."""
    if not isinstance(compact, str | bytes) or len(compact) > LONGEST:
        raise InvalidToken("size")
    try:
        text = compact.encode("ascii") if isinstance(compact, str) else compact
    except UnicodeEncodeError:
        raise InvalidToken("shape") from None
    # Attacks JWT-18, JWT-31, JWT-34: counted before they are split; five parts are a JWE, and JSON has none.
    if text.count(b".") != _DOTS:
        raise InvalidToken("shape")
    parts = text.split(b".")
    header = read_object(_decode(parts[0]))
    if any(name in header for name in _REFUSED):
        raise InvalidToken("header")
    return header, parts


def read_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in a part of a token, read one way only. Raises InvalidToken."""
    try:
        found = load_json(data, max_depth=_DEPTH)
    except JSONRefused:
        raise InvalidToken("json") from None
    if not isinstance(found, dict):
        raise InvalidToken("json")
    return found


def sign_jws(header: Mapping[str, Any], payload: bytes, key: Key) -> str:
    """Return the compact JWS of `payload`, signed with a private key by its one algorithm, which `header` repeats."""
    (algorithm,) = key.algorithms
    head = urlsafe_b64encode(msgspec.json.encode({"alg": algorithm, "kid": key.kid, **header})).rstrip(b"=")
    signed = head + b"." + urlsafe_b64encode(payload).rstrip(b"=")
    signature = JWSRegistry.algorithms[algorithm].sign(signed, key.native)
    return (signed + b"." + urlsafe_b64encode(signature).rstrip(b"=")).decode("ascii")


def _decode(part: bytes) -> bytes:
    try:
        return decode_base64url(part)
    except ValueError:
        raise InvalidToken("base64") from None


def _is_signature(key: Key, algorithm: str, signed: bytes, signature: bytes) -> bool:
    if algorithm in _CURVE_ORDERS and not _in_range(algorithm, signature):
        return False
    try:
        return JWSRegistry.algorithms[algorithm].verify(signed, signature, key.native)
    except (JoseError, ValueError, TypeError):
        return False


def _in_range(algorithm: str, signature: bytes) -> bool:
    """Whether r and s are numbers a signature can have: zero signs everything for some (attacks JWT-27, JWT-28)."""
    size, order = _ORDER_SIZES[algorithm], _CURVE_ORDERS[algorithm]
    if len(signature) != 2 * size:
        return False
    return all(0 < int.from_bytes(half) < order for half in (signature[:size], signature[size:]))
