"""Tokens as anybody may write them: each part as bytes, signed with whatever key one has, or with none."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, Final

from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

NOW: Final = 1_800_000_000.0
ISSUER: Final = "https://id.example.com"
AUDIENCE: Final = "https://api.example.com"
# Made once: making RSA keys takes time.
KEYS: Final[dict[str, Any]] = {
    "EdDSA": OKPKey.generate_key("Ed25519"),
    "ES256": ECKey.generate_key("P-256"),
    "RS256": RSAKey.generate_key(2048),
    "HS256": OctKey.generate_key(256),
}


def b64(data: bytes | str) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def claims(**change: Any) -> dict[str, Any]:
    """Claims that pass, with `change` put in; None takes one out."""
    good: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "usr_1",
        "iat": int(NOW) - 10,
        "exp": int(NOW) + 890,
        "jti": "j",
        "client_id": "test",
        "sid": "ses_1",
        "auth_time": int(NOW) - 100,
    }
    return {name: value for name, value in (good | change).items() if value is not None}


def token(algorithm: str = "EdDSA", body: Any = None, *, key: Any = None, header: Any = None) -> str:
    """A token signed by `algorithm`; `body` and `header` are objects, or the very bytes of that part."""
    full = header if isinstance(header, bytes) else {"alg": algorithm, "typ": "at+jwt", **(header or {})}
    body = claims() if body is None else body
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (full, body)]
    signed = ".".join(b64(part) for part in parts).encode()
    signature = JWSRegistry.algorithms[algorithm].sign(signed, KEYS[algorithm] if key is None else key)
    return signed.decode() + "." + b64(signature)


def hs256(secret: bytes, body: Any = None, **header: Any) -> str:
    """A token with an HMAC of any bytes at all, which no library would sign with."""
    head = {"alg": "HS256", "typ": "at+jwt", **header}
    signed = f"{b64(json.dumps(head))}.{b64(json.dumps(body or claims()))}"
    return f"{signed}.{b64(hmac.digest(secret, signed.encode(), 'sha256'))}"


def unsigned(header: Any, body: Any = None, signature: str = "") -> str:
    return f"{b64(json.dumps(header))}.{b64(json.dumps(body or claims()))}.{signature}"


def public(algorithm: str, **more: Any) -> dict[str, Any]:
    key = KEYS[algorithm]
    # A secret has no public part, and releases of joserfc differ in what they give for it.
    return {**key.as_dict(private=isinstance(key, OctKey)), **more}
