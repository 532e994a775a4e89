"""Secrets: made, compared, digested and never printed."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final, final

MINIMUM_SECRET_BYTES: Final = 32
"""RFC 7518 section 3.2: a MAC key is at least as long as the hash it keys."""


@final
class Secret:
    """Bytes that do not show themselves in `repr`, logs or tracebacks."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes | str) -> None:
        self._value = value.encode() if isinstance(value, str) else value

    def reveal(self) -> bytes:
        """Return the secret. Each call is a place a reviewer should look at."""
        return self._value

    def derive(self, purpose: str) -> bytes:
        """Return a 32-byte key for one purpose, so that no key serves two (attack SES-31, OPS-11).

        HKDF-Expand of RFC 5869 section 2.3 with one block; the input is already uniformly random.
        """
        return hmac.digest(self._value, b"routeguard:" + purpose.encode() + b"\x01", "sha256")

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and equal(self._value, other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__


def new_token(size: int = 32) -> str:
    """Return `size` random bytes (256 bits unless told) as unpadded base64url."""
    return secrets.token_urlsafe(size)


def digest(token: str | bytes) -> bytes:
    """Return the SHA-256 of a random token: what is stored instead of it (32 bytes).

    A plain hash suffices because the input has 256 bits of entropy; passwords go through argon2id.
    """
    return hashlib.sha256(token.encode() if isinstance(token, str) else token).digest()


def equal(left: bytes | str, right: bytes | str) -> bool:
    """Compare two secrets in time that depends on neither's content (attack WH-10, ASVS v5.0.0-11.2.4)."""
    if isinstance(left, str):
        left = left.encode("utf-8", "surrogatepass")
    if isinstance(right, str):
        right = right.encode("utf-8", "surrogatepass")
    return hmac.compare_digest(left, right)
