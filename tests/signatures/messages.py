"""A signed call, and ways to change it."""

from __future__ import annotations

from dataclasses import replace

from routeguard.foundation.signatures.keys import new_secret, public_key
from routeguard.foundation.signatures.models import Message
from routeguard.foundation.signatures.profile import ClientSigner, require_current, signature_of, verify

SECRET = new_secret()
NOW = 1_800_000_000
URL = "https://id.example.com/oauth/introspect?trace=1&x=%20y"
CALL = Message.of("POST", URL, headers={"Content-Type": "application/json"}, body=b'{"token": "t"}')


def signed(message: Message = CALL, secret: str = SECRET, *, now: float = NOW) -> Message:
    """Return `message` with its signature's fields."""
    fields = ClientSigner.of("cli_1", secret).headers(message, now=now)
    return replace(message, headers={**message.headers, **fields})


def accept(message: Message, *keys: bytes, now: float = NOW, skew: float = 30) -> str | None:
    """Do all that a receiver does; return who signed."""
    signature = signature_of(message)
    require_current(signature, now=now, skew=skew)
    verify(message, signature, keys or (public_key(SECRET),))
    return signature.keyid


def with_fields(message: Message, **fields: str | None) -> Message:
    """Return `message` with fields replaced, or taken away by None; `_` stands for a hyphen."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    headers = {name: value for name, value in message.headers.items() if name not in named}
    return replace(message, headers={**headers, **{name: value for name, value in named.items() if value is not None}})
