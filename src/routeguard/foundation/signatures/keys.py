"""A service's secret, and the Ed25519 key pair made from it (docs/decisions/0007)."""

from __future__ import annotations

import re
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from routeguard.core.base62 import CHECKSUM_LENGTH, SECRET_LENGTH, checksum, random_text
from routeguard.core.secret import Secret

PREFIX: Final = "rgs_"
"""How every client secret begins, so that scanners find one that was committed."""
KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64

_SECRET: Final = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}", re.ASCII)
_PURPOSE: Final = "client-signing-key"


def new_secret() -> str:
    """Return a new client secret: 256 random bits and a checksum. Shown once, kept nowhere."""
    text = PREFIX + random_text(SECRET_LENGTH)
    return text + checksum(text)


def is_secret(text: str) -> bool:
    """Return whether `text` has the form and the checksum of a client secret: a slip of the hand is told offline."""
    return _SECRET.fullmatch(text) is not None and checksum(text[:-CHECKSUM_LENGTH]) == text[-CHECKSUM_LENGTH:]


def signing_key(secret: str) -> Ed25519PrivateKey:
    """Return the private key that belongs to a client secret.

    Raises ValueError for anything but a secret of ours: one that a person made up could be guessed from the public
    key, which is why a checksum is asked for. The text is not in the error.
    """
    if not is_secret(secret):
        raise ValueError("not a client secret: copy the whole of what `routeguard client create` printed")
    return Ed25519PrivateKey.from_private_bytes(Secret(secret).derive(_PURPOSE))


def public_key(secret: str) -> bytes:
    """Return the 32 bytes that the service keeps of a client secret. Raises ValueError like `signing_key`."""
    return signing_key(secret).public_key().public_bytes_raw()


def is_signed(public: bytes, signature: bytes, data: bytes) -> bool:
    """Return whether `signature` over `data` was made with the private half of `public` (RFC 8032 section 5.1.7)."""
    if len(signature) != SIGNATURE_SIZE:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
